package ruler

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/rulerpb"
)

// alerting fires five minutes after the gauge load is over 1.
const alerting = `name: g
interval: 30s
query_offset: 0s
rules:
- alert: Loaded
  expr: load > 1
  for: 5m
  labels: {severity: page}
  annotations: {summary: "load is {{ $value }}"}
`

// feed writes the gauge load every 15 seconds until the test ends.
func feed(t *testing.T, w *world, load func(since time.Duration) float64) {
	t.Helper()
	begin := time.Now()
	go func() {
		for tick := time.NewTicker(15 * time.Second); ; {
			w.store.add(t, "load", load(time.Since(begin)))
			select {
			case <-t.Context().Done():
				tick.Stop()
				return
			case <-tick.C:
			}
		}
	}()
}

// states lists the times since begin at which the alert's state was another than before.
func states(t *testing.T, r *Ruler, begin time.Time, last string) (string, time.Duration) {
	t.Helper()
	for {
		groups, err := r.List(t.Context(), "t", &rulerpb.GroupsRequest{})
		if err != nil || len(groups) != 1 {
			t.Fatalf("%d groups, %v", len(groups), err)
		}
		if s := groups[0].Rules[0].State; s != last {
			return s, time.Since(begin)
		}
		if time.Since(begin) > 2*time.Hour {
			t.Fatalf("the alert stays %s", last)
		}
		time.Sleep(time.Second)
	}
}

func within(t *testing.T, what string, got, from, to time.Duration) {
	t.Helper()
	if got < from || got > to {
		t.Errorf("%s after %s, want %s to %s", what, got, from, to)
	}
}

func TestAnAlertIsPendingThenFiresThenResolves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := w.ruler(t, "a", func(c *Config) { c.ExternalURL.Text = "http://where" })
		defer start(t, r)()
		begin := time.Now()
		feed(t, w, func(since time.Duration) float64 {
			if since > time.Minute && since < 12*time.Minute {
				return 7
			}
			return 0
		})
		put(t, r, alerting)
		state, at := states(t, r, begin, "")
		for _, want := range []struct {
			state    string
			from, to time.Duration
		}{
			{"unknown", 0, time.Second}, {"inactive", time.Second, 61 * time.Second}, {"pending", time.Minute, 2 * time.Minute},
			{"firing", 6 * time.Minute, 7 * time.Minute}, {"inactive", 12 * time.Minute, 13 * time.Minute},
		} {
			if state != want.state {
				t.Fatalf("%s after %s, want %s", state, at, want.state)
			}
			within(t, state, at, want.from, want.to)
			if state != "inactive" || want.from < 12*time.Minute {
				state, at = states(t, r, begin, state)
			}
		}
		time.Sleep(20 * time.Minute)
		fired, resolved := 0, 0
		var last time.Time
		for _, a := range w.inbox.all() {
			if a.tenant != "t" || a.Labels.Get("alertname") != "Loaded" || a.Labels.Get("severity") != "page" || a.Annotations.Get("summary") != "load is 7" {
				t.Errorf("alert %+v", a)
			}
			if want := "http://where/graph?g0.expr=load+%3E+1&g0.tab=1"; a.GeneratorURL != want {
				t.Errorf("generator %s, want %s", a.GeneratorURL, want)
			}
			if a.at.Sub(last) < 59*time.Second {
				t.Errorf("sent again after %s, want a minute or more", a.at.Sub(last))
			}
			last = a.at
			if a.EndsAt.After(a.at) {
				fired++
				if d := a.EndsAt.Sub(a.at); d < 3*time.Minute || d > 4*time.Minute+time.Second {
					t.Errorf("ends in %s, want four resend delays", d)
				}
			} else {
				resolved++
			}
		}
		// Six minutes of firing, sent at once and then every resend delay; resolved for a quarter of an hour.
		if fired < 3 || fired > 6 || resolved < 8 || resolved > 16 {
			t.Errorf("sent %d times as firing and %d times as resolved", fired, resolved)
		}
		for name, want := range map[string]int{"ALERTS": 2, "ALERTS_FOR_STATE": 1} {
			if n := w.store.seriesOf(t, name); n != want {
				t.Errorf("%d series of %s, want %d", n, name, want)
			}
		}
	})
}

func TestAPendingAlertGoesOnAfterARestart(t *testing.T) {
	for _, c := range []struct {
		away     time.Duration
		from, to time.Duration // when it fires
	}{
		{2 * time.Minute, 7 * time.Minute, 9 * time.Minute}, // 5m of pending, and the time away
		{65 * time.Minute, 71 * time.Minute, 74 * time.Minute},
	} {
		t.Run(fmt.Sprint(c.away), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				begin := time.Now()
				feed(t, w, func(time.Duration) float64 { return 2 })
				r := w.ruler(t, "a", nil)
				stop := start(t, r)
				put(t, r, alerting)
				time.Sleep(3 * time.Minute)
				stop()
				time.Sleep(c.away)
				r = w.ruler(t, "a", nil)
				defer start(t, r)()
				time.Sleep(time.Second)
				state := "unknown"
				var at time.Duration
				for state != "firing" {
					state, at = states(t, r, begin, state)
				}
				within(t, "firing", at, c.from, c.to)
			})
		})
	}
}

func TestRulesOfOneKindCanBeSwitchedOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.limits = off(w.limits)
		r := w.ruler(t, "a", nil)
		defer start(t, r)()
		put(t, r, recording+"- alert: A\n  expr: vector(1)\n")
		time.Sleep(time.Minute)
		if n := len(w.store.times(t, "answer")); n != 0 {
			t.Errorf("%d samples recorded", n)
		}
		if n := w.store.seriesOf(t, "ALERTS"); n != 1 {
			t.Errorf("%d series of alerts", n)
		}
	})
}

func TestEveryRulerTellsOfTheGroupsOfAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.setAlive("a", "b", "c")
		var rulers []*Ruler
		for _, id := range []string{"a", "b", "c"} {
			r := w.ruler(t, id, nil)
			defer start(t, r)()
			rulers = append(rulers, r)
		}
		for i := range 12 {
			put(t, rulers[i%3], fmt.Sprintf("name: g%02d\ninterval: 10s\nrules:\n- {record: r%d, expr: vector(1), labels: {n: '%d'}}\n- {alert: A, expr: vector(1)}\n", i, i, i%2))
		}
		time.Sleep(time.Minute)
		for _, r := range rulers {
			groups, err := r.List(t.Context(), "t", &rulerpb.GroupsRequest{})
			if err != nil || len(groups) != 12 {
				t.Fatalf("%d groups, %v", len(groups), err)
			}
			for i, g := range groups {
				if g.Name != fmt.Sprintf("g%02d", i) || len(g.Rules) != 2 || g.Rules[0].Health != "ok" || g.Rules[1].State != "firing" || len(g.Rules[1].Alerts) != 1 {
					t.Errorf("group %d: %v", i, g)
				}
			}
			for want, req := range map[int]*rulerpb.GroupsRequest{
				6: {Match: []string{`{n="1"}`}}, 2: {Groups: []string{"g03", "g04"}}, 1: {Rules: []string{"r7"}, Kind: rulerpb.GroupsRequest_RECORDING},
				0: {Namespaces: []string{"other"}},
			} {
				if got, err := r.List(t.Context(), "t", req); err != nil || len(got) != want {
					t.Errorf("%v: %d groups, %v; want %d", req, len(got), err, want)
				}
			}
			if got, err := r.List(t.Context(), "t", &rulerpb.GroupsRequest{Match: []string{`{n="1"}`, `{a=~".*"}`}}); errs.KindOf(err) != errs.Invalid {
				t.Errorf("a selector of everything: %d groups, %v", len(got), err)
			}
			if none, err := r.List(t.Context(), "u", &rulerpb.GroupsRequest{}); err != nil || len(none) != 0 {
				t.Errorf("another tenant has %v, %v", none, err)
			}
		}
	})
}
