package integration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// question is a read whose answer is known.
type question struct {
	path string
	form url.Values
	post bool
	want string // the body
}

// readers ask questions of gateways all the time, as clients behind a load balancer do, and compare the answers.
type readers struct {
	questions []question
	bases     func() []string
	stop      context.CancelFunc
	work      sync.WaitGroup

	mu      sync.Mutex // guards what follows
	good    int
	slowest time.Duration
	errors  []missed
	wrong   []string
}

// missed is a read without an answer.
type missed struct {
	at  time.Time
	why string
}

// ask asks one question. An error is a read that was not answered.
func (q *question) ask(ctx context.Context, base string) (string, error) {
	method, to, body := http.MethodGet, base+"/prometheus/api/v1/"+q.path+"?"+q.form.Encode(), ""
	if q.post {
		method, to, body = http.MethodPost, base+"/prometheus/api/v1/"+q.path, q.form.Encode()
	}
	r, err := try(ctx, method, to, []byte(body), "X-Scope-OrgID", wideTenant, "Content-Type", "application/x-www-form-urlencoded")
	if err == nil && r.status != http.StatusOK {
		err = errors.New(r.String())
	}
	return r.body, err
}

// start has n clients work.
func (r *readers) start(ctx context.Context, n int) {
	ctx, r.stop = context.WithCancel(ctx)
	for k := range n {
		r.work.Go(func() {
			for i := k; ctx.Err() == nil; i++ {
				q, from := &r.questions[i%len(r.questions)], r.bases()
				begin := time.Now()
				one, cancel := context.WithTimeout(ctx, time.Minute)
				got, err := q.ask(one, from[i%len(from)])
				for unheard(err) && one.Err() == nil { // it has ended since; a load balancer goes on to the next
					from = r.bases()
					got, err = q.ask(one, from[i%len(from)])
				}
				cancel()
				if ctx.Err() == nil {
					r.note(q, got, err, begin)
				}
			}
		})
	}
}

// unheard says whether nothing was sent because nobody listened.
func unheard(err error) bool {
	dial, ok := errors.AsType[*net.OpError](err)
	return ok && dial.Op == "dial"
}

func (r *readers) note(q *question, got string, err error, begin time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.slowest = max(r.slowest, time.Since(begin))
	switch {
	case err != nil:
		r.errors = append(r.errors, missed{time.Now(), fmt.Sprintf("%s %v: %v", q.path, q.form, err)})
	case got != q.want:
		r.wrong = append(r.wrong, fmt.Sprintf("%s %v answered %d bytes, want %d: %.300s", q.path, q.form, len(got), len(q.want), got))
	default:
		r.good++
	}
}

// since returns what came of all reads since it was last called.
func (r *readers) since() (good int, slowest time.Duration, errors []missed, wrong []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	good, slowest, errors, wrong = r.good, r.slowest, r.errors, r.wrong
	r.good, r.slowest, r.errors, r.wrong = 0, 0, nil, nil
	return good, slowest, errors, wrong
}

// more waits for n answers.
func (r *readers) more(ctx context.Context, t *testing.T, n int) {
	t.Helper()
	count := func() int { r.mu.Lock(); defer r.mu.Unlock(); return r.good }
	from := count()
	harness.Need(t, harness.Poll(ctx, func(context.Context) error {
		if got := count() - from; got < n {
			return fmt.Errorf("%d answers, want %d", got, n)
		}
		return nil
	}))
}

// knowsTheReadPath is nil when n sees two of each that it asks in its rings.
func knowsTheReadPath(ctx context.Context, t *testing.T, n *harness.Node) error {
	t.Helper()
	r, err := try(ctx, http.MethodGet, n.URL("/metrics"), nil)
	if err != nil {
		return err
	}
	rings := []string{"query-scheduler"}
	if n.Target == "querier" {
		rings = append(rings, "store-gateway")
	}
	for _, name := range rings {
		if got := metric(t, r.body, `amphora_ring_members\{name="`+name+`",state="ACTIVE"\}`); got != 2 {
			return fmt.Errorf("it knows %d of two of %s", got, name)
		}
	}
	return nil
}

// twoOfEach is a cluster of which there is nothing but once, and its gateways.
func twoOfEach(ctx context.Context, t *testing.T) (*harness.Cluster, *readers) {
	t.Helper()
	dir := t.TempDir()
	start := time.Now().Add(-72 * time.Hour).Truncate(2 * time.Hour)
	const blocks = 6
	smallBlocks(ctx, t, filepath.Join(dir, "blocks"), wideTenant, start, blocks)
	nodes := []harness.Spec{{Name: "distributor", Target: "distributor,compactor", Zone: "a"}}
	for _, zone := range []string{"a", "b", "c"} {
		nodes = append(nodes, harness.Spec{Name: "ingester-" + zone, Target: "ingester", Zone: zone})
	}
	for _, zone := range []string{"a", "b"} {
		for _, target := range []string{"store-gateway", "query-scheduler", "querier", "query-frontend"} {
			nodes = append(nodes, harness.Spec{Name: target + "-" + zone, Target: target, Zone: zone})
		}
	}
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Dir: dir, Files: true, Nodes: nodes, Flags: []string{
		"-ingester.ring.heartbeat-period=1s", "-distributor.ingestion-rate-limit=0", "-querier.timeout=50s", "-query-frontend.cache-results=false",
		"-query-scheduler.ring.heartbeat-period=1s", "-query-scheduler.ring.heartbeat-timeout=10s",
		"-store-gateway.sharding-ring.heartbeat-period=1s", "-store-gateway.sharding-ring.heartbeat-timeout=10s",
		"-compactor.first-level-compaction-wait-period=100000h", "-compactor.cleanup-interval=1s",
	}})
	up := []string{"distributor=" + c.Node("distributor").URL("")}
	for _, n := range c.Of("query-frontend") {
		up = append(up, "querier="+n.URL(""))
	}
	for _, zone := range []string{"a", "b"} {
		g, err := c.Add(harness.Spec{Name: "gateway-" + zone, Target: "gateway", Zone: zone, Flags: []string{"-shutdown-delay=2s", "-gateway.upstreams=" + strings.Join(up, ",")}})
		must(t, err)
		must(t, g.WaitReady(ctx))
	}
	settled(ctx, t, c.Nodes()[:4], "ingester-a", "ingester-b", "ingester-c")
	settled(ctx, t, c.Of("querier"), "ingester-a", "ingester-b", "ingester-c")
	for _, target := range []string{"querier", "query-frontend"} {
		for _, n := range c.Of(target) {
			eventually(ctx, t, n.Spec.Name+" to know whom it asks", func() error { return knowsTheReadPath(ctx, t, n) })
		}
	}

	const rooms, samples = 60, 300
	now := time.Now().Truncate(time.Second)
	var push []prompb.TimeSeries
	for room := range rooms {
		s := floats(now, 0, "__name__", "shelves", "room", fmt.Sprintf("room-%03d", room))
		s.Samples = nil
		for k := range int64(samples) {
			s.Samples = append(s.Samples, prompb.Sample{Timestamp: now.UnixMilli() - (samples-1-k)*1000, Value: float64(int64(room) + k)})
		}
		push = append(push, s)
	}
	stored(t, pushV1(ctx, t, c.Node("gateway-a").URL(""), wideTenant, push...))
	at, from := seconds(now.UnixMilli()), seconds(now.Add(-(samples-1)*time.Second).UnixMilli())
	old := url.Values{"query": {"sum by (i) (sum_over_time(small[2h]))"}, "start": {seconds(start.Add(2*time.Hour - time.Millisecond).UnixMilli())},
		"end": {seconds(start.Add(blocks * 2 * time.Hour).UnixMilli())}, "step": {"2h"}}
	r := &readers{bases: frontDoor(ctx, c, "gateway"), questions: []question{
		{path: "query", form: url.Values{"query": {"sum(shelves)"}, "time": {at}}},
		{path: "query_range", form: url.Values{"query": {"shelves"}, "start": {from}, "end": {at}, "step": {"1"}}, post: true},
		{path: "label/room/values", form: url.Values{"start": {from}, "end": {at}}},
		{path: "query_range", form: url.Values{"query": {"sum(rate(shelves[1m]))"}, "start": {from}, "end": {at}, "step": {"10"}}, post: true},
		{path: "series", form: url.Values{"match[]": {"shelves"}, "start": {from}, "end": {at}}, post: true},
		{path: "query_range", form: old, post: true},
		{path: "label/room/values", form: url.Values{"match[]": {`shelves{room=~"room-00."}`}, "start": {from}, "end": {at}}, post: true},
	}}
	for i, contains := range []struct {
		text  string
		times int
	}{{fmt.Sprintf("%q]", fmt.Sprint(rooms*(rooms-1)/2+rooms*(samples-1))), 1}, {`"metric"`, rooms}, {`"room-`, rooms}, {`"60"]`, 1}, {`"room"`, rooms}, {`"276"`, 3 * blocks}, {`"room-00`, 10}} {
		q := &r.questions[i]
		eventually(ctx, t, q.path+" to be answered", func() (err error) {
			if q.want, err = q.ask(ctx, r.bases()[0]); err == nil && strings.Count(q.want, contains.text) < contains.times {
				err = fmt.Errorf("%.500s has not %d times %s", q.want, contains.times, contains.text)
			}
			return err
		})
	}
	if n := strings.Count(r.questions[1].want, "[") - rooms - 1; n != rooms*samples {
		t.Fatalf("%d points of %d", n, rooms*samples)
	}
	return c, r
}

// TestReadsOutliveTheProcessesOfTheirPath restarts and kills one process of each kind after the other, and freezes a zone,
// while clients read what is known. An answer is never wrong. Who is told to stop costs none; who is killed costs
// no more than what it was just answering; those that hang cost time.
func TestReadsOutliveTheProcessesOfTheirPath(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 6*time.Minute)
	c, r := twoOfEach(ctx, t)
	const clients = 4
	r.start(ctx, clients)
	defer func() { r.stop(); r.work.Wait() }()
	r.more(ctx, t, 50)
	// report says what came of the reads, of which no more than so many may have failed.
	report := func(t *testing.T, what string, most int) {
		t.Helper()
		good, slowest, missing, wrong := r.since()
		t.Logf("%s: %d answers, the slowest after %s; %d reads failed", what, good, slowest.Round(time.Millisecond), len(missing))
		for _, text := range wrong {
			t.Errorf("%s: wrong answer: %s", what, text)
		}
		for _, e := range missing {
			t.Logf("%s: %s not answered: %s", what, e.at.Format("15:04:05.000"), e.why)
		}
		if len(missing) > most {
			t.Errorf("%s: %d reads failed, want at most %d", what, len(missing), most)
		}
	}
	report(t, "at rest", 0)
	back := func(t *testing.T, n *harness.Node) {
		t.Helper()
		must(t, n.WaitReady(ctx))
		if n.Target == "ingester" {
			settled(ctx, t, c.Of("querier"), "ingester-a", "ingester-b", "ingester-c")
		}
		r.more(ctx, t, 20)
	}
	read := slices.DeleteFunc(c.Nodes(), func(n *harness.Node) bool { return n.Spec.Name == "distributor" })

	t.Run("all restart", func(t *testing.T) {
		for _, n := range read {
			begin := time.Now()
			must(t, n.Restart())
			back(t, n)
			report(t, fmt.Sprintf("%s restarted in %s", n.Spec.Name, time.Since(begin).Round(time.Millisecond)), 0)
		}
	})
	t.Run("one of each is killed", func(t *testing.T) {
		for _, n := range inZone(c, "a") {
			most := clients // what each of them had just asked
			switch n.Target {
			case "distributor,compactor":
				continue
			case "ingester", "store-gateway": // others have the same samples
				most = 0
			}
			must(t, n.Kill())
			r.more(ctx, t, 50)
			must(t, n.Start())
			back(t, n)
			report(t, n.Spec.Name+" killed", most)
		}
	})
	t.Run("a zone hangs", func(t *testing.T) {
		hedged := func() (n float64) {
			for _, q := range c.Of("querier") {
				n += scrape(ctx, t, q.URL("/metrics"), "amphora_querier_ingester_reads_hedged_total")
			}
			return n
		}
		before := hedged()
		must(t, c.Node("ingester-a").Signal(syscall.SIGSTOP)) // alone, so that reads get as far as to it
		eventually(ctx, t, "a querier to ask more ingesters than the one that hangs", func() error {
			if got := hedged(); got == before {
				return fmt.Errorf("%g reads were hedged", got)
			}
			return nil
		})
		r.more(ctx, t, 50)
		zone := slices.DeleteFunc(inZone(c, "a"), func(n *harness.Node) bool {
			return n.Target == "gateway" || n.Target == "distributor,compactor" // for what a gateway has taken there is nobody else
		})
		all(t, zone, func(n *harness.Node) error { return n.Signal(syscall.SIGSTOP) })
		r.more(ctx, t, 50)
		pause(ctx, t, 20*time.Second)
		r.more(ctx, t, 50)
		all(t, zone, func(n *harness.Node) error { return n.Signal(syscall.SIGCONT) })
		r.more(ctx, t, 50)
		report(t, "a zone hung", clients) // whose answers had begun
	})
}
