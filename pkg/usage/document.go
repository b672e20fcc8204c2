package usage

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// day is a day of UTC: how many there were since 1970.
type day int32

const secondsOfDay = 24 * 60 * 60

func dayOf(t time.Time) day { return day(t.Unix() / secondsOfDay) }

// String writes it for people; that there is none, as nothing.
func (d day) String() string {
	if d == 0 {
		return ""
	}
	return time.Unix(int64(d)*secondsOfDay, 0).UTC().Format(time.DateOnly)
}

// asked is the last day on which each class of queries asked for something; 0: none did.
type asked [work.Classes]day

func (a *asked) merge(b asked) {
	for i := range a {
		a[i] = max(a[i], b[i])
	}
}

func (a asked) last() day { return slices.Max(a[:]) }

// notes is what a tenant asked for.
type notes struct {
	Names map[kind]map[string]asked `json:"names"`
	// Unnamed is of selectors that do not say of which metric.
	Unnamed asked `json:"unnamed"`
	// Lost is the last day on which something had no place, or nothing was noted of the tenant.
	Lost day `json:"lost,omitempty"`
}

// fits says whether x has, or may get, a place.
func (n *notes) fits(x name) bool {
	of := n.Names[x.kind]
	if _, ok := of[x.text]; ok {
		return true
	}
	most, size := x.kind.most()
	return len(of) < most && len(x.text) <= size
}

func (n *notes) add(x name, a asked) {
	if n.Names == nil {
		n.Names = map[kind]map[string]asked{}
	}
	of := n.Names[x.kind]
	if of == nil {
		of = map[string]asked{}
		n.Names[x.kind] = of
	}
	was := of[x.text]
	was.merge(a)
	of[x.text] = was
}

func (n *notes) merge(b *notes) {
	for k, of := range b.Names {
		for text, a := range of {
			n.add(name{k, text}, a)
		}
	}
	n.Unnamed.merge(b.Unnamed)
	n.Lost = max(n.Lost, b.Lost)
}

func (n *notes) empty() bool { return len(n.Names) == 0 && n.Unnamed == asked{} && n.Lost == 0 }

// clean drops what was not asked for since a day, and of what is too much the oldest. It returns how many names had no
// place.
func (n *notes) clean(since day) (lost int) {
	for k, of := range n.Names {
		maps.DeleteFunc(of, func(_ string, a asked) bool { return a.last() < since })
		most, _ := k.most()
		if len(of) <= most {
			continue
		}
		oldest := slices.SortedFunc(maps.Keys(of), func(a, b string) int {
			return cmp.Or(cmp.Compare(of[a].last(), of[b].last()), cmp.Compare(a, b))
		})
		for _, text := range oldest[:len(of)-most] {
			n.Lost = max(n.Lost, of[text].last())
			delete(of, text)
			lost++
		}
	}
	if n.Lost < since {
		n.Lost = 0
	}
	return lost
}

// documentVersion is of what is written. A document of a later one is left alone.
const documentVersion = 1

type document struct {
	Version int `json:"version"`
	notes
}

// errNewer is of a document that a later version wrote.
var errNewer = errors.New("a later version of Amphora wrote it")

// mostDocument bounds a document that is read, unpacked: more than all names may have.
const mostDocument = 64 << 20

func (n *notes) encode() ([]byte, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	err := json.NewEncoder(z).Encode(document{documentVersion, *n})
	if err == nil {
		err = z.Close()
	}
	return b.Bytes(), err
}

func decode(data []byte) (*notes, error) {
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(z, mostDocument+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > mostDocument {
		return nil, fmt.Errorf("it is larger than %d bytes", mostDocument)
	}
	var d document
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, err
	}
	if d.Version > documentVersion {
		return nil, errNewer
	}
	return &d.notes, nil
}
