package distributor

import (
	"bytes"
	"context"
	"slices"
	"sync/atomic"

	"github.com/grafana/dskit/ring"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
)

// lookUp asks the table for every series and puts those that need more on the work list.
func (p *push) lookUp(ctx context.Context) error {
	n := p.batch.Len()
	p.series, p.refs = resized(p.series, n), resized(p.refs, n)
	p.topo = p.d.watch.current(p.now)
	if p.lim.typeAndUnit {
		p.batch.MarkTypeAndUnit(p.d.keys)
	}
	p.t.table.lookup(p.batch.Hashes, p.series, p.tick)
	if p.lim.rewrites() {
		p.results = zeroed(p.results, n)
	}
	bucket, starts := metadataBucket(p.now), p.wantsStarts()
	missed := 0
	for i := range p.series {
		f := &p.series[i]
		p.refs[i] = f.ref
		known := p.known(i)
		switch {
		case !known:
		case f.pair != 0:
			if stored, err := p.fromElected(ctx, i, f.pair); err != nil {
				return err
			} else if !stored {
				continue
			}
		case p.lim.deduplicates():
			p.outside += p.samplesOf(i)
		}
		if known && f.flags&entryDropped != 0 {
			p.dropByRule(i)
			continue
		}
		meta := p.batch.SeriesMetadataHash(i)
		if p.nothingIn(i) {
			p.refs[i] = skipped
			if meta != 0 {
				w := p.need(i)
				w.metaKey, w.meta = metadataKey(meta, bucket), true
			}
			continue
		}
		if !known || f.epoch == 0 {
			missed++
			p.need(i).place = true
		} else {
			if len(p.results) > 0 {
				p.results[i] = f.result
			}
			if f.epoch != p.topo.epoch {
				// Only the place is old: the token is known, so labels are not needed.
				w := p.need(i)
				w.place, w.token, w.hasToken, w.pair = true, f.token, true, f.pair
			}
		}
		if meta != 0 || starts {
			p.tellOnce(i, meta, bucket)
		}
	}
	p.d.metrics.seriesMissed.Add(float64(missed))
	p.d.metrics.seriesHit.Add(float64(n - missed))
	return nil
}

// tellOnce puts on the work list what ingesters have to be told about series i beside its samples,
// unless they were.
func (p *push) tellOnce(i int, meta, bucket uint64) {
	start := uint64(0)
	if p.wantsStarts() {
		start = p.startHash(i)
	}
	if meta == 0 {
		if start == 0 {
			return
		}
		bucket = 0 // a start is told once
	}
	f := &p.series[i]
	if key := metadataKey(meta+start, bucket); f.number == 0 || f.meta != key {
		w := p.need(i)
		w.metaKey, w.meta, w.start = key, meta != 0, start != 0
	}
}

// known says whether what the table knew about series i is true under the limits of this push. What
// was found valid with a check left out is no news for a push that makes it.
func (p *push) known(i int) bool {
	f := &p.series[i]
	return f.number != 0 && f.verdict == p.lim.verdict && f.flags&leftOut&^p.leaves == 0
}

// nothingIn says whether series i has nothing that this tenant stores.
func (p *push) nothingIn(i int) bool {
	if from, to := p.batch.Samples(i); to > from {
		return false
	}
	if from, to := p.batch.Histograms(i); to > from && p.lim.histograms {
		return false
	}
	from, to := p.batch.Exemplars(i)
	return to == from || !p.lim.exemplars
}

// validate decodes and checks the labels of series that are new, or were last checked under other
// limits, and takes along the metadata that is due.
func (p *push) validate(ctx context.Context) error {
	for k := range p.work {
		w := &p.work[k]
		if (w.hasToken || !w.place) && !w.meta {
			continue
		}
		ls, n, err := p.decode(int(w.series))
		if err != nil {
			return err
		}
		if p.known(int(w.series)) {
			w.pair = p.series[w.series].pair // and it was judged when it was looked up
		} else if p.lim.deduplicates() {
			if stored, err := p.judgeNew(ctx, w, ls); err != nil {
				return err
			} else if !stored {
				continue
			}
		}
		ls, n, keep, err := p.shape(ls, n)
		if err != nil {
			return err
		}
		if !keep {
			w.dropped = true
			p.dropByRule(int(w.series))
			continue
		}
		p.noteShortened(ls)
		ascii := !p.lim.shaped() && !p.lim.typeAndUnit && p.batch.ASCII(int(w.series))
		if v := p.lim.checkLabels(ls, n, p.leaves, ascii, &p.names); v.check != valid {
			p.refs[w.series] = skipped
			p.refuse(int(w.series), v.check, p.samplesOf(int(w.series)), func() error { return v.error(ls) })
			continue
		}
		if w.meta {
			if err := p.seriesMetadata(w, ls); err != nil {
				return err
			}
		}
		if w.place && !w.hasToken {
			if w.labels, err = p.build(ls); err != nil {
				return err
			}
			w.token, w.hasToken = ShardToken(p.t.id, w.labels), true
			if len(p.results) > 0 {
				p.results[w.series] = resultHash(w.labels)
			}
		}
	}
	return nil
}

// decode returns the labels of series i as they came, sorted, up to the most that a series may
// have, and how many there are. They are good until the next call. Errors: Invalid.
func (p *push) decode(i int) ([]remotewrite.Label, int, error) {
	most := p.lim.infoLabels
	if p.lim.shaped() || p.leaves&entryAnyCount != 0 {
		most = mostLabels // rules may leave fewer
	}
	if p.split.part != nil {
		most++ // one may be cut
	}
	ls, n, err := p.batch.Labels(i, p.labels[:0], most)
	if err != nil {
		return nil, 0, err
	}
	p.labels = ls
	ls, n = p.cutLabel(i, ls, n)
	if p.lim.typeAndUnit {
		ls, n = p.addTypeAndUnit(i, ls, n)
	}
	if !sortedByName(ls) {
		slices.SortStableFunc(ls, func(a, b remotewrite.Label) int { return bytes.Compare(a.Name, b.Name) })
	}
	return ls, n, nil
}

// sortedByName says whether ls are in the order of their names, for which mostly the first byte is
// looked at.
func sortedByName(ls []remotewrite.Label) bool {
	for i := 1; i < len(ls); i++ {
		a, b := ls[i-1].Name, ls[i].Name
		if len(a) > 0 && len(b) > 0 && a[0] < b[0] {
			continue
		}
		if string(a) > string(b) {
			return false
		}
	}
	return true
}

// route finds the ingesters of the series and metadata that need a place. Errors: Unavailable.
func (p *push) route(context.Context) error {
	var r ring.ReadRing
	ranges := p.topo.ranges
	if p.lim.shardSize > 0 {
		ranges = nil // they are of all ingesters
	}
	find := func(token uint32) (uint32, error) {
		var known *atomic.Uint32
		if ranges != nil {
			known = ranges.of(token)
			if set := known.Load(); set > 0 {
				return set - 1, nil
			}
		}
		if r == nil {
			// Without a shard size the sub-ring is the same for all, so it goes by one name.
			name := ""
			if p.lim.shardSize > 0 {
				name = string(p.t.id)
			}
			r = p.d.deps.Ring.ShuffleShard(name, p.lim.shardSize)
		}
		set, err := p.topo.route(r, token, &p.ring)
		if err == nil && known != nil {
			known.Store(set + 1)
		}
		return set, err
	}
	for k := range p.work {
		w := &p.work[k]
		if !w.place || p.refs[w.series] == skipped {
			continue
		}
		var err error
		if w.set, err = find(w.token); err != nil {
			return err
		}
	}
	for k := range p.metadata {
		m := &p.metadata[k]
		var err error
		if m.set, err = find(MetadataToken(p.t.id, m.Name)); err != nil {
			return err
		}
	}
	return nil
}

// remember puts all new places into the table under one lock.
func (p *push) remember(context.Context) error {
	if len(p.work) == 0 {
		return nil
	}
	t := p.t.table
	t.mu.Lock()
	defer t.mu.Unlock()
	for k := range p.work {
		w := &p.work[k]
		i := w.series
		if !w.place || p.refs[i] == skipped && !w.dropped && !w.lost {
			continue
		}
		at := placement{hash: p.batch.Hashes[i], token: w.token, set: w.set, verdict: p.lim.verdict, shape: p.lim.shape,
			pair: w.pair, dropped: w.dropped, lost: w.lost, leftOut: p.leaves}
		if len(p.results) > 0 {
			at.result = p.results[i]
		}
		transient, ok := t.remember(at, p.topo, p.tick, &p.series[i])
		if !ok {
			return errs.New(errs.Unavailable, "tenant %s has more than %d series in flight on this distributor", p.t.id, maxTableEntries)
		}
		if !w.dropped && !w.lost {
			p.refs[i] = p.series[i].ref
		}
		if transient {
			p.transient = append(p.transient, p.series[i].number-1)
		}
	}
	p.d.metrics.seriesUncached.Add(float64(len(p.transient)))
	return nil
}

// define finds the replicas of every series and which of them do not know its reference yet.
func (p *push) define(context.Context) error {
	p.places.begin(len(p.series))
	for i := range p.series {
		if p.refs[i] == skipped {
			continue
		}
		f := &p.series[i]
		s := p.touch(f.set)
		p.places.of[i] = s
		set := &p.places.sets[s]
		if set.known == f.bound && len(set.replicas) <= boundSlots {
			continue
		}
		lacking := uint64(0)
		for k, r := range set.replicas {
			if k >= boundSlots || f.bound[k] != p.places.replicas[r].incarnation {
				lacking |= 1 << k
			}
		}
		if lacking == 0 {
			continue
		}
		ls, err := p.labelsOf(i)
		if err != nil {
			return err
		}
		p.places.define(s, lacking, f, ls)
	}
	for k := range p.metadata {
		p.touch(p.metadata[k].set)
	}
	return nil
}
