package alertmanager

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/alertmanager/alert"
	"github.com/prometheus/common/model"
)

// inhibiting stores a configuration that notifies the webhook at url at once of what no critical alert of the
// same cluster inhibits.
func (c *fleet) inhibiting(t *testing.T, url string) {
	t.Helper()
	data := defined(t, nil, "route:", "  receiver: r", "  group_by: [alertname]", "  group_wait: 0s", "  group_interval: 1h", "inhibit_rules:",
		"- source_matchers: ['severity=\"critical\"']", "  target_matchers: ['severity=\"warning\"']", "  equal: [cluster]", "receivers:", "- name: r",
		"  webhook_configs:", "  - url: "+url)
	if err := c.nodes["am-0"].Put(t.Context(), "t", data); err != nil {
		t.Fatal(err)
	}
}

// TestNobodyIsNotifiedOfWhatComesWithItsInhibitor: alerts that fired before this replica started are due at
// once, and what inhibits the first of them is told last.
func TestNobodyIsNotifiedOfWhatComesWithItsInhibitor(t *testing.T) {
	c := newFleet(t, 1)
	h := newHook(t, nil)
	c.inhibiting(t, h.url)
	const held = 100
	var all []string
	for i := range held {
		all = append(all, fmt.Sprintf(`{"labels":{"alertname":"held%d","severity":"warning","cluster":"c"},"startsAt":"2020-01-01T00:00:00Z"}`, i))
	}
	all = append(all, `{"labels":{"alertname":"free","severity":"warning","cluster":"d"},"startsAt":"2020-01-01T00:00:00Z"}`,
		`{"labels":{"alertname":"down","severity":"critical","cluster":"c"},"startsAt":"2020-01-01T00:00:00Z"}`)
	c.done(t, "t", "POST", "/api/v2/alerts", "["+strings.Join(all, ",")+"]")
	eventually(t, "what nothing inhibits is notified", func() bool { return h.count("free") == 1 && h.count("down") == 1 })
	for i := range held {
		name := fmt.Sprint("held", i)
		eventually(t, name+" is decided", func() bool {
			return strings.Contains(c.done(t, "t", "GET", decisionsPath, ""), `"alertname":"`+name+`"`)
		})
		if n := h.count(name); n != 0 {
			t.Errorf("%s is inhibited, and %d notifications told of it", name, n)
		}
	}
}

// TestAWitnessWaitsForItsSubscriber: it is done with an alert when it asks for the next one.
func TestAWitnessWaitsForItsSubscriber(t *testing.T) {
	c := newFleet(t, 1)
	c.inhibiting(t, "http://127.0.0.1:1")
	in, err := c.nodes["am-0"].instance(t.Context(), "t")
	if err != nil {
		t.Fatal(err)
	}
	put := func(name string) {
		now := time.Now()
		if err := in.alerts.Put(t.Context(), &alert.Alert{UpdatedAt: now,
			Alert: model.Alert{Labels: model.LabelSet{"alertname": model.LabelValue(name)}, StartsAt: now, EndsAt: now.Add(time.Hour)}}); err != nil {
			t.Fatal(err)
		}
	}
	put("before")
	w := &witness{alertStore: in.alerts}
	behind := func() bool { return w.behind(w.taken.Load()) != nil }
	initial, it := w.SlurpAndSubscribe("test")
	if len(initial) != 1 || !behind() {
		t.Errorf("it has not worked off the first %d alerts, and is taken for done: %v", len(initial), !behind())
	}
	next := it.Next()
	if behind() {
		t.Error("it waits for the next one, and is not taken for done")
	}
	put("one")
	put("two")
	for range 2 {
		<-next
		if !behind() {
			t.Error("it works on an alert, and is taken for done")
		}
		next = it.Next()
	}
	if err := w.caughtUp(t.Context()); err != nil {
		t.Error(err)
	}
	put("three")
	it.Close()
	if err := w.caughtUp(t.Context()); err != nil {
		t.Errorf("it is gone, and somebody waits for it: %v", err)
	}
}
