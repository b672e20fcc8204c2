package alertmanager

import (
	"context"
	"log/slog"
	"sync"

	"github.com/prometheus/alertmanager/alert"
	"github.com/prometheus/alertmanager/provider"
)

// witness hands alerts to one subscriber and knows how many of them it has worked off: whoever asks for
// the next one is done with those before. An inhibitor learns of alerts beside the dispatcher, and what is
// notified at once, because it began to fire long ago, must not overtake it.
type witness struct {
	*alertStore

	mu    sync.Mutex    // guards what follows
	done  int64         // of the alerts that the store took
	asked bool          // for the first one
	ended bool          // the subscriber is gone
	moved chan struct{} // closed with the next change; nil: nobody waits
}

// SlurpAndSubscribe implements provider.Alerts.
func (w *witness) SlurpAndSubscribe(name string) ([]*alert.Alert, provider.AlertIterator) {
	w.putting <- struct{}{}
	defer func() { <-w.putting }()
	all, it := w.Alerts.SlurpAndSubscribe(name)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done = w.taken.Load()
	return all, witnessed{it, w}
}

// witnessed is the alerts that are still to come.
type witnessed struct {
	provider.AlertIterator
	w *witness
}

// Next implements provider.AlertIterator.
func (i witnessed) Next() <-chan *provider.Alert {
	i.w.change(func() {
		if i.w.asked {
			i.w.done++
		}
		i.w.asked = true
	})
	return i.AlertIterator.Next()
}

// Close implements provider.AlertIterator.
func (i witnessed) Close() {
	i.w.change(func() { i.w.ended = true })
	i.AlertIterator.Close()
}

func (w *witness) change(how func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	how()
	if w.moved != nil {
		close(w.moved)
		w.moved = nil
	}
}

// caughtUp returns once the subscriber has worked off all alerts that were put before, with those that
// were put together with them, or is gone.
func (w *witness) caughtUp(ctx context.Context) error {
	select {
	case w.putting <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	due := w.taken.Load()
	<-w.putting
	for {
		moved := w.behind(due)
		if moved == nil {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// behind returns what is closed with the next change, and nil if the subscriber has worked off due alerts.
func (w *witness) behind(due int64) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended || w.asked && w.done >= due {
		return nil
	}
	if w.moved == nil {
		w.moved = make(chan struct{})
	}
	return w.moved
}

// Exec implements notify.Stage: what follows knows all alerts that are known.
func (w *witness) Exec(ctx context.Context, _ *slog.Logger, alerts ...*alert.Alert) (context.Context, []*alert.Alert, error) {
	return ctx, alerts, w.caughtUp(ctx)
}
