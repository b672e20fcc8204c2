package ingester

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

const (
	// rateTick is how often ingestion rates are brought up to date.
	rateTick = 15 * time.Second
	// rateWeight is the weight of the newest tick in a rate: about 90 % of it is younger than
	// three minutes.
	rateWeight = 0.2
)

// rate is an exponentially weighted rate per second.
type rate struct {
	events atomic.Int64 // since the last tick
	value  atomic.Uint64
	warm   bool // of the one goroutine that ticks
}

func (r *rate) tick(every time.Duration) {
	now := float64(r.events.Swap(0)) / every.Seconds()
	if old := r.perSecond(); r.warm {
		now = rateWeight*now + (1-rateWeight)*old
	}
	r.warm = true
	r.value.Store(math.Float64bits(now))
}

func (r *rate) perSecond() float64 { return math.Float64frombits(r.value.Load()) }

// tenantStats counts what one tenant does. The counters live and die with the tenant's head;
// metrics read them when they are scraped.
type tenantStats struct {
	api, rule     rate
	samples       atomic.Int64
	failures      atomic.Int64
	exemplars     atomic.Int64
	seriesCreated atomic.Int64
	seriesRemoved atomic.Int64
	refused       [numReasons]atomic.Int64
}

func (s *tenantStats) took(from frame.Source, samples, rejected, exemplars int) {
	s.samples.Add(int64(samples))
	if rejected > 0 {
		s.failures.Add(int64(rejected))
	}
	if exemplars > 0 {
		s.exemplars.Add(int64(exemplars))
	}
	if from == frame.Rule {
		s.rule.events.Add(int64(samples))
	} else {
		s.api.events.Add(int64(samples))
	}
}

// tick brings the rates up to date; one goroutine calls it every rateTick.
func (s *tenantStats) tick() {
	s.api.tick(rateTick)
	s.rule.tick(rateTick)
}

// occasional lets something through at most once in a while.
type occasional struct {
	mu   sync.Mutex // guards last
	last time.Time
}

// due says whether every has passed since due last said so.
func (o *occasional) due(now time.Time, every time.Duration) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if now.Sub(o.last) < every {
		return false
	}
	o.last = now
	return true
}
