package querier

import (
	"container/heap"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"
)

// named is a storage.Series or a storage.ChunkSeries.
type named interface{ Labels() labels.Labels }

// seriesSet is a set of either.
type seriesSet[S named] interface {
	Next() bool
	At() S
	Err() error
	Warnings() annotations.Annotations
}

// ordered is the series of one tenant with TenantLabel, in the order of the labels that they have with it. In set they
// are in the order of those that they are stored with, which differs in two cases: of m and m{__a} the first is the greater
// one once it goes on with TenantLabel, and a series that has that label itself is sorted by its value, which goes to
// ownTenantLabel. So series wait as long as a smaller one may follow: in the first case one for each label before TenantLabel,
// in the second those that are alike up to there. Their chunks have been fetched and charged before.
type ordered[S named] struct {
	set   seriesSet[S]
	at    S
	held  waiting[S]
	least labels.Labels // of what is still to come
	ended bool
}

// Next implements storage.SeriesSet.
func (o *ordered[S]) Next() bool {
	for {
		if len(o.held) > 0 && (o.ended || labels.Compare(o.held[0].Labels(), o.least) <= 0) {
			o.at = heap.Pop(&o.held).(S)
			return true
		}
		if o.ended {
			return false
		}
		if !o.set.Next() {
			o.ended = true
			if o.set.Err() != nil {
				o.held = nil
			}
			continue
		}
		s := o.set.At()
		var exact bool
		if o.least, exact = leastAfter(s.Labels()); exact && len(o.held) == 0 {
			o.at = s
			return true
		}
		heap.Push(&o.held, s)
	}
}

// At implements storage.SeriesSet.
func (o *ordered[S]) At() S { return o.at }

// Err implements storage.SeriesSet.
func (o *ordered[S]) Err() error { return o.set.Err() }

// Warnings implements storage.SeriesSet.
func (o *ordered[S]) Warnings() annotations.Annotations { return o.set.Warnings() }

// leastAfter returns what no series is smaller than that set has after the one with the labels ls. It is ls itself, and exact
// is true, but for the two cases.
func leastAfter(ls labels.Labels) (least labels.Labels, exact bool) {
	last, own := "", false
	ls.Range(func(l labels.Label) {
		last = l.Name
		own = own || l.Name == ownTenantLabel
	})
	if !own && last != TenantLabel {
		return ls, true
	}
	b := labels.NewScratchBuilder(ls.Len())
	ls.Range(func(l labels.Label) {
		if l.Name < TenantLabel || own && l.Name == TenantLabel {
			b.Add(l.Name, l.Value)
		}
	})
	return b.Labels(), false
}

// waiting is a min-heap by labels.
type waiting[S named] []S

func (w waiting[S]) Len() int           { return len(w) }
func (w waiting[S]) Less(i, j int) bool { return labels.Compare(w[i].Labels(), w[j].Labels()) < 0 }
func (w waiting[S]) Swap(i, j int)      { w[i], w[j] = w[j], w[i] }

// Push implements heap.Interface.
func (w *waiting[S]) Push(x any) { *w = append(*w, x.(S)) }

// Pop implements heap.Interface.
func (w *waiting[S]) Pop() any {
	old := *w
	last := old[len(old)-1]
	var none S
	old[len(old)-1] = none
	*w = old[:len(old)-1]
	return last
}
