package distributor

import (
	"encoding/binary"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/grafana/dskit/ring"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

const (
	// ringPeriod is how often the ring is looked at for changes.
	ringPeriod = time.Second

	// keptTopologies is how many past topologies are known, so that series that were not pushed
	// during some changes of the ring keep their bindings to replicas they still have.
	keptTopologies = 8
)

// replicaSet is the ingesters of a series.
type replicaSet struct {
	replicas []uint32 // positions in topology.addrs, sorted
	quorum   int      // how many of them must store
}

// topology numbers the replica sets that the ring gives out between two of its changes. Sets with
// the same ingesters are one.
type topology struct {
	epoch uint32
	prev  atomic.Pointer[topology]

	sets  atomic.Pointer[[]replicaSet] // only grows
	addrs atomic.Pointer[[]string]     // only grows

	ranges *tokenRanges // of tenants that have no shard; nil: some of the ring is not known

	mu      sync.Mutex // guards the maps and growth
	setOf   map[string]uint32
	addrIDs map[string]uint32
	key     []byte
}

func newTopology(epoch uint32, prev *topology) *topology {
	t := &topology{epoch: epoch, setOf: map[string]uint32{}, addrIDs: map[string]uint32{}}
	t.sets.Store(new([]replicaSet))
	t.addrs.Store(new([]string))
	t.prev.Store(prev)
	for range keptTopologies {
		if prev == nil {
			return t
		}
		prev = prev.prev.Load()
	}
	if prev != nil {
		prev.prev.Store(nil)
	}
	return t
}

// past returns the topology of epoch, nil if it is forgotten.
func (t *topology) past(epoch uint32) *topology {
	for t != nil && t.epoch != epoch {
		t = t.prev.Load()
	}
	return t
}

// set returns set n.
func (t *topology) set(n uint32) *replicaSet { return &(*t.sets.Load())[n] }

// addr returns the address of replica n.
func (t *topology) addr(n uint32) string { return (*t.addrs.Load())[n] }

// carry returns the bindings of e for its new replica set: those of replicas it keeps.
func (t *topology) carry(e *entry, set uint32) (bound [boundSlots]uint32) {
	old := t.past(e.epoch)
	if old == nil {
		return bound
	}
	was, is := old.set(e.set).replicas, t.set(set).replicas
	for i, r := range is[:min(len(is), boundSlots)] {
		for j, o := range was[:min(len(was), boundSlots)] {
			if old.addr(o) == t.addr(r) {
				bound[i] = e.bound[j]
			}
		}
	}
	return bound
}

// ringBuffers are reused between routings.
type ringBuffers struct {
	descs []ring.InstanceDesc
	hosts []string
	zones []string
	addrs []string
}

// route returns the replica set for token on r. Errors: Unavailable.
func (t *topology) route(r ring.ReadRing, token uint32, buf *ringBuffers) (uint32, error) {
	if buf.descs == nil {
		buf.descs, buf.hosts, buf.zones = ring.MakeBuffersForGet()
	}
	rs, err := r.Get(token, ring.WriteNoExtend, buf.descs[:0], buf.hosts[:0], buf.zones[:0])
	if err != nil {
		return 0, errs.New(errs.Unavailable, "find ingesters: %w", err)
	}
	if len(rs.Instances) == 0 {
		return 0, errs.New(errs.Unavailable, "find ingesters: none is healthy")
	}
	buf.addrs = buf.addrs[:0]
	for i := range rs.Instances {
		buf.addrs = append(buf.addrs, rs.Instances[i].Addr)
	}
	slices.SortFunc(buf.addrs, strings.Compare)
	return t.intern(slices.Compact(buf.addrs), len(rs.Instances)-rs.MaxErrors), nil
}

// intern numbers the set of addrs.
func (t *topology) intern(addrs []string, quorum int) uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.key = binary.AppendUvarint(t.key[:0], uint64(quorum))
	for _, a := range addrs {
		t.key = binary.AppendUvarint(t.key, uint64(t.addrID(a)))
	}
	if n, ok := t.setOf[string(t.key)]; ok {
		return n
	}
	s := replicaSet{quorum: max(quorum, 1)}
	for _, a := range addrs {
		s.replicas = append(s.replicas, t.addrID(a))
	}
	sets := append(*t.sets.Load(), s)
	t.sets.Store(&sets)
	n := uint32(len(sets) - 1)
	t.setOf[string(t.key)] = n
	return n
}

func (t *topology) addrID(a string) uint32 {
	if n, ok := t.addrIDs[a]; ok {
		return n
	}
	addrs := append(*t.addrs.Load(), strings.Clone(a))
	t.addrs.Store(&addrs)
	n := uint32(len(addrs) - 1)
	t.addrIDs[addrs[n]] = n
	return n
}

// ringWatch notices changes of the ring.
type ringWatch struct {
	ring ring.ReadRing

	checked atomic.Int64 // when, in nanoseconds since the epoch
	topo    atomic.Pointer[topology]

	mu          sync.Mutex // guards fingerprint; held while looking
	fingerprint uint64
}

func newRingWatch(r ring.ReadRing) *ringWatch {
	w := &ringWatch{ring: r}
	w.topo.Store(newTopology(1, nil))
	return w
}

// current returns the topology to route by. It looks at the ring if that was not done for a while;
// one caller looks, the others go on with what is known.
func (w *ringWatch) current(now time.Time) *topology {
	last := w.checked.Load()
	if d := now.UnixNano() - last; (d >= int64(ringPeriod) || d < 0) && w.mu.TryLock() {
		w.look()
		w.checked.Store(now.UnixNano())
		w.mu.Unlock()
	}
	return w.topo.Load()
}

func (w *ringWatch) look() {
	f := uint64(0)
	all, err := w.ring.GetAllHealthy(ring.WriteNoExtend)
	if err == nil {
		// Those that are silent have their places until they are taken off their work.
		f = fingerprint(all.Instances) + uint64(w.ring.WritableInstancesWithTokensCount())*0x9e3779b97f4a7c15
	}
	if f == w.fingerprint {
		return
	}
	ranges := newTokenRanges(all.Instances, w.ring.InstancesCount())
	w.fingerprint = f
	old := w.topo.Load()
	t := newTopology(old.epoch+1, old)
	t.ranges = ranges
	w.topo.Store(t)
}

// fingerprint changes with what decides where series go. The order of instances does not matter.
func fingerprint(instances []ring.InstanceDesc) uint64 {
	sum := uint64(len(instances)) + 1
	var buf [64]byte
	for i := range instances {
		d := &instances[i]
		b := append(append(append(append(buf[:0], d.Addr...), separator), d.Zone...), separator)
		b = binary.LittleEndian.AppendUint64(b, uint64(d.RegisteredTimestamp))
		b = append(b, byte(d.State))
		if d.ReadOnly {
			b = append(b, 1)
		}
		h := xxhash.Sum64(b)
		for _, t := range d.Tokens {
			h = (h ^ uint64(t)) * 0x9e3779b97f4a7c15
		}
		sum += h
	}
	return sum
}
