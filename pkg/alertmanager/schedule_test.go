package alertmanager

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grafana/dskit/services"
	"github.com/prometheus/alertmanager/notify/webhook"
	"github.com/prometheus/alertmanager/template"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"
	"google.golang.org/grpc"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	pb "github.com/amphora-metrics/amphora/pkg/wire/alertmanagerpb"
)

// replicasOfSchedule is how many replicas there are; two are a quorum.
const replicasOfSchedule = 3

// schedule is a tenant's replicas, its sender of alerts and its receivers, what happens to them, and what
// they said, for a model to judge.
type schedule struct {
	t        *testing.T
	rnd      *rand.Rand
	faults   int // 0: none, 1: replicas go and come, 2: also partitions, 3: also receivers and all replicas at once
	docs     *fleet
	bucket   *objstore.InMemBucket
	root     string // of journals
	interval time.Duration
	repeat   time.Duration
	peer     time.Duration
	doors    chan net.Conn // of the receivers
	wake     chan struct{} // has one item when the sender shall send
	running  sync.WaitGroup
	later    []event // what is to come, in order
	lives    int     // of replicas, so far
	turns    int     // who is asked first by a client

	mu       sync.Mutex // guards what follows
	nodes    [replicasOfSchedule]*life
	broken   [replicasOfSchedule][replicasOfSchedule]bool
	hangs    bool // what is broken hangs
	slow     time.Duration
	sees     [replicasOfSchedule][replicasOfSchedule]bool
	refuses  bool // receivers answer 500
	drops    bool // receivers break off instead of answering
	takes    time.Duration
	alerts   []*known
	silences []*quiet
	heard    []*heard
	open     map[string]time.Time
	troubles []trouble
	steps    []string
}

// event is what happens at a time.
type event struct {
	at time.Time
	do func()
}

// life is one life of a replica.
type life struct {
	s     *schedule
	i     int
	m     *Alertmanager
	dir   string
	died  chan struct{}
	death time.Time // guarded by s.mu, as conns
	conns []net.Conn
}

func name(i int) string { return fmt.Sprintf("am-%d", i) }

func (n *life) dead() bool {
	select {
	case <-n.died:
		return true
	default:
		return false
	}
}

func (s *schedule) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.steps = append(s.steps, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

// in lets something happen after d.
func (s *schedule) in(d time.Duration, do func()) {
	e := event{time.Now().Add(d), do}
	i, _ := slices.BinarySearchFunc(s.later, e, func(a, b event) int { return a.at.Compare(b.at) })
	s.later = slices.Insert(s.later, i, e)
}

// pass lets time pass, and what is to happen meanwhile happen.
func (s *schedule) pass(d time.Duration) {
	end := time.Now().Add(d)
	for len(s.later) > 0 && s.later[0].at.Before(end) {
		e := s.later[0]
		s.later = s.later[1:]
		<-time.After(time.Until(e.at))
		e.do()
	}
	<-time.After(time.Until(end))
}

// between is a random length of time.
func (s *schedule) between(a, b time.Duration) time.Duration {
	return a + time.Duration(s.rnd.Int64N(int64(b-a)))
}

// look makes each replica see whom it reaches, some time from now.
func (s *schedule) look(most time.Duration) {
	for i := range replicasOfSchedule {
		s.in(s.between(0, most), func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			for j := range replicasOfSchedule {
				s.sees[i][j] = s.nodes[j] != nil && !s.broken[i][j]
			}
		})
	}
}

// weak marks the time in which not enough replicas are alive to do anything.
func (s *schedule) weak() {
	s.lives++
	alive := len(s.alive())
	if alive < 2 {
		s.trouble("weak", true)
		return
	}
	now := s.lives
	s.in(40*time.Second, func() {
		if s.lives == now {
			s.trouble("weak", false)
		}
	})
}

func (s *schedule) alive() []*life {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.nodes[:]), func(n *life) bool { return n == nil })
}

// start begins a life of a replica, with the journal in dir.
func (s *schedule) start(i int, dir string) {
	n := &life{s: s, i: i, dir: dir, died: make(chan struct{})}
	var cfg Config
	set := config.NewSet()
	set.Mount("alertmanager", &cfg)
	cfg.PeerTimeout, cfg.DataDir = s.peer, dir
	var err error
	n.m, err = New(cfg, Deps{Logger: slog.New(slog.DiscardHandler), Reg: prometheus.NewRegistry(), Limits: func(tenant.ID) limits.View { return limits.View{} },
		Definitions: s.docs, Bucket: mortal{s.bucket, n}, Self: name(i), Replicas: n.replicas, Client: n.client, Dial: n.dial})
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	s.nodes[i] = n
	for j := range replicasOfSchedule {
		s.sees[i][j] = s.nodes[j] != nil && !s.broken[i][j]
	}
	s.mu.Unlock()
	s.note("%s starts", name(i))
	if err := services.StartAndAwaitRunning(s.t.Context(), n.m); err != nil {
		s.t.Fatal(err)
	}
	s.look(5 * time.Second)
	s.weak()
}

// kill ends a life at once. It returns the journal that is left.
func (s *schedule) kill(n *life) (dir string) {
	s.note("%s dies", name(n.i))
	s.mu.Lock()
	s.nodes[n.i] = nil
	n.death = time.Now()
	close(n.died)
	conns := n.conns
	s.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
	dir = filepath.Join(s.root, fmt.Sprint(name(n.i), "-", s.lives))
	if err := os.CopyFS(dir, os.DirFS(n.dir)); err != nil {
		s.t.Fatal(err)
	}
	s.running.Go(func() { _ = services.StopAndAwaitTerminated(context.Background(), n.m) })
	s.look(time.Minute)
	s.weak()
	return dir
}

// leave ends a life in order, and begins another one.
func (s *schedule) leave(n *life) {
	s.note("%s is restarted", name(n.i))
	if err := services.StopAndAwaitTerminated(s.t.Context(), n.m); err != nil {
		s.t.Error(err)
	}
	s.mu.Lock()
	s.nodes[n.i] = nil
	close(n.died)
	s.mu.Unlock()
	s.look(time.Second)
	s.weak()
	s.in(s.between(time.Second, 30*time.Second), func() { s.start(n.i, n.dir) })
}

func (n *life) replicas(tenant.ID) (Replicas, error) {
	n.s.mu.Lock()
	defer n.s.mu.Unlock()
	r := Replicas{Quorum: replicasOfSchedule/2 + 1}
	for j := range replicasOfSchedule {
		if j == n.i || n.s.sees[n.i][j] {
			r.Addrs = append(r.Addrs, name(j))
		}
	}
	return r, nil
}

func (n *life) client(addr string) (pb.AlertmanagerClient, error) {
	for j := range replicasOfSchedule {
		if name(j) == addr {
			return line{n, j}, nil
		}
	}
	return nil, errs.New(errs.Unavailable, "there is no %s", addr)
}

// dial connects to a receiver.
func (n *life) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	n.s.mu.Lock()
	n.conns = append(n.conns, here)
	n.s.mu.Unlock()
	select {
	case n.s.doors <- from{there, n}:
		return here, nil
	case <-n.died:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// from is a connection of which the receiver knows whose it is.
type from struct {
	net.Conn
	n *life
}

// mortal is the bucket as a replica sees it that may die.
type mortal struct {
	objstore.Bucket
	n *life
}

// Upload implements objstore.Bucket.
func (b mortal) Upload(ctx context.Context, object string, r io.Reader, opts ...objstore.ObjectUploadOption) error {
	if b.n.dead() {
		return errs.New(errs.Unavailable, "dead")
	}
	return b.Bucket.Upload(ctx, object, r, opts...)
}

// Delete implements objstore.Bucket.
func (b mortal) Delete(ctx context.Context, object string) error {
	if b.n.dead() {
		return errs.New(errs.Unavailable, "dead")
	}
	return b.Bucket.Delete(ctx, object)
}

// line is how a replica calls one, which may be itself.
type line struct {
	from *life
	to   int
}

func call[T any](ctx context.Context, l line, do func(*Alertmanager) (*T, error)) (*T, error) {
	s := l.from.s
	state := func() (to *life, ok, hangs bool, slow time.Duration) {
		s.mu.Lock()
		defer s.mu.Unlock()
		to = s.nodes[l.to]
		return to, to != nil && !l.from.dead() && !s.broken[l.from.i][l.to], s.hangs, s.slow
	}
	to, ok, hangs, slow := state()
	if ok && to == l.from {
		return do(to.m)
	}
	if !ok && hangs {
		<-ctx.Done()
	}
	if !ok {
		return nil, errs.New(errs.Unavailable, "%s is not reached", name(l.to))
	}
	if err := pause(ctx, slow); err != nil {
		return nil, err
	}
	out, err := do(to.m)
	if err := pause(ctx, slow); err != nil {
		return nil, err
	}
	if again, ok, _, _ := state(); !ok || again != to {
		return nil, errs.New(errs.Unavailable, "the answer of %s is lost", name(l.to))
	}
	return out, err
}

func (l line) HandleRequest(ctx context.Context, in *pb.Request, _ ...grpc.CallOption) (*pb.Response, error) {
	return call(ctx, l, func(m *Alertmanager) (*pb.Response, error) { return m.HandleRequest(ctx, in) })
}
func (l line) UpdateState(ctx context.Context, in *pb.State, _ ...grpc.CallOption) (*pb.UpdateStateResponse, error) {
	return call(ctx, l, func(m *Alertmanager) (*pb.UpdateStateResponse, error) { return m.UpdateState(ctx, in) })
}
func (l line) ReadState(ctx context.Context, in *pb.ReadStateRequest, _ ...grpc.CallOption) (*pb.State, error) {
	return call(ctx, l, func(m *Alertmanager) (*pb.State, error) { return m.ReadState(ctx, in) })
}
func (l line) Claim(ctx context.Context, in *pb.ClaimRequest, _ ...grpc.CallOption) (*pb.ClaimResponse, error) {
	return call(ctx, l, func(m *Alertmanager) (*pb.ClaimResponse, error) { return m.Claim(ctx, in) })
}
func (l line) Reload(ctx context.Context, in *pb.ReloadRequest, _ ...grpc.CallOption) (*pb.ReloadResponse, error) {
	return call(ctx, l, func(m *Alertmanager) (*pb.ReloadResponse, error) { return m.Reload(ctx, in) })
}

// Accept implements net.Listener.
func (s *schedule) Accept() (net.Conn, error) {
	c, ok := <-s.doors
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

// Close implements net.Listener.
func (s *schedule) Close() error { return nil }

// Addr implements net.Listener.
func (s *schedule) Addr() net.Addr { return &net.UnixAddr{Name: "receivers"} }

// receive is what the receivers do.
func (s *schedule) receive(w http.ResponseWriter, r *http.Request) {
	var m webhook.Message
	if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
		s.note("a notification breaks off: %v", err)
		return
	}
	s.mu.Lock()
	refuses, drops, takes := s.refuses, s.drops, s.takes
	s.mu.Unlock()
	if refuses {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	n := r.Context().Value(http.ServerContextKey).(*life) //nolint:forcetypeassert // serve put it there.
	x := &heard{at: time.Now(), by: n, group: groupOf(m.Receiver, m.GroupLabels), key: r.Header.Get(keyHeader)}
	names := func(all []template.Alert) (out []string) {
		for _, a := range all {
			out = append(out, a.Labels["alertname"]+"@"+a.Labels["cluster"])
		}
		slices.Sort(out)
		return out
	}
	x.firing, x.resolved = names(m.Alerts.Firing()), names(m.Alerts.Resolved())
	s.mu.Lock()
	s.heard = append(s.heard, x)
	s.mu.Unlock()
	s.note("%s hears of %s: %v fire, %v ended, as %.6s", x.group, name(n.i), x.firing, x.resolved, x.key)
	if drops {
		panic(http.ErrAbortHandler)
	}
	if pause(r.Context(), takes) == nil {
		s.mu.Lock()
		x.answered = time.Now()
		s.mu.Unlock()
	}
}

// ask sends a request to one replica after the other until one answers with a success, and counts those that
// failed: they may have done what was asked.
func (s *schedule) ask(method, path, body string) (answer string, failed int, ok bool) {
	s.mu.Lock()
	s.turns++
	first := s.turns
	s.mu.Unlock()
	for k := range replicasOfSchedule {
		s.mu.Lock()
		n := s.nodes[(first+k)%replicasOfSchedule]
		s.mu.Unlock()
		if n == nil {
			continue
		}
		r := httptest.NewRequestWithContext(tenant.Inject(context.Background(), "t"), method, "/x", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		if err := n.m.Serve(w, r, path); err == nil && w.Code == http.StatusOK && !n.dead() {
			return w.Body.String(), failed, true
		}
		failed++
		if w.Code >= 400 && w.Code < 500 && w.Code != http.StatusNotFound {
			s.t.Errorf("%s %s: %d %s", method, path, w.Code, w.Body)
		}
	}
	return "", failed, false
}

// send tells the replicas every minute, and when something changed, what fires and what ended lately.
func (s *schedule) send(stop <-chan struct{}) {
	again := time.NewTicker(time.Minute)
	defer again.Stop()
	for {
		select {
		case <-stop:
			return
		case <-again.C:
		case <-s.wake:
		}
		var out []map[string]any
		s.mu.Lock()
		for _, a := range s.alerts {
			if len(a.fires) == 0 {
				continue
			}
			last := a.fires[len(a.fires)-1]
			ends := time.Now().Add(4 * time.Minute)
			if !last.to.IsZero() {
				ends = last.to
			}
			if time.Since(ends) < 15*time.Minute {
				out = append(out, map[string]any{"labels": a.labels(), "startsAt": last.from, "endsAt": ends})
			}
		}
		s.mu.Unlock()
		body, err := json.Marshal(out)
		if err != nil {
			s.t.Error(err)
		}
		if len(out) == 0 {
			continue
		}
		if _, _, ok := s.ask(http.MethodPost, "/api/v2/alerts", string(body)); !ok {
			s.note("the alerts are not taken")
		}
	}
}

// silence makes a silence, and maybe takes it back.
func (s *schedule) silence(q *quiet, until time.Duration, back bool) {
	q.asked, q.ends = time.Now(), time.Now().Add(until)
	s.mu.Lock()
	s.silences = append(s.silences, q)
	s.mu.Unlock()
	s.note("silence %s=%s until %s", q.label, q.value, q.ends.Format("15:04:05"))
	body := fmt.Sprintf(`{"matchers":[{"name":%q,"value":%q,"isRegex":false}],"startsAt":%q,"endsAt":%q,"createdBy":"x","comment":"y"}`,
		q.label, q.value, q.asked.Format(time.RFC3339Nano), q.ends.Format(time.RFC3339Nano))
	answer, failed, ok := s.ask(http.MethodPost, "/api/v2/silences", body)
	if ok && failed > 0 { // there may be a second one, which nobody takes back
		s.mu.Lock()
		s.silences = append(s.silences, &quiet{label: q.label, value: q.value, asked: q.asked, ends: q.ends})
		s.mu.Unlock()
	}
	if !ok {
		s.note("it is not taken")
		return
	}
	var id struct{ SilenceID string }
	if err := json.Unmarshal([]byte(answer), &id); err != nil {
		s.t.Error(err)
	}
	s.mu.Lock()
	q.known = time.Now()
	s.mu.Unlock()
	if !back {
		return
	}
	<-time.After(until / 2)
	s.mu.Lock()
	q.removing = time.Now()
	s.mu.Unlock()
	if _, _, ok := s.ask(http.MethodDelete, "/api/v2/silence/"+id.SilenceID, ""); ok {
		s.mu.Lock()
		q.removed = time.Now()
		s.mu.Unlock()
		s.note("silence %s=%s is taken back", q.label, q.value)
	}
}
