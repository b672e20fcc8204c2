package alertmanager

import (
	"context"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/grafana/dskit/services"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/seeds"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// TestAtAnyScheduleReceiversAreToldWhatIsSo: alerts fire and end, silences and other alerts hold them back,
// replicas die and return, are parted and are slow, and receivers fail. In simulated time; a seed repeats
// what happens, though not who of two goes first that do something in the same instant.
func TestAtAnyScheduleReceiversAreToldWhatIsSo(t *testing.T) {
	var all tally
	seeds.Run(t, 8, func(t *testing.T, rnd *rand.Rand) {
		synctest.Test(t, func(t *testing.T) { all.add(runSchedule(t, rnd)) })
	})
	t.Logf("%+v", all)
	// One seed, or few seeds of chance on a busy machine, need not see everything.
	if fixed := os.Getenv("AMPHORA_TEST_SEED") == "" && os.Getenv("AMPHORA_TEST_SIMULATE") == ""; fixed && !t.Failed() && (all.Notifications == 0 || all.Told == 0 || all.Ended == 0 || all.Silenced == 0 || all.Inhibited == 0 || all.Repeated == 0) {
		t.Error("something was never looked at")
	}
}

// journals is a directory for journals, in memory where there is one: they are synced all the time.
func journals(t *testing.T) string {
	t.Helper()
	const inMemory = "/dev/shm"
	dir, err := os.MkdirTemp(inMemory, "alertmanager")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// runSchedule lets an hour and a half of accidents happen, and has the model judge what was heard.
func runSchedule(t *testing.T, rnd *rand.Rand) tally {
	s := &schedule{t: t, rnd: rnd, docs: &fleet{docs: map[tenant.ID][]byte{}}, bucket: objstore.NewInMemBucket(), root: journals(t), doors: make(chan net.Conn),
		wake: make(chan struct{}, 1), open: map[string]time.Time{}, faults: rnd.IntN(4), interval: time.Duration(10+rnd.IntN(20)) * time.Second,
		repeat: []time.Duration{10 * time.Minute, time.Hour}[rnd.IntN(2)], peer: time.Duration(3+rnd.IntN(5)) * time.Second, takes: 10 * time.Millisecond, slow: 5 * time.Millisecond}
	s.docs.docs["t"] = s.definition()
	for _, cluster := range []string{"c0", "c1"} {
		for i, severity := range []string{"critical", "warning", "warning", "info"} {
			s.alerts = append(s.alerts, &known{name: fmt.Sprintf("%s%d", severity, i), cluster: cluster, severity: severity, team: string("ab"[i%2])})
		}
	}
	server := &http.Server{Handler: http.HandlerFunc(s.receive), ErrorLog: log.New(io.Discard, "", 0), ConnContext: func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, http.ServerContextKey, c.(from).n) //nolint:forcetypeassert // Accept gives no others.
	}}
	s.running.Go(func() { _ = server.Serve(s) })
	for i := range replicasOfSchedule {
		s.start(i, filepath.Join(s.root, name(i)))
	}
	stop := make(chan struct{})
	s.running.Go(func() { s.send(stop) })
	s.note("accidents of kind %d, interval %s, repeated after %s, replicas wait %s", s.faults, s.interval, s.repeat, s.peer)
	for end := time.Now().Add(90 * time.Minute); time.Now().Before(end); {
		s.step()
		wait := s.between(time.Second, time.Minute)
		if s.rnd.IntN(12) == 0 { // until everything is said
			wait = s.between(6*time.Minute, 15*time.Minute)
		}
		s.pass(wait)
	}
	s.pass(10 * time.Minute)
	close(stop)
	for _, n := range s.alive() {
		if err := services.StopAndAwaitTerminated(context.Background(), n.m); err != nil {
			t.Error(err)
		}
	}
	close(s.doors)
	_ = server.Close()
	s.running.Wait()
	return s.judge()
}

// definition is what the tenant has put.
func (s *schedule) definition() []byte {
	return defined(s.t, nil, "route:", "  receiver: main", "  group_by: [cluster]", "  group_wait: 5s", "  group_interval: "+s.interval.String(),
		"  repeat_interval: "+s.repeat.String(), "  routes:", "  - receiver: b", "    matchers: ['team=\"b\"']", "    group_by: [cluster, alertname]", "    continue: true",
		"  - receiver: main", "inhibit_rules:", "- source_matchers: ['severity=\"critical\"']", "  target_matchers: ['severity=\"warning\"']", "  equal: [cluster]",
		"receivers:", "- name: main", "  webhook_configs:", "  - url: http://receiver/main", "- name: b", "  webhook_configs:", "  - url: http://receiver/b")
}

// step lets one thing happen.
func (s *schedule) step() {
	switch k := s.rnd.IntN(20); {
	case k < 12:
		a := s.alerts[s.rnd.IntN(len(s.alerts))]
		s.flip(a)
	case k < 15:
		a := s.alerts[s.rnd.IntN(len(s.alerts))]
		q := &quiet{label: "alertname", value: a.name}
		if s.rnd.IntN(3) == 0 {
			q = &quiet{label: "cluster", value: a.cluster}
		}
		until, back := s.between(time.Minute, 20*time.Minute), s.rnd.IntN(3) == 0
		s.running.Go(func() { s.silence(q, until, back) })
	case s.faults == 0:
	case k < 17:
		s.accidentOfReplicas()
	case s.faults > 1 && k < 19:
		s.accidentOfNetwork()
	case s.faults > 2:
		s.accidentOfReceivers()
	}
}

func (s *schedule) flip(a *known) {
	s.mu.Lock()
	n := len(a.fires)
	now := time.Now()
	if n == 0 || !a.fires[n-1].to.IsZero() {
		a.fires = append(a.fires, span{from: now})
	} else {
		a.fires[n-1].to = now
	}
	fires := a.fires[len(a.fires)-1].to.IsZero()
	s.mu.Unlock()
	s.note("%s fires: %v", a.id(), fires)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// accidentOfReplicas kills one, restarts one, or, if it may be, kills two or three.
func (s *schedule) accidentOfReplicas() {
	alive := s.alive()
	if len(alive) < replicasOfSchedule {
		return // one after the other
	}
	victims := 1
	if s.faults > 2 {
		victims = max(1, s.rnd.IntN(6)-2)
	}
	s.rnd.Shuffle(len(alive), func(i, j int) { alive[i], alive[j] = alive[j], alive[i] })
	if victims == 1 && s.rnd.IntN(3) == 0 {
		s.leave(alive[0])
		return
	}
	for _, n := range alive[:victims] {
		dir := s.kill(n)
		s.in(s.between(3*time.Second, 5*time.Minute), func() { s.start(n.i, dir) })
	}
}

// accidentOfNetwork parts one replica from the others or from one of them, or makes all calls slow.
func (s *schedule) accidentOfNetwork() {
	a := s.rnd.IntN(replicasOfSchedule)
	alone, slow, hangs := s.rnd.IntN(2) == 0, s.rnd.IntN(3) == 0, s.rnd.IntN(2) == 0
	delay := s.between(50*time.Millisecond, 3*time.Second)
	if _, busy := s.open["network"]; busy {
		return
	}
	s.trouble("network", true)
	s.mu.Lock()
	s.hangs = hangs
	switch {
	case slow:
		s.slow = delay
	default:
		for d := 1; d < replicasOfSchedule; d++ {
			b := (a + d) % replicasOfSchedule
			s.broken[a][b], s.broken[b][a] = true, true
			if !alone {
				break
			}
		}
	}
	s.mu.Unlock()
	s.note("network of %s: slow %v, alone %v, hangs %v", name(a), slow, alone, hangs)
	s.look(time.Minute)
	s.in(s.between(5*time.Second, 5*time.Minute), func() {
		s.mu.Lock()
		s.slow = 5 * time.Millisecond
		s.broken = [replicasOfSchedule][replicasOfSchedule]bool{}
		s.mu.Unlock()
		s.note("network is well")
		s.trouble("network", false)
		s.look(5 * time.Second)
	})
}

// accidentOfReceivers makes receivers refuse, break off or be slow.
func (s *schedule) accidentOfReceivers() {
	kind, takes := s.rnd.IntN(3), s.between(100*time.Millisecond, 8*time.Second)
	s.trouble("receivers", true)
	s.mu.Lock()
	s.refuses, s.drops, s.takes = kind == 0, kind == 1, takes
	s.mu.Unlock()
	s.note("receivers refuse: %v, break off: %v, take %s", kind == 0, kind == 1, takes)
	s.in(s.between(5*time.Second, 2*time.Minute), func() {
		s.mu.Lock()
		s.refuses, s.drops, s.takes = false, false, 10*time.Millisecond
		s.mu.Unlock()
		s.note("receivers are well")
		s.trouble("receivers", false)
	})
}
