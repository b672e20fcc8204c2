package ruler

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/notifier"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/prometheus/prometheus/util/teststorage"
	"google.golang.org/grpc"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/engine"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/rulerpb"
)

// shelf is documents in memory.
type shelf struct {
	mu   sync.Mutex // guards what follows
	docs map[string]docstore.Doc
	last int
}

func newShelf() *shelf { return &shelf{docs: map[string]docstore.Doc{}} }

func (s *shelf) Get(_ context.Context, key string) (docstore.Doc, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.docs[key]
	if !ok {
		return d, errs.New(errs.NotFound, "document %s does not exist", key)
	}
	return d, nil
}

func (s *shelf) Put(_ context.Context, key string, data []byte, expect docstore.Version) (docstore.Version, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.docs[key].Version != expect {
		return "", errs.New(errs.Conflict, "document %s was changed", key)
	}
	s.last++
	v := docstore.Version(strconv.Itoa(s.last))
	s.docs[key] = docstore.Doc{Key: key, Data: slices.Clone(data), Version: v}
	return v, nil
}

func (s *shelf) Delete(_ context.Context, key string, expect docstore.Version) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.docs[key].Version != expect {
		return errs.New(errs.Conflict, "document %s was changed", key)
	}
	delete(s.docs, key)
	return nil
}

func (s *shelf) List(_ context.Context, prefix string) ([]docstore.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []docstore.Entry
	for _, key := range slices.Sorted(maps.Keys(s.docs)) {
		if strings.HasPrefix(key, prefix) {
			out = append(out, docstore.Entry{Key: key, Version: s.docs[key].Version})
		}
	}
	return out, nil
}

// store is a Prometheus that rulers read and write.
type store struct {
	*teststorage.TestStorage
	mu     sync.Mutex // guards what follows
	writes map[string]int
	down   bool  // nothing is taken
	refuse error // of what is pushed; nil: it is taken
	slow   time.Duration
}

// setDown makes the store refuse what is pushed, or take it again.
func (s *store) setDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// push stores what a rule recorded, and counts how often each sample was written.
func (s *store) push(ctx context.Context, _ tenant.ID, req *remotewrite.Request) error {
	s.mu.Lock()
	down, slow, refuse := s.down, s.slow, s.refuse
	s.mu.Unlock()
	if refuse != nil {
		return refuse
	}
	if slow > 0 {
		<-time.After(slow)
	}
	if down {
		return errs.New(errs.Unavailable, "ingesters are not there")
	}
	var body writev2.Request
	if err := body.Unmarshal(req.Body); err != nil {
		return err
	}
	app := s.Appender(ctx)
	b := labels.NewScratchBuilder(0)
	for _, ts := range body.Timeseries {
		ls, err := ts.ToLabels(&b, body.Symbols)
		if err != nil {
			return err
		}
		for _, x := range ts.Samples {
			s.mu.Lock()
			s.writes[ls.String()+"@"+strconv.FormatInt(x.Timestamp, 10)]++
			s.mu.Unlock()
			if _, err := app.Append(0, ls, x.Timestamp, x.Value); err != nil {
				return errs.Wrap(errs.Invalid, err)
			}
		}
	}
	return app.Commit()
}

// times returns the milliseconds of the samples of the only series of name.
func (s *store) times(t *testing.T, name string) []int64 {
	t.Helper()
	q, err := s.Querier(0, 1<<60)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = q.Close() }()
	var out []int64
	set := q.Select(t.Context(), true, nil, labels.MustNewMatcher(labels.MatchEqual, model.MetricNameLabel, name))
	for set.Next() {
		it := set.At().Iterator(nil)
		for it.Next() != 0 {
			out = append(out, it.AtT())
		}
	}
	if set.Err() != nil {
		t.Fatal(set.Err())
	}
	return out
}

// add stores a sample of now.
func (s *store) add(t *testing.T, name string, v float64) {
	t.Helper()
	app := s.Appender(context.Background())
	if _, err := app.Append(0, labels.FromStrings(model.MetricNameLabel, name), time.Now().UnixMilli(), v); err != nil {
		t.Error(err)
	}
	if err := app.Commit(); err != nil {
		t.Error(err)
	}
}

// seriesOf counts the series of name.
func (s *store) seriesOf(t *testing.T, name string) int {
	t.Helper()
	q, err := s.Querier(0, 1<<60)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = q.Close() }()
	n := 0
	for set := q.Select(t.Context(), true, nil, labels.MustNewMatcher(labels.MatchEqual, model.MetricNameLabel, name)); set.Next(); {
		n++
	}
	return n
}

// off switches recording rules off.
func off(v limits.View) limits.View {
	return limits.RulerRecordingRulesEvaluationEnabled.With(v, false)
}

// inbox takes alerts.
type inbox struct {
	mu  sync.Mutex // guards got
	got []received
}

type received struct {
	at     time.Time
	tenant tenant.ID
	notifier.Alert
}

func (i *inbox) notify(_ context.Context, id tenant.ID, alerts ...*notifier.Alert) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, a := range alerts {
		i.got = append(i.got, received{time.Now(), id, *a})
	}
	return nil
}

func (i *inbox) all() []received {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.got)
}

// world is what rulers of a test share.
type world struct {
	docs   *shelf
	store  *store
	inbox  *inbox
	engine *engine.Engine
	limits limits.View

	mu     sync.Mutex // guards what follows
	alive  []Member
	rulers map[string]*Ruler // by address
}

// peer is a ruler as others call it. A stopped one does not answer.
type peer struct{ r *Ruler }

func (p peer) Groups(ctx context.Context, in *rulerpb.GroupsRequest, _ ...grpc.CallOption) (*rulerpb.GroupsResponse, error) {
	if p.r.State() != services.Running {
		return nil, errs.New(errs.Unavailable, "connection refused")
	}
	return p.r.Groups(ctx, in)
}

func (p peer) Changed(ctx context.Context, in *rulerpb.ChangedRequest, _ ...grpc.CallOption) (*rulerpb.ChangedResponse, error) {
	if p.r.State() != services.Running {
		return nil, errs.New(errs.Unavailable, "connection refused")
	}
	return p.r.Changed(ctx, in)
}

func newWorld(t *testing.T) *world {
	t.Helper()
	e, err := engine.New(engine.Config{Timeout: time.Minute, MaxSamples: 1e6, LookbackDelta: 5 * time.Minute, MaxConcurrent: 8}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	ts := teststorage.New(t)
	return &world{docs: newShelf(), store: &store{TestStorage: ts, writes: map[string]int{}}, inbox: &inbox{}, engine: e, rulers: map[string]*Ruler{}, alive: []Member{{"a", "a"}}}
}

func (w *world) setAlive(ids ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.alive = nil
	for _, id := range ids {
		w.alive = append(w.alive, Member{id, id})
	}
}

// settings are the defaults, with what a test changes.
func settings(change func(*Config)) Config {
	var c Config
	s := config.NewSet()
	s.Mount("ruler", &c)
	if change != nil {
		change(&c)
	}
	return c
}

// ruler makes one that is not started.
func (w *world) ruler(t *testing.T, id string, change func(*Config)) *Ruler {
	t.Helper()
	r, err := New(settings(change), Deps{
		Logger: slog.New(slog.DiscardHandler), Reg: prometheus.NewRegistry(), Limits: func(tenant.ID) limits.View { return w.limits },
		Documents: w.docs, Engine: w.engine, Storage: w.store, Push: w.store.push, Alertmanager: w.inbox.notify,
		Cluster: Cluster{Self: id, Alive: func() ([]Member, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return slices.Clone(w.alive), nil
		}, Client: func(addr string) (rulerpb.RulerClient, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return peer{w.rulers[addr]}, nil
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rulers[id] = r
	return r
}

// start runs a ruler; the function returned stops it.
func start(t *testing.T, r *Ruler) (stop func()) {
	t.Helper()
	if err := r.StartAsync(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := r.AwaitRunning(t.Context()); err != nil {
		t.Fatal(err)
	}
	return func() {
		r.StopAsync()
		if err := r.AwaitTerminated(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

// put sets a group of tenant t in namespace ns.
func put(t *testing.T, r *Ruler, text string) {
	t.Helper()
	if err := r.SetGroup(t.Context(), "t", "ns", []byte(text)); err != nil {
		t.Fatal(err)
	}
}
