package distributor

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// rateTick is the step in which a movingRate advances.
	rateTick = time.Second

	// rateWeight is the weight of the newest step: about 90 % of the rate is younger than ten.
	rateWeight = 0.2
)

// movingRate is an exponentially weighted rate of events. It needs no goroutine: whoever reads it
// brings it up to date.
type movingRate struct {
	events atomic.Int64  // since ticked
	value  atomic.Uint64 // float64 bits

	mu     sync.Mutex // guards ticked; held while the rate is brought up to date
	ticked time.Time  // zero: never
}

func (r *movingRate) add(n int) { r.events.Add(int64(n)) }

// perSecond returns the rate at now.
func (r *movingRate) perSecond(now time.Time) float64 {
	if r.mu.TryLock() {
		r.advance(now)
		r.mu.Unlock()
	}
	return math.Float64frombits(r.value.Load())
}

// advance takes the events of the steps that have passed since the last time. It needs mu.
func (r *movingRate) advance(now time.Time) {
	if r.ticked.IsZero() {
		r.ticked = now
		return
	}
	passed := now.Sub(r.ticked)
	if passed < rateTick {
		if passed < 0 { // the clock was set back
			r.ticked = now
		}
		return
	}
	r.ticked = now
	newest := float64(r.events.Swap(0)) / passed.Seconds()
	keep := math.Pow(1-rateWeight, passed.Seconds()/rateTick.Seconds())
	old := math.Float64frombits(r.value.Load())
	r.value.Store(math.Float64bits(keep*old + (1-keep)*newest))
}
