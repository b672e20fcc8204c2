package ingester

import (
	"math"
	"sync"

	"github.com/grafana/dskit/ring"

	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// Place is where this ingester stands among those of one tenant, at one moment of the ring. It is
// not changed once it is made.
type Place struct {
	// Ingesters share the tenant's series, each of which is on Copies of them. With zones Ingesters
	// is as many as there were if all zones were like this ingester's.
	Ingesters, Copies int
	// Owned is the tokens of the series that the ring places here. nil: it is not known, and what
	// is here counts as owned.
	Owned ring.TokenRanges

	summed sync.Once
	part   float64 // of all tokens that is owned, once summed
}

// share is this ingester's part of a limit that holds for the cluster; 0 is no limit and stays 0.
// It follows from the number of ingesters, or from the tokens if those give more: an ingester that
// the ring gives more series than its neighbours must not refuse what the tenant may have.
func (p *Place) share(global int) int {
	if global <= 0 || p == nil || p.Ingesters <= 1 {
		return global
	}
	even := float64(min(p.Copies, p.Ingesters)) / float64(p.Ingesters)
	if even < 1 {
		even = max(even, p.fraction())
	}
	return max(1, int(math.Ceil(float64(global)*even)))
}

// fraction is the part of all tokens that is owned. Every new series asks for it.
func (p *Place) fraction() float64 {
	p.summed.Do(func() {
		n := uint64(0)
		for k := 0; k+1 < len(p.Owned); k += 2 {
			n += uint64(p.Owned[k+1]-p.Owned[k]) + 1
		}
		p.part = float64(n) / (1 << 32)
	})
	return p.part
}

// placeOf returns the place of now.
func (i *Ingester) placeOf(id tenant.ID) *Place {
	if i.place == nil {
		return nil
	}
	return i.place(id)
}

// localLimit returns this ingester's share of a limit for the cluster.
func (i *Ingester) localLimit(id tenant.ID, global int) int { return i.placeOf(id).share(global) }

// localLimit is the tenant's share of a limit of series. The series that are here are counted as
// owned or not by the place that was last applied to them; one that gives more takes effect at
// once, because series come here before they are counted.
func (t *tenantHead) localLimit(global int) int {
	return max(t.place.Load().share(global), t.ing.localLimit(t.id, global))
}

// reaches says whether n series are as many as the tenant's share of a limit, which may be none. The
// share is at least that of the applied place, which mostly says enough.
func (t *tenantHead) reaches(global int, n int64) bool {
	if share := t.place.Load().share(global); share > 0 && n < int64(share) {
		return false
	}
	most := t.localLimit(global)
	return most > 0 && n >= int64(most)
}

// ownedSeries is the number of series in memory but those that moved to other ingesters.
func (t *tenantHead) ownedSeries() int64 {
	n := t.activity.counts()
	return int64(t.head.NumSeries()) - (n.series - n.owned)
}

// replace applies the place of now to the series of the tenant if it is another than before.
func (t *tenantHead) replace() {
	p := t.ing.placeOf(t.id)
	if p == nil || p == t.place.Load() {
		return
	}
	t.activity.own(p.Owned)
	t.place.Store(p)
}
