package audit

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

const (
	defaultLimit = 1000
	// maxQueryDays bounds a search, since each day is a listing.
	maxQueryDays = 92
	// nameSlack is how far the records of a batch may be from the time in its name: a batch spans some
	// minutes, and a record has the time at which its call began but is written when the call ends.
	nameSlack = 15 * time.Minute
)

// Query selects records. Empty fields select all.
type Query struct {
	From, To time.Time
	Account  string // 12 digits
	Event    string // name of the action, as DeleteWorkspace
	Caller   string // part of the ARN
	Errors   bool   // refused and failed calls only
	Limit    int    // 0: 1000
	Next     string // the NextToken of the page before; empty: the first page
}

// Found is the answer to a query.
type Found struct {
	Records []*Record `json:"Records"`
	// NextToken asks for the records before these; empty: there are none.
	NextToken string `json:"nextToken,omitempty"`
	// Damaged names objects whose records are not those that were written, and gaps between them, of the time
	// that had to be read.
	Damaged []string `json:"damaged,omitempty"`
}

// Find reads records, the newest first, from the disk of this process and from object storage, and
// checks the chain of every batch that it reads. Errors: Invalid, Unavailable.
func (l *Log) Find(ctx context.Context, q Query) (Found, error) {
	if q.To.IsZero() {
		q.To = l.deps.Now()
	}
	if q.From.IsZero() {
		q.From = q.To.Add(-24 * time.Hour)
	}
	if q.Limit <= 0 {
		q.Limit = defaultLimit
	}
	if q.To.Sub(q.From) > maxQueryDays*24*time.Hour || q.To.Before(q.From) {
		return Found{}, errs.New(errs.Invalid, "the range must end after it begins, and within %d days", maxQueryDays)
	}
	s := search{log: l, query: q, until: q.To, records: []*Record{}, after: map[string]batch{}}
	if q.Next != "" {
		var err error
		if s.from, err = parsePosition(q.Next); err != nil {
			return Found{}, err
		}
		if s.from.at.Before(s.until) {
			s.until = s.from.at
		}
	}
	s.local() // before object storage: a batch may go from here to there meanwhile
	// The name of a batch is about the time of its records.
	for day := s.until.UTC().Add(nameSlack).Truncate(24 * time.Hour); !s.done && !day.Add(24*time.Hour).Before(q.From.Add(-nameSlack)); day = day.Add(-24 * time.Hour) {
		if err := s.day(ctx, day); err != nil {
			return Found{}, errs.New(errs.Unavailable, "read audit records: %w", err)
		}
	}
	f := Found{Records: s.records, Damaged: s.damaged}
	if len(f.Records) > q.Limit {
		f.Records = f.Records[:q.Limit]
		f.NextToken = positionOf(f.Records[q.Limit-1]).token()
	}
	return f, nil
}

// position is where a record stands among all: they are in the order of their times, and those of the same time
// in the order of their ids.
type position struct {
	at time.Time
	id string
}

func positionOf(r *Record) position { return position{r.EventTime, r.EventID} }

// compare says whether p is newer (-1) than o, the same, or older.
func (p position) compare(o position) int {
	if c := o.at.Compare(p.at); c != 0 {
		return c
	}
	return strings.Compare(o.id, p.id)
}

func (p position) token() string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(p.at.UnixNano(), 10) + " " + p.id))
}

func parsePosition(token string) (position, error) {
	text, err := base64.RawURLEncoding.DecodeString(token)
	at, id, ok := strings.Cut(string(text), " ")
	nanos, wrong := strconv.ParseInt(at, 10, 64)
	if err != nil || !ok || wrong != nil {
		return position{}, errs.New(errs.Invalid, "next_token is not one that was given out here")
	}
	return position{time.Unix(0, nanos).UTC(), id}, nil
}

// search is one query under way, from the newest record to the oldest.
type search struct {
	log     *Log
	query   Query
	until   time.Time // nothing newer is asked for
	from    position  // the last record of the page before
	records []*Record // the newest first, one more than the limit at most
	damaged []string
	after   map[string]batch // by writer: the batch that follows the next one to be read
	done    bool
}

// full says whether nothing as old as at can come into the answer.
func (s *search) full(at time.Time) bool {
	return len(s.records) > s.query.Limit && s.records[s.query.Limit].EventTime.After(at)
}

// selects says whether the query wants r.
func (s *search) selects(r *Record) bool {
	q := &s.query
	return !r.EventTime.Before(q.From) && !r.EventTime.After(q.To) &&
		(q.Account == "" || q.Account == r.RecipientAccountID || q.Account == r.UserIdentity.AccountID) &&
		(q.Event == "" || q.Event == r.EventName) && strings.Contains(r.UserIdentity.ARN, q.Caller) && (!q.Errors || r.ErrorCode != "") &&
		(q.Next == "" || positionOf(r).compare(s.from) > 0)
}

// add puts a record into its place. It may be there already: a batch may be on the disk and in object storage.
func (s *search) add(text json.RawMessage) {
	r := &Record{}
	if json.Unmarshal(text, r) != nil || !s.selects(r) {
		return
	}
	i, there := slices.BinarySearchFunc(s.records, positionOf(r), func(o *Record, p position) int { return positionOf(o).compare(p) })
	if there || i > s.query.Limit {
		return
	}
	s.records = slices.Insert(s.records, i, r)
	s.records = s.records[:min(len(s.records), s.query.Limit+1)]
}

// local adds what is not in object storage yet.
func (s *search) local() {
	names := append(s.log.waiting(), filepath.Join(s.log.cfg.Dir, currentFile))
	for _, name := range slices.Backward(names) {
		if ended := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(name), "batch-"), ".jsonl"); filepath.Base(name) != currentFile {
			if nanos, err := strconv.ParseInt(ended, 10, 64); err == nil && s.full(time.Unix(0, nanos)) {
				return
			}
		}
		data, err := os.ReadFile(name)
		if err != nil {
			continue // it is in object storage by now
		}
		for _, text := range slices.Backward(lines(data)) {
			s.add(text)
		}
	}
}

// day reads the batches whose names are of a day.
func (s *search) day(ctx context.Context, day time.Time) error {
	var names []string
	err := s.log.deps.Bucket.Iter(ctx, path.Join(Prefix, day.Format(dayLayout))+"/", func(name string) error {
		if strings.HasSuffix(name, ".json.gz") {
			names = append(names, name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range slices.Backward(names) {
		at, known := timeOf(name)
		if known && at.After(s.until.Add(nameSlack)) {
			continue
		}
		if known && (at.Before(s.query.From.Add(-nameSlack)) || s.full(at.Add(nameSlack))) {
			s.done = true
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		s.batch(ctx, name)
	}
	return nil
}

// timeOf reads the time of the first record from the name of a batch.
func timeOf(name string) (time.Time, bool) {
	rest := strings.TrimPrefix(name, Prefix)
	if len(rest) < len(dayLayout)+1+len(clockLayout) {
		return time.Time{}, false
	}
	at, err := time.Parse(dayLayout+"/"+clockLayout, rest[:len(dayLayout)+1+len(clockLayout)])
	return at, err == nil
}

// batch reads one, and holds it against the one of the same writer that follows.
func (s *search) batch(ctx context.Context, name string) {
	b, err := s.log.get(ctx, name)
	if err != nil {
		s.damaged = append(s.damaged, name+": "+err.Error())
		return
	}
	next, seen := s.after[b.Writer]
	signature, wrong := hex.DecodeString(b.Signature)
	switch {
	case b.Digest != b.digest():
		s.damaged = append(s.damaged, name+": records were changed")
	case s.log.deps.Sign != nil && b.Signature != "" && (wrong != nil || !s.log.deps.Verify(b.Digest, signature)):
		s.damaged = append(s.damaged, name+": signature is wrong")
	case seen && (next.Number != b.Number+1 || next.Previous != b.Digest):
		s.damaged = append(s.damaged, fmt.Sprintf("%s: batches between %d and %d are missing or were changed", name, b.Number, next.Number))
	}
	s.after[b.Writer] = batch{Number: b.Number, Previous: b.Previous}
	for _, text := range slices.Backward(b.Records) {
		s.add(text)
	}
}
