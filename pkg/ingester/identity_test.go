package ingester

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/grafana/dskit/services"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/head"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

// tsdbOf returns what is inside a head. Garbage collection between two instructions of an append
// cannot be had at a door.
func tsdbOf(h *head.Head) *tsdb.DB {
	f := reflect.ValueOf(h).Elem().FieldByName("db")
	return *(**tsdb.DB)(unsafe.Pointer(f.UnsafeAddr()))
}

// onLookup makes the TSDB call do once, after an append has looked its series up.
func onLookup(db *tsdb.DB, do func()) {
	f := reflect.ValueOf(db.Head()).Elem().FieldByName("testAfterSeriesLookup")
	f = reflect.NewAt(f.Type(), unsafe.Pointer(f.UnsafeAddr())).Elem()
	f.Set(reflect.MakeFunc(f.Type(), func([]reflect.Value) []reflect.Value {
		f.SetZero()
		do()
		return nil
	}))
}

func TestASeriesMadeAgainWithinAnAppendIsDefinedInTheLog(t *testing.T) {
	s := newSite(t, siteOptions{})
	a := newSender(s.Ingester)
	a.mustPush(t, "t1", point{metric("m"), base, 1}, point{metric("other"), base + 3*hour, 1})
	db := tsdbOf(s.lookup("t1").head)
	onLookup(db, func() {
		if err := db.Head().Truncate(base + 1); err != nil {
			t.Error(err)
		}
	})
	a.mustPush(t, "t1", point{metric("m"), base + 3*hour, 2}) // by reference
	c := s.crashed(t, siteOptions{})
	if got := c.dump(t, "t1")[metric("m").String()]; !strings.HasSuffix(got, fmt.Sprintf("%d:2", 3*hour)) {
		t.Fatalf("acknowledged sample after the crash: %q", got)
	}
	// The old reference names nothing any more, and must not name another series.
	f := a.frame("t1", point{metric("m"), base + 3*hour + 1, 3})
	if res := a.push(t.Context(), f); res.Outcome != frame.UnknownRefs {
		t.Fatalf("reference of a series that is gone: %+v", res)
	}
}

func TestUnknownReferencesAreNamedOnce(t *testing.T) {
	s := newSite(t, siteOptions{})
	f := &frame.Frame{Tenant: "t1"}
	for k := range 1000 {
		f.Refs = append(f.Refs, frame.MakeRef(uint32(k%2), 3))
		f.Times, f.Values = append(f.Times, base+int64(k)), append(f.Values, 1)
	}
	if res := s.OpenStream().Push(t.Context(), f); res.Outcome != frame.UnknownRefs || len(res.Unknown) != 2 {
		t.Fatalf("%s: %d references named, want 2", fmt.Sprint(res.Outcome), len(res.Unknown))
	}
}

func TestDefinitionsOfWhichNothingIsStoredAreReported(t *testing.T) {
	view := limits.MaxGlobalSeriesPerUser.With(limits.View{}, 1)
	s := newSite(t, siteOptions{view: view})
	a := newSender(s.Ingester)
	f := a.frame("t1", point{metric("m"), base, 1}, point{metric("n"), base, 1})
	res := a.push(t.Context(), f)
	if res.Outcome != frame.Stored || res.Rejected != 1 || !slices.Equal(res.Unknown, f.Refs[1:]) {
		t.Fatalf("%+v, want one sample refused and %v not bound", res, f.Refs[1:])
	}
	f = a.frame("t1", point{metric("m"), base + 1, 1}, point{metric("m"), base + 2, 1})
	if res := a.push(t.Context(), f); len(f.Defs) != 2 || res.Outcome != frame.Stored || len(res.Unknown) != 0 {
		t.Fatalf("a series defined twice: %+v", res)
	}
}

func TestRefusalsNameTheSeriesOfAReference(t *testing.T) {
	s := newSite(t, siteOptions{})
	a := newSender(s.Ingester)
	ls := metric("m", "pod", "a-1")
	a.mustPush(t, "t1", point{ls, base + hour, 1})
	for what, p := range map[string]point{
		"duplicate": {ls, base + hour, 2},
		"late":      {ls, base, 1},
	} {
		f := a.frame("t1", p)
		if len(f.Defs) > 0 {
			t.Fatal("the series is not bound")
		}
		if res := a.push(t.Context(), f); res.Rejected != 1 || !strings.Contains(res.Message, ls.String()) {
			t.Errorf("%s: %+v does not name %s", what, res, ls)
		}
	}
}

func TestAPushLargerThanARecordOfTheLogSurvivesACrash(t *testing.T) {
	s := newSite(t, siteOptions{})
	a := newSender(s.Ingester)
	var points []point
	want := map[string]string{}
	for k := range 300 {
		ls := metric("m", "i", fmt.Sprint(k), "long", strings.Repeat(fmt.Sprint(k%10), 100<<10))
		points = append(points, point{ls, base + int64(k), float64(k)})
		want[ls.String()] = fmt.Sprintf("%d:%d", k, k)
	}
	a.mustPush(t, "t1", points...)
	equal(t, s.crashed(t, siteOptions{}).dump(t, "t1"), want)
}

func TestAContradictionWithinAPushIsRefusedNotLost(t *testing.T) {
	strict := limits.OutOfOrderTimeWindow.With(limits.View{}, 0)
	for _, c := range []struct {
		name     string
		view     limits.View
		times    []int64
		values   []float64
		rejected int
		want     string
	}{
		{"two values for one time", limits.View{}, []int64{1, 1}, []float64{1, 2}, 1, "1:1"},
		{"one value twice", limits.View{}, []int64{1, 1}, []float64{1, 1}, 0, "1:1"},
		{"backwards without a window", strict, []int64{2, 1, 3}, []float64{2, 1, 3}, 1, "2:2 3:3"},
		{"backwards within the window", limits.View{}, []int64{2, 1, 3}, []float64{2, 1, 3}, 0, "1:1 2:2 3:3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t, siteOptions{view: c.view})
			a := newSender(s.Ingester)
			var points []point
			for k := range c.times {
				points = append(points, point{metric("m"), base + c.times[k], c.values[k]})
			}
			res := a.push(t.Context(), a.frame("t1", points...))
			if res.Outcome != frame.Stored || res.Rejected != c.rejected {
				t.Errorf("%+v, want %d refused", res, c.rejected)
			}
			want := map[string]string{metric("m").String(): c.want}
			equal(t, s.dump(t, "t1"), want)
			equal(t, s.crashed(t, siteOptions{view: c.view}).dump(t, "t1"), want)
		})
	}
}

func TestStreamsForgetClosedTenants(t *testing.T) {
	s := newSite(t, siteOptions{change: func(c *Config) { c.BlockRetention = time.Minute }})
	a := newSender(s.Ingester)
	a.mustPush(t, "t1", point{metric("m"), base, 1})
	poll(t, "the idle tenant to be closed", func() bool {
		s.now.Add(10 * minute)
		a.mustPush(t, "busy", point{metric("m"), s.now.Load(), 1})
		s.keepHouse(t.Context())
		return s.lookup("t1") == nil
	})
	open := a.stream.(*stream)
	open.mu.RLock()
	defer open.mu.RUnlock()
	if open.tenants["t1"] != nil || open.tenants["busy"] == nil {
		t.Errorf("the stream holds the bindings of %v", open.tenants)
	}
}

// A flush waits for queries that read what it cuts. Pushes of newer samples go on meanwhile, those of
// older ones must not gather behind it.
func TestAFlushThatTakesLongTakesNewSamplesAndLosesNone(t *testing.T) {
	s := newSite(t, siteOptions{})
	a := newSender(s.Ingester)
	a.mustPush(t, "t1", point{metric("m"), base, 1})
	h := s.lookup("t1").head
	slow, err := h.Querier(0, base+hour)
	if err != nil {
		t.Fatal(err)
	}
	if slow.Select(t.Context(), false, nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", "m")).Err() != nil {
		t.Fatal("select failed")
	}
	flushed := make(chan error, 1)
	go func() {
		_, err := s.Flush(context.Background(), nil, true)
		flushed <- err
	}()
	poll(t, "the flush to begin", h.Cutting)
	a.mustPush(t, "t1", point{metric("m"), base + minute, 2}, point{metric("n"), base + minute, 3})
	late := a.frame("t1", point{metric("late"), base, 4})
	if res := a.push(t.Context(), late); res.Outcome != frame.Failed || res.Kind != errs.Unavailable {
		t.Fatalf("push of what is being cut while a flush hangs: %+v", res)
	}
	a.mustPush(t, "t2", point{metric("m"), base, 1})
	if err := errors.Join(slow.Close(), <-flushed); err != nil {
		t.Fatal(err)
	}
	a.mustPush(t, "t1", point{metric("late"), base, 4}, point{metric("m"), base + 2*minute, 5})
	want := map[string]string{
		metric("m").String():    fmt.Sprintf("0:1 %d:2 %d:5", minute, 2*minute),
		metric("n").String():    fmt.Sprintf("%d:3", minute),
		metric("late").String(): "0:4",
	}
	equal(t, s.dump(t, "t1"), want)
	equal(t, s.crashed(t, siteOptions{}).dump(t, "t1"), want)
}

func TestALostSegmentEndsTheClaimToBeComplete(t *testing.T) {
	s := newSite(t, siteOptions{change: withoutSnapshot})
	a := newSender(s.Ingester)
	for k := range 3 {
		a.mustPush(t, "t1", point{metric("m", "k", fmt.Sprint(k)), base, 1})
		if _, err := s.wal.Cut(); err != nil {
			t.Fatal(err)
		}
	}
	lost := s.walFiles(t)[1]
	if err := services.StopAndAwaitTerminated(t.Context(), s.Ingester); err != nil {
		t.Fatal(err)
	}
	if err := writeJSON(s.dir, sinceFile, completeSince{Since: 1}); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(lost); err != nil {
		t.Fatal(err)
	}
	again := newSite(t, siteOptions{dir: s.dir})
	if got := len(again.dump(t, "t1")); got != 2 || again.completeSince.Load() != base {
		t.Fatalf("%d series left, complete since %d, want 2 and %d", got, again.completeSince.Load(), base)
	}
}

func TestACheckpointAtStartKeepsEveryReferenceOfASeries(t *testing.T) {
	s := newSite(t, siteOptions{})
	newSender(s.Ingester).mustPush(t, "t1", point{metric("m"), base, 1})
	past := &session{t: s.lookup("t1")}
	if err := past.t.head.ForEachSeries(func(ref head.Ref, _ labels.Labels) error {
		past.refs.bind(5, ref)
		past.refs.bind(5000, ref)
		past.refs.bind(7, ref+1) // gone
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	var got []head.Ref
	err := past.emitSeries(sessionKey{"t1", 9}, func(b []byte) error {
		var r record
		if err := r.decode(b); err != nil {
			return err
		}
		for _, d := range r.series {
			got = append(got, d.ref)
		}
		return nil
	})
	if slices.Sort(got); err != nil || !slices.Equal(got, []head.Ref{5, 5000}) {
		t.Fatalf("definitions of %v, %v", got, err)
	}
}

// Pushes, cuts, truncations and crashes at any moment: whatever was acknowledged is answered.
func TestAcknowledgedSamplesSurviveCutsAndTruncationsUnderLoad(t *testing.T) {
	view := limits.OutOfOrderTimeWindow.With(limits.View{}, 100*time.Hour) // the pushers do not keep step
	s := newSite(t, siteOptions{view: view})
	const pushers, rounds = 4, 400
	var cuts, pushed atomic.Int64
	acked := make([]map[string][]int64, pushers)
	done := make(chan struct{}, pushers)
	for n := range pushers {
		acked[n] = map[string][]int64{}
		go func() {
			defer func() { done <- struct{}{} }()
			a := newSender(s.Ingester)
			for k := range rounds {
				pushed.Add(1)
				for pushed.Load() > pushers*10*(cuts.Load()+1) {
					runtime.Gosched() // some pushes for every cut, so that they meet
				}
				at := base + int64(k)*6*minute
				for try := range 20 {
					var points []point
					for j := range 5 {
						points = append(points, point{metric("m", "n", fmt.Sprint(n), "j", fmt.Sprint((k/20)*5+j)), at, float64(k)})
					}
					if k%7 == 3 { // late
						points = append(points, point{metric("m", "n", fmt.Sprint(n), "j", "late"), at - 5*minute, float64(k)})
					}
					res := a.push(context.Background(), a.frame("t1", points...))
					for res.Kind == errs.Unavailable { // a cut takes long on a machine that is busy
						res = a.push(context.Background(), a.frame("t1", points...))
					}
					if res.Outcome == frame.UnknownRefs && try < 19 {
						a.mu.Lock()
						clear(a.bound)
						a.mu.Unlock()
						continue
					}
					if res.Kind == errs.Unavailable && try < 19 { // a slow cut of what is as old; clients try again
						continue
					}
					if res.Outcome != frame.Stored || res.Rejected > 0 {
						t.Errorf("push %d of %d: %+v", k, n, res)
						return
					}
					for _, p := range points {
						acked[n][p.ls.String()] = append(acked[n][p.ls.String()], p.t)
					}
					break
				}
			}
		}()
	}
	left := pushers
	for k := 0; left > 0; k++ {
		select {
		case <-done:
			left--
			continue
		default:
		}
		if pushed.Load() < pushers*10*cuts.Load() {
			continue
		}
		if _, err := s.compact(t.Context(), s.all(), func(*tenantHead) bool { return k%3 == 2 }); err != nil {
			t.Fatal(err)
		}
		if err := s.truncate(t.Context()); err != nil {
			t.Fatal(err)
		}
		cuts.Add(1)
	}
	first, last := s.wal.Segments()
	if cuts.Load() < rounds/10-1 || first < 3 {
		t.Errorf("%d cuts, segments %d to %d: the test met nothing", cuts.Load(), first, last)
	}
	check := func(s *site, when string) {
		t.Helper()
		have := s.dump(t, "t1")
		for n := range acked {
			for ls, times := range acked[n] {
				got := " " + have[ls]
				for _, at := range times {
					if !strings.Contains(got, fmt.Sprintf(" %d:", at-base)) {
						t.Fatalf("%s: sample %d of %s is missing: %s", when, at-base, ls, got)
					}
				}
			}
		}
	}
	check(s, "before the crash")
	s = s.crashed(t, siteOptions{view: view})
	check(s, "after a crash")
	check(s.crashed(t, siteOptions{view: view}), "after another")
}
