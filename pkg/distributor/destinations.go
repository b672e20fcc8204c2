package distributor

import (
	"sync"
	"unsafe"

	"github.com/amphora-metrics/amphora/pkg/remotewrite"
)

const (
	// waysOfSet is how many series share a place of destinations; the newest take the place of any.
	waysOfSet = 4

	// Sets of destinations, powers of two. The most take 25 MB, for a million series.
	fewestSets = 64
	mostSets   = 1 << 18

	setBytes = int64(unsafe.Sizeof(destinationSet{}))
)

// destinations remembers where the series of a tenant go whose labels say it, so that the labels are
// not looked into again: a cache of sets, which forgets some series when another needs the place.
type destinations struct {
	budget *budget

	mu       sync.RWMutex // guards what follows
	sets     []destinationSet
	put      int               // series put since sets grew
	targets  []target          // only grows; what a series remembers is a position in it plus one
	numbers  map[target]uint32 // the same
	tossed   uint32            // decides whose place is taken
	finished bool              // nothing is remembered any more
}

type destinationSet [waysOfSet]destination

// destination is where one series goes. The hash has the bits of two series told apart for sure.
type destination struct {
	hash remotewrite.Hash
	to   uint32 // 0: none
}

func newDestinations(b *budget) *destinations {
	return &destinations{budget: b, numbers: map[target]uint32{}}
}

// look fills out with the number of the target of each series, 0 if it is not known, and returns the
// targets by number minus one.
func (d *destinations) look(hashes []remotewrite.Hash, out []uint32) []target {
	d.mu.RLock()
	defer d.mu.RUnlock()
	clear(out)
	if len(d.sets) == 0 {
		return d.targets
	}
	mask := uint64(len(d.sets) - 1)
	for k := range hashes {
		set := &d.sets[hashes[k].Lo&mask]
		for w := range set {
			if set[w].hash == hashes[k] {
				out[k] = set[w].to
				break
			}
		}
	}
	return d.targets
}

// remember notes that a series goes to t, and returns the number of t; 0: it has none, as there are
// too many.
func (d *destinations) remember(h remotewrite.Hash, t target) uint32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.numbers[t]
	if n == 0 && len(d.targets) < keptTargets {
		d.targets = append(d.targets, t)
		n = uint32(len(d.targets))
		d.numbers[t] = n
	}
	if n == 0 || d.finished {
		return n
	}
	d.grow()
	if len(d.sets) > 0 && d.place(destination{h, n}) {
		d.put++
	}
	return n
}

// grow makes more sets when most places are taken, if there is memory for them.
func (d *destinations) grow() {
	if d.put < len(d.sets)*waysOfSet*3/4 || len(d.sets) >= mostSets || d.budget.memory.Short() {
		return
	}
	old := d.sets
	d.sets = make([]destinationSet, max(2*len(old), fewestSets))
	d.budget.memory.Take(int64(len(d.sets)-len(old)) * setBytes)
	d.put = 0
	for i := range old {
		for _, e := range old[i] {
			if e.to != 0 && d.place(e) {
				d.put++
			}
		}
	}
}

// place puts e into its set and says whether it has a free place, or one of its own, there.
func (d *destinations) place(e destination) bool {
	set := &d.sets[e.hash.Lo&uint64(len(d.sets)-1)]
	for w := range set {
		if set[w].to == 0 || set[w].hash == e.hash {
			added := set[w].to == 0
			set[w] = e
			return added
		}
	}
	d.tossed = d.tossed*1664525 + 1013904223
	set[d.tossed>>16%waysOfSet] = e
	return true
}

// finish gives the memory back. d goes on to be used by pushes under way, and remembers nothing.
func (d *destinations) finish() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.budget.memory.Release(int64(len(d.sets)) * setBytes)
	d.sets, d.put, d.finished = nil, 0, true
}
