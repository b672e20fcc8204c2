package transport

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/grafana/dskit/services"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

const (
	sweepEvery = time.Minute
	// forgetAfter is how long an instance must have been out of the ring before what leads to it
	// is closed; a restart is shorter.
	forgetAfter = 5 * time.Minute
)

// pool keeps one T for each address.
type pool[T io.Closer] struct {
	open func(addr string) (T, error)

	mu      sync.RWMutex // guards what follows
	entries map[string]*entry[T]
	closed  bool
}

type entry[T any] struct {
	value T
	local bool
	gone  time.Time // first seen out of the ring; zero: in it
}

func newPool[T io.Closer](open func(addr string) (T, error)) *pool[T] {
	return &pool[T]{open: open, entries: make(map[string]*entry[T])}
}

// get returns the value for addr and makes it if there is none.
func (p *pool[T]) get(addr string) (T, error) {
	p.mu.RLock()
	e := p.entries[addr]
	p.mu.RUnlock()
	if e != nil {
		return e.value, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.entries[addr]; e != nil {
		return e.value, nil
	}
	var none T
	if p.closed {
		return none, errs.New(errs.Unavailable, "connect to %s: the process is stopping", addr)
	}
	v, err := p.open(addr)
	if err != nil {
		return none, err
	}
	p.entries[addr] = &entry[T]{value: v}
	return v, nil
}

// register sets the value for an address of this process. It stays until the pool is closed.
func (p *pool[T]) register(addr string, v T) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.entries[addr] != nil {
		return errs.New(errs.Internal, "address %s is in use already", addr)
	}
	p.entries[addr] = &entry[T]{value: v, local: true}
	return nil
}

// sweep closes what leads to addresses that have been out of the ring for forgetAfter.
func (p *pool[T]) sweep(inRing func(addr string) bool, now time.Time) error {
	var stale []T
	p.mu.Lock()
	for addr, e := range p.entries {
		switch {
		case e.local || inRing(addr):
			e.gone = time.Time{}
		case e.gone.IsZero():
			e.gone = now
		case now.Sub(e.gone) >= forgetAfter:
			stale = append(stale, e.value)
			delete(p.entries, addr)
		}
	}
	p.mu.Unlock()
	return closeAll(stale)
}

func (p *pool[T]) close() error {
	p.mu.Lock()
	var all []T
	for _, e := range p.entries {
		all = append(all, e.value)
	}
	clear(p.entries)
	p.closed = true
	p.mu.Unlock()
	return closeAll(all)
}

func closeAll[T io.Closer](vs []T) error {
	var problems []error
	for _, v := range vs {
		problems = append(problems, v.Close())
	}
	return errors.Join(problems...)
}

// service sweeps while it runs, if inRing is given, and closes the pool when it stops.
func (p *pool[T]) service(inRing func(addr string) bool) services.Service {
	sweep := func(context.Context) error {
		if inRing == nil {
			return nil
		}
		return p.sweep(inRing, time.Now())
	}
	return services.NewTimerService(sweepEvery, nil, sweep, func(error) error { return p.close() })
}
