package ingester

import (
	"fmt"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/pkg/limits"
)

func TestRefusalsAreCountedByGroup(t *testing.T) {
	view := limits.SeparateMetricsGroupLabel.With(limits.View{}, "team")
	s := newSite(t, siteOptions{view: limits.MaxGlobalSeriesPerUser.With(view, 2)})
	from := newSender(s.Ingester)
	blue, plain := metric("m", "team", "blue"), metric("m")
	from.mustPush(t, "t1", point{blue, base, 1}, point{plain, base, 1})
	discarded := func(with ...string) float64 {
		return s.counter(t, "amphora_discarded_samples_total", with...)
	}
	from.push(t.Context(), from.frame("t1", point{blue, base, 2}, point{plain, base, 2}))
	if got := discarded("group", "blue", "reason", "new-value-for-timestamp", "user", "t1"); got != 2 {
		t.Errorf("refused of a push that begins with blue = %g, want 2", got)
	}
	from.push(t.Context(), from.frame("t1", point{plain, base, 2}))
	if got := discarded("group", "", "reason", "new-value-for-timestamp"); got != 1 {
		t.Errorf("refused without a group = %g, want 1", got)
	}
	for k := range maxGroups + 4 {
		from.push(t.Context(), from.frame("t1", point{metric("n", "team", fmt.Sprint(k)), base, 1}))
	}
	if got := discarded("group", otherGroup, "reason", "per_user_series_limit"); got != 5 {
		t.Errorf("refused beyond the bound of groups = %g, want 5", got)
	}
	s.lookup("t1").groups.forgetIdle(time.Now().Add(2 * groupIdle))
	if got := discarded("group", "blue"); got != 0 {
		t.Errorf("an idle group still counts %g", got)
	}
}
