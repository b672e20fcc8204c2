package load

import (
	"math/rand/v2"
	"time"

	"github.com/klauspost/compress/s2"
)

// offsetPerTarget is how much later than its neighbour a target is scraped.
const offsetPerTarget = 7 * time.Millisecond

// maker makes the requests of one range of series of one tenant.
type maker struct {
	o        *Options
	tenant   int
	series   []series
	distinct int // series made so far, those of earlier lives included

	rand  *rand.Rand
	table symbolTable // of version 2.0
}

// series is one series and where its value stands.
type series struct {
	target target
	k      int
	kind   kind
	value  float64
	// labels is the encoded labels: the fields of a TimeSeries of version 1.0, or the packed
	// references of version 2.0.
	labels []byte
}

func newMaker(o *Options, tenant, first, n int) *maker {
	m := &maker{o: o, tenant: tenant, series: make([]series, n), rand: rand.New(rand.NewPCG(o.Seed, uint64(tenant)<<32|uint64(first)))}
	for i := range m.series {
		at := first + i
		s := &m.series[i]
		s.target = target{tenant: tenant, number: at / seriesPerTarget, life: -1}
		s.k = at % seriesPerTarget
		s.kind = kindOf(m.rand, o.NativeHistograms)
	}
	return m
}

// life says how often the target has been replaced up to a scrape. Targets are replaced in turn.
func (m *maker) life(number, scrape int) int {
	const golden = 0.6180339887498949 // spreads the turns of neighbours
	turn := float64(number) * golden
	return int(m.o.Churn*float64(scrape) + turn - float64(int(turn)))
}

// revive gives new labels to the series whose target was replaced, and all at the first scrape.
func (m *maker) revive(scrape int) {
	var names []string
	var common []label
	var of target
	changed := false
	for i := range m.series {
		s := &m.series[i]
		life := m.life(s.target.number, scrape)
		if life == s.target.life {
			continue
		}
		if names == nil {
			names = metricNames()
		}
		s.target.life = life
		if common == nil || of != s.target {
			common, of = s.target.common(), s.target
		}
		ls := labelsOf(common, s.k, names)
		if m.o.Version2 {
			s.labels = m.table.appendRefs(s.labels[:0], ls)
		} else {
			s.labels = appendLabelsV1(s.labels[:0], ls)
		}
		s.value = s.kind.first(m.rand)
		m.distinct++
		changed = true
	}
	if changed && m.o.Version2 && m.table.crowded(len(m.series)) {
		m.rebuildTable()
	}
}

// rebuildTable forgets the symbols of targets that are gone.
func (m *maker) rebuildTable() {
	names := metricNames()
	m.table = symbolTable{}
	for i := range m.series {
		s := &m.series[i]
		s.labels = m.table.appendRefs(s.labels[:0], labelsOf(s.target.common(), s.k, names))
	}
}

// request makes the request of one scrape; scrapes come one after the other.
func (m *maker) request(enc *encoder, scrape int) request {
	m.revive(scrape)
	enc.begin(m)
	base := m.o.Start.UnixMilli() + int64(scrape)*m.o.Interval.Milliseconds()
	for i := range m.series {
		s := &m.series[i]
		s.value = s.kind.next(m.rand, s.value)
		offset := time.Duration(s.target.number) * offsetPerTarget % m.o.Interval
		p := point{t: base + offset.Milliseconds(), v: s.value}
		if m.o.Exemplars > 0 && bucketSeries(s.k) && s.kind != histogram && m.rand.Float64() < m.o.Exemplars {
			p.trace = m.rand.Uint64() | 1
		}
		enc.add(s, p)
	}
	return request{tenant: m.o.TenantName(m.tenant), body: s2.EncodeSnappy(nil, enc.finish()), samples: len(m.series)}
}
