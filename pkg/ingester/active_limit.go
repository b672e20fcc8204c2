package ingester

import (
	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/head"
	"github.com/amphora-metrics/amphora/pkg/limits"
)

// activeLimit is the tenant's limit of active series during one push.
type activeLimit struct {
	global int
	share  int64 // of this ingester; 0: no limit
}

func (t *tenantHead) activeLimit() activeLimit {
	global := limits.MaxActiveSeriesPerUser.Of(t.ing.limits(t.id))
	return activeLimit{global, int64(t.localLimit(global))}
}

// allows says whether a sample may be appended to the series that ref or, if that is 0, ls names:
// whether that is active or there is room for one more. Concurrent pushes may overshoot the limit
// by their number.
func (l activeLimit) allows(t *tenantHead, v *visit, app *head.Appender, ref head.Ref, ls labels.Labels) bool {
	if ref != 0 && v.active(ref) {
		return true
	}
	if t.activity.counts().activeOwned < l.share {
		return true
	}
	// Full, as far as is known: whoever became idle since is still counted.
	t.activity.expireOnce(v.tick, t.ing.clock.oldest(v.tick))
	if t.activity.counts().activeOwned < l.share {
		return true
	}
	if ref == 0 {
		ref = app.Find(ls)
	}
	return ref != 0 && v.active(ref)
}

// refusal says how many samples of a push were refused.
func (l activeLimit) refusal(samples int) *refusal {
	row := limits.MaxActiveSeriesPerUser.Row()
	return &refusal{reasonActiveSeries, errs.Limit(errs.RateLimited, "max-active-series", row.Flag, row.Name,
		"the tenant's limit of %d active series is reached, %d samples of this request are of series beyond it and were refused", l.global, samples)}
}

// overActive counts the refusal of one sample.
func (p *push) overActive(t *tenantHead, s named) {
	p.attribute(t, s, reasonActiveSeries)
	p.rejected++
	if p.counts[reasonActiveSeries]++; p.first == nil {
		p.first = p.active.refusal(0)
	}
}
