package distributor

import (
	"context"
	"time"

	"github.com/prometheus/prometheus/model/value"
)

// maxStartAgeMs is how long before a sample its series may have started for a zero to mark that. A
// head takes in-order samples about as old; one that is new would take any, and would be stretched to
// the start of the oldest counter.
const maxStartAgeMs = int64(time.Hour / time.Millisecond)

// wantsStarts says whether the start times of this push are of interest.
func (p *push) wantsStarts() bool {
	return p.lim.startTimes[p.req.Origin] && (len(p.batch.StartTimes) > 0 || p.batch.HistogramCount() > 0)
}

// startHash changes with the start times of the newest samples of series i; 0: they say none.
func (p *push) startHash(i int) (hash uint64) {
	if from, to := p.batch.Samples(i); to > from && len(p.batch.StartTimes) > 0 {
		hash = uint64(p.batch.StartTimes[to-1])
	}
	if from, to := p.batch.Histograms(i); to > from {
		hash = hash*0x9e3779b97f4a7c15 + uint64(p.batch.HistogramStart(to-1))
	}
	return hash * 0xd6e8feb86659fd93
}

// startDue says whether the ingesters are to be told when series i started: it is new, or started
// anew.
func (p *push) startDue(i int) bool {
	return len(p.workOf) > 0 && p.workOf[i] > 0 && p.work[p.workOf[i]-1].start
}

// marksStart says whether a zero at start marks the beginning of a series with a sample at ms.
func marksStart(start, ms int64) bool { return start != 0 && start < ms && ms-start <= maxStartAgeMs }

// markStarts leaves of the start times those that ingesters do not know, which are few: so a
// counter that goes on costs nothing but a look at what its series was last seen with.
func (p *push) markStarts(context.Context) error {
	if !p.wantsStarts() || len(p.batch.StartTimes) == 0 {
		return nil
	}
	b := &p.batch
	for k := range p.work {
		w := &p.work[k]
		if !w.start || p.refs[w.series] == skipped {
			continue
		}
		from, to := b.Samples(int(w.series))
		for j := from; j < to; j++ {
			st := b.StartTimes[j]
			if !marksStart(st, b.Times[j]) || j > from && st == b.StartTimes[j-1] || value.IsStaleNaN(b.Values[j]) {
				continue
			}
			if len(p.starts) == 0 {
				p.starts = zeroed(p.starts, len(b.Times))
			}
			p.starts[j] = st
		}
	}
	return nil
}
