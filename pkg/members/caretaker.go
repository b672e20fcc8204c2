package members

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/grafana/dskit/kv"
	"github.com/grafana/dskit/ring"
	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// skewTolerated is how far the clocks of two members may differ before it is reported.
const skewTolerated = 10 * time.Second

// CaretakerDeps are what a Caretaker works with.
type CaretakerDeps struct {
	Log *slog.Logger
	Reg prometheus.Registerer
	KV  kv.Client
	Key string // of the ring in KV
	// ID and Addr are this process's own in the ring.
	ID, Addr string
	Every    time.Duration
	Rules    Rules
	// CutOff is told when this process comes to see so few of the others that they may have given
	// its work away, and when it sees them again. It returns when the ring says so.
	CutOff func(ctx context.Context, cutOff bool) error
	// Share is what this process has of the ring. Without a file its tokens follow from its name.
	Share Share
	// Memory is brought up to date with what the ring shows. nil: none.
	Memory *Memory
	Now    func() time.Time // nil: time.Now
}

// Caretaker keeps the ring of ingesters free of members that are gone, without a human. Every
// ingester has one; they agree because they see the same ring. It is a service.
type Caretaker struct {
	services.Service
	deps CaretakerDeps

	metrics caretakerMetrics
	alone   time.Time // since when this process sees few of the others; zero: it does not
	cut     bool      // CutOff was told so
	foreign string    // the address last complained about
	skewed  bool      // a difference of clocks was complained about
}

type caretakerMetrics struct {
	relieved, removed prometheus.Counter
	conflicts         prometheus.Counter
	tokens            prometheus.Counter
	skew              prometheus.Gauge
}

// NewCaretaker returns a caretaker that is not started.
func NewCaretaker(deps CaretakerDeps) *Caretaker {
	if deps.Now == nil {
		deps.Now = time.Now
	}
	reg := promauto.With(deps.Reg)
	c := &Caretaker{deps: deps, metrics: caretakerMetrics{
		relieved: reg.NewCounter(prometheus.CounterOpts{Name: "amphora_ring_members_relieved_total",
			Help: "Silent ingesters whose series this process gave to others. A rise means that an ingester is gone."}),
		removed: reg.NewCounter(prometheus.CounterOpts{Name: "amphora_ring_members_removed_total",
			Help: "Relieved ingesters that this process removed from the ring because what they held is in object storage."}),
		conflicts: reg.NewCounter(prometheus.CounterOpts{Name: "amphora_ring_instance_id_conflicts_total",
			Help: "Times the ring showed this ingester's ID with another address. A rise means that two processes have the same instance_id."}),
		tokens: reg.NewCounter(prometheus.CounterOpts{Name: "amphora_ring_tokens_replaced_total",
			Help: "Tokens that this ingester chose anew because another one had them, too. A rise means that a disk was copied."}),
		skew: reg.NewGauge(prometheus.GaugeOpts{Name: "amphora_ring_clock_skew_seconds",
			Help: "How far the clock of some ingester is ahead of this one's, as seen in heartbeats. Near the heartbeat timeout one of the two counts as dead."}),
	}}
	c.Service = services.NewTimerService(deps.Every, nil, c.round, nil)
	return c
}

// round looks at the ring once. The ring being out of reach is no reason to end the process.
func (c *Caretaker) round(ctx context.Context) error {
	d, err := load(ctx, c.deps.KV, c.deps.Key)
	if err != nil {
		c.deps.Log.Warn("ring not looked after, its store does not answer; tried again at the next heartbeat", "err", err)
		return nil
	}
	now := c.deps.Now()
	c.checkIdentity(d)
	c.checkShare(ctx, d)
	c.checkClocks(d, now)
	c.checkContact(ctx, d, now)
	if !c.deps.Rules.judge(d, now).empty() {
		if err := c.forget(ctx, now); err != nil {
			c.deps.Log.Warn("silent ingesters not forgotten, tried again at the next heartbeat", "err", err)
		}
	}
	if c.deps.Memory != nil {
		if err := c.deps.Memory.remember(d, now); err != nil {
			c.deps.Log.Warn("ring not remembered on disk, tried again at the next heartbeat", "err", err)
		}
	}
	return nil
}

// load returns the ring at key, empty if there is none.
func load(ctx context.Context, store kv.Client, key string) (*ring.Desc, error) {
	v, err := store.Get(ctx, key)
	if err != nil {
		return nil, errs.New(errs.Unavailable, "read the ring: %w", err)
	}
	return ring.GetOrCreateRingDesc(v), nil
}

// change lets f change the ring at key; f says whether it did.
func change(ctx context.Context, store kv.Client, key string, f func(*ring.Desc) bool) error {
	err := store.CAS(ctx, key, func(in any) (any, bool, error) {
		d := ring.GetOrCreateRingDesc(in)
		if !f(d) {
			return nil, false, nil
		}
		return d, true, nil
	})
	if err != nil {
		return errs.New(errs.Unavailable, "change the ring: %w", err)
	}
	return nil
}

func (c *Caretaker) forget(ctx context.Context, now time.Time) error {
	var done verdicts
	err := change(ctx, c.deps.KV, c.deps.Key, func(d *ring.Desc) bool {
		done = c.deps.Rules.judge(d, now)
		c.deps.Rules.apply(done, d)
		return !done.empty()
	})
	if err != nil {
		return err
	}
	for _, id := range done.relieve {
		c.metrics.relieved.Inc()
		c.deps.Log.Warn("ingester was silent for too long, its series go to others; reads count it as missing until its samples are in object storage",
			"ingester", id, "silence", c.deps.Rules.Forget)
	}
	for _, id := range done.remove {
		c.metrics.removed.Inc()
		c.deps.Log.Info("ingester that is gone removed from the ring", "ingester", id)
	}
	return nil
}

// checkIdentity complains when somebody else has this process's name.
func (c *Caretaker) checkIdentity(d *ring.Desc) {
	m, ok := d.Ingesters[c.deps.ID]
	if !ok || m.State == ring.LEFT || m.Addr == c.deps.Addr {
		c.foreign = ""
		return
	}
	c.metrics.conflicts.Inc()
	if c.foreign != m.Addr {
		c.foreign = m.Addr
		c.deps.Log.Error("another process has the instance ID of this one, and both get the same series in turns; give each its own ingester.ring.instance_id",
			"id", c.deps.ID, "own", c.deps.Addr, "other", m.Addr)
	}
}

// checkClocks complains about heartbeats from the future.
func (c *Caretaker) checkClocks(d *ring.Desc, now time.Time) {
	var most time.Duration
	var who string
	for id, m := range d.Ingesters {
		if ahead := time.Unix(m.Timestamp, 0).Sub(now); ahead > most {
			most, who = ahead, id
		}
	}
	c.metrics.skew.Set(most.Seconds())
	switch {
	case most <= skewTolerated || c.skewed:
	case who == c.deps.ID:
		c.deps.Log.Error("the clock of this machine was ahead and has been set back; what this ingester says of itself in the ring is not heard until the clock gets there again",
			"ahead", most)
	default:
		c.deps.Log.Error("an ingester's clock is ahead of the one of this machine; the one that is wrong is taken for dead if they differ by the heartbeat timeout",
			"ingester", who, "ahead", most)
	}
	c.skewed = most > skewTolerated
}

// checkContact notices that this process is cut off, well before the others may relieve it, and
// tells. Their mark on its entry is older than its own heartbeats and gets lost when they meet
// again; that it says itself that it was away is what tells reads to look to both.
func (c *Caretaker) checkContact(ctx context.Context, d *ring.Desc, now time.Time) {
	if c.deps.Rules.Forget <= 0 || c.deps.CutOff == nil {
		return
	}
	if !c.deps.Rules.cutOff(d, c.deps.ID, now) {
		c.alone = time.Time{}
	} else if c.alone.IsZero() {
		c.alone = now
	}
	cut := !c.alone.IsZero() && now.Sub(c.alone) > c.deps.Rules.Forget/2
	if cut == c.cut {
		return
	}
	if err := c.deps.CutOff(ctx, cut); err != nil {
		if !errors.Is(err, context.Canceled) {
			c.deps.Log.Warn("ring entry not changed, tried again at the next heartbeat", "err", err)
		}
		return
	}
	c.cut = cut
	if cut {
		c.deps.Log.Warn("most ingesters are out of sight: this one is cut off, or they are gone; it takes no writes until it sees them again")
	} else {
		c.deps.Log.Info("most ingesters are in sight again, this one takes writes")
	}
}

// Relieve takes the member id off its work, as if it had been silent for too long. A process that
// stops for long with samples that are not in object storage does so with itself.
func Relieve(ctx context.Context, store kv.Client, key, id string) error {
	return change(ctx, store, key, func(d *ring.Desc) bool {
		m, ok := d.Ingesters[id]
		if !ok || m.State == ring.LEFT || m.ReadOnly {
			return false
		}
		relieve(d, id, time.Now(), 0)
		return true
	})
}

// WasRelieved says whether the ring shows the member id as taken off its work because it was
// silent, so that it must ask for its work again.
func WasRelieved(ctx context.Context, store kv.Client, key, id string) (bool, error) {
	d, err := load(ctx, store, key)
	if err != nil {
		return false, err
	}
	return Relieved(d.Ingesters[id]), nil
}

// Unknown says whether the ring never had a member of that name, for at least as long as memory. A
// ring whose members all registered since then may have been forgotten as a whole, and knows nothing.
func Unknown(ctx context.Context, store kv.Client, key, id string, memory time.Duration) (bool, error) {
	d, err := load(ctx, store, key)
	if err != nil {
		return false, err
	}
	if _, ok := d.Ingesters[id]; ok {
		return false, nil
	}
	for _, m := range d.Ingesters {
		if m.State != ring.LEFT && m.RegisteredTimestamp > 0 && time.Since(m.GetRegisteredAt()) > memory {
			return true, nil
		}
	}
	return false, nil
}
