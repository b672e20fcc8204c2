package compactor

import (
	"sync"

	"github.com/oklog/ulid/v2"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// uploadTurns keeps what this process writes of a block that is being uploaded apart from its check: what was
// checked must be what is published.
type uploadTurns struct {
	mu    sync.Mutex          // guards turns
	turns map[uploaded]uint64 // how many files are being written, or ending
}

// uploaded names a block that is being uploaded.
type uploaded struct {
	tenant tenant.ID
	block  ulid.ULID
}

// ending says that the block is being checked or published.
const ending = ^uint64(0)

// write begins to write a file; done ends it. Errors: Conflict while the block is checked.
func (u *uploadTurns) write(b uploaded) (done func(), err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.turns[b] == ending {
		return nil, beingValidated(b.block)
	}
	u.turns[b]++
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.turns[b]--; u.turns[b] == 0 {
			delete(u.turns, b)
		}
	}, nil
}

// end begins to check or publish the block; done ends it. Errors: Conflict if that has begun, RateLimited while
// files are written.
func (u *uploadTurns) end(b uploaded) (done func(), err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch n := u.turns[b]; n {
	case 0:
	case ending:
		return nil, beingValidated(b.block)
	default:
		return nil, errs.New(errs.RateLimited, "files of block %s are still being sent: %d; finish the upload when they are there", b.block, n)
	}
	u.turns[b] = ending
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.turns, b)
	}, nil
}

func beingValidated(b ulid.ULID) error {
	return errs.New(errs.Conflict, "block %s is being validated; its files cannot be replaced meanwhile", b)
}
