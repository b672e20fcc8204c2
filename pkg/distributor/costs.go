package distributor

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

// Costs is where and how samples are attributed to values of tenants' labels.
type Costs struct {
	Reg             prometheus.Registerer // nil: the counts are not exposed
	EvictAfter      time.Duration         // values that nothing was attributed to for so long are forgotten; 0: 20 m
	CleanupInterval time.Duration         // how often they are looked for, and an overflow is tried to end; 0: 3 m
}

// costRules says what a tenant's samples are attributed to. It is not changed once it is made.
type costRules struct {
	by       []limits.AttributionLabel
	most     int
	cooldown time.Duration
}

func readCosts(v limits.View) *costRules {
	r := &costRules{by: limits.Attribution(v), most: limits.MaxCostAttributionCardinality.Of(v), cooldown: limits.CostAttributionCooldown.Of(v)}
	if len(r.by) == 0 {
		return nil
	}
	return r
}

func (r *costRules) equal(o *costRules) bool {
	return r == o || r != nil && o != nil && slices.Equal(r.by, o.by) && r.most == o.most && r.cooldown == o.cooldown
}

// The values that stand for a label that a series does not have, and for all once there are too
// many.
const (
	missingValue  = "__missing__"
	overflowValue = "__overflow__"
)

// costs counts the samples of one tenant under one set of rules.
type costs struct {
	rules *costRules

	// cells remember the row of a series by its reference: the row's number plus one, below the
	// generation of the reference. They are wrong or missing at worst for what was just evicted.
	cells atomic.Pointer[[]atomic.Uint64]
	rows  atomic.Pointer[[]*costRow] // only grows

	mu       sync.Mutex // guards growth of cells and rows, and the fields below
	byKey    map[string]uint32
	overflow *costRow // nil: there are not too many rows
	since    time.Time
}

// costRow is the counts of one tuple of values.
type costRow struct {
	key       string // the values, each ended by a separator
	gone      atomic.Bool
	seen      atomic.Int64 // Unix seconds
	received  atomic.Int64
	discarded [numChecks]atomic.Int64
}

func newCosts(r *costRules) *costs {
	c := &costs{rules: r, byKey: map[string]uint32{}}
	c.cells.Store(new([]atomic.Uint64))
	c.rows.Store(new([]*costRow))
	return c
}

// costsUnder returns the tenant's counts under r.
func (t *tenantState) costsUnder(r *costRules) *costs {
	if c := t.costs.Load(); c != nil && c.rules.equal(r) {
		return c
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.costs.Load(); c != nil && c.rules.equal(r) {
		return c
	}
	c := newCosts(r)
	t.costs.Store(c)
	return c
}

// of returns the row of the series that has the reference, nil if it is not known.
func (c *costs) of(ref frame.Ref) *costRow {
	cells := *c.cells.Load()
	if int(ref.Index()) >= len(cells) {
		return nil
	}
	w := cells[ref.Index()].Load()
	if uint32(w) == 0 || uint16(w>>32) != ref.Gen() {
		return nil
	}
	if row := (*c.rows.Load())[uint32(w)-1]; !row.gone.Load() {
		return row
	}
	return nil
}

// remember notes the row of a series.
func (c *costs) remember(ref frame.Ref, number uint32) {
	if int(ref.Index()) >= len(*c.cells.Load()) {
		c.mu.Lock()
		if old := *c.cells.Load(); int(ref.Index()) >= len(old) {
			// What is written to the old cells meanwhile is found out again.
			grown := make([]atomic.Uint64, max(2*len(old), int(ref.Index())+1, 64))
			for k := range old {
				grown[k].Store(old[k].Load())
			}
			c.cells.Store(&grown)
		}
		c.mu.Unlock()
	}
	(*c.cells.Load())[ref.Index()].Store(uint64(ref.Gen())<<32 | uint64(number+1))
}

// row returns the row of a key and its number; the overflow, which has none, once there are too many.
func (c *costs) row(key []byte, now time.Time) (*costRow, uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	rows := *c.rows.Load()
	if n, ok := c.byKey[string(key)]; ok {
		return rows[n], n
	}
	if len(c.byKey) >= c.rules.most && c.overflow == nil {
		c.overflow, c.since = c.add(strings.Repeat(overflowValue+string([]byte{separator}), len(c.rules.by))), now
	}
	if c.overflow != nil {
		return c.overflow, 0
	}
	row := c.add(string(key))
	n := uint32(len(*c.rows.Load()) - 1)
	c.byKey[row.key] = n
	return row, n
}

// add needs c.mu.
func (c *costs) add(key string) *costRow {
	row := &costRow{key: key}
	rows := append(slices.Clip(*c.rows.Load()), row)
	c.rows.Store(&rows)
	return row
}

// overflowing returns the row that everything is attributed to, nil if there are not too many.
func (c *costs) overflowing() *costRow {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.overflow
}

// key appends the values of a series to b.
func (r *costRules) key(b []byte, value func(name string) string) []byte {
	for _, l := range r.by {
		v := value(l.Input)
		if v == "" {
			v = missingValue
		}
		b = append(append(b, v...), separator)
	}
	return b
}

// attribute counts the samples that were received by what they are attributed to, and with them those
// that were refused.
func (p *push) attribute(context.Context) error {
	if p.lim.costs == nil {
		return nil
	}
	c := p.t.costsUnder(p.lim.costs)
	seconds := p.now.Unix()
	var last *costRow
	n := 0
	flush := func() {
		if last != nil && n > 0 {
			last.received.Add(int64(n))
			last.seen.Store(seconds)
		}
		n = 0
	}
	count := func(i, samples int) {
		row := p.costRow(c, i)
		if row != last {
			flush()
			last = row
		}
		n += samples
	}
	if all := c.overflowing(); all != nil {
		last, n = all, p.counts.Samples+p.counts.Histograms
	} else {
		for i := range p.refs {
			if k := p.floatsOf(i); k > 0 {
				count(i, k)
			}
		}
		for k := range p.hists {
			count(int(p.hists[k].series), 1)
		}
	}
	flush()
	return nil
}

// floatsOf is the number of float samples of series i that are stored.
func (p *push) floatsOf(i int) int {
	if p.refs[i] == skipped {
		return 0
	}
	from, to := p.batch.Samples(i)
	n := to - from
	if len(p.drops) > 0 {
		for _, dropped := range p.drops[from:to] {
			if dropped {
				n--
			}
		}
	}
	return n
}

// costRow is what series i, which is stored, is attributed to; nil if its labels cannot be read.
func (p *push) costRow(c *costs, i int) *costRow {
	ref := p.refs[i]
	if row := c.of(ref); row != nil {
		return row
	}
	ls, err := p.labelsOf(i)
	if err != nil {
		return nil
	}
	var scratch [256]byte
	row, n := c.row(p.lim.costs.key(scratch[:0], ls.Get), p.now)
	if row != c.overflowing() {
		c.remember(ref, n)
	}
	return row
}

// attributeRefusal counts n samples of series i that were refused.
func (p *push) attributeRefusal(i int, why check, n int) {
	if p.lim == nil || p.lim.costs == nil || n <= 0 {
		return
	}
	c := p.t.costsUnder(p.lim.costs)
	row := c.overflowing()
	if row == nil && i < len(p.series) && i < len(p.refs) && p.refs[i] != skipped && p.series[i].number != 0 {
		row = c.of(p.series[i].ref)
	}
	if row == nil {
		// The labels at hand may be those of this series; reading others would overwrite them.
		ls, _, err := p.batch.Labels(i, nil, mostLabels)
		if err != nil {
			return
		}
		var scratch [256]byte
		row, _ = c.row(p.lim.costs.key(scratch[:0], func(name string) string { return rawValue(ls, name) }), p.now)
	}
	row.discarded[why].Add(int64(n))
	row.seen.Store(p.now.Unix())
}

// attributeAll counts all that is left of the push as refused.
func (p *push) attributeAll(why check) {
	if p.lim.costs == nil {
		return
	}
	for i := range p.refs {
		p.attributeRefusal(i, why, p.floatsOf(i))
	}
	for k := range p.hists {
		p.attributeRefusal(int(p.hists[k].series), why, 1)
	}
}

// rawValue returns the value of a label as valid text.
func rawValue(ls []remotewrite.Label, name string) string {
	for _, l := range ls {
		if string(l.Name) == name {
			return strings.ToValidUTF8(clip(l.Value), "")
		}
	}
	return ""
}

// clean forgets rows that nothing was attributed to for a while, and begins anew after an overflow
// has lasted for the cooldown. It says whether all is to be begun anew.
func (c *costs) clean(now time.Time, how Costs) (anew bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.overflow != nil {
		return now.Sub(c.since) >= c.rules.cooldown
	}
	rows := *c.rows.Load()
	for key, n := range c.byKey {
		if now.Sub(time.Unix(rows[n].seen.Load(), 0)) >= how.EvictAfter {
			rows[n].gone.Store(true)
			delete(c.byKey, key)
		}
	}
	// Numbers are not used again, so that no series can have the row of another's values.
	return len(rows) > 2*c.rules.most+1000
}

// cleanCosts is costs.clean for all tenants.
func (d *Distributor) cleanCosts(now time.Time) {
	for _, t := range d.tenants.all() {
		c := t.costs.Load()
		if c == nil {
			continue
		}
		if l := t.limits.Load(); l == nil || l.costs == nil {
			t.costs.CompareAndSwap(c, nil)
		} else if c.clean(now, d.deps.Costs) {
			t.costs.CompareAndSwap(c, newCosts(c.rules))
		}
	}
}

// costCollector reads the counts when they are scraped. Their labels differ from tenant to tenant.
type costCollector struct{ tenants *tenants }

// Describe makes the collector an unchecked one.
func (c costCollector) Describe(chan<- *prometheus.Desc) {}

// Collect sends the counts of now.
func (c costCollector) Collect(ch chan<- prometheus.Metric) {
	for _, t := range c.tenants.all() {
		if costs := t.costs.Load(); costs != nil {
			costs.collect(ch, string(t.id))
		}
	}
}

func (c *costs) collect(ch chan<- prometheus.Metric, tenant string) {
	names := []string{"tenant", "tracker"}
	for _, l := range c.rules.by {
		names = append(names, l.Output)
	}
	received := prometheus.NewDesc("amphora_distributor_received_attributed_samples_total",
		"Samples that passed validation and rate limits, by the values that usage is attributed to.", names, nil)
	discarded := prometheus.NewDesc("amphora_discarded_attributed_samples_total",
		"Samples refused, by the values that usage is attributed to.", append(names, "reason"), nil)
	all := c.overflowing()
	for _, row := range *c.rows.Load() {
		if row.gone.Load() || all != nil && row != all {
			continue
		}
		values := []string{tenant, "cost-attribution"}
		for v := range strings.SplitSeq(strings.TrimSuffix(row.key, string([]byte{separator})), string([]byte{separator})) {
			values = append(values, v)
		}
		send := func(d *prometheus.Desc, n int64, more ...string) {
			if n > 0 {
				ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), append(values, more...)...)
			}
		}
		send(received, row.received.Load())
		for k := range row.discarded {
			send(discarded, row.discarded[k].Load(), check(k).row().reason)
		}
	}
}
