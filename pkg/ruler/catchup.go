package ruler

import (
	"context"
	"fmt"
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
// that had the group failed, or because an evaluation took longer than the interval. An evaluation
// has the same outcome whenever and however often it is made, so that doing it twice does no harm.
type catchUp struct {
	last  time.Time // the evaluation before, by this runner; zero: none
	every time.Duration
}

// before makes up for what was missed before the evaluation at now.
func (c *catchUp) before(ctx context.Context, r *runner, g *rules.Group, now time.Time) {
	last, before, every := c.last, c.every, g.Interval()
	c.last, c.every = now, every
	window := r.w.r.cfg.CatchUp
	if window <= 0 || every <= 0 || !last.IsZero() && before != every {
		return // evaluations of another interval were due at other times
	}
	oldest := now.Add(-min(window, mostMadeUp*every))
	if last.IsZero() {
		var err error
		if last, err = r.lastRecorded(ctx, g, oldest, now); err != nil {
			r.w.log.Warn("it is not known which evaluations were missed, none is made up for", "namespace", g.File(), "group", g.Name(), "err", err)
			return
		}
		if last.IsZero() {
			return // nobody evaluated it lately, or it records nothing
		}
	}
	for at := last.Add(every); at.Before(now.Add(-every / 2)); at = at.Add(every) {
		if at.Before(oldest) {
			continue
		}
		if err := r.makeUp(ctx, g, at); err != nil {
			r.w.r.metrics.makeUpFailures.WithLabelValues(string(r.w.id)).Inc()
			r.w.log.Warn("missed evaluation is not made up for", "namespace", g.File(), "group", g.Name(), "missed", at, "err", err)
			continue
		}
		r.w.r.metrics.madeUp.WithLabelValues(string(r.w.id)).Inc()
	}
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
