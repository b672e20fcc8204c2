package distributor

import (
	"context"
	"math/bits"
	"slices"
)

// mergeTwins finds series of the push that became one by the rules of their tenant. The first sample
// of each time counts; others of that time are dropped, because an ingester takes a batch as a whole
// and would let one of them vanish without a word.
func (p *push) mergeTwins(context.Context) error {
	if len(p.results) < 2 {
		return nil
	}
	// Hashes of 32 bits take little enough room to stay in the cache; what looks alike by them is
	// compared in full.
	p.twins = zeroed(p.twins, 1<<bits.Len(uint(2*len(p.results)-1)))
	mask := uint32(len(p.twins) - 1)
	var alike []uint32
	for i, h := range p.results {
		if h == 0 || p.refs[i] == skipped {
			continue
		}
		at := h >> 1 & mask // the lowest bit is always set
		for p.twins[at] != 0 && p.twins[at] != h {
			at = (at + 1) & mask
		}
		if p.twins[at] == h {
			alike = append(alike, h)
		}
		p.twins[at] = h
	}
	slices.Sort(alike)
	for _, h := range slices.Compact(alike) {
		if err := p.mergeAlike(h); err != nil {
			return err
		}
	}
	return nil
}

// mergeAlike merges those series with the given hash of labels that have the same labels.
func (p *push) mergeAlike(hash uint32) error {
	byLabels := map[string]owners{}
	of := map[uint32]owners{} // by series
	var list []int
	for i, h := range p.results {
		if h != hash || p.refs[i] == skipped {
			continue
		}
		list = append(list, i)
		ls, err := p.labelsOf(i)
		if err != nil {
			return err
		}
		key := ls.String()
		if byLabels[key] == nil {
			byLabels[key] = owners{}
		}
		of[uint32(i)] = byLabels[key]
	}
	for _, i := range list {
		from, to := p.batch.Samples(i)
		for j := from; j < to; j++ {
			if len(p.drops) > 0 && p.drops[j] || of[uint32(i)].takes(p.batch.Times[j], i) {
				continue
			}
			if len(p.drops) == 0 {
				p.drops = zeroed(p.drops, len(p.batch.Times))
			}
			p.drops[j] = true
			p.counts.Samples--
			p.spared.Samples++
			p.refused[duplicateSample]++
		}
	}
	p.hists = slices.DeleteFunc(p.hists, func(h seriesHistogram) bool {
		if o := of[h.series]; o == nil || o.takes(h.Time, int(h.series)) {
			return false
		}
		p.counts.Histograms--
		p.spared.Histograms++
		p.refused[duplicateSample]++
		return true
	})
	return nil
}

// owners is which series of a push has the sample of each time.
type owners map[int64]int

// takes says whether series i may have a sample at ms.
func (o owners) takes(ms int64, i int) bool {
	if owner, ok := o[ms]; ok {
		return owner == i
	}
	o[ms] = i
	return true
}
