package storegateway

import (
	"sync"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/memory"
)

// queryPart is the part of the process's memory that one call may take unless a setting says how much.
const queryPart = 0.25

// room is the memory of one call.
type room struct {
	most int64

	mu   sync.Mutex // guards what follows
	used int64
	loan memory.Loan
}

func (g *Gateway) room() *room {
	most := int64(g.cfg.MaxQueryBytes)
	if most == 0 {
		most = g.deps.Memory.Part(queryPart)
	}
	return &room{most: most, loan: g.memory.Loan()}
}

// use takes n bytes, or gives them back if n is negative. Errors: TooLarge for a call that no
// store-gateway would answer, Unavailable if this one is short of memory.
func (r *room) use(n int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.used += n; r.used > r.most {
		return errs.New(errs.TooLarge, "the query needs more than %d bytes of memory in a store-gateway; ask for less, or raise -blocks-storage.bucket-store.max-query-memory-bytes", r.most)
	}
	return r.loan.Use(n)
}

func (r *room) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.loan.Return()
}
