package usage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/amphora-metrics/amphora/pkg/bucket"
	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// world is a bucket with trackers over it, and their clock.
type world struct {
	t    testing.TB
	docs *docstore.Store
	cfg  Config
	mu   sync.Mutex // guards what follows
	now  time.Time
	off  map[tenant.ID]bool // nothing is noted of them
	gone map[tenant.ID]bool // they are marked as being deleted
	// marks, if not nil, is why marks cannot be read.
	marks error
}

func newWorld(t testing.TB) *world {
	b, err := bucket.NewConditionalFilesystem(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return &world{t: t, docs: docstore.New(b, docstore.Prefix, prometheus.NewRegistry()),
		cfg: Config{WritePeriod: time.Minute, Retention: 10 * 24 * time.Hour}, now: time.Now(), off: map[tenant.ID]bool{"off": true}, gone: map[tenant.ID]bool{}}
}

func (w *world) set(what map[tenant.ID]bool, id tenant.ID, to bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	what[id] = to
}

func (w *world) is(what map[tenant.ID]bool, id tenant.ID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return what[id]
}

func (w *world) deleted(_ context.Context, id tenant.ID) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.gone[id], w.marks
}

func (w *world) unread(marks error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.marks = marks
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func (w *world) tracker() *Tracker {
	t, err := New(w.cfg, Deps{Log: slog.New(slog.DiscardHandler), Documents: w.docs, Observes: true, Now: w.clock, Reg: prometheus.NewRegistry(), Deleted: w.deleted, Limits: func(id tenant.ID) limits.View {
		return limits.UsageInsightsEnabled.With(limits.View{}, !w.is(w.off, id))
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	return t
}

func tree(t testing.TB, text string) parser.Expr {
	e, err := parser.NewParser(parser.Options{EnableExperimentalFunctions: true, ExperimentalDurationExpr: true}).ParseExpr(text)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func (w *world) query(t *Tracker, id tenant.ID, class work.Class, text string) {
	t.Query([]tenant.ID{id}, class, text, func() parser.Expr { return tree(w.t, text) })
}

func (w *world) write(t *Tracker) {
	w.t.Helper()
	t.observe(w.t.Context())
	if err := t.Write(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

func stored(names ...string) Stored {
	s := Stored{Metrics: map[string]int{}, Labels: map[string]Label{"job": {3, 1}, "pod": {3, 3}, "le": {1, 1}}}
	for i, n := range names {
		s.Metrics[n] = i + 1
	}
	return s
}

func (w *world) report(t *Tracker, id tenant.ID, have Stored, ask Ask) *Report {
	w.t.Helper()
	ask.Limit = 1000
	r, err := t.Report(w.t.Context(), id, have, ask)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (r *Report) unused() string {
	var out []string
	for _, m := range r.Metrics {
		if m.Unused {
			out = append(out, m.Name)
		}
	}
	for _, l := range r.Labels {
		if l.Unused {
			out = append(out, "label "+l.Name)
		}
	}
	return strings.Join(out, ",")
}

func TestWhatAQueryNames(t *testing.T) {
	for text, want := range map[string]string{
		`1 + vector(time())`: "",
		`up`:                 "up",
		`sum by (job) (rate(a_total{pod!="x"}[5m]))`:  "a_total,label job,label pod",
		`a / on (x) group_left (y) b`:                 "a,b,label x,label y",
		`a and ignoring (z) b`:                        "a,b,label z",
		`count without (w) ({__name__="a"})`:          "a,label w",
		`{__name__=~"a|b"}`:                           "a,b",
		`{__name__=~"a.*", k="v"}`:                    "label k,pattern a.*",
		`{__name__!="a", k="v"}`:                      "label k,unnamed",
		`{k="v"}`:                                     "label k,unnamed",
		`{"näme", "k l"="v"}`:                         "label k l,näme",
		`label_replace(a, "new", "$1", "old", ".*")`:  "a,label old",
		`label_join(a, "new", "-", "l1", "l2")`:       "a,label l1,label l2",
		`sort_by_label(a, "s1", "s2")`:                "a,label s1,label s2",
		`histogram_quantile(0.9, rate(h_bucket[5m]))`: "h_bucket,label le",
		`max_over_time(sum by (g) (a)[1h:1m])`:        "a,label g",
		`topk by (g) (scalar(k), a offset 1h)`:        "a,k,label g",
		`count_values("new", a)`:                      "a",
		`info(a)`:                                     "a,label instance,label job,target_info",
		`info(a, {version=~".+"})`:                    "a,label instance,label job,label version,target_info",
		`info(a, {__name__="build_info"})`:            "a,build_info,label instance,label job",
	} {
		found := namesOf(tree(t, text))
		var got []string
		for _, n := range found.list {
			got = append(got, map[kind]string{metricKind: "", labelKind: "label ", patternKind: "pattern "}[n.kind]+n.text)
		}
		if found.unnamed {
			got = append(got, "unnamed")
		}
		slices.Sort(got)
		if s := strings.Join(slices.Compact(got), ","); s != want {
			t.Errorf("%s names %q, want %q", text, s, want)
		}
	}
}

func TestTheReportSaysWhatNobodyAskedFor(t *testing.T) {
	w := newWorld(t)
	a, b := w.tracker(), w.tracker()
	w.query(a, "t", work.Dashboard, `sum by (job) (by_dashboard)`)
	w.query(b, "t", work.Rule, `by_rule > 1`)
	b.Lookup([]tenant.ID{"t", "u"}, work.AdHoc, "job", []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "by_lookup")})
	w.query(a, "t", work.AdHoc, `{__name__=~"pre.*"}`)
	w.query(a, "t", work.AdHoc, `count by (__name__) ({__name__=~".+"})`)
	w.query(a, "t", work.AdHoc, `{job="x"}`)
	w.query(a, "u", work.AdHoc, `by_nobody{pod="1"}`)
	have := stored("by_dashboard", "by_rule", "by_lookup", "prefixed", "by_nobody", "nor_this", "ALERTS_FOR_STATE")
	w.write(a)
	w.write(b)
	check := func(tr *Tracker) {
		t.Helper()
		r := w.report(tr, "t", have, Ask{Days: 3})
		if got, want := r.unused(), "nor_this,by_nobody,label pod"; got != want {
			t.Errorf("unused are %s, want %s", got, want)
		}
		if r.Totals.Metrics != 7 || r.Totals.UnusedMetrics != 2 || r.Totals.Series != 28 || r.Totals.UnusedSeries != 11 || r.Totals.Labels != 3 || r.Totals.UnusedLabels != 1 {
			t.Errorf("totals are %+v", r.Totals)
		}
		day := dayOf(w.clock()).String()
		if r.ObservedDays != 1 || r.ObservedSince != day || r.To != day || r.Incomplete != "" || r.Unnamed == nil || r.Unnamed.AdHoc != day {
			t.Errorf("got %+v", r)
		}
		at := slices.IndexFunc(r.Metrics, func(m Metric) bool { return m.Name == "by_rule" })
		if m := r.Metrics[at]; m.Rule != day || m.Last != day || m.Dashboard != "" || m.AdHoc != "" {
			t.Errorf("by_rule was asked for %+v", m.Use)
		}
		if len(r.Patterns) != 2 || r.Patterns[0].Pattern != ".+" || !r.Patterns[0].Wide || r.Patterns[0].Metrics != 7 || r.Patterns[1].Wide || r.Patterns[1].Metrics != 1 {
			t.Errorf("patterns are %+v", r.Patterns)
		}
	}
	check(a)
	check(w.tracker()) // another process, or this one later
	if got := w.report(a, "t", have, Ask{Days: 3, Unused: true}); len(got.Metrics) != 2 || len(got.Labels) != 1 {
		t.Errorf("with unused=true: %+v", got)
	}
	// Of another tenant, something else is unused.
	if got := w.report(a, "u", have, Ask{Days: 1}).unused(); !strings.Contains(got, "by_rule") || strings.Contains(got, "by_nobody") || strings.Contains(got, "label pod") {
		t.Errorf("unused of the other tenant are %s", got)
	}
}

func TestAReportCallsNothingUnusedThatItCannotKnow(t *testing.T) {
	w := newWorld(t)
	tr := w.tracker()
	if got := w.report(tr, "t", stored("a"), Ask{Days: 1}); got.unused() != "" || got.ObservedDays != 0 || got.ObservedSince != "" {
		t.Errorf("before anything is observed: %+v", got)
	}
	for range 3 {
		w.query(tr, "t", work.AdHoc, "a")
		w.write(tr)
		w.pass(24 * time.Hour)
	}
	w.pass(24 * time.Hour) // of which nothing is known
	w.write(tr)
	r := w.report(tr, "t", stored("a", "b"), Ask{Days: 10})
	if r.ObservedDays != 4 || r.ObservedSince != dayOf(w.clock().Add(-4*24*time.Hour)).String() || r.unused() != "b,label pod,label job" {
		t.Errorf("got %d days since %s, unused %s", r.ObservedDays, r.ObservedSince, r.unused())
	}
	if got := w.report(tr, "t", stored("a", "b"), Ask{Days: 2}).unused(); got != "b,a,label pod,label job" {
		t.Errorf("in two days unused are %s", got)
	}
	// More names than are remembered.
	for i := range maxNames + 10 {
		tr.Lookup([]tenant.ID{"t"}, work.AdHoc, "", []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", fmt.Sprintf("name%06d", i))})
	}
	tr.Lookup([]tenant.ID{"long"}, work.AdHoc, strings.Repeat("x", maxNameBytes+1), nil)
	w.write(tr)
	today := dayOf(w.clock()).String()
	for _, id := range []tenant.ID{"t", "long"} {
		if r := w.report(tr, id, stored("a", "b"), Ask{Days: 5}); r.Incomplete != today || r.unused() != "" {
			t.Errorf("%s: incomplete %q, unused %s", id, r.Incomplete, r.unused())
		}
	}
	if got := testutil.ToFloat64(tr.metrics.lost); got < 11 {
		t.Errorf("%v names are counted as lost", got)
	}
	w.pass(9 * 24 * time.Hour)
	w.write(tr)
	if r := w.report(tr, "t", stored("a"), Ask{Days: 1}); r.Incomplete != "" || r.unused() == "" {
		t.Errorf("days later: %+v", r)
	}
	for _, days := range []int{0, -1, 11} {
		if _, err := tr.Report(t.Context(), "t", stored(), Ask{Days: days}); errs.KindOf(err) != errs.Invalid {
			t.Errorf("%d days: %v", days, err)
		}
	}
}

// TestOfATenantThatIsNotObservedNothingIsKnown: not even that it did not ask for something.
func TestOfATenantThatIsNotObservedNothingIsKnown(t *testing.T) {
	ask := map[string]func(*world, *Tracker){
		"query":  func(w *world, tr *Tracker) { w.query(tr, "off", work.AdHoc, "a") },
		"lookup": func(_ *world, tr *Tracker) { tr.Lookup([]tenant.ID{"off"}, work.AdHoc, "job", nil) },
	}
	for name, ask := range ask {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			tr := w.tracker()
			ask(w, tr)
			w.write(tr)
			d, err := w.docs.Get(t.Context(), documentKey("off"))
			if err != nil {
				t.Fatal(err)
			}
			n, err := decode(d.Data)
			if err != nil || len(n.Names) != 0 || n.Unnamed != (asked{}) || n.Lost != dayOf(w.clock()) {
				t.Errorf("its document says %+v, %v", n, err)
			}
			ask(w, tr)
			w.write(tr)
			if again, err := w.docs.Get(t.Context(), d.Key); err != nil || again.Version != d.Version {
				t.Errorf("it is written each time, %v", err)
			}

			w.set(w.off, "off", false) // from the next day on
			w.pass(24 * time.Hour)
			w.query(tr, "off", work.AdHoc, "b")
			w.write(tr)
			if r := w.report(tr, "off", stored("a", "b"), Ask{Days: 2}); r.Incomplete == "" || r.unused() != "" {
				t.Errorf("with a day of which nothing is known: incomplete %q, unused %s", r.Incomplete, r.unused())
			}
			if r := w.report(tr, "off", stored("a", "b"), Ask{Days: 1}); r.Incomplete != "" || !strings.HasPrefix(r.unused(), "a,") {
				t.Errorf("without: incomplete %q, unused %s", r.Incomplete, r.unused())
			}
		})
	}
}

// TestWhatIsKnownOfADeletedTenantStaysDeleted: one process deletes it, another has notes that are not written.
func TestWhatIsKnownOfADeletedTenantStaysDeleted(t *testing.T) {
	w := newWorld(t)
	one, two := w.tracker(), w.tracker()
	w.query(one, "t", work.AdHoc, "a")
	w.query(two, "t", work.AdHoc, "b")
	w.query(two, "other", work.AdHoc, "b")
	w.write(one)
	w.query(one, "t", work.AdHoc, "c")
	w.set(w.gone, "t", true)
	if err := one.Forget(t.Context(), "t"); err != nil {
		t.Fatal(err)
	}
	there := func() (keys []string) {
		es, err := w.docs.List(t.Context(), Documents)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range es {
			keys = append(keys, e.Key)
		}
		return keys
	}
	w.unread(errs.New(errs.Unavailable, "marks cannot be read"))
	if err := two.Write(t.Context()); err == nil || len(there()) != 0 {
		t.Errorf("who cannot know writes %v, %v", there(), err)
	}
	w.unread(nil)
	for range 2 {
		for _, tr := range []*Tracker{one, two} {
			w.query(tr, "t", work.AdHoc, "b") // while it is deleted
			w.write(tr)
		}
		if got := there(); !slices.Equal(got, []string{documentKey("other")}) {
			t.Fatalf("there are %v", got)
		}
	}
	w.set(w.gone, "t", false) // it is gone, and its name is used again
	w.query(two, "t", work.AdHoc, "b")
	w.write(two)
	if r := w.report(one, "t", stored("a", "b"), Ask{Days: 1}); !strings.HasPrefix(r.unused(), "a,") || strings.Contains(r.unused(), "b,") {
		t.Errorf("unused %s", r.unused())
	}
}

func TestAnUnchangedDocumentIsNotWritten(t *testing.T) {
	w := newWorld(t)
	var last docstore.Version
	for i := range 3 {
		tr := w.tracker() // each a process that starts anew
		w.query(tr, "t", work.AdHoc, "a")
		w.write(tr)
		d, err := w.docs.Get(t.Context(), documentKey("t"))
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 && d.Version != last {
			t.Errorf("write %d changed the document", i)
		}
		last = d.Version
	}
}

func TestWritersOfManyProcessesLoseNothing(t *testing.T) {
	w := newWorld(t)
	var wg sync.WaitGroup
	have := stored()
	for i := range 4 {
		tr := w.tracker()
		for j := range 20 {
			have.Metrics[fmt.Sprintf("m_%d_%d", i, j)] = 1
		}
		wg.Go(func() {
			for j := range 20 {
				w.query(tr, "t", work.AdHoc, fmt.Sprintf("m_%d_%d", i, j))
				if err := tr.Write(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	tr := w.tracker()
	tr.observe(t.Context())
	if got := w.report(tr, "t", have, Ask{Days: 1}); got.Totals.UnusedMetrics != 0 || got.ObservedDays != 1 {
		t.Errorf("unused are %s", got.unused())
	}
}

func TestWhatCannotBeWrittenIsWrittenLater(t *testing.T) {
	w := newWorld(t)
	tr := w.tracker()
	w.query(tr, "t", work.AdHoc, "a")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := tr.Write(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	// A document of a later version is left alone.
	if _, err := w.docs.Overwrite(t.Context(), documentKey("t"), packed(t, `{"version":2}`)); err != nil {
		t.Fatal(err)
	}
	w.query(tr, "t", work.Rule, "b")
	if err := tr.Write(t.Context()); !errors.Is(err, errNewer) {
		t.Fatalf("got %v", err)
	}
	if got := testutil.ToFloat64(tr.metrics.failed); got == 0 {
		t.Error("no failure is counted")
	}
	if err := Delete(t.Context(), w.docs, "t"); err != nil {
		t.Fatal(err)
	}
	w.write(tr)
	if got := w.report(w.tracker(), "t", stored("a", "b"), Ask{Days: 1}).unused(); got != "label pod,label job" {
		t.Errorf("unused are %s", got)
	}
}

func packed(t testing.TB, text string) []byte {
	var n notes
	if err := json.Unmarshal([]byte(text), &n); err != nil {
		t.Fatal(err)
	}
	return zipped([]byte(text))
}

func TestADamagedDocumentIsNotBelieved(t *testing.T) {
	w := newWorld(t)
	tr := w.tracker()
	w.write(tr)
	for _, data := range [][]byte{[]byte("not packed"), zipped([]byte("{")), zipped([]byte(`{"version":1,"names":{"metrics":{"a":"x"}}}`))} {
		if _, err := w.docs.Overwrite(t.Context(), documentKey("t"), data); err != nil {
			t.Fatal(err)
		}
		r := w.report(tr, "t", stored("a"), Ask{Days: 1})
		if r.Incomplete == "" || r.unused() != "" {
			t.Errorf("%s: got %+v", data, r)
		}
	}
	w.query(tr, "t", work.AdHoc, "a")
	w.write(tr)
	if n, err := w.tracker().known(t.Context(), "t", dayOf(w.clock())); err != nil || len(n.Names[metricKind]) != 1 || n.Lost == 0 {
		t.Errorf("got %+v, %v", n, err)
	}
}

func TestNothingIsRememberedForLongerThanTheRetention(t *testing.T) {
	w := newWorld(t)
	tr := w.tracker()
	w.query(tr, "t", work.AdHoc, "old")
	w.query(tr, "quiet", work.AdHoc, "old")
	w.write(tr)
	w.pass(10 * 24 * time.Hour)
	w.query(tr, "t", work.AdHoc, "new")
	w.write(tr)
	n, err := tr.known(t.Context(), "t", dayOf(w.clock()))
	if names := slices.Collect(maps.Keys(n.Names[metricKind])); err != nil || len(names) != 1 || names[0] != "new" {
		t.Errorf("known are %v, %v", names, err)
	}
	if tr.of("quiet") != nil {
		t.Error("a tenant that asks for nothing is still in memory")
	}
	es, err := w.docs.List(t.Context(), Documents)
	if err != nil || len(es) != 2 {
		t.Fatalf("documents %v, %v", es, err)
	}
	w.pass(30 * 24 * time.Hour)
	w.write(tr)
	if es, err = w.docs.List(t.Context(), Documents); err != nil || len(es) != 0 {
		t.Errorf("documents %v, %v", es, err)
	}
}

func TestATenantIsForgotten(t *testing.T) {
	w := newWorld(t)
	tr := w.tracker()
	w.query(tr, "t", work.AdHoc, "a")
	w.write(tr)
	w.query(tr, "t", work.AdHoc, "b")
	if err := tr.Forget(t.Context(), "t"); err != nil {
		t.Fatal(err)
	}
	w.write(tr)
	if _, err := w.docs.Get(t.Context(), documentKey("t")); errs.KindOf(err) != errs.NotFound {
		t.Errorf("got %v", err)
	}
	if err := tr.Forget(t.Context(), "t"); err != nil {
		t.Errorf("of a tenant that is not known: %v", err)
	}
	w.query(tr, "t", work.AdHoc, "a") // it is noted anew
	w.write(tr)
	if _, err := w.docs.Get(t.Context(), documentKey("t")); err != nil {
		t.Error(err)
	}
}

func FuzzDocument(f *testing.F) {
	n := notes{}
	n.add(name{metricKind, "a"}, asked{1, 2, 3})
	data, err := n.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(zipped([]byte(`{"version":1,"names":{"x":{"":[1]}},"unnamed":[0,0,9999999],"lost":-1}`)))
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := decode(data)
		if err != nil {
			return
		}
		n.merge(&notes{Lost: 1})
		n.clean(1)
		again, err := n.encode()
		if err != nil {
			t.Fatal(err)
		}
		m, err := decode(again)
		if err != nil {
			t.Fatal(err)
		}
		a, _ := json.Marshal(n)
		b, _ := json.Marshal(m)
		if string(a) != string(b) {
			t.Errorf("%s became %s", a, b)
		}
	})
}

// What a query costs that was asked before, and one that was not.
func BenchmarkQuery(b *testing.B) {
	w := newWorld(b)
	tr := w.tracker()
	text := `sum by (job, instance) (rate(http_requests_total{job="api",code=~"5.."}[5m])) / on (job) group_left sum by (job) (rate(http_requests_total[5m]))`
	e := tree(b, text)
	ids := []tenant.ID{"t"}
	of := func() parser.Expr { return e }
	b.Run("known", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			tr.Query(ids, work.Dashboard, text, of)
		}
	})
	b.Run("new", func(b *testing.B) {
		b.ReportAllocs()
		texts := make([]string, 1000)
		for i := range texts {
			texts[i] = fmt.Sprintf("%s + %d", text, i)
		}
		for i := 0; b.Loop(); i++ {
			if i%len(texts) == 0 {
				w.pass(24 * time.Hour)
			}
			tr.Query(ids, work.Dashboard, texts[i%len(texts)], of)
		}
	})
}
