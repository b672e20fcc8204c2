package ruler

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// TestAPreviewSaysWhatAManagerWouldHaveDone: the alert of TestAnAlertIsPendingThenFiresThenResolves, from
// what is stored.
func TestAPreviewSaysWhatAManagerWouldHaveDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := w.ruler(t, "a", nil)
		begin := time.Now()
		feed(t, w, func(since time.Duration) float64 {
			if since > time.Minute && since < 12*time.Minute || since > 20*time.Minute && since < 22*time.Minute {
				return 7
			}
			return 0
		})
		time.Sleep(30 * time.Minute)
		file := "groups:\n- " + strings.ReplaceAll(strings.TrimSpace(alerting), "\n", "\n  ") + "\n  - record: double\n    expr: load * 2\n    labels: {kind: x}\n  - record: wrong\n    expr: load + on() group_left() load\n"
		p, err := r.Preview(t.Context(), "t", []byte(file), begin.Add(time.Second), time.Now())
		if err != nil || len(p.Groups) != 1 || len(p.Groups[0].Rules) != 3 {
			t.Fatalf("%+v, %v", p, err)
		}
		a, double := p.Groups[0].Rules[0], p.Groups[0].Rules[1]
		if a.Type != "alerting" || a.Fired != 1 || len(a.Alerts) != 2 || a.Alerts[0].Labels["severity"] != "page" || a.Alerts[0].Labels["alertname"] != "Loaded" || a.Alerts[1].Fired != nil {
			t.Fatalf("%+v", a)
		}
		within(t, "active", a.Alerts[0].Active.Sub(begin), time.Minute, 2*time.Minute)
		within(t, "fired", a.Alerts[0].Fired.Sub(begin), 6*time.Minute, 7*time.Minute)
		within(t, "resolved", a.Alerts[0].Resolved.Sub(begin), 12*time.Minute, 13*time.Minute)
		if double.Series != 1 || double.Samples < 58 || fmt.Sprint(double.Listed) != "[map[__name__:double kind:x]]" {
			t.Errorf("%+v", double)
		}
		if n := w.store.seriesOf(t, "double") + w.store.seriesOf(t, "ALERTS"); n > 0 {
			t.Errorf("%d series were stored", n)
		}
		for text, from := range map[string]time.Time{file: begin.Add(-1000 * time.Hour), file + " wrong": begin, "groups:\n- name: g\n  source_tenants: [u]\n  rules:\n  - {record: x, expr: x}\n": begin} {
			if _, err := r.Preview(t.Context(), "t", []byte(text), from, time.Now()); errs.KindOf(err) != errs.Invalid {
				t.Errorf("from %s: %v", from, err)
			}
		}
	})
}
