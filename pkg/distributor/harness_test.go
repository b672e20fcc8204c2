package distributor

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gokitlog "github.com/go-kit/log"
	"github.com/grafana/dskit/kv/consul"
	"github.com/grafana/dskit/ring"
	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/memory"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/remotewrite/remotewritetest"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

const ringKey = "ring"

// ingester is the receiving end of a replica: it keeps bindings and samples as a real one does,
// and answers as told.
type ingester struct {
	addr        string
	incarnation atomic.Uint32

	mu      sync.Mutex                             // guards all below
	bound   map[string]map[frame.Ref]labels.Labels // by tenant
	stored  map[string][]string                    // "time:value" by series
	frames  int
	defs    int
	meta    []frame.Metadata
	exem    []frame.Exemplar
	encoder frame.Encoder
	answer  func() (frame.Result, bool) // an answer instead of storing, if true
	hold    chan struct{}               // answers wait until it is closed
	waiting int                         // frames that do
	encoded []byte
	keep    bool // samples are kept in stored
}

func (g *ingester) Incarnation() uint32 { return g.incarnation.Load() }

func (g *ingester) Push(f *frame.Frame, done func(frame.Result)) {
	g.mu.Lock()
	hold := g.hold
	if hold != nil {
		g.waiting++
	}
	g.mu.Unlock()
	if hold == nil {
		done(g.store(f))
		return
	}
	go func() {
		<-hold
		g.set(func(g *ingester) { g.waiting-- })
		done(g.store(f))
	}()
}

func (g *ingester) store(f *frame.Frame) frame.Result {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.frames++
	g.defs += len(f.Defs)
	if g.answer != nil {
		if r, ok := g.answer(); ok {
			return r
		}
	}
	var err error
	if g.encoded, err = g.encoder.AppendFrame(g.encoded[:0], 1, f); err != nil {
		return frame.FailedWith(err)
	}
	if g.bound[f.Tenant] == nil {
		g.bound[f.Tenant] = map[frame.Ref]labels.Labels{}
	}
	for _, d := range f.Defs {
		maps.DeleteFunc(g.bound[f.Tenant], func(r frame.Ref, _ labels.Labels) bool { return r.Index() == d.Ref.Index() && r != d.Ref })
		g.bound[f.Tenant][d.Ref] = d.Labels
	}
	return g.take(f)
}

func (g *ingester) take(f *frame.Frame) frame.Result {
	refs := slices.Clone(f.Refs)
	for _, h := range f.Histograms {
		refs = append(refs, h.Ref)
	}
	for _, e := range f.Exemplars {
		refs = append(refs, e.Ref)
	}
	var unknown []frame.Ref
	for _, r := range refs {
		if _, ok := g.bound[f.Tenant][r]; !ok {
			unknown = append(unknown, r)
		}
	}
	if len(unknown) > 0 {
		return frame.Result{Outcome: frame.UnknownRefs, Unknown: unknown}
	}
	if !g.keep {
		return frame.Result{}
	}
	add := func(r frame.Ref, what string) {
		s := f.Tenant + " " + g.bound[f.Tenant][r].String()
		g.stored[s] = append(g.stored[s], what)
	}
	for i, r := range f.Refs {
		add(r, fmt.Sprintf("%d:%g", f.Times[i], f.Values[i]))
	}
	for _, h := range f.Histograms {
		add(h.Ref, fmt.Sprintf("%d:histogram", h.Time))
	}
	g.meta = append(g.meta, f.Metadata...)
	g.exem = append(g.exem, f.Exemplars...)
	return frame.Result{}
}

// set changes g under its lock.
func (g *ingester) set(f func(*ingester)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f(g)
}

// read returns the definitions received since the last read, and what is stored.
func (g *ingester) read() (defs int, stored map[string][]string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	defs, g.defs = g.defs, 0
	return defs, maps.Clone(g.stored)
}

// restart forgets the bindings, as a new stream does.
func (g *ingester) restart(incarnation uint32) {
	g.set(func(g *ingester) { clear(g.bound) })
	g.incarnation.Store(incarnation)
}

// cluster is a distributor with its ring and ingesters.
type cluster struct {
	*Distributor
	t         testing.TB
	ring      *ring.Ring
	store     *consul.Client
	reg       *prometheus.Registry
	costs     *prometheus.Registry
	ingesters map[string]*ingester
	clock     atomic.Int64 // milliseconds
	view      atomic.Pointer[limits.View]
	views     map[tenant.ID]limits.View // of tenants with limits of their own; not changed while pushing
	share     atomic.Int64
	mu        sync.Mutex // guards ingesters
}

type clusterOptions struct {
	replicas, instances int
	zones               bool
	cacheBytes          int
	maxInflight         int
	memory              *memory.Ledger
}

func newCluster(t testing.TB, o clusterOptions) *cluster {
	t.Helper()
	c := &cluster{t: t, ingesters: map[string]*ingester{}, reg: prometheus.NewPedanticRegistry(), costs: prometheus.NewRegistry()}
	c.clock.Store(time.Now().UnixMilli())
	c.share.Store(1)
	view := limits.IngestionRate.With(limits.View{}, 0)
	c.view.Store(&view)
	store, closer := consul.NewInMemoryClient(ring.GetCodec(), gokitlog.NewNopLogger(), nil)
	t.Cleanup(func() { _ = closer.Close() })
	c.store = store
	desc := ring.NewDesc()
	for i := range o.instances {
		c.addTo(desc, i, o.zones)
	}
	c.write(desc)
	var err error
	c.ring, err = ring.NewWithStoreClientAndStrategy(ring.Config{ReplicationFactor: o.replicas, HeartbeatTimeout: time.Hour,
		ZoneAwarenessEnabled: o.zones}, "ingester", ringKey, store, ring.NewDefaultReplicationStrategy(), nil, gokitlog.NewNopLogger())
	if err != nil {
		t.Fatal(err)
	}
	if err := services.StartAndAwaitRunning(context.Background(), c.ring); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = services.StopAndAwaitTerminated(context.Background(), c.ring) })
	c.await(func() bool { return c.ring.InstancesCount() == o.instances })

	var cfg Config
	set := config.NewSet()
	set.Mount("distributor", &cfg)
	cfg.SeriesCacheBytes = o.cacheBytes
	if o.maxInflight > 0 {
		cfg.InstanceLimits.MaxInflightPushRequests = o.maxInflight
	}
	cfg.RemoteTimeout = time.Minute
	c.Distributor, err = New(cfg, Deps{Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Reg: c.reg,
		Limits: c.limitsOf, Ring: c.ring, Replica: c.replica,
		HealthyDistributors: func() int { return int(c.share.Load()) }, Memory: o.memory,
		Costs: Costs{Reg: c.costs, EvictAfter: 10 * time.Minute},
		Now:   func() time.Time { return time.UnixMilli(c.clock.Load()) }})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// addTo puts ingester i into desc.
func (c *cluster) addTo(desc *ring.Desc, i int, zones bool) {
	addr := fmt.Sprintf("ingester-%d", i)
	zone := ""
	if zones {
		zone = fmt.Sprintf("zone-%d", i%3)
	}
	tokens := ring.NewRandomTokenGeneratorWithSeed(int64(i)+1).GenerateTokens(64, nil)
	d := desc.AddIngester(addr, addr, zone, tokens, ring.ACTIVE, time.Now().Add(-time.Hour), false, time.Time{}, nil)
	d.Timestamp = time.Now().Add(time.Hour).Unix()
	desc.Ingesters[addr] = d
	c.mu.Lock()
	defer c.mu.Unlock()
	g := &ingester{addr: addr, bound: map[string]map[frame.Ref]labels.Labels{}, stored: map[string][]string{}, keep: true}
	g.incarnation.Store(uint32(i) + 1)
	c.ingesters[addr] = g
}

func (c *cluster) replica(addr string) (frame.Replica, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g, ok := c.ingesters[addr]
	if !ok {
		return nil, errs.New(errs.Unavailable, "no ingester at %s", addr)
	}
	return g, nil
}

func (c *cluster) write(desc *ring.Desc) {
	c.t.Helper()
	if err := c.store.CAS(context.Background(), ringKey, func(any) (any, bool, error) { return desc, true, nil }); err != nil {
		c.t.Fatal(err)
	}
}

// change edits the ring and waits until the distributor can see it.
func (c *cluster) change(edit func(*ring.Desc), seen func() bool) {
	c.t.Helper()
	got, err := c.store.Get(context.Background(), ringKey)
	if err != nil {
		c.t.Fatal(err)
	}
	desc := got.(*ring.Desc)
	edit(desc)
	c.write(desc)
	c.await(seen)
	c.advance(2 * time.Second)
}

func (c *cluster) await(ok func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatal("waited in vain")
		}
	}
}

func (c *cluster) advance(d time.Duration) { c.clock.Add(d.Milliseconds()) }

func (c *cluster) limitsOf(id tenant.ID) limits.View {
	if v, ok := c.views[id]; ok {
		return v
	}
	return *c.view.Load()
}

// limit changes the tenants' limits.
func (c *cluster) limit(f func(limits.View) limits.View) {
	v := f(*c.view.Load())
	c.view.Store(&v)
}

func (c *cluster) push(req *remotewrite.Request) (remotewrite.Written, error) {
	return c.Push(context.Background(), "t1", req)
}

// mustPush pushes series and returns how many definitions all ingesters got.
func (c *cluster) mustPush(series ...prompb.TimeSeries) (defs int) {
	c.t.Helper()
	if _, err := c.push(c.v1(series...)); err != nil {
		c.t.Fatal(err)
	}
	return c.defs()
}

func (c *cluster) defs() (n int) {
	for _, g := range c.ingesters {
		d, _ := g.read()
		n += d
	}
	return n
}

// copies is how many ingesters have something of the series.
func (c *cluster) copies(series string) (n int) {
	for _, g := range c.ingesters {
		if _, stored := g.read(); len(stored["t1 "+series]) > 0 {
			n++
		}
	}
	return n
}

func (c *cluster) v1(series ...prompb.TimeSeries) *remotewrite.Request {
	return &remotewrite.Request{Version: remotewrite.V1, Body: remotewritetest.MustMarshal(&prompb.WriteRequest{Timeseries: series})}
}

// series returns a series with one sample now; text is "name,label=value,...".
func (c *cluster) series(text string) prompb.TimeSeries {
	parts := strings.Split(text, ",")
	var ls []prompb.Label
	if parts[0] != "" {
		ls = append(ls, prompb.Label{Name: "__name__", Value: parts[0]})
	}
	for _, p := range parts[1:] {
		n, v, _ := strings.Cut(p, "=")
		ls = append(ls, prompb.Label{Name: n, Value: v})
	}
	return prompb.TimeSeries{Labels: ls, Samples: []prompb.Sample{{Value: 1, Timestamp: c.clock.Load()}}}
}

// metric returns the sum of the counters of name whose labels contain all of want.
func (c *cluster) metric(name string, want ...string) (sum float64) {
	c.t.Helper()
	families, err := c.reg.Gather()
	if err != nil {
		c.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			var have []string
			for _, l := range m.GetLabel() {
				have = append(have, l.GetValue())
			}
			if !slices.ContainsFunc(want, func(w string) bool { return !slices.Contains(have, w) }) {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}
