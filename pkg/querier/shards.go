package querier

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/members"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
)

const (
	// shardsEvery is how often the limits of tenants are looked at, which is more often than they
	// are read again.
	shardsEvery = 5 * time.Second
	// surveyEvery is how often, at most, all ingesters are asked whose samples they hold.
	surveyEvery = time.Minute
	// surveyTimeout bounds what one of them may take.
	surveyTimeout = 10 * time.Second
)

// shards knows how many ingesters the recent samples of a tenant with a shard may be spread over.
// The ring knows which ones, whoever came or went; but that the shard was larger some time ago is
// written nowhere. So this remembers the sizes it sees, and of a tenant it has not seen before it
// asks all ingesters whether they hold it. One that is found outside its shard, or is not asked for
// yet, is looked for on all of them.
type shards struct {
	deps     Deps
	lookback func() time.Duration
	surveys  prometheus.Counter

	mu       sync.Mutex // guards what follows
	tenants  map[tenant.ID]*shardSizes
	surveyed time.Time // when the last survey began
}

// shardSizes are the sizes of one tenant's shard; 0 is all ingesters.
type shardSizes struct {
	now   int
	past  map[int]time.Time // when each was seen last
	stray time.Time         // when the tenant was found outside its shard
	known bool              // all ingesters were asked for it
	used  time.Time
}

// size returns how many ingesters to look for id on, whose shard has the size now; 0: all.
func (s *shards) size(id tenant.ID, now int, at time.Time) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tenants[id]
	if t == nil {
		if now == 0 {
			return 0
		}
		t = &shardSizes{now: now, past: map[int]time.Time{}}
		s.tenants[id] = t
	}
	t.used = at
	t.set(now, at)
	if now == 0 || !t.known || !t.stray.IsZero() {
		return 0
	}
	most := now
	for size := range t.past {
		if size == 0 {
			return 0
		}
		most = max(most, size)
	}
	return most
}

func (t *shardSizes) set(now int, at time.Time) {
	if t.now != now {
		t.past[t.now] = at
		t.now = now
		delete(t.past, now)
	}
}

// Run looks after what is known of shards until ctx ends. Until it is called, and when it has
// returned, a tenant is looked for on all ingesters.
func (q *Querier) Run(ctx context.Context) error {
	tick := time.NewTicker(shardsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			q.shards.look(ctx, q)
		}
	}
}

// look follows the limits and asks the ingesters, if that is due.
func (s *shards) look(ctx context.Context, q *Querier) {
	now := s.deps.Now()
	s.mu.Lock()
	unknown := s.follow(now)
	due := len(unknown) > 0 && now.Sub(s.surveyed) >= surveyEvery
	if due {
		s.surveyed = now
	}
	s.mu.Unlock()
	if !due {
		return
	}
	s.surveys.Inc()
	strays, ok := q.survey(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, t := range s.tenants {
		if strays[id] {
			t.stray = now
		}
		t.known = t.known || ok && unknown[id]
	}
}

// follow brings the sizes up to date, forgets what nobody looks back to, and returns the tenants that
// are not known.
func (s *shards) follow(now time.Time) map[tenant.ID]bool {
	unknown := map[tenant.ID]bool{}
	within := s.lookback()
	for id, t := range s.tenants {
		t.set(limits.IngestionTenantShardSize.Of(s.deps.Limits(id)), now)
		maps.DeleteFunc(t.past, func(_ int, at time.Time) bool { return now.Sub(at) > within })
		if now.Sub(t.stray) > within {
			t.stray = time.Time{}
		}
		switch {
		case now.Sub(t.used) > within:
			delete(s.tenants, id)
		case !t.known:
			unknown[id] = true
		}
	}
	return unknown
}

// survey returns the tenants that some ingester holds although it is not in their shard, and
// whether every ingester of the ring was asked.
func (q *Querier) survey(ctx context.Context) (strays map[tenant.ID]bool, all bool) {
	strays = map[tenant.ID]bool{}
	set, err := q.deps.Ingesters.GetAllHealthy(members.Readable())
	if err != nil {
		return strays, false
	}
	ctx, cancel := context.WithTimeout(ctx, surveyTimeout)
	defer cancel()
	answers := make([]*ingesterpb.AllTenantStatsResponse, len(set.Instances))
	var wg sync.WaitGroup
	for i := range set.Instances {
		wg.Go(func() {
			// What went wrong is counted with the call; the survey is made again.
			answers[i], _ = askOne(ctx, q, &set.Instances[i], func(ctx context.Context, c ingesterpb.IngesterQueryClient) (*ingesterpb.AllTenantStatsResponse, error) {
				return c.AllTenantStats(ctx, &ingesterpb.TenantStatsRequest{})
			})
		})
	}
	wg.Wait()
	all = len(answers) == q.deps.Ingesters.InstancesCount()
	for i, a := range answers {
		all = all && a != nil
		for _, t := range a.GetTenants() {
			id := tenant.ID(t.Tenant)
			size := limits.IngestionTenantShardSize.Of(q.deps.Limits(id))
			if size > 0 && !strays[id] && !q.shard(id, size).HasInstance(set.Instances[i].Id) {
				strays[id] = true
			}
		}
	}
	return strays, all
}
