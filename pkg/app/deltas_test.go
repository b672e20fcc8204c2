package app

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/grpc"

	"github.com/amphora-metrics/amphora/pkg/api/ingest"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/members"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/seeds"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/deltapb"
)

// deltaStore keeps what distributors push as ingesters do: the first sample of a time, and a zero where a
// series starts, unless it has later samples.
type deltaStore struct {
	t *testing.T

	mu     sync.Mutex // guards series
	series map[string]map[int64]float64
}

// Push implements ingest.Pusher.
func (s *deltaStore) Push(_ context.Context, _ tenant.ID, req *remotewrite.Request) (w remotewrite.Written, err error) {
	var body writev2.Request
	if err := body.Unmarshal(req.Body); err != nil {
		return w, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ts := range body.Timeseries {
		name := ""
		for _, ref := range ts.LabelsRefs {
			name += body.Symbols[ref] + " "
		}
		have := s.series[name]
		if have == nil {
			have = map[int64]float64{}
			s.series[name] = have
		}
		for _, p := range ts.Samples {
			if old, twice := have[p.Timestamp]; twice && old != p.Value {
				err = errs.New(errs.Invalid, "another sample at %d", p.Timestamp)
				continue
			}
			if newest := slices.Max(append(slices.Collect(maps.Keys(have)), 0)); p.StartTimestamp > newest && p.StartTimestamp < p.Timestamp {
				have[p.StartTimestamp] = 0
			}
			have[p.Timestamp] = p.Value
			w.Samples++
		}
	}
	return w, err
}

// increases are what queries see of each series.
func (s *deltaStore) increases() map[string]float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]float64{}
	for name, have := range s.series {
		last := 0.0
		for _, at := range slices.Sorted(maps.Keys(have)) {
			if v := have[at]; v >= last {
				out[name] += v - last
			} else {
				out[name] += v
			}
			last = have[at]
		}
	}
	return out
}

// deltaSite are distributors whose views of each other lag behind.
type deltaSite struct {
	t     *testing.T
	r     *rand.Rand // used under mu
	store *deltaStore

	mu    sync.Mutex // guards all below, and what processes are
	procs map[string]*deltaProc
	begun int
}

// after does something later.
func (s *deltaSite) after(d time.Duration, do func()) {
	time.AfterFunc(d, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		do()
	})
}

// any is one of the processes. It needs mu.
func (s *deltaSite) any() *deltaProc {
	return s.procs[slices.Sorted(maps.Keys(s.procs))[s.r.IntN(len(s.procs))]]
}

// open is the API of a process that answers; nil: it does not.
func (s *deltaSite) open(p *deltaProc) *ingest.API {
	if p == nil || !p.answers {
		return nil
	}
	return p.api
}

// deltaProc is a distributor.
type deltaProc struct {
	id      string
	api     *ingest.API
	owners  *members.Owners
	view    map[string]string
	answers bool // or is frozen, or dead
}

// start starts a distributor. It needs mu.
func (s *deltaSite) start() *deltaProc {
	s.begun++
	p := &deltaProc{id: fmt.Sprint("d", s.begun), answers: true, view: map[string]string{}}
	p.owners = members.NewOwners(p.id, time.Minute)
	view := limits.OTelDeltaToCumulative.With(limits.OTelCreatedTimestampZeroIngestion.With(limits.View{}, true), true)
	p.api = ingest.New(ingest.Config{MaxRecvBytes: 1 << 20, ReadTimeout: time.Minute, InflightBytes: 16 << 20}, ingest.Deps{
		Pusher: s.store, Limits: func(tenant.ID) limits.View { return view }, Random: func() float64 { return 0.5 },
		Peers: &deltaPeers{p.owners, func(addr string) (deltapb.DeltasClient, error) { return deltaCaller{s, addr}, nil }, time.Second},
	})
	s.procs[p.id] = p
	s.tell(func(q *deltaProc) {
		q.view[p.id] = p.id
		p.view[q.id] = q.id
		p.look()
	})
	return p
}

// tell changes what each process sees, one after another within a second. It needs mu.
func (s *deltaSite) tell(change func(*deltaProc)) {
	for _, id := range slices.Sorted(maps.Keys(s.procs)) {
		p := s.procs[id]
		s.after(time.Duration(s.r.Int64N(int64(time.Second))), func() {
			change(p)
			p.look()
		})
	}
}

func (p *deltaProc) look() {
	if p.answers {
		p.owners.Look(p.view, time.Now())
	}
}

// deltaCaller calls a distributor of the site.
type deltaCaller struct {
	s    *deltaSite
	addr string
}

// Add implements deltapb.DeltasClient.
func (c deltaCaller) Add(ctx context.Context, req *deltapb.AddRequest, _ ...grpc.CallOption) (*deltapb.AddResponse, error) {
	c.s.mu.Lock()
	api := c.s.open(c.s.procs[c.addr])
	c.s.mu.Unlock()
	if api == nil {
		return nil, errs.New(errs.Unavailable, "%s does not answer", c.addr)
	}
	return api.Deltas().Add(ctx, req)
}

// send sends body to one distributor after another until one has stored it.
func (s *deltaSite) send(body []byte) {
	for range 600 {
		s.mu.Lock()
		api := s.open(s.any())
		s.mu.Unlock()
		if api != nil {
			r := httptest.NewRequest("POST", "/otlp/v1/metrics", bytes.NewReader(body))
			r.Header.Set("Content-Type", "application/x-protobuf")
			r = r.WithContext(tenant.Inject(s.t.Context(), "t1"))
			w := httptest.NewRecorder()
			err := api.OTLP(w, r)
			if err == nil {
				return
			}
			if errs.KindOf(err) == errs.Invalid { // all was stored by those before
				return
			}
			if errs.KindOf(err) != errs.Unavailable {
				s.t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
	}
	s.t.Fatal("nobody takes a request for ten minutes")
}

// accident has, now and then, a distributor come, leave, die or freeze.
func (s *deltaSite) accident() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.r.IntN(8) > 0 {
		return
	}
	p := s.any()
	gone := func() {
		s.tell(func(q *deltaProc) { delete(q.view, p.id) })
	}
	switch what := s.r.IntN(4); {
	case what == 0 || len(s.procs) < 3:
		if len(s.procs) < 6 {
			s.start()
		}
	case !p.answers:
	case what == 1: // it says so, and answers a while
		gone()
		s.after(2*time.Second, func() { p.answers = false })
		s.after(3*time.Second, func() { delete(s.procs, p.id) })
	case what == 2: // the others notice by its silence
		p.answers = false
		s.after(time.Minute, gone)
		s.after(62*time.Second, func() { delete(s.procs, p.id) })
	default: // it comes back with all it remembers
		p.answers = false
		s.after(time.Minute, func() {
			s.tell(func(q *deltaProc) {
				if q != p {
					delete(q.view, p.id)
				}
			})
		})
		s.after(2*time.Minute, func() {
			p.answers = true
			s.tell(func(q *deltaProc) { q.view[p.id] = p.id })
		})
	}
}

// TestAtAnyScheduleDeltasCountOnce whoever of the distributors comes, goes or freezes, and whichever of them is
// sent to.
func TestAtAnyScheduleDeltasCountOnce(t *testing.T) {
	seeds.Run(t, 6, func(t *testing.T, rnd *rand.Rand) {
		synctest.Test(t, func(t *testing.T) {
			s := &deltaSite{t: t, r: rnd, store: &deltaStore{t: t, series: map[string]map[int64]float64{}}, procs: map[string]*deltaProc{}}
			s.mu.Lock()
			for range 3 {
				s.start()
			}
			s.mu.Unlock()
			beats, stop := context.WithCancel(t.Context())
			go func() {
				for beats.Err() == nil {
					s.mu.Lock()
					for _, p := range s.procs {
						p.look()
					}
					s.mu.Unlock()
					time.Sleep(10 * time.Second)
				}
			}()
			time.Sleep(10 * time.Second)
			const series, rounds = 40, 150
			sent := map[string]float64{}
			for range rounds {
				s.accident()
				from := time.Now()
				time.Sleep(10 * time.Second)
				s.send(s.changes(from, series, sent))
			}
			stop()
			time.Sleep(3 * time.Minute) // all accidents are over
			got := s.store.increases()
			for name, want := range sent {
				if got[name] != want {
					t.Errorf("%s increased by %g, want %g", name, got[name], want)
				}
			}
		})
	})
}

// changes makes a request that tells how much n counters rose since from.
func (s *deltaSite) changes(from time.Time, n int, sent map[string]float64) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	md := pmetric.NewMetrics()
	m := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName("requests")
	sum := m.SetEmptySum()
	sum.SetIsMonotonic(true)
	sum.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	for i := range n {
		p := sum.DataPoints().AppendEmpty()
		p.Attributes().PutStr("i", fmt.Sprint(i))
		p.SetStartTimestamp(pcommon.NewTimestampFromTime(from))
		p.SetTimestamp(pcommon.NewTimestampFromTime(time.Now()))
		rise := s.r.Int64N(100)
		p.SetIntValue(rise)
		sent[fmt.Sprintf("__name__ requests i %d ", i)] += float64(rise)
	}
	body, err := pmetricotlp.NewExportRequestFromMetrics(md).MarshalProto()
	if err != nil {
		s.t.Fatal(err)
	}
	return body
}
