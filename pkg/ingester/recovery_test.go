package ingester

import (
	"context"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/grafana/dskit/services"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
)

func TestAcknowledgedSamplesSurviveACrash(t *testing.T) {
	view := limits.MaxGlobalExemplarsPerUser.With(limits.View{}, 10)
	s := newSite(t, siteOptions{view: view})
	a := newSender(s.Ingester)
	for k := range 50 {
		a.mustPush(t, "t1", point{metric("m", "i", fmt.Sprint(k%5)), base + int64(k)*minute, float64(k)})
		a.mustPush(t, "t2", point{metric("m"), base + int64(k)*minute, -float64(k)})
	}
	// Late samples, by reference and by labels.
	a.mustPush(t, "t1", point{metric("m", "i", "0"), base + 44*minute, 44.5}, point{metric("late"), base + 45*minute, 1})
	f := a.frame("t1", point{metric("m", "i", "1"), base + 50*minute, 50})
	h, fh := tsdbutil.GenerateTestHistogram(3), tsdbutil.GenerateTestFloatHistogram(4)
	f.Histograms = []frame.Histogram{
		{Ref: a.ref(f, metric("h")), Time: base + 50*minute, H: h},
		{Ref: a.ref(f, metric("fh")), Time: base + 50*minute, FH: fh},
	}
	f.Exemplars = []frame.Exemplar{{Ref: f.Refs[0], Time: base + 50*minute, Value: 7, Labels: labels.FromStrings("trace_id", "x")}}
	if res := a.push(t.Context(), f); res.Outcome != frame.Stored || res.Message != "" {
		t.Fatalf("histograms: %+v", res)
	}
	want1, want2 := s.dump(t, "t1"), s.dump(t, "t2")
	if len(want1) != 8 || want1[metric("fh").String()] != fmt.Sprintf("%d:h%g/%g", 50*minute, fh.Count, fh.Sum) {
		t.Fatalf("before the crash: %v", want1)
	}

	// Twice: the second log has records of two lives, whose references overlap.
	for life := range 2 {
		s = s.crashed(t, siteOptions{view: view})
		equal(t, s.dump(t, "t1"), want1)
		equal(t, s.dump(t, "t2"), want2)
		next := newSender(s.Ingester)
		next.mustPush(t, "t1", point{metric("other", "life", fmt.Sprint(life)), base + 51*minute, 1})
		next.mustPush(t, "t1", point{metric("m", "i", "1"), base + 52*minute + int64(life), 1})
		want1 = s.dump(t, "t1")
	}
	ex, err := s.Exemplars(tenant.Inject(t.Context(), "t1"), &ingesterpb.ExemplarsRequest{MaxTime: math.MaxInt64,
		Matchers: []*ingesterpb.Matchers{{Matchers: []*ingesterpb.Matcher{{Name: "__name__", Value: "m"}}}}})
	if err != nil || len(ex.Series) != 1 || ex.Series[0].Exemplars[0].Value != 7 {
		t.Errorf("exemplars after the crash: %v, %v", ex, err)
	}
}

func TestRetryOfAStoredPushIsLoggedAgain(t *testing.T) {
	s := newSite(t, siteOptions{})
	a := newSender(s.Ingester)
	f := a.frame("t1", point{metric("m"), base, 1})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	first := a.stream.Push(ctx, f) // in the head; whether it waits for the log is a race
	res := a.stream.Push(t.Context(), f)
	if res.Outcome != frame.Stored || res.Rejected != 0 {
		t.Fatalf("retry after %+v: %+v", first, res)
	}
	equal(t, s.crashed(t, siteOptions{}).dump(t, "t1"), map[string]string{metric("m").String(): "0:1"})
}

func TestCutShippedAndTruncatedSamplesSurviveACrash(t *testing.T) {
	s := newSite(t, siteOptions{})
	a := newSender(s.Ingester)
	want := ""
	for k := int64(0); k <= 5*60; k += 5 {
		a.mustPush(t, "t1", point{metric("m"), base + k*minute, float64(k)}, point{metric("n"), base + k*minute, 1})
		if k%60 == 30 {
			a.mustPush(t, "t1", point{metric("m"), base + k*minute - 1000, 0.5})
			want += fmt.Sprintf("%d:0.5 ", k*minute-1000)
		}
		want += fmt.Sprintf("%d:%d ", k*minute, k)
	}
	want = strings.TrimSpace(want)
	a.mustPush(t, "quiet", point{metric("q"), base + 5*hour, 1})
	before, _ := s.wal.Segments()

	s.now.Add(20 * minute)
	s.keepHouse(t.Context())
	s.now.Add(20 * minute)
	s.keepHouse(t.Context()) // after the spread
	info, err := s.Tenant("t1")
	if err != nil || len(info.Blocks) < 2 {
		t.Fatalf("blocks: %+v, %v", info, err)
	}
	for _, b := range info.Blocks {
		if ok, err := s.bucket.Exists(t.Context(), "t1/"+b.ID+"/meta.json"); !ok || err != nil || b.Shipped.IsZero() {
			t.Errorf("block %s: in the bucket %v (%v), shipped %v", b.ID, ok, err, b.Shipped)
		}
	}
	check := func(s *site, when string) {
		t.Helper()
		got := s.dump(t, "t1")[metric("m").String()]
		if got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", when, got, want)
		}
	}
	check(s, "after the cut")
	check(s.crashed(t, siteOptions{}), "after a crash")

	// New samples by old references, a flush, and the log loses its front.
	a.mustPush(t, "t1", point{metric("m"), base + 301*minute, 1})
	want += fmt.Sprintf(" %d:1", 301*minute)
	if _, err := s.Flush(t.Context(), []tenant.ID{"t1"}, true); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Flush(t.Context(), []tenant.ID{"quiet"}, true); err != nil {
		t.Fatal(err)
	}
	a.bound = map[frame.Ref]bool{}
	a.mustPush(t, "t1", point{metric("m"), base + 302*minute, 2})
	want += fmt.Sprintf(" %d:2", 302*minute)
	if err := s.truncate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if first, _ := s.wal.Segments(); first <= before {
		t.Errorf("log not truncated: first segment %d", first)
	}
	a.mustPush(t, "t1", point{metric("m"), base + 303*minute, 3})
	want += fmt.Sprintf(" %d:3", 303*minute)
	check(s, "after truncation")
	s = s.crashed(t, siteOptions{})
	check(s, "after truncation and a crash")
	check(s.crashed(t, siteOptions{}), "after another crash")
}

// A definition that only the checkpoint holds must serve the samples after it.
func TestCheckpointKeepsDefinitionsInUse(t *testing.T) {
	s := newSite(t, siteOptions{})
	a := newSender(s.Ingester)
	a.mustPush(t, "t1", point{metric("m"), base, 0}, point{metric("n"), base, 0})
	a.mustPush(t, "t2", point{metric("m"), base, 0})
	if _, err := s.wal.Cut(); err != nil {
		t.Fatal(err)
	}
	for k := int64(1); k <= 16; k++ {
		a.mustPush(t, "t1", point{metric("m"), base + k*15*minute, float64(k)})
		a.mustPush(t, "t2", point{metric("m"), base + k*15*minute, float64(k)})
		if k == 8 {
			if _, err := s.wal.Cut(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := s.compact(t.Context(), s.all(), func(*tenantHead) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if err := s.truncate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if first, _ := s.wal.Segments(); first == 0 {
		t.Fatal("the log was not truncated")
	}
	want1, want2 := s.dump(t, "t1"), s.dump(t, "t2")
	// Without the blocks only the log can answer, and it must for what is not cut.
	c := s.crashed(t, siteOptions{})
	equal(t, c.dump(t, "t1"), want1)
	equal(t, c.dump(t, "t2"), want2)
}

func TestDamagedLogIsReportedAndTheRestServed(t *testing.T) {
	s := newSite(t, siteOptions{change: withoutSnapshot})
	a := newSender(s.Ingester)
	want := map[string]string{}
	for k := range 3 {
		a.bound = map[frame.Ref]bool{}
		// A new sender in each segment defines its series again.
		a = newSender(s.Ingester)
		for j := range 20 {
			ls := metric("m", "segment", fmt.Sprint(k), "j", fmt.Sprint(j))
			a.mustPush(t, "t1", point{ls, base + int64(k)*minute, 1})
			if k != 1 {
				want[ls.String()] = fmt.Sprintf("%d:1", int64(k)*minute)
			}
		}
		if _, err := s.wal.Cut(); err != nil {
			t.Fatal(err)
		}
	}
	damaged := s.walFiles(t)[1]
	b, err := os.ReadFile(damaged)
	if err != nil {
		t.Fatal(err)
	}
	for k := 64; k < len(b); k++ {
		b[k] ^= 0x5a
	}
	dir := s.dir
	if err := services.StopAndAwaitTerminated(t.Context(), s.Ingester); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(damaged, b, 0o600); err != nil {
		t.Fatal(err)
	}
	again := newSite(t, siteOptions{dir: dir})
	equal(t, again.dump(t, "t1"), want)
	if n := again.counter(t, "amphora_ingester_tsdb_wal_corruptions_total"); n == 0 {
		t.Error("the damage was not counted")
	}
	newSender(again.Ingester).mustPush(t, "t1", point{metric("m"), base + hour, 1})
}

func TestPlannedStopKeepsEverything(t *testing.T) {
	s := newSite(t, siteOptions{})
	newSender(s.Ingester).mustPush(t, "t1", point{metric("m"), base, 1})
	want := s.dump(t, "t1")
	if err := services.StopAndAwaitTerminated(t.Context(), s.Ingester); err != nil {
		t.Fatal(err)
	}
	if res := newSender(s.Ingester).push(t.Context(), &frame.Frame{Tenant: "t1"}); res.Outcome != frame.Failed || !res.Kind.Retry() {
		t.Errorf("push after the stop: %+v", res)
	}
	equal(t, newSite(t, siteOptions{dir: s.dir}).dump(t, "t1"), want)
}

func TestIdleTenantIsCutClosedAndTakenAgain(t *testing.T) {
	s := newSite(t, siteOptions{change: func(c *Config) { c.BlockRetention = time.Hour }})
	a := newSender(s.Ingester)
	a.mustPush(t, "t1", point{metric("m"), base, 1})
	a.mustPush(t, "busy", point{metric("m"), base, 1})
	for range 40 {
		s.now.Add(10 * minute)
		a.mustPush(t, "busy", point{metric("m"), s.now.Load(), 1})
		s.keepHouse(t.Context())
	}
	poll(t, "the idle tenant to be closed", func() bool {
		s.now.Add(10 * minute)
		if h := s.lookup("t1"); h != nil {
			for _, b := range h.head.Blocks() {
				t.Log("still here", b.ID)
			}
		}
		a.mustPush(t, "busy", point{metric("m"), s.now.Load(), 1})
		s.keepHouse(t.Context())
		return s.lookup("t1") == nil
	})
	if _, err := os.Stat(s.tenantDir("t1")); !os.IsNotExist(err) {
		t.Errorf("directory of the closed tenant: %v", err)
	}
	res := a.push(t.Context(), a.frame("t1", point{metric("m"), s.now.Load(), 2}))
	if res.Outcome != frame.UnknownRefs || len(res.Unknown) != 1 {
		t.Fatalf("reference of a closed head: %+v", res)
	}
	a.bound = map[frame.Ref]bool{}
	a.mustPush(t, "t1", point{metric("m"), s.now.Load(), 2})
	if got := s.dump(t, "t1")[metric("m").String()]; !strings.HasSuffix(got, ":2") || strings.Contains(got, " ") {
		t.Errorf("after reopening: %q", got)
	}
}

// poll waits for what happens in the background.
func poll(t testing.TB, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
