package distributor

import (
	"fmt"
	"maps"
	"math/rand"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
)

// ruleBook is rules that change, merge and drop series of the model.
var ruleBook = []struct {
	rules string
	drop  []string
}{
	{"[]", nil},
	{"[]", []string{"pod"}},
	{"[{action: replace, source_labels: [__name__], regex: 'm(.)', target_label: __name__, replacement: 'n$1'}]", nil},
	{"[{action: drop, source_labels: [__name__], regex: m1}, {source_labels: [__meta_tenant_id], target_label: owner}]", []string{"cluster"}},
	{"[{action: labelkeep, regex: __name__}, {action: drop, source_labels: [__name__], regex: m2}]", nil},
	{"[{action: keep, source_labels: [pod], regex: a}]", []string{"__name__"}},
}

// naive says what must be stored, one series after the other and without remembering any.
type naive struct {
	rules   []*relabel.Config
	drop    []string
	ha      bool
	elected map[pair]bool // as the tracker says, which has tests of its own
	stored  map[string][]string
}

// push takes what a request of series at one time must store.
func (m *naive) push(series []prompb.TimeSeries) {
	taken := map[string]bool{}
	for _, s := range series {
		b := labels.NewScratchBuilder(4)
		for _, l := range s.Labels {
			b.Add(l.Name, l.Value)
		}
		b.Sort()
		lb := labels.NewBuilder(b.Labels())
		if who := (pair{lb.Get("cluster"), lb.Get("__replica__")}); m.ha && who.cluster != "" && who.replica != "" {
			if !m.elected[who] {
				continue
			}
			lb.Del("__replica__")
		}
		lb.Set(tenantLabel, "t1")
		if !relabel.ProcessBuilder(lb, m.rules...) {
			continue
		}
		ls := lb.Del(tenantLabel).Del(m.drop...).Labels()
		if at := fmt.Sprint(ls); ls.Has("__name__") && !taken[at] {
			taken[at] = true
			m.stored["t1 "+at] = append(m.stored["t1 "+at], fmt.Sprintf("%d:%g", s.Samples[0].Timestamp, s.Samples[0].Value))
		}
	}
}

// someSeries returns different series, in an order of their own.
func someSeries(c *cluster, r *rand.Rand, value func() float64) []prompb.TimeSeries {
	made := map[string]prompb.TimeSeries{}
	for range 1 + r.Intn(12) {
		text := fmt.Sprintf("m%d", r.Intn(4))
		if r.Intn(2) > 0 {
			text += ",pod=" + string(rune('a'+r.Intn(3)))
		}
		if r.Intn(3) > 0 {
			text += fmt.Sprintf(",cluster=c%d,__replica__=r%d", r.Intn(2), r.Intn(2))
		}
		s := c.series(text)
		s.Samples[0].Value = value()
		made[text] = s
	}
	var out []prompb.TimeSeries
	for _, text := range slices.Sorted(maps.Keys(made)) {
		out = append(out, made[text])
	}
	r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

func (m *naive) follow(t *testing.T, c *cluster, page int) {
	t.Helper()
	c.rules(ruleBook[page].rules, ruleBook[page].drop...)
	parsed, err := limits.ParseRelabeling(ruleBook[page].rules)
	if err != nil {
		t.Fatal(err)
	}
	m.rules, m.drop = parsed.Rules(model.LegacyValidation), ruleBook[page].drop
}

// TestWhatIsStoredIsWhatOneWouldStoreByHand compares pushes with a model that remembers nothing
// about series, while rules, replicas, limits and the ingester change.
func TestWhatIsStoredIsWhatOneWouldStoreByHand(t *testing.T) {
	for seed := range int64(20) {
		r := rand.New(rand.NewSource(seed))
		room := entryBytes * (5 + r.Intn(100)) // mostly too little
		c := newCluster(t, clusterOptions{replicas: 1, instances: 1, cacheBytes: room}).deduplicate()
		g := c.ingesters["ingester-0"]
		m := &naive{ha: true, stored: map[string][]string{}}
		n := 0.0
		for range 300 {
			switch r.Intn(12) {
			case 0:
				m.follow(t, c, r.Intn(len(ruleBook)))
			case 1:
				m.ha = r.Intn(3) > 0
				c.acceptHA(m.ha)
			case 2:
				c.limit(func(v limits.View) limits.View { return limits.MaxLabelNameLength.With(v, 100+r.Intn(2)) })
			case 3:
				g.restart(g.Incarnation() + 1)
			case 4:
				c.advance(20 * time.Second)
			case 5:
				if r.Intn(10) == 0 { // everything is forgotten
					c.advance(seriesIdle + time.Minute)
					for range sweepPeriod {
						c.advance(time.Second)
						c.tenants.sweep(c.tick(time.UnixMilli(c.clock.Load())))
					}
				}
			}
			c.advance(time.Second)
			series := someSeries(c, r, func() float64 { n++; return n })
			if _, err := c.push(c.v1(series...)); err != nil && errs.KindOf(err) != errs.Accepted && !strings.Contains(err.Error(), "missing-metric-name") {
				t.Fatalf("seed %d: %v", seed, err)
			}
			m.elected = map[pair]bool{}
			for _, e := range c.deps.Replicas.Clusters() {
				m.elected[pair{e.Cluster, e.Replica}] = true
			}
			m.push(series)
		}
		if _, stored := g.read(); !maps.EqualFunc(stored, m.stored, slices.Equal) {
			for name := range m.stored {
				if !slices.Equal(stored[name], m.stored[name]) {
					t.Errorf("seed %d: %s has %d samples, want %d", seed, name, len(stored[name]), len(m.stored[name]))
				}
			}
			t.Fatalf("seed %d: %d series, want %d", seed, len(stored), len(m.stored))
		}
	}
}

// TestRulesThatChangeMeanwhileMixUpNoSeries pushes from many sides while rules change and the
// ingester forgets. Each sample must be stored as one of the rule sets says, and no other way.
func TestRulesThatChangeMeanwhileMixUpNoSeries(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	g := c.ingesters["ingester-0"]
	pages := []int{0, 1, 2}
	origin := sync.Map{} // raw labels by value
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewSource(int64(w)))
			n := float64(w) * 1e6
			for { // at least once, however late it begins
				series := someSeries(c, r, func() float64 { n++; return n })
				for _, s := range series {
					origin.Store(fmt.Sprintf("%g", s.Samples[0].Value), s)
				}
				if _, err := c.push(c.v1(series...)); err != nil {
					t.Errorf("push: %v", err)
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	r := rand.New(rand.NewSource(1))
	for range 300 {
		page := ruleBook[pages[r.Intn(len(pages))]]
		c.rules(page.rules, page.drop...)
		if r.Intn(5) == 0 {
			g.restart(g.Incarnation() + 1)
		}
		c.advance(time.Millisecond)
	}
	close(stop)
	wg.Wait()
	_, stored := g.read()
	checked := 0
	for name, list := range stored {
		for _, sample := range list {
			_, value, _ := strings.Cut(sample, ":")
			s, ok := origin.Load(value)
			if !ok {
				t.Fatalf("%s was never sent", value)
			}
			var may []string
			for _, p := range pages {
				m := &naive{stored: map[string][]string{}}
				parsed, err := limits.ParseRelabeling(ruleBook[p].rules)
				if err != nil {
					t.Fatal(err)
				}
				m.rules, m.drop = parsed.Rules(model.LegacyValidation), ruleBook[p].drop
				m.push([]prompb.TimeSeries{s.(prompb.TimeSeries)})
				may = slices.AppendSeq(may, maps.Keys(m.stored))
			}
			if !slices.Contains(may, name) {
				t.Fatalf("%s is stored as %s, may be %v", s, name, may)
			}
			checked++
		}
	}
	if checked == 0 {
		t.Error("nothing was stored")
	}
}
