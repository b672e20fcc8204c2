package ingester

import (
	"hash/fnv"
	"sync"

	"github.com/amphora-metrics/amphora/pkg/head"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// opener keeps the head of a tenant from being opened and closed at the same time. Different tenants
// do not wait for each other, as opening takes the time of a few system calls, and thousands are
// opened at a start.
type opener struct {
	locks  [64]sync.Mutex // by the hash of a tenant
	shared *head.Shared   // set while starting

	selections *head.Selections // nil: none
}

// of returns the lock of a tenant.
func (o *opener) of(id tenant.ID) *sync.Mutex {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id)) // never fails
	return &o.locks[h.Sum32()%uint32(len(o.locks))]
}

// stop waits for those who open or close a head, and lets nobody begin until the function it returns
// is called.
func (o *opener) stop() (resume func()) {
	for k := range o.locks {
		o.locks[k].Lock()
	}
	return func() {
		for k := range o.locks {
			o.locks[k].Unlock()
		}
	}
}
