// Package clustercache owns the cache that store-gateways form together: each item is held in memory
// once per zone, by the gateway that owns its key in the hash ring. An owner that is down, slow or
// new costs reads of the bucket and nothing else.
package clustercache

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/grafana/dskit/cache"
	"github.com/grafana/dskit/ring"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/memory"
	"github.com/amphora-metrics/amphora/pkg/wire/cachepb"
)

const (
	// pause is how long an owner that failed is not asked, and given nothing.
	pause = 5 * time.Second
	// leaseTime is how long one asker has to bring an item before another one is let, and so the longest
	// that anybody waits for somebody else's read of the bucket.
	leaseTime = 2 * time.Second
	// firstLook and lastLook are between the looks for an item that somebody else brings.
	firstLook = 10 * time.Millisecond
	lastLook  = 100 * time.Millisecond

	// mostKeys, mostKeyBytes, mostItemBytes and mostCallBytes bound one call, and with it what an owner
	// takes in and gives out at once. Readers ask for 16 items of 64 KiB.
	mostKeys      = 64
	mostKeyBytes  = 1 << 10
	mostItemBytes = 1 << 20
	mostCallBytes = 2 << 20
	// callOverheadBytes is what a call takes beside its items.
	callOverheadBytes = mostKeys * (mostKeyBytes + 64)

	// mostCalls is how many calls are under way from here at the same time, and how many are answered here.
	mostCalls = 64
	// mostQueuedBytes is how much waits to be given to owners: what is more is not kept.
	mostQueuedBytes = 32 << 20
	mostQueued      = 4096
	writers         = 4

	// defaultPart is the part of the memory that the items of a process may take.
	defaultPart = 0.1
)

// Config is the settings of the cache, mounted as cluster_cache below bucket_store.
type Config struct {
	MaxBytes int
	Timeout  time.Duration
}

// Declare names each setting once.
func (c *Config) Declare(s *config.Set) {
	s.Int(&c.MaxBytes, "max-size-bytes", 0, "Memory for this store-gateway's part of the caches with the backend cluster. 0: a tenth of what the process may use.").Expert()
	s.Duration(&c.Timeout, "timeout", 200*time.Millisecond, "How long another store-gateway may take to answer from its part; after that it is avoided for 5 seconds.").Expert()
}

// Validate refuses what cannot work.
func (c *Config) Validate() error {
	switch {
	case c.MaxBytes < 0:
		return config.Wrong("max-size-bytes", "is %d; it must not be negative", c.MaxBytes)
	case c.Timeout <= 0:
		return config.Wrong("timeout", "is %s; it must be positive", c.Timeout)
	}
	return nil
}

// Deps are what a Cache works with.
type Deps struct {
	Logger *slog.Logger
	Reg    prometheus.Registerer
	Memory *memory.Ledger // nil: not bounded
	Ring   ring.ReadRing  // of the store-gateways
	// Zone and Addr are those of this process in the ring.
	Zone, Addr string
	Client     func(addr string) (cachepb.ClusterCacheClient, error)
}

// Cache is the cache as one process sees it, and the part of it that this process holds. It is a
// cachepb.ClusterCacheServer and safe for concurrent use.
type Cache struct {
	cachepb.UnimplementedClusterCacheServer

	cfg     Config
	deps    Deps
	metrics *metrics
	owners  *owners
	held    *shelf
	calls   chan struct{} // a token for each call under way from here
	answers chan struct{} // a token for each call being answered
	now     func() time.Time

	mu     sync.Mutex           // guards paused
	paused map[string]time.Time // until when an address is left alone

	queue queue
}

// New returns a cache. The caller closes it.
func New(cfg Config, deps Deps) *Cache {
	most := int64(cfg.MaxBytes)
	if most == 0 {
		most = deps.Memory.Part(defaultPart)
	}
	account := deps.Memory.Account(memory.Caches)
	c := &Cache{cfg: cfg, deps: deps, owners: newOwners(deps.Ring, deps.Zone), held: newShelf(most, account),
		calls: make(chan struct{}, mostCalls), answers: make(chan struct{}, mostCalls), now: time.Now, paused: map[string]time.Time{}}
	c.metrics = newMetrics(deps.Reg, c.held)
	c.held.metrics = c.metrics
	deps.Memory.OnPressure(c.held.shrink)
	c.queue.start(account, c.send)
	return c
}

// Close waits until nothing is on its way to owners any more.
func (c *Cache) Close() error {
	c.queue.stop()
	return nil
}

// Named is the cache for one kind of items, whose keys are of no other kind. Closing it does nothing.
func (c *Cache) Named(name string) cache.Cache { return &named{c, name} }

// get returns the items that are there. For those that somebody else brings it waits for a while. Who may bring
// the first of what is missing brings all of it, and waits for nothing: so no two readers wait for each other.
func (c *Cache) get(ctx context.Context, keys []string) map[string][]byte {
	out := make(map[string][]byte, len(keys))
	until := c.now().Add(leaseTime)
	for wait := firstLook; ; wait = min(2*wait, lastLook) {
		keys, _ = c.look(ctx, keys, out, false)
		if len(keys) == 0 {
			return out
		}
		first := slices.Min(keys)
		_, others := c.look(ctx, []string{first}, out, true)
		rest := slices.DeleteFunc(keys, func(k string) bool { return k == first })
		switch {
		case len(others) > 0:
			keys = append(rest, first)
		case out[first] != nil: // it came in the meantime
			keys = rest
			continue
		default:
			c.look(ctx, rest, out, true)
			return out
		}
		if !c.now().Before(until) {
			return out
		}
		c.metrics.waits.Inc()
		select {
		case <-ctx.Done():
			return out
		case <-time.After(wait):
		}
	}
}

// asked is what one owner is asked for, and what came of it.
type asked struct {
	addr  string
	keys  []string
	lease bool

	answered bool
	data     [][]byte // by place in keys; nil: it is not there
	wait     []int    // places in keys
}

// look asks every owner once and adds what it finds to out. It returns the keys that owners do not have: those
// that nobody brings as far as is known, and, if leases are asked for, those that somebody else does.
func (c *Cache) look(ctx context.Context, keys []string, out map[string][]byte, lease bool) (missing, others []string) {
	var calls []*asked
	for _, key := range keys {
		addr := c.owners.of(key)
		switch {
		case addr == c.deps.Addr:
			switch data, wait := c.held.get(key, c.deps.Addr, lease); {
			case data != nil:
				out[key] = data
			case wait:
				others = append(others, key)
			default:
				missing = append(missing, key)
			}
		case addr != "" && !c.isPaused(addr):
			calls = add(calls, asked{addr: addr, lease: lease}, key)
		}
	}
	var wg sync.WaitGroup
	for i, a := range calls {
		if i < len(calls)-1 {
			wg.Go(func() { c.ask(ctx, a) })
		} else {
			c.ask(ctx, a)
		}
	}
	wg.Wait()
	for _, a := range calls {
		for i, key := range a.keys {
			switch {
			case !a.answered:
			case a.data[i] != nil:
				out[key] = a.data[i]
			case slices.Contains(a.wait, i):
				others = append(others, key)
			default:
				missing = append(missing, key)
			}
		}
	}
	return missing, others
}

// add puts key to what its owner is asked for, in calls that are not too large.
func add(to []*asked, call asked, key string) []*asked {
	for _, a := range to {
		if a.addr == call.addr && len(a.keys) < mostKeys {
			a.keys = append(a.keys, key)
			return to
		}
	}
	call.keys = []string{key}
	return append(to, &call)
}

// ask makes one call. Whatever goes wrong, nothing is found.
func (c *Cache) ask(ctx context.Context, a *asked) {
	err := c.call(ctx, a.addr, func(ctx context.Context, peer cachepb.ClusterCacheClient) error {
		answer, err := peer.GetMulti(ctx, &cachepb.GetMultiRequest{Keys: a.keys, Asker: c.deps.Addr, Lease: a.lease}, grpc.MaxCallRecvMsgSize(mostCallBytes+callOverheadBytes))
		if err != nil {
			return err
		}
		a.data = make([][]byte, len(a.keys))
		for _, f := range answer.Found {
			if int(f.Key) >= len(a.keys) || len(f.Data) == 0 {
				return errs.New(errs.Internal, "the answer names key %d of %d, with %d bytes", f.Key, len(a.keys), len(f.Data))
			}
			a.data[f.Key] = f.Data
		}
		if len(answer.Wait) > len(a.keys) {
			return errs.New(errs.Internal, "the answer names %d keys of %d", len(answer.Wait), len(a.keys))
		}
		for _, k := range answer.Wait {
			a.wait = append(a.wait, int(k))
		}
		return nil
	})
	a.answered = err == nil
}

// call makes a call to an owner, which is left alone for a while if it fails.
func (c *Cache) call(ctx context.Context, addr string, f func(context.Context, cachepb.ClusterCacheClient) error) error {
	bounded, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	select {
	case c.calls <- struct{}{}:
		defer func() { <-c.calls }()
	case <-bounded.Done():
		return context.Cause(bounded) // it is this process that is slow
	}
	peer, err := c.deps.Client(addr)
	if err == nil {
		err = f(bounded, peer)
	}
	if err != nil && ctx.Err() == nil {
		c.metrics.failures.Inc()
		c.deps.Logger.Debug("a store-gateway does not answer for its part of the cache, and is left alone for a while", "peer", addr, "err", err)
		c.leaveAlone(addr)
	}
	return err
}

// leaveAlone begins a pause of an owner.
func (c *Cache) leaveAlone(addr string) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for other, until := range c.paused { // some may never come back
		if !now.Before(until) {
			delete(c.paused, other)
		}
	}
	c.paused[addr] = now.Add(pause)
}

// isPaused says whether an owner is left alone.
func (c *Cache) isPaused(addr string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now().Before(c.paused[addr])
}

// set gives an item to its owner. The data must not be changed afterwards.
func (c *Cache) set(key string, data []byte, ttl time.Duration) {
	switch addr := c.owners.of(key); {
	case len(data) == 0 || len(data) > mostItemBytes || len(key) > mostKeyBytes:
		c.metrics.dropped.Inc()
	case addr == c.deps.Addr:
		c.held.set(key, data, ttl)
	case addr == "" || c.isPaused(addr) || !c.queue.add(&cachepb.Item{Key: key, Data: data, TtlMs: ttl.Milliseconds()}):
		c.metrics.dropped.Inc()
	}
}

// send gives items to their owners, which may have changed since the items were queued.
func (c *Cache) send(ctx context.Context, items []*cachepb.Item) {
	byOwner := map[string][]*cachepb.Item{}
	for _, i := range items {
		addr := c.owners.of(i.Key)
		byOwner[addr] = append(byOwner[addr], i)
	}
	for addr, items := range byOwner {
		switch {
		case addr == c.deps.Addr:
			for _, i := range items {
				c.held.set(i.Key, i.Data, time.Duration(i.TtlMs)*time.Millisecond)
			}
			continue
		case addr != "" && !c.isPaused(addr):
			err := c.call(ctx, addr, func(ctx context.Context, peer cachepb.ClusterCacheClient) error {
				_, err := peer.SetMulti(ctx, &cachepb.SetMultiRequest{Items: items})
				return err
			})
			if err == nil {
				continue
			}
		}
		c.metrics.dropped.Add(float64(len(items)))
	}
}
