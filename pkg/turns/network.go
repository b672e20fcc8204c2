package turns

import (
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// networkEvery is how often the network is looked at while all processors compute.
const networkEvery = slice

// network has the Go runtime look for requests that came. It does so when a processor has nothing else to run, or
// else every 10 ms only, which is long for a small query beside two large ones. So now and then a goroutine that
// computes waits for a byte from a pipe, which comes at once: to find it, the runtime asks the kernel for all that
// came. It takes some microseconds. Its zero value is ready.
type network struct {
	next atomic.Int64 // when it is looked at next, a time.Duration
	once sync.Once
	pipe pipe
	busy atomic.Bool // pipe is a goroutine's
}

type pipe struct{ r, w *os.File }

// pollable says whether the runtime waits for pipes as it waits for connections.
const pollable = runtime.GOOS != "windows" && runtime.GOOS != "plan9"

// look returns soon. It is for those who computed for long, among other tenants.
func (n *network) look(now time.Duration) {
	if next := n.next.Load(); !pollable || int64(now) < next || !n.busy.CompareAndSwap(false, true) {
		return
	}
	defer n.busy.Store(false)
	n.next.Store(int64(now + networkEvery))
	n.once.Do(func() { n.pipe.r, n.pipe.w, _ = os.Pipe() }) // without it, requests wait
	if n.pipe.r == nil {
		return
	}
	n.pipe.pass()
}

// pass has a byte go through the pipe.
func (p *pipe) pass() {
	// The other goroutine runs once this one waits: on this processor, or on another one, which then has
	// nothing else to do and looks at the network itself.
	go func() { _, _ = p.w.Write([]byte{0}) }()
	_, _ = p.r.Read(make([]byte, 1))
}
