package ingester

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
)

const (
	// lateAge is from what age on a sample counts as late. Answers that frontends keep are of times
	// before that.
	lateAge = time.Minute
	// lateStretch is how exactly it is known which times late samples have.
	lateStretch = 10 * time.Minute
	// mostLateStretches bounds what is remembered of a tenant.
	mostLateStretches = 512
)

// lateWrites remembers when late samples of which times came, so that nobody gives answers again that
// lack them. It is in memory alone: before since, nothing is known.
type lateWrites struct {
	mu      sync.Mutex // guards what follows
	since   int64      // Unix milliseconds
	tenants map[tenant.ID]*lateTable
}

// lateTable is of one tenant.
type lateTable struct {
	since     int64 // what was forgotten came before
	stretches []lateWrite
}

// lateWrite is a stretch of time, numbered, and when the last late sample of it came.
type lateWrite struct{ stretch, at int64 }

func (l *lateWrites) init(now time.Time) {
	l.since, l.tenants = now.UnixMilli(), map[tenant.ID]*lateTable{}
}

// note notes what r stores of samples that are late at now. They must be visible to queries already, and
// not be acknowledged yet.
func (l *lateWrites) note(id tenant.ID, r *record, now time.Time) {
	at, oldest := now.UnixMilli(), now.Add(-lateAge).UnixMilli()
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.tenants[id]
	if t == nil {
		t = &lateTable{since: l.since}
		l.tenants[id] = t
	}
	const none = -1 << 62
	last := int64(none)
	one := func(ts int64) {
		if ts >= oldest {
			return
		}
		if s := stretchOf(ts); s != last {
			last = s
			t.note(s, at)
		}
	}
	for i := range r.samples {
		one(r.samples[i].t)
	}
	for i := range r.histograms {
		one(r.histograms[i].t)
	}
}

// stretchOf is the number of the stretch that a time lies in.
func stretchOf(ts int64) int64 {
	const width = int64(lateStretch / time.Millisecond)
	if ts < 0 {
		return (ts - width + 1) / width
	}
	return ts / width
}

func (t *lateTable) note(stretch, at int64) {
	i, found := slices.BinarySearchFunc(t.stretches, stretch, func(w lateWrite, s int64) int { return cmp.Compare(w.stretch, s) })
	if found {
		t.stretches[i].at = at
		return
	}
	t.stretches = slices.Insert(t.stretches, i, lateWrite{stretch, at})
	if len(t.stretches) <= mostLateStretches {
		return
	}
	ats := make([]int64, len(t.stretches))
	for i, w := range t.stretches {
		ats[i] = w.at
	}
	slices.Sort(ats)
	// Those of one moment go together, so all may go.
	limit := ats[len(ats)/2]
	t.since = max(t.since, limit+1)
	t.stretches = slices.DeleteFunc(t.stretches, func(w lateWrite) bool { return w.at <= limit })
}

// tell adds what is known of a tenant to a message.
func (l *lateWrites) tell(id tenant.ID, out *ingesterpb.TenantStatsResponse) {
	const width = int64(lateStretch / time.Millisecond)
	l.mu.Lock()
	defer l.mu.Unlock()
	out.LateSince = l.since
	t := l.tenants[id]
	if t == nil {
		return
	}
	out.LateSince = t.since
	for _, w := range t.stretches {
		out.Late = append(out.Late, &ingesterpb.LateWrite{MinTime: w.stretch * width, MaxTime: (w.stretch+1)*width - 1, At: w.at})
	}
}
