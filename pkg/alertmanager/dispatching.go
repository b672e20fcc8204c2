package alertmanager

import (
	"sync"
	"time"

	"github.com/prometheus/alertmanager/dispatch"
)

// dispatching is a dispatcher that may be stopped at any time: upstream's Stop waits only for what has
// begun when it is called, so that a Run at the same moment goes on behind its back.
type dispatching struct {
	*dispatch.Dispatcher

	mu           sync.Mutex // guards what follows
	begun, ended bool
}

// run dispatches until stop; after stop it does nothing.
func (d *dispatching) run() {
	d.mu.Lock()
	begun := !d.ended
	d.begun = begun
	d.mu.Unlock()
	if begun {
		d.Run(time.Now())
	}
}

// stop ends run and all that it began; nil has nothing to end.
func (d *dispatching) stop() {
	if d == nil {
		return
	}
	d.mu.Lock()
	wait := d.begun && !d.ended
	d.ended = true
	d.mu.Unlock()
	if wait {
		d.WaitForLoading()
	}
	d.Stop()
}
