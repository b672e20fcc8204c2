package frontend

import (
	"sync"
	"time"
)

const (
	// mostSeen bounds the parts of queries whose number of series is remembered.
	mostSeen = 20_000
	// seenFor is how long a number is believed.
	seenFor = time.Hour
)

// seen remembers how many series parts of queries have, by tenants and text.
type seen struct {
	mu sync.Mutex // guards m
	m  map[string]sight
}

type sight struct {
	series int64
	at     time.Time
}

func newSeen() *seen { return &seen{m: map[string]sight{}} }

// note remembers the most that a part of the query had: of its days one may have no series at all.
func (s *seen) note(key string, series int64, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x, ok := s.m[key]; ok && x.series > series && now.Sub(x.at) <= seenFor {
		return
	}
	if len(s.m) >= mostSeen {
		clear(s.m)
	}
	s.m[key] = sight{series, now}
}

// shards returns how many of most shards have at least each series in them.
func (s *seen) shards(key string, most, each int, now time.Time) int {
	if each <= 0 {
		return most
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	x, ok := s.m[key]
	if !ok || now.Sub(x.at) > seenFor {
		return most
	}
	return min(most, int((x.series+int64(each)-1)/int64(each)))
}
