package clustercache

import (
	"context"
	"sync"

	"github.com/amphora-metrics/amphora/pkg/memory"
	"github.com/amphora-metrics/amphora/pkg/wire/cachepb"
)

// queue holds the items that wait to be given to their owners, so that readers do not.
type queue struct {
	account *memory.Account
	items   chan *cachepb.Item
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	mu    sync.Mutex // guards bytes
	bytes int64      // that wait or are on their way
}

// start has send called with items until stop is.
func (q *queue) start(account *memory.Account, send func(context.Context, []*cachepb.Item)) {
	ctx, cancel := context.WithCancel(context.Background())
	q.account, q.items, q.cancel = account, make(chan *cachepb.Item, mostQueued), cancel
	for range writers {
		q.wg.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case first := <-q.items:
					batch := q.batch(first)
					send(ctx, batch)
					q.sent(batch)
				}
			}
		})
	}
}

// stop ends the calls under way. What waits is dropped.
func (q *queue) stop() {
	q.cancel()
	q.wg.Wait()
	for {
		select {
		case i := <-q.items:
			q.sent([]*cachepb.Item{i})
		default:
			return
		}
	}
}

// add takes an item, unless too much waits or the process is short of memory.
func (q *queue) add(i *cachepb.Item) bool {
	n := int64(len(i.Data)) + itemOverheadBytes
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.bytes+n > mostQueuedBytes || q.account.Reserve(n) != nil {
		return false
	}
	select {
	case q.items <- i:
		q.bytes += n
		return true
	default:
		q.account.Release(n)
		return false
	}
}

// batch is first and what else waits, as much as a call takes.
func (q *queue) batch(first *cachepb.Item) []*cachepb.Item {
	out, bytes := []*cachepb.Item{first}, len(first.Data)
	for len(out) < mostKeys && bytes+mostItemBytes <= mostCallBytes { // whatever comes next fits
		select {
		case i := <-q.items:
			out, bytes = append(out, i), bytes+len(i.Data)
		default:
			return out
		}
	}
	return out
}

func (q *queue) sent(batch []*cachepb.Item) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, i := range batch {
		n := int64(len(i.Data)) + itemOverheadBytes
		q.bytes -= n
		q.account.Release(n)
	}
}
