package distributor

import (
	"context"
	"math"
	"time"

	"github.com/amphora-metrics/amphora/pkg/remotewrite"
)

// keptSamples is up to how many samples of one series a push keeps the memory to compare them.
const keptSamples = 1 << 10

// dropDuplicates refuses float samples that have the time, but not the value, of an earlier one of
// their series in the same request: which of them is true cannot be known. Requests with one
// sample a series, nearly all, are not looked into.
func (p *push) dropDuplicates(context.Context) error {
	if p.batch.Several {
		for i := range p.refs {
			if p.refs[i] != skipped {
				p.dropDuplicatesOf(i)
			}
		}
	}
	p.countSamples()
	return nil
}

func (p *push) dropDuplicatesOf(i int) {
	from, to := p.batch.Samples(i)
	times, values := p.batch.Times, p.batch.Values
	if ascend(times[from:to]) {
		return
	}
	p.forgetSeen()
	for j := from; j < to; j++ {
		first, again := p.seen[times[j]]
		switch {
		case len(p.drops) > 0 && p.drops[j]:
		case !again:
			p.seen[times[j]] = j
		case math.Float64bits(values[first]) != math.Float64bits(values[j]):
			if len(p.drops) == 0 {
				p.drops = zeroed(p.drops, len(times))
			}
			p.drops[j] = true
			p.refuseDuplicate(i, times[j])
		}
	}
}

// forgetSeen empties p.seen, and does not keep the memory of an unusually long series.
func (p *push) forgetSeen() {
	switch n := len(p.seen); {
	case n > keptSamples:
		p.seen = map[int64]int{}
	case n > 0:
		clear(p.seen)
	}
}

// ascend says whether each of times is larger than the one before it.
func ascend(times []int64) bool {
	for j := 1; j < len(times); j++ {
		if times[j] <= times[j-1] {
			return false
		}
	}
	return true
}

// refuseDuplicate refuses one sample of series i because there is another one at its time.
func (p *push) refuseDuplicate(i int, ms int64) {
	p.refuse(i, duplicateSample, 1, func() error {
		return duplicateSample.errorf("series %s has different samples for the timestamp %d (%s) in one request",
			p.seriesText(i), ms, time.UnixMilli(ms).UTC().Format(time.RFC3339))
	})
}

// contradicts says whether h, of series i, has the time of one of that series' histograms that are
// accepted already, which begin at first, but is another one. Histograms mostly come in order, so
// the others are only gathered if one does not.
func (p *push) contradicts(first int, h *remotewrite.Histogram) bool {
	if n := len(p.hists); n == first || p.hists[n-1].Time < h.Time && len(p.seen) == 0 {
		return false
	}
	if len(p.seen) == 0 {
		for k := first; k < len(p.hists); k++ {
			p.seen[p.hists[k].Time] = k
		}
	}
	k, again := p.seen[h.Time]
	if !again {
		p.seen[h.Time] = len(p.hists)
		return false
	}
	had := &p.hists[k]
	switch {
	case h.H != nil && had.H != nil:
		return !h.H.Equals(had.H)
	case h.FH != nil && had.FH != nil:
		return !h.FH.Equals(had.FH)
	}
	return true
}
