package ruler

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// mostMadeUp bounds how many missed evaluations are made up for at once, the latest of them.
const mostMadeUp = 60

// catchUp makes up for evaluations of a group's recording rules that were missed: because the ruler
// that had the group failed, because an evaluation took longer than the interval, or because series
// could not be read or written then. An evaluation has the same outcome whenever and however often it
// is made, so that doing it twice does no harm.
type catchUp struct {
	last  time.Time // the evaluation before, by this runner; zero: none
	every time.Duration
	owed  []time.Time // evaluations that failed for the moment, in their order
}

// before makes up for what was missed before the evaluation at now, the oldest first, since a sample
// that is older than the last one of its series may be refused.
func (c *catchUp) before(ctx context.Context, r *runner, g *rules.Group, now time.Time) {
	last, before, every := c.last, c.every, g.Interval()
	due := c.owed
	c.last, c.every, c.owed = now, every, nil
	window := r.w.r.cfg.CatchUp
	if window <= 0 || every <= 0 || !last.IsZero() && before != every {
		return // evaluations of another interval were due at other times
	}
	oldest := now.Add(-min(window, mostMadeUp*every))
	if last.IsZero() {
		var err error
		if last, err = r.lastRecorded(ctx, g, oldest, now); err != nil {
			c.last = time.Time{} // it is looked for again
			r.w.log.Warn("it is not known which evaluations were missed, none is made up for yet", "namespace", g.File(), "group", g.Name(), "err", err)
			return
		}
		if last.IsZero() {
			return // nobody evaluated it lately, or it records nothing
		}
	}
	for at := last.Add(every); at.Before(now.Add(-every / 2)); at = at.Add(every) {
		due = append(due, at)
	}
	due = slices.DeleteFunc(due, func(at time.Time) bool { return at.Before(oldest) })
	slices.SortFunc(due, time.Time.Compare)
	due = slices.CompactFunc(due, time.Time.Equal)
	c.settle(ctx, r, g, due)
}

// settle makes evaluations that are due. It takes about one interval at most, so that a group that is too
// slow does not fall behind more and more.
func (c *catchUp) settle(ctx context.Context, r *runner, g *rules.Group, due []time.Time) {
	m, user, began := r.w.r.metrics, string(r.w.id), time.Now()
	for i, at := range due {
		if i > 0 && time.Since(began) > g.Interval() {
			m.makeUpFailures.WithLabelValues(user).Add(float64(len(due) - i))
			r.w.log.Warn("group is too slow, missed evaluations are not made up for", "namespace", g.File(), "group", g.Name(), "missed", len(due)-i)
			return
		}
		err := r.makeUp(ctx, g, at)
		switch {
		case err == nil:
			m.madeUp.WithLabelValues(user).Inc()
		case passing(err):
			c.owed = due[i:]
			return
		default:
			m.makeUpFailures.WithLabelValues(user).Inc()
			r.w.log.Warn("missed evaluation is not made up for", "namespace", g.File(), "group", g.Name(), "missed", at, "err", err)
		}
	}
}

// after notes an evaluation that has to be made again.
func (c *catchUp) after(g *rules.Group, at time.Time) {
	for _, rule := range g.Rules() {
		if _, ok := rule.(*rules.RecordingRule); ok && passing(rule.LastError()) {
			c.owed = append(c.owed, at)
			return
		}
	}
}

// passing says whether an evaluation failed for a reason that may be gone soon.
func passing(err error) bool {
	switch errs.KindOf(err) {
	case errs.Unavailable, errs.Timeout, errs.RateLimited:
		return err != nil
	}
	return false
}

// lastRecorded returns the latest evaluation after oldest of which a recording rule of g left a
// sample, the earliest of all rules of g; zero if there is none.
func (r *runner) lastRecorded(ctx context.Context, g *rules.Group, oldest, now time.Time) (time.Time, error) {
	offset := g.QueryOffset()
	q, err := r.w.r.deps.Storage.Querier(timestamp.FromTime(oldest.Add(-offset)), timestamp.FromTime(now.Add(-offset)))
	if err != nil {
		return time.Time{}, err
	}
	defer func() { _ = q.Close() }() // nothing is lost with it
	var first time.Time
	for _, rule := range g.Rules() {
		rec, ok := rule.(*rules.RecordingRule)
		if !ok {
			continue
		}
		matchers := []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, model.MetricNameLabel, rec.Name())}
		rec.Labels().Range(func(l labels.Label) {
			matchers = append(matchers, labels.MustNewMatcher(labels.MatchEqual, l.Name, l.Value))
		})
		latest := int64(0)
		set := q.Select(ctx, false, nil, matchers...)
		var it chunkenc.Iterator
		for set.Next() {
			it = set.At().Iterator(it)
			for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
				latest = max(latest, it.AtT())
			}
			if err := it.Err(); err != nil {
				return time.Time{}, err
			}
		}
		if err := set.Err(); err != nil {
			return time.Time{}, err
		}
		if latest == 0 {
			continue // it may have had no result for long
		}
		// Samples have milliseconds, evaluations nanoseconds: the slot is the one that lies closest.
		at := timestamp.Time(latest).Add(offset)
		slot := g.EvalTimestamp(at.Add(g.Interval() / 2).UnixNano())
		if r.wanted.Load().align {
			slot = at
		}
		if first.IsZero() || slot.Before(first) {
			first = slot
		}
	}
	return first, nil
}

// makeUp evaluates the recording rules of g at a time in the past. That a sample is there already is
// no error.
func (r *runner) makeUp(ctx context.Context, g *rules.Group, at time.Time) error {
	offset := g.QueryOffset()
	for _, rule := range g.Rules() {
		rec, ok := rule.(*rules.RecordingRule)
		if !ok {
			continue
		}
		v, err := rec.Eval(ctx, offset, at, r.query, nil, g.Limit())
		if err != nil {
			return fmt.Errorf("rule %s: %w", rec.Name(), err)
		}
		app := appendable{r.w}.Appender(ctx)
		for _, s := range v {
			if s.H != nil {
				_, err = app.AppendHistogram(0, s.Metric, s.T, nil, s.H)
			} else if !value.IsStaleNaN(s.F) {
				_, err = app.Append(0, s.Metric, s.T, s.F)
			}
			if err != nil {
				return fmt.Errorf("rule %s: %w", rec.Name(), err)
			}
		}
		if err := app.Commit(); err != nil && errs.KindOf(err) != errs.Invalid {
			return fmt.Errorf("rule %s: %w", rec.Name(), err)
		}
	}
	return nil
}
