package continuoustest

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// window is the times of a range query, both ends included.
type window struct {
	from, to time.Time
	step     time.Duration
}

// pointsOfCheck is how many values one range query asks for at most, or little more.
const pointsOfCheck = 1000

// over makes a window of samples that are there.
func (t *Test) over(from, to time.Time) window {
	n := to.Sub(from) / t.cfg.WriteInterval / pointsOfCheck
	return window{from, to, t.cfg.WriteInterval * (n + 1)}
}

// check reads back a stream over several ranges and at several times, by way of the results cache and past it.
// Errors: Internal (an answer was wrong), Unavailable (there was none).
func (t *Test) check(ctx context.Context, p *progress, now time.Time) error {
	if p.first.IsZero() {
		return nil
	}
	if oldest := t.aligned(now.Add(-t.cfg.Series.MaxQueryAge)).Add(t.cfg.WriteInterval); p.first.Before(oldest) {
		p.first = oldest
	}
	if p.first.After(p.last) {
		return nil
	}
	var problems []error
	for _, fresh := range []bool{false, true} {
		for _, w := range t.windows(p) {
			problems = append(problems, t.checkWindow(ctx, p.stream, w, fresh))
		}
		for _, at := range t.instants(p) {
			problems = append(problems, t.checkInstant(ctx, p.stream, at, fresh))
		}
	}
	return errors.Join(problems...)
}

// windows are the newest hour, the newest day, and any.
func (t *Test) windows(p *progress) []window {
	out := []window{t.over(t.notBefore(p, time.Hour), p.last)}
	if p.last.Sub(p.first) > time.Hour {
		out = append(out, t.over(t.notBefore(p, 24*time.Hour), p.last))
	}
	a, b := t.anyTime(p), t.anyTime(p)
	if a.After(b) {
		a, b = b, a
	}
	return append(out, t.over(a, b))
}

// instants are the newest, one of an hour ago, one of a day ago, and any.
func (t *Test) instants(p *progress) []time.Time {
	out := []time.Time{p.last, t.anyTime(p)}
	for _, ago := range []time.Duration{time.Hour, 24 * time.Hour} {
		if p.last.Sub(p.first) > ago {
			out = append(out, t.notBefore(p, ago))
		}
	}
	return out
}

// notBefore is a sample's time that long before the newest, or the first.
func (t *Test) notBefore(p *progress, ago time.Duration) time.Time {
	if at := t.aligned(p.last.Add(-ago)); at.After(p.first) {
		return at
	}
	return p.first
}

func (t *Test) anyTime(p *progress) time.Time {
	n := int64(p.last.Sub(p.first)/t.cfg.WriteInterval) + 1
	return p.first.Add(time.Duration(rand.Int64N(n)) * t.cfg.WriteInterval)
}

func (t *Test) checkWindow(ctx context.Context, s stream, w window, fresh bool) error {
	got, err := t.query(s, fresh, func() ([]point, error) { return t.client.rangeQuery(ctx, s.expr("sum"), w, fresh) })
	if err != nil {
		return t.unanswered(ctx, s, err)
	}
	return t.compare(s, w, got, fresh)
}

func (t *Test) checkInstant(ctx context.Context, s stream, at time.Time, fresh bool) error {
	got, err := t.query(s, fresh, func() ([]point, error) { return t.client.instantQuery(ctx, s.expr("sum"), at, fresh) })
	if err != nil {
		return t.unanswered(ctx, s, err)
	}
	return t.compare(s, window{at, at, t.cfg.WriteInterval}, got, fresh)
}

// query counts and times a query. An answer that cannot be read is one that is wrong.
func (t *Test) query(s stream, fresh bool, ask func() ([]point, error)) ([]point, error) {
	began, cache := time.Now(), "true"
	if fresh {
		cache = "false"
	}
	got, err := ask()
	t.metrics.queries.WithLabelValues(s.kind(), s.protocol).Inc()
	t.metrics.querySeconds.WithLabelValues(cache, s.kind(), s.protocol).Observe(time.Since(began).Seconds())
	return got, err
}

func (t *Test) unanswered(ctx context.Context, s stream, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errs.KindOf(err) == errs.Invalid {
		t.metrics.checks.WithLabelValues(s.kind(), s.protocol).Inc()
		t.metrics.checksFailed.WithLabelValues(s.kind(), s.protocol).Inc()
	} else {
		t.metrics.queriesFailed.WithLabelValues(s.kind(), s.protocol).Inc()
	}
	t.deps.Log.Warn("the continuous test gets no answer", "protocol", s.protocol, "type", s.kind(), "err", err)
	return err
}

// compare counts a check and whether it failed. Errors: Internal (the answer is wrong).
func (t *Test) compare(s stream, w window, got []point, fresh bool) error {
	at, wrong := mistake(s.histograms, w, got, t.cfg.Series.Count)
	return t.judge(s, w, fresh, at, wrong)
}

// judge counts a check; wrong says what is the matter at a time, if anything. Errors: Internal.
func (t *Test) judge(s stream, w window, fresh bool, at time.Time, wrong string) error {
	t.metrics.checks.WithLabelValues(s.kind(), s.protocol).Inc()
	if wrong == "" {
		return nil
	}
	t.metrics.checksFailed.WithLabelValues(s.kind(), s.protocol).Inc()
	t.deps.Log.Error("an answer is not what was written", "protocol", s.protocol, "type", s.kind(), "query", s.expr("sum"),
		"start", w.from.UTC(), "end", w.to.UTC(), "step", w.step, "results_cache", !fresh, "at", at.UTC(), "wrong", wrong)
	return errs.New(errs.Internal, "%s of %s at %s: %s", s.kind(), s.protocol, at.UTC().Format(time.RFC3339), wrong)
}

// mistake finds the first time of w at which the answer is not what n series add up to.
func mistake(histograms bool, w window, got []point, n int) (at time.Time, wrong string) {
	i := 0
	for at := w.from; !at.After(w.to); at = at.Add(w.step) {
		switch {
		case i == len(got) || got[i].at.After(at):
			return at, "there is no value"
		case got[i].at.Before(at):
			return got[i].at, "there is a value at a time that was not asked for"
		}
		if d := got[i].v.differs(wanted(histograms, at, n)); d != "" {
			return at, d
		}
		i++
	}
	if i < len(got) {
		return got[i].at, "there is a value at a time that was not asked for"
	}
	return time.Time{}, ""
}
