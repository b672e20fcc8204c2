package distributor

import (
	"context"
	"time"

	"github.com/amphora-metrics/amphora/pkg/remotewrite"
)

// checkTimes refuses float samples too far in the future or past. Values are not looked at: NaN and
// stale markers are data.
func (p *push) checkTimes(context.Context) error {
	earliest, latest := span(p.batch.Times)
	if len(p.batch.Times) > 0 && latest <= p.nowMs+p.lim.futureMs {
		p.t.observeLatest(latest)
	}
	if len(p.batch.Times) == 0 || p.timeOK(earliest) && p.timeOK(latest) {
		return nil
	}
	p.drops = zeroed(p.drops, len(p.batch.Times))
	for i := range p.refs {
		if p.refs[i] == skipped {
			continue
		}
		from, to := p.batch.Samples(i)
		for j := from; j < to; j++ {
			if t := p.batch.Times[j]; !p.timeOK(t) {
				p.drops[j] = true
				p.refuseTime(i, t)
			}
		}
	}
	return nil
}

func (p *push) countSamples() {
	n := len(p.batch.Times)
	for i := range p.refs {
		if p.refs[i] == skipped {
			from, to := p.batch.Samples(i)
			n -= to - from
		}
	}
	for _, dropped := range p.drops {
		if dropped {
			n--
		}
	}
	p.counts.Samples = n
}

// span returns the smallest and largest of times.
func span(times []int64) (lo, hi int64) {
	if len(times) == 0 {
		return 0, 0
	}
	lo, hi = times[0], times[0]
	for _, t := range times[1:] {
		lo, hi = min(lo, t), max(hi, t)
	}
	return lo, hi
}

func (p *push) timeOK(ms int64) bool { return !p.inFuture(ms) && !p.inPast(ms) }

func (p *push) inFuture(ms int64) bool { return ms > p.nowMs+p.lim.futureMs }

func (p *push) inPast(ms int64) bool { return p.lim.pastMs > 0 && ms < p.nowMs-p.lim.pastMs }

// refuseTime refuses one sample of series i for its time.
func (p *push) refuseTime(i int, ms int64) {
	c, limit := tooFarInFuture, p.lim.futureMs
	if p.inPast(ms) {
		c, limit = tooFarInPast, p.lim.pastMs
	}
	p.refuse(i, c, 1, func() error {
		what := "future"
		if c == tooFarInPast {
			what = "past"
		}
		return c.errorf("sample of series %s with timestamp %d (%s) is too far in the %s: the limit is %s from now",
			p.seriesText(i), ms, time.UnixMilli(ms).UTC().Format(time.RFC3339), what, time.Duration(limit)*time.Millisecond)
	})
}

// seriesText names series i in an error.
func (p *push) seriesText(i int) string {
	ls, _, err := p.decode(i)
	if err != nil {
		return "with malformed labels"
	}
	return seriesText(ls)
}

const (
	// maxExemplarChars is the limit of OpenMetrics on the names and values of an exemplar.
	maxExemplarChars = 128

	// maxExemplarLabels is as many labels as fit into it, and one.
	maxExemplarLabels = maxExemplarChars/2 + 1

	// exemplarAgeMs is how much older than the oldest sample of its request an exemplar may be.
	exemplarAgeMs = 5 * 60 * 1000
)

// readExemplars decodes the exemplars. Those that break a rule are dropped and counted, which is
// no error for the client.
func (p *push) readExemplars(context.Context) error {
	if !p.lim.exemplars || p.batch.ExemplarCount() == 0 {
		return nil
	}
	var dropped [numExemplarChecks]int
	earliest, _ := span(p.batch.Times)
	hasTimes := len(p.batch.Times) > 0
	for i := range p.refs {
		if p.refs[i] == skipped {
			continue
		}
		from, to := p.batch.Exemplars(i)
		if most := p.lim.seriesExemplars; most > 0 && to-from > most {
			dropped[exemplarTooMany] += to - from - most
			to = from + most
		}
		for j := from; j < to; j++ {
			x, ls, n, err := p.batch.Exemplar(j, p.labels[:0], maxExemplarLabels)
			if err != nil {
				return err
			}
			p.labels = ls
			c := checkExemplar(x, ls, n)
			switch {
			case c != exemplarValid:
			case hasTimes && x.Time < earliest-exemplarAgeMs:
				c = exemplarTooOld
			case p.inFuture(x.Time):
				c = exemplarTooFarInFuture
			}
			if dropped[c]++; c == exemplarValid {
				if err := p.addExemplar(i, x, ls); err != nil {
					return err
				}
			}
		}
	}
	p.counts.Exemplars = len(p.exemplars)
	for c, n := range dropped {
		if n > 0 && exemplarCheck(c) != exemplarValid {
			p.d.metrics.discardedExemplars.WithLabelValues(exemplarCheck(c).reason(), string(p.t.id)).Add(float64(n))
		}
	}
	return nil
}

func (p *push) addExemplar(i int, x remotewrite.Exemplar, ls []remotewrite.Label) error {
	sortLabels(ls)
	e := seriesExemplar{series: uint32(i)}
	e.Time, e.Value = x.Time, x.Value
	var err error
	e.Labels, err = p.build(ls)
	p.exemplars = append(p.exemplars, e)
	return err
}
