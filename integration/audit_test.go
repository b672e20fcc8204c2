package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// auditWindow is how far back an audit reads: every sample is looked for many times while it is
// young, by both ways that a query may go through the cluster.
const auditWindow = 10 * time.Second

// lookAway is how long who is told to stop still serves, by busyFlags, so that others look away.
const lookAway = time.Second

// audit reads the newest journal samples all the time, and finds out whether every sample that was
// acknowledged before a read began is in it, once and with its value.
type audit struct {
	reads, failed  int
	missing, wrong int
	slowest        time.Duration
	first          string // what was wrong first
}

func (a *audit) blame(format string, args ...any) {
	if a.first == "" {
		a.first = time.Now().Format("15:04:05.000 ") + fmt.Sprintf(format, args...)
	}
}

// good fails t if anything was wrong.
func (a *audit) good(t *testing.T) {
	t.Helper()
	if a.failed+a.missing+a.wrong > 0 || a.reads == 0 {
		t.Errorf("of %d reads %d failed; %d samples were missing and %d wrong; first: %s", a.reads, a.failed, a.missing, a.wrong, a.first)
	}
	t.Logf("%d reads, the slowest took %s", a.reads, a.slowest.Round(time.Millisecond))
}

// audited reads in turns from urls until the returned function is called.
func (j *journal) audited(ctx context.Context, urls func() []string) func() *audit {
	ctx, cancel := context.WithCancel(ctx)
	out := &audit{}
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			asked := time.Now()
			all := urls()
			j.auditOnce(ctx, asked, all[n%len(all)], n, out)
			select {
			case <-ctx.Done():
			case <-time.After(j.rest):
			}
		}
	})
	return func() *audit { cancel(); wg.Wait(); return out }
}

// young returns the times of writer n acknowledged since from, and all others that may be there.
func (j *journal) young(n int, from int64) (id int, acked []int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.writers) == 0 {
		return 0, nil
	}
	w := j.writers[n%len(j.writers)]
	for k := len(w.acked) - 1; k >= 0 && w.acked[k] >= from; k-- {
		acked = append(acked, w.acked[k])
	}
	return w.id, acked
}

// auditOnce reads from base, which was ready after asked.
func (j *journal) auditOnce(ctx context.Context, asked time.Time, base string, n int, out *audit) {
	now := time.Now()
	from := now.Add(-auditWindow).UnixMilli()
	id, acked := j.young(n, from+1)
	got, err := raw(ctx, base, j.tenant, fmt.Sprintf(`journal{writer="%d"}`, id), from, now.UnixMilli())
	if ctx.Err() != nil || unheard(err) && time.Since(asked) > lookAway {
		return // if this process stood still for so long, who was ready may have ended since: it looks again
	}
	out.reads++
	out.slowest = max(out.slowest, time.Since(now))
	if err != nil {
		out.failed++
		out.blame("read from %s: %v", base, err)
		return
	}
	for i := range j.series {
		seen := map[int64]bool{}
		for _, s := range got[strconv.Itoa(i)] {
			if seen[s.t] || s.v != value(id, i, s.t) {
				out.wrong++
				out.blame("series %d of writer %d has %v at %d, seen before: %v", i, id, s.v, s.t, seen[s.t])
			}
			seen[s.t] = true
		}
		for _, at := range acked {
			if !seen[at] {
				out.missing++
				out.blame("series %d of writer %d has nothing at %s in an answer of %s", i, id, time.UnixMilli(at).Format("15:04:05.000"), base)
			}
		}
	}
}

// ringMember is what the ring page says of a member.
type ringMember struct {
	ID        string   `json:"id"`
	State     string   `json:"state"`
	Zone      string   `json:"zone"`
	ReadOnly  bool     `json:"read_only"`
	Address   string   `json:"address"`
	Tokens    []uint32 `json:"tokens"`
	Ownership float64  `json:"ownership"`
}

// ringOf returns the members of a ring as the page at url shows them.
func ringOf(ctx context.Context, url string) (map[string]ringMember, error) {
	r, err := try(ctx, http.MethodGet, url, nil, "Accept", "application/json")
	if err != nil {
		return nil, err
	}
	var page struct {
		Shards []ringMember `json:"shards"`
	}
	if r.status != 200 {
		return nil, fmt.Errorf("ring page answered %s", r)
	}
	if err := json.Unmarshal([]byte(r.body), &page); err != nil {
		return nil, fmt.Errorf("ring page answered %s: %w", r, err)
	}
	out := map[string]ringMember{}
	for _, m := range page.Shards {
		out[m.ID] = m
	}
	return out, nil
}

// settled waits until every node shows just the named ingesters in the ring, all active.
func settled(ctx context.Context, t *testing.T, nodes []*harness.Node, names ...string) {
	t.Helper()
	settledWithin(ctx, t, 30*time.Second, nodes, names...)
}

// settledWithin is settled with another bound, for machines that have much to do.
func settledWithin(ctx context.Context, t *testing.T, d time.Duration, nodes []*harness.Node, names ...string) {
	t.Helper()
	within, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	for _, n := range nodes {
		err := harness.Poll(within, func(ctx context.Context) error {
			members, err := ringOf(ctx, n.URL("/ingester/ring"))
			if err != nil {
				return err
			}
			if len(members) != len(names) {
				return fmt.Errorf("%s sees %v", n.Spec.Name, members)
			}
			for _, name := range names {
				if m := members[name]; m.State != "ACTIVE" || m.ReadOnly {
					return fmt.Errorf("%s sees %+v as %s", n.Spec.Name, m, name)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatalf("wait until the ring has %v: %v", names, err)
		}
	}
}

// frontDoor is the URLs of the nodes that run target and say that they are ready, as a load balancer
// in front of them would know them. Nodes need a shutdown delay, in which it looks away.
func frontDoor(ctx context.Context, c *harness.Cluster, target string) func() []string {
	return func() []string {
		var out []string
		for _, n := range c.Of(target) {
			if n.Ready(ctx) == nil {
				out = append(out, n.URL(""))
			}
		}
		if len(out) == 0 { // let the caller see why
			out = append(out, c.Of(target)[0].URL(""))
		}
		return out
	}
}
