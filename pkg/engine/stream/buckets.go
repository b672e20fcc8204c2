package stream

import (
	"context"
	"math"
	"strconv"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"
)

// bucketQuantile is histogram_quantile of classic histograms.
type bucketQuantile struct {
	run   *run
	grid  grid
	q     scalar
	in    operator
	args  parser.Expressions
	names *unique

	quantiles  []float64
	histograms []*buckets
	i          int
	out        series
	work       promql.Buckets
}

// buckets are the series of one classic histogram.
type buckets struct {
	lset   labels.Labels // without the bound
	drop   bool
	bounds []float64
	vals   [][]float64
}

func (p *planner) bucketQuantile(e *parser.Call, sc scope) (operator, error) {
	q, err := p.scalar(e.Args[0], sc)
	if err != nil {
		return nil, err
	}
	in, err := p.vector(e.Args[1], sc)
	if err != nil {
		return nil, err
	}
	o := &bucketQuantile{run: p.run, grid: sc.grid, q: q, in: in, args: e.Args, names: newUnique(p.run, in)}
	p.run.reserve(&o.out.vals, sc.n)
	return o, nil
}

func (o *bucketQuantile) oneName() bool { return !o.names.keep }
func (o *bucketQuantile) keepNames()    { o.names.keep = true }

func (o *bucketQuantile) next(ctx context.Context) (*series, error) {
	if o.quantiles == nil {
		if err := o.read(ctx); err != nil {
			return nil, err
		}
	}
	if o.i == len(o.histograms) {
		return nil, nil
	}
	h := o.histograms[o.i]
	o.i++
	o.out.lset, o.out.drop = h.lset, h.drop
	for step := range o.out.vals {
		o.out.vals[step] = o.value(h, step)
	}
	if err := o.names.unname(&o.out); err != nil {
		return nil, err
	}
	return &o.out, nil
}

func (o *bucketQuantile) read(ctx context.Context) (err error) {
	if o.quantiles, err = o.q.eval(ctx); err != nil {
		return err
	}
	for _, q := range o.quantiles {
		if math.IsNaN(q) || q < 0 || q > 1 {
			o.run.annos.Add(annotations.NewInvalidQuantileWarning(q, o.args[0].PositionRange()))
		}
	}
	bySignature := map[string]*buckets{}
	var sig []byte
	for {
		s, err := o.in.next(ctx)
		if err != nil || s == nil {
			return err
		}
		if !some(s.vals) {
			continue
		}
		le := s.lset.Get(labels.BucketLabel)
		bound, err := strconv.ParseFloat(le, 64)
		if err != nil {
			name := ""
			if o.run.eval.settings.DelayedNames {
				name = s.lset.Get(model.MetricNameLabel)
			}
			o.run.annos.Add(annotations.NewBadBucketLabelWarning(name, le, o.args[1].PositionRange()))
			continue
		}
		kept, err := o.run.copied(s)
		if err != nil {
			return err
		}
		sig = s.lset.BytesWithoutLabels(sig, labels.BucketLabel)
		h := bySignature[string(sig)]
		if h == nil {
			h = &buckets{lset: labels.NewBuilder(s.lset).Del(labels.BucketLabel).Labels()}
			bySignature[string(sig)] = h
			o.histograms = append(o.histograms, h)
		}
		h.bounds, h.vals = append(h.bounds, bound), append(h.vals, kept.vals)
	}
}

// value returns the quantile at one step, or absent.
func (o *bucketQuantile) value(h *buckets, step int) float64 {
	o.work = o.work[:0]
	for i, vals := range h.vals {
		if v := vals[step]; present(v) {
			o.work = append(o.work, promql.Bucket{UpperBound: h.bounds[i], Count: v})
		}
	}
	if len(o.work) == 0 {
		return absent()
	}
	q, forced, _, least, most, diff := promql.BucketQuantile(o.quantiles[step], o.work)
	if forced {
		name := ""
		if o.run.eval.settings.DelayedNames {
			name = h.lset.Get(model.MetricNameLabel)
		}
		o.run.annos.Add(annotations.NewHistogramQuantileForcedMonotonicityInfo(name, o.args[1].PositionRange(), o.grid.at(step), least, most, diff))
	}
	return q
}
