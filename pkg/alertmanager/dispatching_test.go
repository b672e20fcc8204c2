package alertmanager

import (
	"context"
	"log/slog"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/alertmanager/alert"
	"github.com/prometheus/alertmanager/dispatch"
	"github.com/prometheus/alertmanager/eventrecorder"
	"github.com/prometheus/alertmanager/notify"
)

// TestADispatcherThatStartsIsStopped: the race detector finds what goes on behind a stop's back.
func TestADispatcherThatStartsIsStopped(t *testing.T) {
	c := newFleet(t, 1)
	h := newHook(t, nil)
	c.put(t, "t", h.url)
	c.alert(t, "t", "a")
	m := c.nodes["am-0"]
	in, err := m.instance(t.Context(), "t")
	if err != nil {
		t.Fatal(err)
	}
	<-in.settled
	root := dispatch.NewRoute(in.built.Load().def.conf.Route, nil)
	nowhere := notify.StageFunc(func(ctx context.Context, _ *slog.Logger, alerts ...*alert.Alert) (context.Context, []*alert.Alert, error) {
		return ctx, alerts, nil
	})
	for i := range 200 {
		d := &dispatching{Dispatcher: dispatch.NewDispatcher(in.alerts, root, nowhere, in.groups, func(d time.Duration) time.Duration { return d }, groupMaintenance,
			groupLimit{in.view}, in.log, eventrecorder.NopRecorder(), in.dispatchMetrics, nil)}
		var both sync.WaitGroup
		both.Go(d.run)
		for range i % 20 {
			runtime.Gosched()
		}
		d.stop()
		d.stop() // once more is nothing
		both.Wait()
	}
}
