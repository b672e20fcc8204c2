package stream

import (
	"context"
	"math"
	"slices"
	"sort"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/schema"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/prometheus/prometheus/util/stats"

	"github.com/amphora-metrics/amphora/pkg/turns"
)

// series is one series of a vector at all steps.
type series struct {
	lset labels.Labels
	drop bool      // its name is removed from the result
	vals []float64 // one for each step, or absent
	lent bool      // lset may be a view of memory that holds the chunks of the series, too
}

// operator yields the series of a vector. A series belongs to the caller, who may write over its
// values, until the next call. Series without any value may be among them; the labels of those that
// have values differ.
type operator interface {
	next(ctx context.Context) (*series, error) // nil at the end
}

// scalar is an expression with one value at each step. The values belong to the caller.
type scalar interface {
	eval(ctx context.Context) ([]float64, error)
}

// run is what the operators of one query share.
type run struct {
	eval     *Evaluator
	grid     grid
	lookback int64
	instant  bool
	leaves   []*leaf
	crews    []*crew

	annos   annotations.Annotations
	samples *stats.QuerySamples
	loan    Loan
	turn    *turns.Turn

	rows []reservation // of operators

	held   int       // values in memory
	free   []float64 // rest of the last slab
	slabs  []*[]float64
	rest   []promql.FPoint // rest of the last slab of points
	points []*[]promql.FPoint
}

func floatBits(v float64) uint64 { return math.Float64bits(v) }
func absent() float64            { return math.Float64frombits(absentBits) }

// slabLen is how many values or points are taken from the pools at a time.
const slabLen = 8192

// hold counts n more values as held. Errors: ErrTooManySamples, those of the loan.
func (r *run) hold(n int) error {
	r.held += n
	if r.held > r.eval.settings.MaxSamples {
		return promql.ErrTooManySamples("query execution")
	}
	r.samples.UpdatePeak(r.held)
	return nil
}

// keep returns n values to be held until the query ends. They are not zeroed.
func (r *run) keep(n int) ([]float64, error) {
	if err := r.hold(n); err != nil {
		return nil, err
	}
	if n > slabLen {
		if err := r.loan.Use(int64(n) * 8); err != nil {
			return nil, err
		}
		return make([]float64, n), nil
	}
	if n > len(r.free) {
		if err := r.loan.Use(slabLen * 8); err != nil {
			return nil, err
		}
		slab, ok := r.eval.values.Get().(*[]float64)
		if !ok {
			s := make([]float64, slabLen)
			slab = &s
		}
		r.slabs = append(r.slabs, slab)
		r.free = *slab
	}
	out := r.free[:n:n]
	r.free = r.free[n:]
	return out, nil
}

// reservation is room for values that an operator needs as long as the query runs.
type reservation struct {
	to *[]float64
	n  int
}

// reserve has to point to n values when the query runs.
func (r *run) reserve(to *[]float64, n int) { r.rows = append(r.rows, reservation{to, n}) }

// allot takes the memory that was reserved.
func (r *run) allot() (err error) {
	for _, row := range r.rows {
		if *row.to, err = r.keep(row.n); err != nil {
			return err
		}
	}
	return nil
}

// blank returns n values to be held, all absent.
func (r *run) blank(n int) ([]float64, error) {
	vals, err := r.keep(n)
	for i := range vals {
		vals[i] = absent()
	}
	return vals, err
}

// zeroes returns n values to be held, all 0.
func (r *run) zeroes(n int) ([]float64, error) {
	vals, err := r.keep(n)
	clear(vals)
	return vals, err
}

// copied returns a copy of s to be held.
func (r *run) copied(s *series) (series, error) {
	vals, err := r.keep(len(s.vals))
	copy(vals, s.vals)
	return series{lset: s.lset, drop: s.drop, vals: vals, lent: s.lent}, err
}

// floats returns room for n points of the result.
func (r *run) floats(n int) ([]promql.FPoint, error) {
	if err := r.hold(n); err != nil {
		return nil, err
	}
	if n > slabLen {
		if err := r.loan.Use(int64(n) * 16); err != nil {
			return nil, err
		}
		return make([]promql.FPoint, 0, n), nil
	}
	if n > len(r.rest) {
		if err := r.loan.Use(slabLen * 16); err != nil {
			return nil, err
		}
		slab, ok := r.eval.points.Get().(*[]promql.FPoint)
		if !ok {
			s := make([]promql.FPoint, slabLen)
			slab = &s
		}
		r.points = append(r.points, slab)
		r.rest = *slab
	}
	out := r.rest[:0:n]
	r.rest = r.rest[n:]
	return out, nil
}

func (r *run) release() {
	for _, s := range r.slabs {
		r.eval.values.Put(s)
	}
	for _, s := range r.points {
		r.eval.points.Put(s)
	}
	r.slabs, r.points, r.free, r.rest = nil, nil, nil, nil
}

func count(vals []float64) (n int) {
	for _, v := range vals {
		if present(v) {
			n++
		}
	}
	return n
}

// some says whether any value is there.
func some(vals []float64) bool {
	for _, v := range vals {
		if present(v) {
			return true
		}
	}
	return false
}

// collect returns the result of the query.
func (r *run) collect(ctx context.Context, op operator) (parser.Value, error) {
	var (
		mat    = promql.Matrix{}
		vec    = promql.Vector{}
		sorted = true
		unique = &unique{run: r, seen: map[uint64]struct{}{}}
	)
	for {
		if err := r.interrupted(ctx); err != nil {
			return nil, err
		}
		s, err := op.next(ctx)
		if err != nil {
			return nil, err
		}
		if s == nil {
			break
		}
		n := count(s.vals)
		if n == 0 {
			continue
		}
		if s.lent && !r.instant { // the result is not to keep the chunks in memory
			s.lset, s.lent = s.lset.Copy(), false
		}
		if r.eval.settings.DelayedNames {
			if s.drop {
				s.lset = dropName(s.lset)
			}
			if err := unique.add(s.lset.Hash()); err != nil {
				return nil, err
			}
		}
		if r.instant {
			if err := r.hold(1); err != nil {
				return nil, err
			}
			vec = append(vec, promql.Sample{T: r.grid.start, F: s.vals[0], Metric: s.lset, DropName: s.drop})
			continue
		}
		points, err := r.floats(n)
		if err != nil {
			return nil, err
		}
		for i, v := range s.vals {
			if present(v) {
				points = append(points, promql.FPoint{T: r.grid.at(i), F: v})
			}
		}
		if len(mat) > 0 && sorted && labels.Compare(mat[len(mat)-1].Metric, s.lset) > 0 {
			sorted = false
		}
		mat = append(mat, promql.Series{Metric: s.lset, Floats: points, DropName: s.drop})
	}
	if r.instant {
		return vec, nil
	}
	if !sorted {
		sort.Sort(mat)
	}
	return mat, nil
}

func (p *Plan) runScalar(ctx context.Context) (parser.Value, error) {
	vals, err := p.scalar.eval(ctx)
	if err != nil {
		return nil, err
	}
	r := p.run
	if r.instant {
		return promql.Scalar{T: r.grid.start, V: vals[0]}, Interrupted(ctx)
	}
	points, err := r.floats(len(vals))
	if err != nil {
		return nil, err
	}
	for i, v := range vals {
		points = append(points, promql.FPoint{T: r.grid.at(i), F: v})
	}
	return promql.Matrix{{Floats: points}}, Interrupted(ctx)
}

func dropName(l labels.Labels) labels.Labels { return l.DropReserved(schema.IsMetadataLabel) }

// unique removes the names of series and finds those that thereby become the same.
type unique struct {
	run    *run
	keep   bool // the names are left for a consumer that does not look at them
	hashed bool // else the series have all the same name, so that they differ without it
	n      int
	seen   map[uint64]struct{}
	buf    []byte
}

// newUnique returns what removes the names of the series of in.
func newUnique(r *run, in any) *unique {
	n, ok := in.(interface{ oneName() bool })
	return &unique{run: r, hashed: !ok || !n.oneName(), seen: map[uint64]struct{}{}}
}

// unname does to a series with values what a function does that gives it another meaning. Errors:
// errConflict, those of the loan.
func (u *unique) unname(s *series) error {
	s.drop = true
	if u.run.eval.settings.DelayedNames {
		return nil
	}
	if !u.hashed && (s.lset.Has(model.MetricTypeLabel) || s.lset.Has(model.MetricUnitLabel)) {
		if u.n > 0 {
			return errConflict
		}
		u.hashed = true
	}
	u.n++
	var h uint64
	switch {
	case !u.keep:
		s.lset = dropName(s.lset)
		if u.hashed {
			h = s.lset.Hash()
		}
	case u.hashed:
		h, u.buf = s.lset.HashWithoutLabels(u.buf, model.MetricNameLabel, model.MetricTypeLabel, model.MetricUnitLabel)
	}
	if u.hashed {
		return u.add(h)
	}
	return nil
}

// add adds the hash of a series with values. Errors: errConflict, those of the loan.
func (u *unique) add(h uint64) error {
	if _, ok := u.seen[h]; ok {
		return errConflict
	}
	u.seen[h] = struct{}{}
	return u.run.loan.Use(hashBytes)
}

// hashBytes is what a map holds for one hash.
const hashBytes = 16

func reservedNames() []string {
	return []string{model.MetricNameLabel, model.MetricTypeLabel, model.MetricUnitLabel}
}

func isReserved(name string) bool { return schema.IsMetadataLabel(name) }

// sortedNames returns a sorted copy.
func sortedNames(names []string) []string {
	names = slices.Clone(names)
	slices.Sort(names)
	return names
}
