package clustercache

import (
	"container/list"
	"sync"
	"time"

	"github.com/amphora-metrics/amphora/pkg/memory"
)

const (
	// itemOverheadBytes is what an item takes beside its key and bytes: its places in the map and in the
	// list.
	itemOverheadBytes = 256
	// mostLeases bounds what is being brought at the same time: what is more is brought without a lease.
	mostLeases = 16 << 10
	// mostTTL bounds how long an item is kept, whatever is asked for.
	mostTTL = 30 * 24 * time.Hour
)

// shelf is the items that this process holds: of too many those go that were not used for the longest time.
type shelf struct {
	most    int64
	account *memory.Account
	now     func() time.Time
	metrics *metrics

	mu      sync.Mutex // guards what follows
	items   map[string]*list.Element
	order   list.List // of *item, the one used last in front
	bytes   int64
	leases  map[string]lease
	granted []string // keys of leases, the oldest first; some were given back or given anew
}

type item struct {
	key     string
	data    []byte
	expires time.Time
}

func (i *item) size() int64 { return int64(len(i.key)+len(i.data)) + itemOverheadBytes }

// lease says who brings an item.
type lease struct {
	asker string
	until time.Time
}

func newShelf(most int64, account *memory.Account) *shelf {
	return &shelf{most: most, account: account, now: time.Now, items: map[string]*list.Element{}, leases: map[string]lease{}}
}

// get returns an item, which must not be changed. If it is not there and a lease is asked for, it says whether to
// wait for somebody else to bring it; who is not told so is the one who is to.
func (s *shelf) get(key, asker string, lease bool) (data []byte, wait bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if !lease {
		s.metrics.requests.Inc()
	}
	if e := s.items[key]; e != nil {
		i := e.Value.(*item)
		if now.Before(i.expires) {
			if !lease {
				s.metrics.hits.Inc()
			}
			s.order.MoveToFront(e)
			return i.data, false
		}
		s.drop(e)
	}
	if !lease {
		return nil, false
	}
	if l, ok := s.leases[key]; ok && l.asker != asker && now.Before(l.until) {
		return nil, true
	}
	s.grant(key, asker, now)
	return nil, false
}

// grant has asker bring an item. It needs s.mu.
func (s *shelf) grant(key, asker string, now time.Time) {
	for len(s.granted) > 0 {
		oldest := s.granted[0]
		l, ok := s.leases[oldest]
		if ok && now.Before(l.until) && len(s.granted) < mostLeases {
			break
		}
		if ok && !now.Before(l.until) {
			delete(s.leases, oldest)
		} else if ok {
			return // too many are under way
		}
		s.granted = s.granted[1:]
	}
	s.leases[key] = lease{asker, now.Add(leaseTime)}
	s.granted = append(s.granted, key)
}

// set keeps an item. The data must not be changed afterwards.
func (s *shelf) set(key string, data []byte, ttl time.Duration) {
	i := &item{key: key, data: data, expires: s.now().Add(min(ttl, mostTTL))}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.leases, key)
	if e := s.items[key]; e != nil {
		s.drop(e)
	}
	if i.size() > s.most {
		s.metrics.dropped.Inc()
		return
	}
	for s.bytes+i.size() > s.most {
		s.evict()
	}
	if s.account.Reserve(i.size()) != nil {
		s.metrics.dropped.Inc() // the process is short of memory, and caches are the first to do without
		return
	}
	s.bytes += i.size()
	s.items[key] = s.order.PushFront(i)
}

// shrink gives up half of what there is.
func (s *shelf) shrink() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for most := s.bytes / 2; s.bytes > most; {
		s.evict()
	}
}

func (s *shelf) evict() {
	s.metrics.evicted.Inc()
	s.drop(s.order.Back())
}

func (s *shelf) drop(e *list.Element) {
	i := s.order.Remove(e).(*item)
	delete(s.items, i.key)
	s.bytes -= i.size()
	s.account.Release(i.size())
}

// size is how many items there are, and the memory they take.
func (s *shelf) size() (items int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.items), s.bytes
}
