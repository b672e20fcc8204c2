package ingester

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/grafana/dskit/kv/consul"
	"github.com/grafana/dskit/ring"
	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/thanos-io/objstore"
	"google.golang.org/grpc"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/head"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/memory"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
)

const (
	minute = int64(time.Minute / time.Millisecond)
	hour   = 60 * minute
)

// base is a time at the start of a block range.
const base = 1_700_000_000_000 / (2 * hour) * (2 * hour)

// site is an ingester under test and what surrounds it.
type site struct {
	*Ingester
	dir    string
	bucket objstore.Bucket
	reg    *prometheus.Registry
	costs  *prometheus.Registry
	now    atomic.Int64 // Unix milliseconds
	view   atomic.Pointer[limits.View]
	at     atomic.Pointer[Place]
}

type siteOptions struct {
	dir    string // "": a new one
	bucket objstore.Bucket
	view   limits.View
	place  *Place
	change func(*Config)
	logger *slog.Logger
	deps   func(*Deps)
	memory *memory.Ledger
}

// newSite starts an ingester; it is stopped with the test unless that was done before.
func newSite(t testing.TB, o siteOptions) *site {
	t.Helper()
	s := &site{dir: o.dir, bucket: o.bucket, reg: prometheus.NewPedanticRegistry(), costs: prometheus.NewRegistry()}
	if s.dir == "" {
		s.dir = t.TempDir()
	}
	if s.bucket == nil {
		s.bucket = objstore.NewInMemBucket()
	}
	s.now.Store(base)
	s.view.Store(&o.view)
	s.at.Store(o.place)
	var cfg Config
	cfg.Declare(config.NewSet())
	cfg.DataDir = s.dir
	cfg.WAL.Sync = false
	if o.change != nil {
		o.change(&cfg)
	}
	store, closer := consul.NewInMemoryClient(ring.GetCodec(), log.NewNopLogger(), nil)
	t.Cleanup(func() { closer.Close() })
	lc := ring.LifecyclerConfig{
		NumTokens: 4, HeartbeatPeriod: time.Second, HeartbeatTimeout: time.Minute,
		Addr: "127.0.0.1", ID: "ingester-1", UnregisterOnShutdown: true,
	}
	lc.RingConfig.KVStore.Mock, lc.RingConfig.HeartbeatTimeout = store, time.Minute
	logger := o.logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	deps := Deps{
		Logger: logger, Reg: s.reg, Bucket: s.bucket, Lifecycler: lc,
		Limits: func(tenant.ID) limits.View { return *s.view.Load() }, Memory: o.memory,
		Attribution: Attribution{Reg: s.costs, CleanupInterval: time.Minute},
		Place:       func(tenant.ID) *Place { return s.at.Load() },
		Now:         func() time.Time { return time.UnixMilli(s.now.Load()) },
	}
	if o.deps != nil {
		o.deps(&deps)
	}
	var err error
	s.Ingester, err = New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	if err := services.StartAndAwaitRunning(t.Context(), s.Ingester); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = services.StopAndAwaitTerminated(context.Background(), s.Ingester) })
	return s
}

// crashed starts another ingester on a copy of s's disk, as it would be after a crash.
func (s *site) crashed(t testing.TB, o siteOptions) *site {
	t.Helper()
	o.dir = t.TempDir()
	if err := os.CopyFS(o.dir, os.DirFS(s.dir)); err != nil {
		t.Fatal(err)
	}
	if o.bucket == nil {
		o.bucket = s.bucket
	}
	return newSite(t, o)
}

// counter returns the value of a metric, summed over its labels.
func (s *site) counter(t testing.TB, name string, with ...string) float64 {
	t.Helper()
	families, err := s.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	total := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	metric:
		for _, m := range f.Metric {
			have := map[string]string{}
			for _, l := range m.Label {
				have[l.GetName()] = l.GetValue()
			}
			for k := 0; k < len(with); k += 2 {
				if have[with[k]] != with[k+1] {
					continue metric
				}
			}
			total += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return total
}

// sender numbers series as a distributor does, for one stream.
type sender struct {
	stream frame.Stream
	mu     sync.Mutex
	refs   map[string]frame.Ref
	bound  map[frame.Ref]bool
}

func newSender(i *Ingester) *sender {
	return &sender{stream: i.OpenStream(), refs: map[string]frame.Ref{}, bound: map[frame.Ref]bool{}}
}

type point struct {
	ls labels.Labels
	t  int64
	v  float64
}

// frame makes a frame of points, with definitions of what is not bound.
func (s *sender) frame(tenant string, points ...point) *frame.Frame {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &frame.Frame{Tenant: tenant}
	for _, p := range points {
		ref := s.ref(f, p.ls)
		f.Refs = append(f.Refs, ref)
		f.Times = append(f.Times, p.t)
		f.Values = append(f.Values, p.v)
	}
	return f
}

// ref needs s.mu.
func (s *sender) ref(f *frame.Frame, ls labels.Labels) frame.Ref {
	key := f.Tenant + ls.String()
	ref, ok := s.refs[key]
	if !ok {
		ref = frame.MakeRef(uint32(len(s.refs)), 0)
		s.refs[key] = ref
	}
	if !s.bound[ref] {
		f.Defs = append(f.Defs, frame.Def{Ref: ref, Labels: ls})
	}
	return ref
}

func (s *sender) push(ctx context.Context, f *frame.Frame) frame.Result {
	res := s.stream.Push(ctx, f)
	if res.Outcome == frame.Stored {
		s.mu.Lock()
		for _, d := range f.Defs {
			s.bound[d.Ref] = res.Rejected == 0
		}
		s.mu.Unlock()
	}
	return res
}

// mustPush pushes points and wants all of them stored.
func (s *sender) mustPush(t testing.TB, tenant string, points ...point) {
	t.Helper()
	if res := s.push(context.Background(), s.frame(tenant, points...)); res.Outcome != frame.Stored || res.Message != "" {
		t.Fatalf("push: %+v", res)
	}
}

func metric(name string, more ...string) labels.Labels {
	return labels.FromStrings(append([]string{"__name__", name}, more...)...)
}

// queryStream receives what Query sends.
type queryStream struct {
	grpc.ServerStream
	ctx    context.Context
	series []*ingesterpb.Series
	each   func(*ingesterpb.QueryResponse) error
}

func (q *queryStream) Context() context.Context { return q.ctx }

func (q *queryStream) Send(m *ingesterpb.QueryResponse) error {
	if q.each != nil {
		return q.each(m)
	}
	q.series = append(q.series, m.Series...)
	return nil
}

// ask asks again if late samples ended the query, as they may when the machine stood still for seconds.
func (s *site) ask(req *ingesterpb.QueryRequest, q *queryStream) error {
	for {
		q.series = nil
		if err := s.Query(req, q); !errors.Is(err, head.ErrOvertaken) {
			return err
		}
	}
}

func (s *site) query(t testing.TB, id string, req *ingesterpb.QueryRequest) []*ingesterpb.Series {
	t.Helper()
	q := &queryStream{ctx: tenant.Inject(context.Background(), tenant.ID(id))}
	if err := s.ask(req, q); err != nil {
		t.Fatalf("query: %v", err)
	}
	return q.series
}

func everything() *ingesterpb.QueryRequest {
	return &ingesterpb.QueryRequest{MinTime: 0, MaxTime: base + 1000*hour,
		Matchers: []*ingesterpb.Matcher{{Type: ingesterpb.Matcher_REGEX, Name: "__name__", Value: ".+"}}}
}

// dump returns all samples of a tenant as "labels" -> "t:v t:v", times relative to base. Samples
// that occur in several chunks are shown once.
func (s *site) dump(t testing.TB, id string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, series := range s.query(t, id, everything()) {
		out[labels.FromStrings(series.Labels...).String()] = samplesOf(t, series)
	}
	return out
}

func samplesOf(t testing.TB, series *ingesterpb.Series) string {
	t.Helper()
	values := map[int64]string{}
	var times []int64
	for _, c := range series.Chunks {
		chunk, err := chunkenc.FromData(chunkenc.Encoding(c.Encoding), c.Data)
		if err != nil {
			t.Fatal(err)
		}
		it := chunk.Iterator(nil)
		for vt := it.Next(); vt != chunkenc.ValNone; vt = it.Next() {
			var at int64
			var text string
			if vt == chunkenc.ValFloat {
				var v float64
				at, v = it.At()
				text = fmt.Sprint(v)
			} else {
				ts, fh := it.AtFloatHistogram(nil)
				at, text = ts, fmt.Sprintf("h%g/%g", fh.Count, fh.Sum)
			}
			if old, seen := values[at]; seen && old != text {
				t.Fatalf("two values at %d: %s and %s", at-base, old, text)
			} else if !seen {
				times = append(times, at)
			}
			values[at] = text
		}
		if it.Err() != nil {
			t.Fatal(it.Err())
		}
	}
	sort.Slice(times, func(a, b int) bool { return times[a] < times[b] })
	var parts []string
	for _, at := range times {
		parts = append(parts, fmt.Sprintf("%d:%s", at-base, values[at]))
	}
	return strings.Join(parts, " ")
}

func equal(t testing.TB, got, want map[string]string) {
	t.Helper()
	for k, w := range want {
		if got[k] != w {
			t.Errorf("%s: got %q, want %q", k, got[k], w)
		}
	}
	for k := range got {
		if _, ok := want[k]; !ok {
			t.Errorf("unexpected series %s: %q", k, got[k])
		}
	}
}

// walFiles returns the files of the log, sorted.
func (s *site) walFiles(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.dir, "wal", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}
