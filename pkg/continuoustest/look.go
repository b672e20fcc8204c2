package continuoustest

import (
	"context"
	"time"
)

// pointsOfLook is how many values are asked for at once of what an earlier process wrote; a range query may have 11000.
const pointsOfLook = 5000

// look finds out, once, what an earlier process wrote of a stream, so that the test goes on from there.
// Errors: that of a query. It is then tried again before the next write.
func (t *Test) look(ctx context.Context, p *progress, now time.Time) error {
	if p.looked {
		return nil
	}
	end, oldest := t.aligned(now), t.aligned(now.Add(-t.cfg.Series.MaxQueryAge))
	for w := (window{step: t.cfg.WriteInterval}); !end.Before(oldest); end = w.from.Add(-t.cfg.WriteInterval) {
		w.from, w.to = end.Add(-(pointsOfLook-1)*t.cfg.WriteInterval), end
		if w.from.Before(oldest) {
			w.from = oldest
		}
		sums, err := t.ask(ctx, p.stream, "sum", w)
		if err != nil {
			return t.unanswered(ctx, p.stream, err)
		}
		counts, err := t.ask(ctx, p.stream, "count", w)
		if err != nil {
			return t.unanswered(ctx, p.stream, err)
		}
		if more := t.prepend(p, w, sums, counts); !more {
			break
		}
	}
	if p.last.IsZero() {
		t.deps.Log.Info("the continuous test finds nothing of its own and begins", "protocol", p.protocol, "type", p.kind())
	} else {
		t.deps.Log.Info("the continuous test goes on", "protocol", p.protocol, "type", p.kind(), "first", p.first.UTC(), "last", p.last.UTC())
	}
	p.looked = true
	return nil
}

func (t *Test) ask(ctx context.Context, s stream, aggregation string, w window) (map[int64]value, error) {
	got, err := t.query(s, true, func() ([]point, error) { return t.client.rangeQuery(ctx, s.expr(aggregation), w, true) })
	out := make(map[int64]value, len(got))
	for _, x := range got {
		out[x.at.UnixMilli()] = x.v
	}
	return out, err
}

// prepend goes back through a window from its end: past times that have nothing yet, then over samples without
// a gap. It returns whether they may go on before the window. Another number of series is of other
// settings, or of a write that was interrupted: the samples that are known begin after it. A sum
// that so many series cannot have is a wrong answer.
func (t *Test) prepend(p *progress, w window, sums, counts map[int64]value) (more bool) {
	for at := w.to; !at.Before(w.from); at = at.Add(-t.cfg.WriteInterval) {
		sum, there := sums[at.UnixMilli()]
		n := int(counts[at.UnixMilli()].float)
		switch whole := n == t.cfg.Series.Count; {
		case !there && p.last.IsZero() && w.to.Sub(at) <= lateBy:
			continue // the newest are older than now
		case !there:
			return false
		default:
			if wrong := sum.differs(wanted(p.histograms, at, n)); wrong != "" {
				_ = t.judge(p.stream, window{at, at, w.step}, true, at, wrong) // counted and logged
				return false
			}
			if !whole && p.last.IsZero() {
				continue // the same write completes it
			}
			if !whole {
				return false
			}
		}
		if p.last.IsZero() {
			p.last = at
		}
		p.first = at
	}
	return !p.last.IsZero()
}
