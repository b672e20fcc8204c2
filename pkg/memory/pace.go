package memory

import (
	"os"
	"runtime/debug"
)

const (
	// easyBytes is the size up to which a heap may grow before it is collected, whatever of it is alive:
	// the few megabytes that a process holds which only passes queries on are twice as much after each of
	// them, and to look for what is alive takes longer than the query.
	easyBytes = 48 << 20
	// easyPart of what the Go runtime may use is more than that.
	easyPart = 0.25
	// usualPercent is how much garbage there may be for what is alive in larger heaps, as Go has it.
	usualPercent = 100
	// percentStep is how far off the percentage must be to be set anew, which stops the process for a moment.
	percentStep = 20
)

// pacing says how much garbage there may be. Its zero value leaves it to Go.
type pacing struct {
	set     func(percent int) int // nil: it is not for us to say
	percent int
}

// newPacing leaves it to the environment variable GOGC if that is set.
func newPacing() pacing {
	if os.Getenv("GOGC") != "" {
		return pacing{}
	}
	return pacing{set: debug.SetGCPercent, percent: usualPercent}
}

// follow sets what fits to live bytes, of at most limit.
func (p *pacing) follow(live, limit int64) {
	if p.set == nil {
		return
	}
	easy, percent := min(easyBytes, int64(easyPart*float64(limit))), int64(usualPercent)
	if live > 0 && live < easy/2 {
		percent = (easy - live) * 100 / live
	}
	// Four megabytes for each hundred are what a heap may have in any case.
	percent = min(percent, max(usualPercent, easy*100/(4<<20)))
	if off := percent - int64(p.percent); off > percentStep || -off > percentStep || percent == usualPercent && off != 0 {
		p.percent = int(percent)
		p.set(p.percent)
	}
}
