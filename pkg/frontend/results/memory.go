package results

import (
	"container/list"
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/amphora-metrics/amphora/pkg/memory"
)

// itemOverheadBytes is what an item takes beside its bytes: its key, its place in the map and in the
// list.
const itemOverheadBytes = 256

// Memory is a Store in the memory of the process: of too many items those that were not used for the
// longest time go.
type Memory struct {
	most    int64
	account *memory.Account
	now     func() time.Time

	mu    sync.Mutex // guards what follows
	items map[string]*list.Element
	order list.List // the one used last in front
	bytes int64

	evicted prometheus.Counter
}

type item struct {
	key     string
	data    []byte
	expires time.Time
}

func (i *item) size() int64 { return int64(len(i.data)) + itemOverheadBytes }

// NewMemory returns a store of at most the given bytes, which it takes from account.
func NewMemory(most int64, account *memory.Account, reg prometheus.Registerer) *Memory {
	m := &Memory{most: most, account: account, now: time.Now, items: map[string]*list.Element{}}
	f := promauto.With(reg)
	m.evicted = f.NewCounter(prometheus.CounterOpts{Name: "amphora_frontend_query_result_cache_evicted_total",
		Help: "Items that had to go before their time. A rise means that the cache is too small."})
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "amphora_frontend_query_result_cache_bytes", Help: "Memory of the items in the results cache of this process."}, func() float64 {
		m.mu.Lock()
		defer m.mu.Unlock()
		return float64(m.bytes)
	})
	return m
}

// Get implements Store. The item must not be changed.
func (m *Memory) Get(_ context.Context, key string) ([]byte, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.items[key]
	if e == nil {
		return nil, false
	}
	i := e.Value.(*item)
	if m.now().After(i.expires) {
		m.drop(e)
		return nil, false
	}
	m.order.MoveToFront(e)
	return i.data, true
}

// Set implements Store. The item must not be changed afterwards.
func (m *Memory) Set(key string, data []byte, ttl time.Duration) {
	i := &item{key: key, data: data, expires: m.now().Add(ttl)}
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.items[key]; e != nil {
		m.drop(e)
	}
	if i.size() > m.most {
		return
	}
	for m.bytes+i.size() > m.most {
		m.evict()
	}
	if m.account.Reserve(i.size()) != nil {
		return // the process is short of memory, and caches are the first to do without
	}
	m.bytes += i.size()
	m.items[key] = m.order.PushFront(i)
}

// Shrink gives up half of what there is.
func (m *Memory) Shrink() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for most := m.bytes / 2; m.bytes > most; {
		m.evict()
	}
}

func (m *Memory) evict() {
	m.evicted.Inc()
	m.drop(m.order.Back())
}

func (m *Memory) drop(e *list.Element) {
	i := m.order.Remove(e).(*item)
	delete(m.items, i.key)
	m.bytes -= i.size()
	m.account.Release(i.size())
}
