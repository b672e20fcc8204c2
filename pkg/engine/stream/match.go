package stream

import (
	"context"
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// match plans an operator of two vectors.
func (p *planner) match(e *parser.BinaryExpr, sc scope) (operator, error) {
	m := e.VectorMatching
	if m.FillValues.LHS != nil || m.FillValues.RHS != nil {
		return nil, unsupported("values for sides that are not there")
	}
	left, err := p.vector(e.LHS, sc)
	if err != nil {
		return nil, err
	}
	right, err := p.vector(e.RHS, sc)
	if err != nil {
		return nil, err
	}
	sig := newSignature(m)
	switch e.Op {
	case parser.LAND, parser.LUNLESS:
		return &restricted{run: p.run, left: left, right: right, sig: sig, unless: e.Op == parser.LUNLESS}, nil
	case parser.LOR:
		return &either{table: newTable(p.run, sc.n), left: left, right: right, sig: sig}, nil
	}
	f := element(e.Op, e.ReturnBool)
	if f == nil {
		return nil, unsupported("operator " + e.Op.String())
	}
	o := &joined{
		table: newTable(p.run, sc.n), many: left, one: right, sig: sig, f: f, matching: m,
		renames: arithmetic(e.Op) != nil, asBool: e.ReturnBool, filters: comparison(e.Op) != nil && !e.ReturnBool,
		builder: labels.NewBuilder(labels.EmptyLabels()),
	}
	p.run.reserve(&o.out, sc.n)
	if m.Card == parser.CardOneToMany {
		o.many, o.one = right, left
		o.f = func(l, r float64) float64 { return f(r, l) }
	}
	return o, nil
}

// signature is the part of labels by which series of two sides belong together.
type signature struct {
	names []string // sorted
	on    bool
	buf   []byte
}

func newSignature(m *parser.VectorMatching) *signature {
	if m.On {
		return &signature{names: sortedNames(m.MatchingLabels), on: true}
	}
	return &signature{names: sortedNames(append([]string{model.MetricNameLabel}, m.MatchingLabels...))}
}

// of returns the signature of l, valid until the next call.
func (s *signature) of(l labels.Labels) []byte {
	if s.on {
		s.buf = l.BytesWithLabels(s.buf, s.names...)
	} else {
		s.buf = l.BytesWithoutLabels(s.buf, s.names...)
	}
	return s.buf
}

// presence says for each signature at which steps any series of it has a value.
type presence map[string][]bool

func (p presence) add(r *run, sig []byte, vals []float64) error {
	at, ok := p[string(sig)]
	if !ok {
		if err := r.loan.Use(int64(len(sig) + len(vals))); err != nil {
			return err
		}
		at = make([]bool, len(vals))
		p[string(sig)] = at
	}
	for i, v := range vals {
		at[i] = at[i] || present(v)
	}
	return nil
}

// restricted is and, and unless.
type restricted struct {
	run         *run
	left, right operator
	sig         *signature
	unless      bool
	there       presence // of the right side
}

func (o *restricted) oneName() bool {
	n, ok := o.left.(interface{ oneName() bool })
	return ok && n.oneName()
}

func (o *restricted) next(ctx context.Context) (*series, error) {
	for o.there == nil {
		there := presence{}
		for {
			s, err := o.right.next(ctx)
			if err != nil {
				return nil, err
			}
			if s == nil {
				break
			}
			if err := there.add(o.run, o.sig.of(s.lset), s.vals); err != nil {
				return nil, err
			}
		}
		o.there = there
	}
	s, err := o.left.next(ctx)
	if err != nil || s == nil {
		return nil, err
	}
	there := o.there[string(o.sig.of(s.lset))]
	for i := range s.vals {
		if (there != nil && there[i]) == o.unless {
			s.vals[i] = absent()
		}
	}
	return s, nil
}

// table collects series of a result by their labels: several series of the input may make one of the
// result, each at other steps.
type table struct {
	run   *run
	n     int
	rows  []series
	index map[uint64]int
	i     int
}

func newTable(r *run, n int) table { return table{run: r, n: n, index: map[uint64]int{}} }

// row returns the row of l, a new one being absent at all steps.
func (t *table) row(l labels.Labels, drop bool) (*series, error) {
	h := l.Hash()
	i, ok := t.index[h]
	if !ok {
		vals, err := t.run.blank(t.n)
		if err != nil {
			return nil, err
		}
		i = len(t.rows)
		t.index[h] = i
		t.rows = append(t.rows, series{lset: l, drop: drop, vals: vals})
	}
	return &t.rows[i], nil
}

// merge writes vals into a row. Errors: errConflict.
func (s *series) merge(vals []float64) error {
	for i, v := range vals {
		if !present(v) {
			continue
		}
		if present(s.vals[i]) {
			return errConflict
		}
		s.vals[i] = v
	}
	return nil
}

func (t *table) pop() *series {
	if t.i == len(t.rows) {
		return nil
	}
	t.i++
	return &t.rows[t.i-1]
}

// either is or.
type either struct {
	table
	left, right operator
	sig         *signature
	done        bool
}

func (o *either) next(ctx context.Context) (*series, error) {
	if o.done {
		return o.pop(), nil
	}
	o.done = true
	there := presence{}
	for _, side := range []operator{o.left, o.right} {
		for {
			s, err := side.next(ctx)
			if err != nil {
				return nil, err
			}
			if s == nil {
				break
			}
			sig := o.sig.of(s.lset)
			if side == o.left {
				if err := there.add(o.run, sig, s.vals); err != nil {
					return nil, err
				}
			} else if at := there[string(sig)]; at != nil {
				for i := range s.vals {
					if at[i] {
						s.vals[i] = absent()
					}
				}
			}
			if !some(s.vals) {
				continue
			}
			row, err := o.row(s.lset, s.drop)
			if err != nil {
				return nil, err
			}
			if row.drop != s.drop && o.run.eval.settings.DelayedNames {
				return nil, errConflict
			}
			if err := row.merge(s.vals); err != nil {
				return nil, err
			}
		}
	}
	return o.pop(), nil
}

// joined is an operator between each series of many and the series of one with the same signature.
type joined struct {
	table
	many, one operator
	sig       *signature
	matching  *parser.VectorMatching
	f         func(many, one float64) float64
	renames   bool
	asBool    bool
	filters   bool // f leaves steps out
	builder   *labels.Builder

	done    bool
	ones    map[string]*partner
	matched map[string][]uint64 // steps at which a signature, or row, has had its match
	out     []float64
}

// partner is the side of which there is one, for one signature.
type partner struct {
	series
	several bool // series took part, at different steps
}

func (o *joined) oneName() bool {
	return (o.renames || o.asBool) && !slices.ContainsFunc(o.matching.Include, isReserved)
}

func (o *joined) next(ctx context.Context) (*series, error) {
	if !o.done {
		o.done = true
		if err := o.readOnes(ctx); err != nil {
			return nil, err
		}
		o.matched = map[string][]uint64{}
		for {
			s, err := o.many.next(ctx)
			if err != nil {
				return nil, err
			}
			if s == nil {
				break
			}
			if err := o.join(s); err != nil {
				return nil, err
			}
		}
	}
	return o.pop(), nil
}

func (o *joined) readOnes(ctx context.Context) error {
	o.ones = map[string]*partner{}
	for {
		s, err := o.one.next(ctx)
		if err != nil || s == nil {
			return err
		}
		if !some(s.vals) {
			continue
		}
		sig := o.sig.of(s.lset)
		if p := o.ones[string(sig)]; p != nil {
			if err := p.merge(s.vals); err != nil {
				return err
			}
			p.several = true
			continue
		}
		kept, err := o.run.copied(s)
		if err != nil {
			return err
		}
		o.ones[string(sig)] = &partner{series: kept}
	}
}

func (o *joined) join(s *series) error {
	sig := o.sig.of(s.lset)
	one := o.ones[string(sig)]
	if one == nil {
		return nil
	}
	if one.several && len(o.matching.Include) > 0 {
		return errConflict // the labels of the result would differ from step to step
	}
	both := false
	for i, v := range s.vals {
		r := one.vals[i]
		if !present(v) || !present(r) {
			o.out[i] = absent()
			s.vals[i] = absent()
			continue
		}
		both = true
		o.out[i] = o.f(v, r)
	}
	if !both {
		return nil
	}
	if o.matching.Card == parser.CardOneToOne {
		if err := o.claim(string(sig), s.vals); err != nil {
			return err
		}
	}
	lset := o.resultLabels(s.lset, one.lset)
	if o.filters && o.matching.Card != parser.CardOneToOne {
		if err := o.claim(string(lset.Bytes(nil)), s.vals); err != nil {
			return err
		}
	}
	if !some(o.out) {
		return nil
	}
	row, err := o.row(lset, o.asBool)
	if err != nil {
		return err
	}
	return row.merge(o.out)
}

// claim notes at which steps a key has its match. Errors: errConflict if it had one.
func (o *joined) claim(key string, vals []float64) error {
	bits := o.matched[key]
	if bits == nil {
		bits = make([]uint64, (len(vals)+63)/64)
		o.matched[key] = bits
		if err := o.run.loan.Use(int64(len(key) + 8*len(bits))); err != nil {
			return err
		}
	}
	for i, v := range vals {
		if !present(v) {
			continue
		}
		bit := uint64(1) << (i % 64)
		if bits[i/64]&bit != 0 {
			return errConflict
		}
		bits[i/64] |= bit
	}
	return nil
}

// resultLabels returns the labels of what becomes of two series.
func (o *joined) resultLabels(many, one labels.Labels) labels.Labels {
	b := o.builder
	b.Reset(many)
	if o.renames || o.asBool && !o.run.eval.settings.DelayedNames {
		for _, n := range reservedNames() {
			b.Del(n)
		}
	}
	if o.matching.Card == parser.CardOneToOne {
		if o.matching.On {
			b.Keep(o.matching.MatchingLabels...)
		} else {
			b.Del(o.matching.MatchingLabels...)
		}
	}
	for _, n := range o.matching.Include {
		if v := one.Get(n); v != "" {
			b.Set(n, v)
		} else {
			b.Del(n)
		}
	}
	return b.Labels()
}
