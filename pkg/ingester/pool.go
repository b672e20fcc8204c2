package ingester

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/head"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

// keepSamples bounds the working memory that is kept for the next push, so that one huge frame
// does not stay allocated.
const keepSamples = 64 << 10

// takePush returns empty working memory for a push of phase.
func (i *Ingester) takePush(phase uint32) *push {
	p, ok := i.pool.Get().(*push)
	if !ok {
		p = &push{defs: map[frame.Ref]int{}}
	}
	p.phase = phase
	return p
}

// givePush takes p back.
func (i *Ingester) givePush(p *push) {
	if cap(p.refs) > keepSamples || cap(p.buf) > 16*keepSamples || len(p.defs) > keepSamples {
		return
	}
	p.rec.reset()
	clear(p.defs)
	p.bound, p.frame, p.visit, p.first, p.short, p.rejected, p.group = nil, nil, visit{}, nil, nil, 0, ""
	p.unknown = p.unknown[:0]
	clear(p.counts[:])
	i.pool.Put(p)
}

// resized returns a slice of n entries of any content, in the memory of s if it suffices.
func resized(s []head.Ref, n int) []head.Ref {
	if cap(s) < n {
		return make([]head.Ref, n)
	}
	return s[:n]
}

// pushes is the pushes under way.
type pushes struct {
	phases
	inflight, bytes atomic.Int64
}

// gone is the end of a push of size bytes.
func (p *pushes) gone(size int64) {
	p.inflight.Add(-1)
	p.bytes.Add(-size)
}

// phases counts pushes so that one can wait for all that began before a moment, without holding
// up new ones.
type phases struct {
	current atomic.Uint32
	n       [2]atomic.Int64
	settles sync.Mutex // one settle at a time
}

// enter returns the phase to leave.
func (p *phases) enter() uint32 {
	for {
		now := p.current.Load()
		p.n[now&1].Add(1)
		if p.current.Load() == now {
			return now
		}
		p.n[now&1].Add(-1)
	}
}

func (p *phases) leave(phase uint32) { p.n[phase&1].Add(-1) }

const (
	settleWait = 30 * time.Second
	settlePoll = 2 * time.Millisecond
)

// settle returns when everybody who entered before has left. Errors: Unavailable if that takes
// longer than a push may.
func (p *phases) settle(ctx context.Context) error {
	p.settles.Lock()
	defer p.settles.Unlock()
	ctx, cancel := context.WithTimeoutCause(ctx, settleWait, errs.New(errs.Unavailable, "pushes did not end within %s", settleWait))
	defer cancel()
	// Stragglers of a settle that gave up would otherwise be mistaken for newcomers.
	now := p.current.Load()
	if err := p.drained(ctx, now+1); err != nil {
		return err
	}
	p.current.Store(now + 1)
	return p.drained(ctx, now)
}

func (p *phases) drained(ctx context.Context, phase uint32) error {
	tick := time.NewTicker(settlePoll)
	defer tick.Stop()
	for p.n[phase&1].Load() > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
