package frontend

import (
	"sync"

	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// mostPrints bounds the tenants whose fingerprint is remembered.
const mostPrints = 10_000

// prints remembers the fingerprints of the limits that answers depend on: they are looked up more often
// than limits change.
type prints struct {
	mu sync.Mutex // guards m
	m  map[tenant.ID]print
}

type print struct{ epoch, sum uint64 }

func newPrints() *prints { return &prints{m: map[tenant.ID]print{}} }

func (p *prints) of(id tenant.ID, v limits.View) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if x, ok := p.m[id]; ok && x.epoch == v.Epoch() {
		return x.sum
	}
	if len(p.m) >= mostPrints {
		clear(p.m)
	}
	sum := v.Fingerprint("frontend", "querier", "api", "compactor")
	p.m[id] = print{v.Epoch(), sum}
	return sum
}
