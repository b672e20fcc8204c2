package ha

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/grafana/dskit/kv"
	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

const (
	// keyPrefix begins the keys of the store. Their number is fixed, so that nothing grows with
	// tenants that come and go: a key is never deleted.
	keyPrefix = "ha-tracker/"
	numKeys   = 256

	// tick is how often it is looked for what is to be shared.
	tick = time.Second

	// storeTimeout bounds one change of the store.
	storeTimeout = 2 * time.Second

	// cleanupPeriod is how often it is looked for clusters of which nothing was heard for idleAfter.
	cleanupPeriod = time.Minute
	idleAfter     = 30 * time.Minute
)

// Deps are what a tracker works with.
type Deps struct {
	Logger *slog.Logger
	Reg    prometheus.Registerer
	// Store holds States under keys of its own, by Codec.
	Store kv.Client
	// File remembers who is elected over a restart, for a process that has nobody to ask. Empty: none.
	File string
	// Now is the clock. nil: time.Now.
	Now func() time.Time
	// Chance returns a number from 0 to below n. nil: a random one.
	Chance func(n int64) int64
}

// Tracker knows the elected replicas. As a service it follows the store and tells it which elected
// replicas are alive.
type Tracker struct {
	services.Service

	deps    Deps
	metrics *metrics
	// Of the service's goroutine alone: the last change of the store failed, or that of the file.
	failing, forgetful bool

	mu       sync.RWMutex // guards clusters and counts
	clusters map[clusterKey]*cluster
	counts   map[tenant.ID]int // of clusters
}

// cluster is what a tracker knows of one cluster.
type cluster struct {
	key      clusterKey
	electing chan struct{} // held by the one who elects

	mu     sync.Mutex // guards all below
	known  election   // as last seen in the store
	heard  time.Time  // when the elected replica was heard last, by this or another distributor
	here   time.Time  // when it was heard last by this one
	shared time.Time  // when the store last learned that it was heard
	jitter time.Duration
	policy *Policy // of the tenant, as last seen; nil: nobody pushed here yet
}

// New returns a tracker.
func New(deps Deps) (*Tracker, error) {
	if deps.Logger == nil || deps.Store == nil {
		return nil, errors.New("ha: a dependency is missing")
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.Chance == nil {
		deps.Chance = rand.Int64N
	}
	t := &Tracker{deps: deps, metrics: newMetrics(deps.Reg), clusters: map[clusterKey]*cluster{}, counts: map[tenant.ID]int{}}
	t.Service = services.NewBasicService(t.starting, t.running, t.stopping).WithName("ha tracker")
	return t, nil
}

// storeKey is where the elections of a tenant's clusters are.
func storeKey(id tenant.ID) string {
	return keyPrefix + strconv.FormatUint(xxhash.Sum64String(string(id))%numKeys, 10)
}

// Check says what becomes of samples that s sends. It is a look into memory unless a replica has to
// be elected. sampleTime returns the time of the oldest of the samples; it is only called if the
// policy needs it. elected is who is elected if s is not. Errors: Unavailable if the store does not
// take an election.
func (t *Tracker) Check(ctx context.Context, s Sender, pol *Policy, sampleTime func() time.Time) (v Verdict, elected string, err error) {
	now := t.deps.Now()
	c, ok := t.enter(clusterKey{s.Tenant, s.Cluster}, pol)
	if !ok {
		return TooManyClusters, "", nil
	}
	if v, elected = c.judge(s.Replica, pol, now, sampleTime); v == Elected || elected != "" {
		return v, elected, nil
	}
	if err := t.elect(ctx, c, s.Replica, func() bool {
		v, elected = c.judge(s.Replica, pol, now, sampleTime)
		return v == NotElected && elected == ""
	}); err != nil {
		return NotElected, "", errs.New(errs.Unavailable, "elect a replica of cluster %q of tenant %s: %w", s.Cluster, s.Tenant, err)
	}
	if c, ok = t.enter(clusterKey{s.Tenant, s.Cluster}, pol); !ok {
		return TooManyClusters, "", nil
	}
	v, elected = c.judge(s.Replica, pol, now, nil)
	return v, elected, nil
}

// judge says whether replica is elected. NotElected by nobody means that an election is due.
func (c *cluster) judge(replica string, pol *Policy, now time.Time, sampleTime func() time.Time) (v Verdict, elected string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.policy = pol
	switch {
	case !c.known.live():
		return NotElected, ""
	case c.known.replica == replica:
		c.heard, c.here = now, now
		return Elected, replica
	case sampleTime == nil, now.Sub(c.heard) < pol.Failover:
		return NotElected, c.known.replica
	case pol.SampleFailover > 0 && sampleTime().UnixMilli()-c.lastSeen().UnixMilli() < pol.SampleFailover.Milliseconds():
		return NotElected, c.known.replica
	}
	return NotElected, ""
}

// lastSeen is when the elected replica was heard last, by the clocks of distributors. c must be
// locked.
func (c *cluster) lastSeen() time.Time {
	at := time.UnixMilli(c.known.receivedAt)
	if c.here.After(at) {
		at = c.here
	}
	return at
}

// enter returns the state of a cluster, made if need be; false: the tenant has too many.
func (t *Tracker) enter(k clusterKey, pol *Policy) (*cluster, bool) {
	t.mu.RLock()
	c := t.clusters[k]
	t.mu.RUnlock()
	if c != nil {
		return c, true
	}
	most := maxClusters
	if pol.MaxClusters > 0 {
		most = min(pol.MaxClusters, most)
	}
	return t.add(k, most)
}

func (t *Tracker) add(k clusterKey, most int) (*cluster, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.clusters[k]; c != nil {
		return c, true
	}
	if t.counts[k.tenant] >= most {
		return nil, false
	}
	c := &cluster{key: k, electing: make(chan struct{}, 1)}
	t.clusters[k] = c
	t.counts[k.tenant]++
	return c, true
}

// forget removes a cluster and its metrics.
func (t *Tracker) forget(c *cluster) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.clusters[c.key] != c {
		return
	}
	delete(t.clusters, c.key)
	if t.counts[c.key.tenant]--; t.counts[c.key.tenant] == 0 {
		delete(t.counts, c.key.tenant)
	}
	t.metrics.forget(c.key)
}

// list returns all clusters in no order.
func (t *Tracker) list() []*cluster {
	t.mu.RLock()
	defer t.mu.RUnlock()
	out := make([]*cluster, 0, len(t.clusters))
	for _, c := range t.clusters {
		out = append(out, c)
	}
	return out
}

// Deduped counts samples of a cluster that were left out because their replica is not elected.
func (t *Tracker) Deduped(id tenant.ID, cluster string, samples int) {
	t.metrics.deduped.WithLabelValues(string(id), cluster).Add(float64(samples))
}

// Clusters returns the state of every cluster, by tenant and name.
func (t *Tracker) Clusters() []Cluster {
	list := t.list()
	slices.SortFunc(list, func(a, b *cluster) int { return a.key.compare(b.key) })
	out := make([]Cluster, 0, len(list))
	for _, c := range list {
		c.mu.Lock()
		if c.known.live() {
			info := Cluster{Tenant: c.key.tenant, Cluster: c.key.cluster, Replica: c.known.replica,
				ElectedAt: time.UnixMilli(c.known.electedAt), LastSeen: c.lastSeen(), Elections: c.known.term}
			if c.policy != nil {
				info.FailoverDue = c.heard.Add(c.policy.Failover)
			}
			out = append(out, info)
		}
		c.mu.Unlock()
	}
	return out
}

// elect has replica elected in the store, unless due says, once nobody else elects, that this was
// done meanwhile, or the store knows better.
func (t *Tracker) elect(ctx context.Context, c *cluster, replica string, due func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	select {
	case c.electing <- struct{}{}:
		defer func() { <-c.electing }()
	case <-ctx.Done():
		return fmt.Errorf("wait for another election: %w", context.Cause(ctx))
	}
	if !due() {
		return nil
	}
	c.mu.Lock()
	basis := c.known
	c.mu.Unlock()
	now := t.deps.Now()
	var chosen, found election
	err := t.deps.Store.CAS(ctx, storeKey(c.key.tenant), func(in any) (any, bool, error) {
		s := stateOf(in)
		found, chosen = s.elections[c.key], election{}
		if found.live() && (!found.same(basis) || found.receivedAt > basis.receivedAt) {
			return nil, false, nil // there was an election or a sign of life meanwhile
		}
		ms := now.UnixMilli()
		chosen = election{replica: replica, term: max(found.term, basis.term) + 1,
			electedAt: max(ms, found.electedAt+1), receivedAt: max(ms, found.receivedAt+1)}
		s.elections[c.key] = chosen
		s.RemoveTombstones(now.Add(-idleAfter))
		return s, true, nil
	})
	t.metrics.changed(c.key)
	switch {
	case err != nil:
		return err
	case chosen.live():
		t.deps.Logger.Info("replica elected", "tenant", c.key.tenant, "cluster", c.key.cluster, "replica", replica, "before", basis.replica, "election", chosen.term)
		t.observe(c.key, chosen, now, live)
	default:
		t.observe(c.key, found, now, live)
	}
	return nil
}

// stateOf returns what the store gave, which may be changed.
func stateOf(in any) *State {
	if s, ok := in.(*State); ok && s != nil {
		return s
	}
	return newState()
}

func (t *Tracker) jitter(most time.Duration) time.Duration {
	if most <= 0 {
		return 0
	}
	return time.Duration(t.deps.Chance(2*int64(most))) - most
}
