package tombstone

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// shelf keeps documents in memory.
type shelf struct {
	mu    sync.Mutex
	docs  map[string][]byte
	err   error
	reads int
}

func (s *shelf) Read(_ context.Context, key string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	return s.docs[key], s.err
}

func (s *shelf) Change(_ context.Context, key string, change func([]byte) ([]byte, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, err := change(s.docs[key])
	if err = errors.Join(err, s.err); err == nil {
		s.docs[key] = b
	}
	return err
}

// office is Requests with a clock.
type office struct {
	*Requests
	shelf  *shelf
	now    time.Time
	limits limits.View
}

func newOffice(t *testing.T) *office {
	t.Helper()
	o := &office{shelf: &shelf{docs: map[string][]byte{}}, now: time.Unix(1_000_000, 0)}
	o.Requests = o.process()
	return o
}

// process is another process over the same documents.
func (o *office) process() *Requests {
	return NewRequests(Deps{Logger: slog.New(slog.DiscardHandler), Documents: o.shelf, Limits: func(tenant.ID) limits.View { return o.limits },
		Grace: time.Hour, Settle: 24 * time.Hour, Now: func() time.Time { return o.now }})
}

func (o *office) add(t *testing.T, selectors ...string) Request {
	t.Helper()
	r, err := o.Add(t.Context(), "t1", selectors, math.MinInt64/2, math.MaxInt64/2)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// hides says what of the series job=a is hidden by what is in force at p.
func hides(t *testing.T, p *Requests, id tenant.ID) bool {
	t.Helper()
	set, err := p.InForce(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return len(set.Of(labels.FromStrings("__name__", "m", "job", "a"))) > 0
}

func (o *office) state(t *testing.T) State {
	t.Helper()
	list, err := o.List(t.Context(), "t1")
	if err != nil || len(list) != 1 {
		t.Fatalf("%v, %v, want one request", list, err)
	}
	return o.State(&list[0])
}

func TestARequestHidesSeriesInEveryProcessWithinAMinute(t *testing.T) {
	o := newOffice(t)
	other := o.process()
	if hides(t, other, "t1") {
		t.Fatal("something is hidden before anybody asked")
	}
	o.add(t, `{job="b"}`, `{job="a"}`)
	o.now = o.now.Add(31 * time.Second)
	if !hides(t, other, "t1") || !hides(t, o.Requests, "t1") {
		t.Error("the series shows after half a minute")
	}
	if hides(t, other, "t2") {
		t.Error("another tenant's series is hidden")
	}
}

func TestARequestEndsWhenNobodyHasItsSamples(t *testing.T) {
	o := newOffice(t)
	r := o.add(t, `{job="a"}`)
	due := func() int {
		t.Helper()
		set, err := o.Due(t.Context(), "t1")
		if err != nil {
			t.Fatal(err)
		}
		return len(set.List())
	}
	report := func(erased bool) {
		t.Helper()
		if err := o.Report(t.Context(), "t1", map[string]bool{r.ID: erased}); err != nil {
			t.Fatal(err)
		}
	}
	if s := o.state(t); s != Pending || due() != 0 {
		t.Errorf("a new request is %s with %d due, want pending and none", s, due())
	}
	o.now = o.now.Add(2 * time.Hour)
	report(false)
	if s := o.state(t); s != Erasing || due() != 1 {
		t.Errorf("after the grace the request is %s with %d due", s, due())
	}
	if err := o.Cancel(t.Context(), "t1", r.ID); errs.KindOf(err) != errs.Conflict {
		t.Errorf("cancelled after the grace: %v", err)
	}
	report(true)
	o.now = o.now.Add(2 * time.Hour)
	report(true)
	if s := o.state(t); s != Erased || !hides(t, o.process(), "t1") {
		t.Errorf("the request is %s while ingesters may have samples; hidden: %v", s, hides(t, o.process(), "t1"))
	}
	report(false) // a block was shipped late
	if s := o.state(t); s != Erasing {
		t.Errorf("with samples in a block again the request is %s", s)
	}
	o.now = o.now.Add(24 * time.Hour)
	report(true)
	o.now = o.now.Add(2 * time.Hour)
	report(true)
	if s := o.state(t); s != Processed || hides(t, o.process(), "t1") || due() != 0 {
		t.Errorf("at the end the request is %s, hidden %v, %d due", s, hides(t, o.process(), "t1"), due())
	}
}

func TestALateIngesterBringsNothingBack(t *testing.T) {
	o := newOffice(t)
	v, err := limits.MaxSeriesDeletionRequests.WithText(o.limits, "2")
	if err != nil {
		t.Fatal(err)
	}
	o.limits = v
	o.deps.Hold = 14 * 24 * time.Hour
	oldest := o.add(t, `{job="a"}`)
	o.now = o.now.Add(2 * time.Hour)
	erased := func(ids ...string) {
		t.Helper()
		all := map[string]bool{}
		for _, id := range ids {
			all[id] = true
		}
		if err := o.Report(t.Context(), "t1", all); err != nil {
			t.Fatal(err)
		}
	}
	erased(oldest.ID)
	o.now = o.now.Add(13 * 24 * time.Hour)
	erased(oldest.ID)
	if s := o.state(t); s != Erased || !hides(t, o.process(), "t1") {
		t.Errorf("after 13 days the request is %s", s)
	}
	if set, err := o.Due(t.Context(), "t1"); err != nil || len(set.List()) != 1 {
		t.Errorf("%d tombstones are left out of late blocks, %v; want one", len(set.List()), err)
	}
	o.add(t, `{job="b"}`)
	if !hides(t, o.process(), "t1") {
		t.Error("a request that had room ended another one")
	}
	o.add(t, `{job="c"}`)
	if hides(t, o.process(), "t1") {
		t.Error("the oldest request did not give way to a newer one")
	}
	if _, err := o.Add(t.Context(), "t1", []string{`{job="d"}`}, 0, 1); errs.KindOf(err) != errs.Conflict {
		t.Errorf("a request that is pending gave way: %v", err)
	}
	list, err := o.List(t.Context(), "t1")
	if err != nil || len(list) != 3 || o.State(&list[0]) != Processed {
		t.Fatalf("%v, %v", list, err)
	}
	o.now = o.now.Add(2 * time.Hour)
	erased(list[1].ID, list[2].ID)
	o.now = o.now.Add(15 * 24 * time.Hour)
	erased(list[1].ID, list[2].ID)
	if set, err := o.InForce(t.Context(), "t1"); err != nil || !set.Empty() {
		t.Errorf("after 15 days %d tombstones hide samples, %v", len(set.List()), err)
	}
}

func TestACancelledRequestHidesNothing(t *testing.T) {
	o := newOffice(t)
	r := o.add(t, `{job="a"}`)
	if err := o.Cancel(t.Context(), "t2", r.ID); errs.KindOf(err) != errs.NotFound {
		t.Errorf("another tenant cancelled it: %v", err)
	}
	if err := o.Cancel(t.Context(), "t1", r.ID); err != nil {
		t.Fatal(err)
	}
	if o.state(t) != Cancelled || hides(t, o.process(), "t1") {
		t.Error("it still hides series")
	}
}

func TestWrongRequestsAreRefused(t *testing.T) {
	o := newOffice(t)
	for _, selectors := range [][]string{nil, {"{"}, {`{a=~".*"}`}, {`{a=""}`}, {strings.Repeat("m", maxSelectorBytes+1)}, make([]string, maxSelectors+1)} {
		if _, err := o.Add(t.Context(), "t1", selectors, 0, 1); errs.KindOf(err) != errs.Invalid {
			t.Errorf("%.40q: %v, want Invalid", selectors, err)
		}
	}
	if _, err := o.Add(t.Context(), "t1", []string{"m"}, o.now.UnixMilli()+1, math.MaxInt64/2); errs.KindOf(err) != errs.Invalid {
		t.Errorf("of the future: %v, want Invalid", err)
	}
	o.limits = limits.MaxSeriesDeletionRequests.With(o.limits, 1)
	o.add(t, "m")
	if _, err := o.Add(t.Context(), "t1", []string{"n"}, 0, 1); errs.KindOf(err) != errs.Conflict || !strings.Contains(err.Error(), "max-series-deletion-requests") {
		t.Errorf("over the limit: %v, want Conflict naming it", err)
	}
}

func TestQueriesOutliveAnOutageOfTheStorage(t *testing.T) {
	o := newOffice(t)
	o.add(t, `{job="a"}`)
	if !hides(t, o.Requests, "t1") {
		t.Fatal("not hidden")
	}
	o.shelf.err = errs.New(errs.Unavailable, "down")
	o.now = o.now.Add(10 * time.Minute)
	if !hides(t, o.Requests, "t1") {
		t.Error("forgotten after 10 minutes without storage")
	}
	o.now = o.now.Add(10 * time.Minute)
	if _, err := o.InForce(t.Context(), "t1"); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("after 20 minutes without storage: %v, want Unavailable", err)
	}
	if _, err := o.process().InForce(t.Context(), "t1"); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("a new process: %v, want Unavailable", err)
	}
}

func TestTheFirstRetentionRuleThatMatchesCounts(t *testing.T) {
	v, err := limits.RetentionBySelector.WithText(limits.View{}, `[{selector: '{team="x",env="prod"}', period: 365d}, {selector: '{team="x"}', period: 10d}, {selector: '{keep="1"}', period: 0}]`)
	if err != nil {
		t.Fatal(err)
	}
	v = limits.CompactorBlocksRetentionPeriod.With(v, 30*24*time.Hour)
	now := time.Unix(1_000_000_000, 0)
	set := Retention(v, now)
	days := func(series ...string) float64 {
		hidden := set.Of(labels.FromStrings(series...))
		if len(hidden) == 0 {
			return 0
		}
		if len(hidden) > 1 || hidden[0].Mint != math.MinInt64 {
			t.Errorf("%v: hidden is %v", series, hidden)
		}
		return now.Sub(time.UnixMilli(hidden[0].Maxt+1)).Hours() / 24
	}
	if a, b, c, d := days("team", "x", "env", "prod"), days("team", "x"), days("keep", "1"), days("a", "b"); a != 365 || b != 10 || c != 0 || d != 30 {
		t.Errorf("kept for %v, %v, %v and %v days, want 365, 10, 0 (for ever) and 30", a, b, c, d)
	}
	if keep := KeepAll(v); keep != 0 {
		t.Errorf("blocks stay %s, want for ever", keep)
	}
	if v, err = limits.RetentionBySelector.WithText(v, `[{selector: 'a', period: 365d}]`); err != nil || KeepAll(v) != 365*24*time.Hour {
		t.Errorf("blocks stay %s, %v, want the longest period", KeepAll(v), err)
	}
	if !Retention(limits.CompactorBlocksRetentionPeriod.With(limits.View{}, time.Hour), now).Empty() {
		t.Error("retention of whole blocks hides samples")
	}
}

func FuzzDocument(f *testing.F) {
	f.Add([]byte(`{"version":1,"requests":[{"id":"a","selectors":["{a=\"b\"}"],"start":1,"end":2,"created":3}]}`))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := parse(b)
		if err != nil {
			return
		}
		s := NewRequests(Deps{Logger: slog.New(slog.DiscardHandler)})
		s.set("t1", d, func(*Request) bool { return true }).Of(labels.FromStrings("a", "b"))
	})
}
