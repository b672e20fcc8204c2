package tombstone

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

const (
	documentVersion = 1

	// maxSelectors and maxSelectorBytes bound one request: every series of every query is held
	// against it.
	maxSelectors     = 64
	maxSelectorBytes = 16 << 10

	// historyAge is how long a request is listed after it ended, and maxHistory how many are.
	historyAge = 90 * 24 * time.Hour
	maxHistory = 1000
)

// State is where a request to delete series stands.
type State string

// The states.
const (
	Pending   State = "pending"   // hidden from queries; it can be cancelled
	Erasing   State = "erasing"   // compactors take the samples out of blocks
	Erased    State = "erased"    // no block has them, they may still be in the memory of ingesters
	Processed State = "processed" // they are gone for good
	Cancelled State = "cancelled"
)

// Request is one request of a tenant to delete series. Times are in milliseconds.
type Request struct {
	ID        string   `json:"id"`
	Selectors []string `json:"selectors"` // each an alternative
	Start     int64    `json:"start"`     // Start <= t <= End
	End       int64    `json:"end"`
	Created   int64    `json:"created"`
	Erased    int64    `json:"erased,omitempty"`    // since when no block has the samples; 0: some may
	Processed int64    `json:"processed,omitempty"` // when it was over
	Cancelled int64    `json:"cancelled,omitempty"`
}

// ended says when the request ceased to hide samples; 0: it does.
func (r *Request) ended() int64 { return max(r.Processed, r.Cancelled) }

// document is the requests of a tenant, in the order of their IDs.
type document struct {
	Version  int       `json:"version"`
	Requests []Request `json:"requests"`
}

// Documents keeps one document for each key.
type Documents interface {
	// Read returns the document, nil if there is none. Errors: Unavailable.
	Read(ctx context.Context, key string) ([]byte, error)
	// Change replaces the document by what change makes of it, which is called again if another
	// was quicker. Errors: those of change, Unavailable.
	Change(ctx context.Context, key string, change func(old []byte) ([]byte, error)) error
}

// Deps are what Requests work with.
type Deps struct {
	Logger    *slog.Logger
	Reg       prometheus.Registerer
	Documents Documents
	Limits    func(tenant.ID) limits.View
	// Grace is how long a request can be cancelled, and no byte is touched.
	Grace time.Duration
	// Settle is for how long at least a request hides samples: no ingester that runs has them in
	// memory any more afterwards.
	Settle time.Duration
	// Hold is for how long it does so unless newer requests need its place, so that what an ingester
	// that was down for long ships after its return does not bring samples back.
	Hold time.Duration
	Now  func() time.Time // nil: time.Now
}

// Requests are the requests of all tenants to delete series.
type Requests struct {
	deps    Deps
	metrics *metrics
	memory  memory
}

// NewRequests returns the requests that deps.Documents has.
func NewRequests(deps Deps) *Requests {
	if deps.Now == nil {
		deps.Now = time.Now
	}
	return &Requests{deps: deps, metrics: newMetrics(deps.Reg), memory: memory{tenants: map[tenant.ID]*remembered{}}}
}

// Add asks for the samples with start <= t <= end (milliseconds) of the series that match any of the
// selectors to be deleted, and returns the request. Samples that are written later with such times
// are hidden, too, until the request is processed. Errors: Invalid, Conflict if the tenant has too
// many requests, Unavailable.
func (s *Requests) Add(ctx context.Context, id tenant.ID, selectors []string, start, end int64) (Request, error) {
	now := s.deps.Now()
	r := Request{Selectors: selectors, Start: start, End: min(end, now.UnixMilli()), Created: now.UnixMilli()}
	if r.Start > r.End {
		return r, errs.New(errs.Invalid, "the end of the range is before its start, or the start is in the future")
	}
	if _, err := r.parse(); err != nil {
		return r, err
	}
	most := limits.MaxSeriesDeletionRequests.Of(s.deps.Limits(id))
	err := s.change(ctx, id, func(d *document) error {
		open := 0
		for i := range d.Requests {
			if d.Requests[i].ended() == 0 {
				open++
			}
		}
		if open >= most && most > 0 && s.giveWay(d) {
			open--
		}
		if open >= most {
			row := limits.MaxSeriesDeletionRequests.Row()
			return errs.Limit(errs.Conflict, "", row.Flag, row.Name, "%d requests to delete series are not processed yet, and %d may be", open, most)
		}
		r.ID = ulid.MustNewDefault(now).String()
		d.Requests = append(d.Requests, r)
		return nil
	})
	if err != nil {
		return r, err
	}
	s.metrics.requested.Inc()
	s.deps.Logger.Info("series deletion requested", "tenant", id, "request", r.ID, "selectors", strings.Join(selectors, " or "),
		"start", when(r.Start), "end", when(r.End), "erased_from", now.Add(s.deps.Grace).UTC())
	return r, nil
}

// when writes a time for people.
func when(ms int64) string {
	if ms < -1<<52 {
		return "the beginning"
	}
	return time.UnixMilli(ms).UTC().Format(time.RFC3339Nano)
}

// parse returns the matchers of each selector. Errors: Invalid.
func (r *Request) parse() ([][]*labels.Matcher, error) {
	if len(r.Selectors) == 0 {
		return nil, errs.New(errs.Invalid, "no match[] parameter provided")
	}
	if len(r.Selectors) > maxSelectors {
		return nil, errs.New(errs.Invalid, "%d selectors are more than %d", len(r.Selectors), maxSelectors)
	}
	out := make([][]*labels.Matcher, len(r.Selectors))
	size := 0
	for i, text := range r.Selectors {
		if size += len(text); size > maxSelectorBytes {
			return nil, errs.New(errs.Invalid, "the selectors have more than %d bytes", maxSelectorBytes)
		}
		ms, err := parser.NewParser(parser.Options{}).ParseMetricSelector(text)
		if err != nil {
			return nil, errs.New(errs.Invalid, "selector %q: %w", text, err)
		}
		if !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches("") }) {
			return nil, errs.New(errs.Invalid, "selector %q must have a matcher that does not match the empty text", text)
		}
		out[i] = ms
	}
	return out, nil
}

// Cancel takes a request back. Errors: NotFound, Conflict if samples may be gone already, Unavailable.
func (s *Requests) Cancel(ctx context.Context, id tenant.ID, request string) error {
	now := s.deps.Now()
	err := s.change(ctx, id, func(d *document) error {
		i := slices.IndexFunc(d.Requests, func(r Request) bool { return r.ID == request })
		if i < 0 {
			return errs.New(errs.NotFound, "there is no request %q to delete series", request)
		}
		if st := s.State(&d.Requests[i]); st != Pending {
			return errs.New(errs.Conflict, "request %s is %s, it can be cancelled for %s only", request, st, s.deps.Grace)
		}
		d.Requests[i].Cancelled = now.UnixMilli()
		return nil
	})
	if err == nil {
		s.metrics.cancelled.Inc()
		s.deps.Logger.Info("series deletion cancelled", "tenant", id, "request", request)
	}
	return err
}

// State says where a request stands.
func (s *Requests) State(r *Request) State {
	switch {
	case r.Cancelled > 0:
		return Cancelled
	case r.Processed > 0:
		return Processed
	case r.Erased > 0:
		return Erased
	case s.deps.Now().Sub(time.UnixMilli(r.Created)) < s.deps.Grace:
		return Pending
	}
	return Erasing
}

// List returns the tenant's requests, the oldest first, also those that ended lately. Errors:
// Unavailable, Internal.
func (s *Requests) List(ctx context.Context, id tenant.ID) ([]Request, error) {
	d, err := s.read(ctx, id)
	return d.Requests, err
}

// Due returns the tombstones of the requests whose samples are to be taken out of blocks. Errors:
// Unavailable, Internal.
func (s *Requests) Due(ctx context.Context, id tenant.ID) (Set, error) {
	d, err := s.read(ctx, id)
	if err != nil {
		return Set{}, err
	}
	return s.set(id, d, func(r *Request) bool {
		st := s.State(r)
		return st == Erasing || st == Erased
	}), nil
}

// Report notes of which of the due requests no block has samples any more, and ends those of which
// nobody has any. Errors: Unavailable, Internal.
func (s *Requests) Report(ctx context.Context, id tenant.ID, erased map[string]bool) error {
	d, err := s.read(ctx, id)
	if err != nil {
		return err
	}
	if s.report(d, erased, nil) == 0 {
		return nil
	}
	var over []Request
	err = s.change(ctx, id, func(d *document) error {
		over = over[:0]
		s.report(d, erased, &over)
		return nil
	})
	if err != nil {
		return err
	}
	for _, r := range over {
		s.metrics.processed.Inc()
		s.deps.Logger.Info("series deletion processed", "tenant", id, "request", r.ID, "took", time.Duration(r.Processed-r.Created)*time.Millisecond)
	}
	return nil
}

// report returns how many requests it changed, and appends those that ended to over.
func (s *Requests) report(d *document, erased map[string]bool, over *[]Request) (changed int) {
	now := s.deps.Now()
	for i := range d.Requests {
		r := &d.Requests[i]
		st := s.State(r)
		switch {
		case st == Erasing && erased[r.ID]:
			r.Erased = now.UnixMilli()
		case st == Erased && !erased[r.ID]:
			r.Erased = 0
		case s.over(r, max(s.deps.Settle, s.deps.Hold)):
			r.Processed = now.UnixMilli()
			if over != nil {
				*over = append(*over, *r)
			}
		default:
			continue
		}
		changed++
	}
	return changed
}

// over says whether a request whose samples no block has can end, hold after it was made.
func (s *Requests) over(r *Request, hold time.Duration) bool {
	from := time.UnixMilli(max(r.Created+hold.Milliseconds(), r.Erased+erasedAge.Milliseconds()))
	return s.State(r) == Erased && s.deps.Now().Sub(from) >= 0
}

// giveWay ends the oldest request that is held for late ingesters alone, and says whether there was one.
func (s *Requests) giveWay(d *document) bool {
	i := slices.IndexFunc(d.Requests, func(r Request) bool { return s.over(&r, s.deps.Settle) })
	if i >= 0 {
		d.Requests[i].Processed = s.deps.Now().UnixMilli()
	}
	return i >= 0
}

// erasedAge is how long a request hides samples after no block had them: queriers may know blocks
// that have been replaced.
const erasedAge = time.Hour

// set makes tombstones of the requests that which picks. One that cannot be read hides nothing,
// which is logged.
func (s *Requests) set(id tenant.ID, d *document, which func(*Request) bool) Set {
	var out Set
	for i := range d.Requests {
		r := &d.Requests[i]
		if !which(r) {
			continue
		}
		selectors, err := r.parse()
		if err != nil {
			s.deps.Logger.Error("request to delete series cannot be read and is left out", "tenant", id, "request", r.ID, "err", err)
			continue
		}
		out.list = append(out.list, Tombstone{ID: r.ID, MinTime: r.Start, MaxTime: r.End, selectors: selectors})
	}
	return out
}

func (s *Requests) read(ctx context.Context, id tenant.ID) (*document, error) {
	b, err := s.deps.Documents.Read(ctx, string(id))
	if err != nil {
		return &document{}, fmt.Errorf("read the deletion requests of tenant %s: %w", id, err)
	}
	return parse(b)
}

func parse(b []byte) (*document, error) {
	d := &document{Version: documentVersion}
	if len(b) == 0 {
		return d, nil
	}
	if err := json.Unmarshal(b, d); err != nil {
		return &document{}, errs.New(errs.Internal, "the document of deletion requests is corrupted: %w", err)
	}
	if d.Version != documentVersion {
		return &document{}, errs.New(errs.Internal, "the document of deletion requests has the unknown version %d", d.Version)
	}
	return d, nil
}

func (s *Requests) change(ctx context.Context, id tenant.ID, change func(*document) error) error {
	err := s.deps.Documents.Change(ctx, string(id), func(old []byte) ([]byte, error) {
		d, err := parse(old)
		if err != nil {
			return nil, err
		}
		s.trim(d)
		if err := change(d); err != nil {
			return nil, err
		}
		return json.Marshal(d)
	})
	if err != nil {
		return fmt.Errorf("change the deletion requests of tenant %s: %w", id, err)
	}
	s.memory.forget(id)
	return nil
}

// trim drops requests that ended long ago.
func (s *Requests) trim(d *document) {
	oldest := s.deps.Now().Add(-historyAge).UnixMilli()
	ended := 0
	for i := len(d.Requests) - 1; i >= 0; i-- {
		if at := d.Requests[i].ended(); at > 0 {
			if ended++; ended > maxHistory || at < oldest {
				d.Requests = slices.Delete(d.Requests, i, i+1)
			}
		}
	}
}
