package distributor

import (
	"context"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

// placesState is the replica sets and replicas that one push goes to.
type placesState struct {
	sets     []pushSet
	replicas []pushReplica
	of       []uint32 // position in sets, by series

	// Positions in sets and replicas by their numbers in the topology, good if stamped by this
	// push.
	setAt, replicaAt []stamped
	stamp            uint32

	// Columns that all frames share when there is one set.
	refs   []frame.Ref
	times  []int64
	values []float64
	starts []int64
	shared bool
}

type stamped struct{ stamp, at uint32 }

// pushSet is a replica set and what its replicas have answered.
type pushSet struct {
	replicas []uint32           // positions in placesState.replicas
	known    [boundSlots]uint32 // bindings of a series that every replica knows
	quorum   int

	clean, soft, failed int // replicas that stored all, stored with refusals, did not store
	decided             bool
}

// pushReplica is an ingester and what it gets.
type pushReplica struct {
	number      uint32 // in the topology
	replica     frame.Replica
	incarnation uint32
	err         error // why it cannot store, did not, or stored only in part
	answered    bool
	stored      bool

	frame   frame.Frame
	marks   []mark   // series defined in frame
	sets    []uint32 // positions in placesState.sets
	resends int
	lost    int // samples it refused
}

// reset forgets one push and keeps the memory.
func (s *placesState) reset() {
	for i := range s.replicas {
		r := &s.replicas[i]
		if s.shared {
			r.frame.Refs, r.frame.Times, r.frame.Values, r.frame.StartTimes = nil, nil, nil, nil
		}
		if cap(r.frame.Refs) > keptSeries {
			r.frame = frame.Frame{}
		}
		r.frame.Reset()
		*r = pushReplica{frame: r.frame, marks: r.marks[:0], sets: r.sets[:0]}
	}
	s.sets, s.replicas, s.of, s.shared = s.sets[:0], s.replicas[:0], s.of[:0], false
}

// begin readies s for a push of n series.
func (s *placesState) begin(n int) {
	s.of = resized(s.of, n)
	if s.stamp++; s.stamp == 0 {
		clear(s.setAt)
		clear(s.replicaAt)
		s.stamp = 1
	}
}

// more returns s one longer; the new element may hold memory to use again.
func more[T any](s []T) []T {
	if len(s) < cap(s) {
		return s[:len(s)+1]
	}
	var zero T
	return append(s, zero)
}

// touch returns the position of set number n in p.places.sets.
func (p *push) touch(n uint32) uint32 {
	s := &p.places
	if int(n) < len(s.setAt) && s.setAt[n].stamp == s.stamp {
		return s.setAt[n].at
	}
	s.setAt = reach(s.setAt, n)
	at := uint32(len(s.sets))
	s.setAt[n] = stamped{s.stamp, at}
	from := p.topo.set(n)
	s.sets = more(s.sets)
	set := &s.sets[at]
	*set = pushSet{replicas: set.replicas[:0], quorum: from.quorum}
	for k, number := range from.replicas {
		r := p.touchReplica(number)
		set.replicas = append(set.replicas, r)
		s.replicas[r].sets = append(s.replicas[r].sets, at)
		if k < boundSlots {
			set.known[k] = s.replicas[r].incarnation
		}
	}
	return at
}

// reach returns s long enough to have an element n.
func reach(s []stamped, n uint32) []stamped {
	if int(n) < len(s) {
		return s
	}
	s = slices.Grow(s, int(n)+1-len(s))
	old := len(s)
	s = s[:cap(s)]
	clear(s[old:])
	return s
}

func (p *push) touchReplica(number uint32) uint32 {
	s := &p.places
	s.replicaAt = reach(s.replicaAt, number)
	if a := s.replicaAt[number]; a.stamp == s.stamp {
		return a.at
	}
	at := uint32(len(s.replicas))
	s.replicaAt[number] = stamped{s.stamp, at}
	s.replicas = more(s.replicas)
	r := &s.replicas[at]
	r.number = number
	r.frame.Tenant, r.frame.Source = string(p.t.id), p.source
	// The incarnation is read before the frame is sent: if the stream is replaced in between, the
	// bindings noted later are those of a stream that is gone, and are made again.
	if r.replica, r.err = p.d.deps.Replica(p.topo.addr(number)); r.err == nil {
		r.incarnation = r.replica.Incarnation()
	}
	return at
}

// define puts the definition of a series of set into the frames of the lacking replicas.
func (s *placesState) define(set uint32, lacking uint64, f *found, ls labels.Labels) {
	for k, at := range s.sets[set].replicas {
		if lacking&(1<<k) != 0 {
			r := &s.replicas[at]
			r.frame.Defs = append(r.frame.Defs, frame.Def{Ref: f.ref, Token: f.token, Labels: ls})
			r.marks = append(r.marks, mark{f.ref, f.set})
		}
	}
}

// slotOf returns the position of replica number in a set, -1 if it is not in it.
func (t *topology) slotOf(set, number uint32) int {
	return slices.Index(t.set(set).replicas, number)
}

// makeFrames fills the frames of all replicas.
func (p *push) makeFrames(context.Context) error {
	s := &p.places
	if len(s.sets) == 1 {
		p.shareColumns()
	} else {
		p.splitColumns()
	}
	for k := range p.hists {
		h := &p.hists[k]
		h.Ref = p.refs[h.series]
		for _, at := range s.sets[s.of[h.series]].replicas {
			f := &s.replicas[at].frame
			f.Histograms = append(f.Histograms, h.Histogram)
		}
	}
	for k := range p.exemplars {
		e := &p.exemplars[k]
		e.Ref = p.refs[e.series]
		for _, at := range s.sets[s.of[e.series]].replicas {
			f := &s.replicas[at].frame
			f.Exemplars = append(f.Exemplars, e.Exemplar)
		}
	}
	for k := range p.metadata {
		for _, at := range s.sets[p.touch(p.metadata[k].set)].replicas {
			f := &s.replicas[at].frame
			f.Metadata = append(f.Metadata, p.metadata[k].Metadata)
		}
	}
	return nil
}

// shareColumns gives all replicas the same columns. If no sample is left out, times and values are
// those of the batch.
func (p *push) shareColumns() {
	s, b := &p.places, &p.batch
	s.shared = true
	s.refs = s.refs[:0]
	times, values, starts := b.Times, b.Values, p.starts
	all := p.counts.Samples == len(b.Times)
	if !all {
		s.times, s.values, s.starts = s.times[:0], s.values[:0], s.starts[:0]
	}
	for i, ref := range p.refs {
		if ref == skipped {
			continue
		}
		from, to := b.Samples(i)
		for j := from; j < to; j++ {
			if all {
				s.refs = append(s.refs, ref)
				continue
			}
			if len(p.drops) > 0 && p.drops[j] {
				continue
			}
			s.refs = append(s.refs, ref)
			s.times, s.values = append(s.times, times[j]), append(s.values, values[j])
			if len(starts) > 0 {
				s.starts = append(s.starts, starts[j])
			}
		}
	}
	if !all {
		times, values, starts = s.times, s.values, s.starts
	}
	for at := range s.replicas {
		f := &s.replicas[at].frame
		f.Refs, f.Times, f.Values, f.StartTimes = s.refs, times, values, starts
	}
}

// splitColumns gives every replica the samples of its series.
func (p *push) splitColumns() {
	s, b := &p.places, &p.batch
	for i, ref := range p.refs {
		if ref == skipped {
			continue
		}
		from, to := b.Samples(i)
		for _, at := range s.sets[s.of[i]].replicas {
			f := &s.replicas[at].frame
			for j := from; j < to; j++ {
				if len(p.drops) > 0 && p.drops[j] {
					continue
				}
				f.Refs = append(f.Refs, ref)
				f.Times, f.Values = append(f.Times, b.Times[j]), append(f.Values, b.Values[j])
				if len(p.starts) > 0 {
					f.StartTimes = append(f.StartTimes, p.starts[j])
				}
			}
		}
	}
}
