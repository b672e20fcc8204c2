package control

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"time"
)

// entry is a workspace or a scraper in the list of its account.
type entry struct {
	ID string    `json:"id"`
	At time.Time `json:"at"`
}

// after returns a time for a new entry that is later than those of all others, so that a listing that
// goes on behind an entry misses none.
func after(list []entry, now time.Time) time.Time {
	now = now.Truncate(time.Millisecond)
	if n := len(list); n > 0 && !now.After(list[n-1].At) {
		return list[n-1].At.Add(time.Millisecond)
	}
	return now
}

// position is where a resource stands in a listing.
type position struct {
	At int64  `json:"t"` // Unix time in nanoseconds
	ID string `json:"i"`
}

func (p position) compare(q position) int {
	return cmp.Or(cmp.Compare(p.At, q.At), cmp.Compare(p.ID, q.ID))
}

// page is the part of a listing that a call asks for.
type page struct {
	size   int
	filter string
	behind *position // nil: the first
}

// cursor is what a nextToken holds.
type cursor struct {
	Filter string   `json:"f"` // hash of what the listing was filtered by
	Behind position `json:"b"`
}

const (
	defaultPage = 100
	maxPage     = 1000
)

// page reads the parameters of a listing. The token of another listing is refused.
func (x *call) page(filter ...any) (page, error) {
	p := page{size: defaultPage, filter: hashOf(filter...)[:8]}
	if text := x.query.Get("maxResults"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxPage {
			return page{}, invalid("maxResults", "maxResults must be a number from 1 to "+strconv.Itoa(maxPage))
		}
		p.size = n
	}
	if text := x.query.Get("nextToken"); text != "" {
		data, err := base64.RawURLEncoding.DecodeString(text)
		var c cursor
		if err == nil {
			err = json.Unmarshal(data, &c)
		}
		if err != nil || c.Filter != p.filter {
			return page{}, invalid("nextToken", "nextToken is not one that this listing gave")
		}
		p.behind = &c.Behind
	}
	return p, nil
}

func (p page) after(q position) bool { return p.behind == nil || q.compare(*p.behind) > 0 }

func (p page) token(last position) string {
	data, err := json.Marshal(cursor{p.filter, last})
	if err != nil {
		panic("BUG: a cursor cannot be encoded: " + err.Error())
	}
	return base64.RawURLEncoding.EncodeToString(data)
}
