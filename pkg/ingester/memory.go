package ingester

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/memory"
)

// accounts are the ingester's in the budget of the process.
type accounts struct {
	series, chunks, frames, queries, replay *memory.Account

	replayBytes int64 // for what waits to be read back
}

func accountsOf(l *memory.Ledger) accounts {
	return accounts{series: l.Account(memory.Series), chunks: l.Account(memory.Chunks), frames: l.Account(memory.Frames), queries: l.Account(memory.Queries),
		replay: l.Account(memory.Replay), replayBytes: l.Part(replayPart)}
}

const (
	// sampleBytes is about what a sample takes on the heap until its chunk is on disk.
	sampleBytes = 2
	// histogramSamples is how many samples a native histogram counts as.
	histogramSamples = 32
	// releaseSamples is how many samples of a head may wait for their chunks to be put on disk. What
	// that costs a head for good is as much memory as these samples take, so that heads which grow
	// more slowly keep them until the next cut.
	releaseSamples = 64 << 10
	// shortSamples is the same while the process is short of memory.
	shortSamples = releaseSamples / 4
	// releaseEvery bounds how often all heads are looked at because the process is short of memory.
	releaseEvery = 10 * time.Second
)

// chunkMemory is what a head is known to hold of samples in memory.
type chunkMemory struct {
	held      atomic.Int64 // bytes
	releasing sync.Mutex   // chunks are put on disk by one at a time
}

// took counts n samples that were stored.
func (m *chunkMemory) took(a *memory.Account, n int) {
	m.held.Add(int64(n) * sampleBytes)
	a.Take(int64(n) * sampleBytes)
}

// released says that the samples are not on the heap any more.
func (m *chunkMemory) released(a *memory.Account) { a.Release(m.held.Swap(0)) }

// readSamples is how many samples of each series are read back before chunks are put on disk: there
// are closed ones of all series then, and looking for them costs little for each.
const readSamples = 240

// readBack counts n samples that were read back, and keeps a head from having all of its samples on
// the heap at the end.
func (t *tenantHead) readBack(n int) {
	t.chunks.took(t.ing.memory.chunks, n)
	if got := t.head.Unreleased(); got < releaseSamples || got < readSamples*int64(t.head.NumSeries()) || t.ing.space.full() != nil {
		return
	}
	t.chunks.released(t.ing.memory.chunks)
	t.head.ReleaseChunks()
}

// tidy does what keeps a head small. full: nothing may be written. Calls must not overlap.
func (t *tenantHead) tidy(full bool, samples int64) {
	if !t.enter() {
		return
	}
	defer t.leave()
	t.sweep()
	if !full && t.head.Unreleased() >= samples {
		t.chunks.releasing.Lock()
		defer t.chunks.releasing.Unlock()
		t.chunks.released(t.ing.memory.chunks)
		t.head.ReleaseChunks()
	}
}

// shrink forgets what can be found again and puts the chunks of all heads on disk, because the process
// is short of memory.
func (i *Ingester) shrink() {
	i.opening.selections.Drop()
	if !i.accepting.Load() || !i.released.due(time.Now(), releaseEvery) {
		return
	}
	i.background.start(func() {
		full := i.space.full() != nil
		for _, t := range i.all() {
			t.tidy(full, shortSamples)
		}
	})
}

// headBytes is what a head takes without series.
const headBytes = 40_000

// headSeriesBytes is what a series takes in the head beside its labels: its state, an open chunk, its
// places in the index. It is somewhat low on purpose: what is really used counts as well, and what is
// reserved for nothing is lost to others.
const headSeriesBytes = 800

// seriesBytes is what the series ls takes in the head.
func seriesBytes(ls labels.Labels) int64 { return headSeriesBytes + int64(ls.ByteSize()) }

// shortOfMemory is what the hook of a head returns when the process has no memory for a new series.
// The samples of known series are stored, and the sender comes back with the rest.
type shortOfMemory struct{ err error }

func isShortOfMemory(err error) bool {
	_, ok := errors.AsType[*shortOfMemory](err)
	return ok
}

func (s *shortOfMemory) Error() string { return s.err.Error() }
func (s *shortOfMemory) Unwrap() error { return s.err }
