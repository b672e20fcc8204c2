package stream

import (
	"context"
	"regexp"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// relabelled is label_replace and label_join.
type relabelled struct {
	run    *run
	in     operator
	dst    string
	value  func(labels.Labels) (string, bool)
	seen   *unique
	labels *labels.Builder
}

func (o *relabelled) next(ctx context.Context) (*series, error) {
	for {
		s, err := o.in.next(ctx)
		if err != nil || s == nil {
			return nil, err
		}
		if !some(s.vals) {
			continue
		}
		if v, ok := o.value(s.lset); ok {
			o.labels.Reset(s.lset)
			o.labels.Set(o.dst, v)
			s.lset = o.labels.Labels()
			s.drop = s.drop && o.dst != model.MetricNameLabel
		}
		if err := o.run.loan.Use(int64(s.lset.ByteSize())); err != nil {
			return nil, err
		}
		if err := o.seen.add(s.lset.Hash()); err != nil {
			return nil, err
		}
		return s, nil
	}
}

// relabel plans label_replace or label_join. The stock engine words what is wrong with their texts.
func (p *planner) relabel(e *parser.Call, sc scope) (operator, error) {
	texts := make([]string, len(e.Args))
	for i, a := range e.Args[1:] {
		s, ok := a.(*parser.StringLiteral)
		if !ok {
			return nil, unsupported("texts that are not literal")
		}
		texts[i+1] = s.Val
	}
	o := &relabelled{run: p.run, dst: texts[1], seen: &unique{run: p.run, seen: map[uint64]struct{}{}}, labels: labels.NewBuilder(labels.EmptyLabels())}
	valid := model.UTF8Validation.IsValidLabelName
	ok := valid(o.dst)
	if e.Func.Name == "label_join" {
		for _, src := range texts[3:] {
			ok = ok && valid(src)
		}
		o.value = joinedLabels(texts[2], texts[3:])
	} else {
		re, err := regexp.Compile("^(?s:" + texts[4] + ")$")
		ok = ok && err == nil
		o.value = replacedLabel(re, texts[2], texts[3])
	}
	if !ok {
		return nil, unsupported("a label or expression that is not valid")
	}
	var err error
	o.in, err = p.vector(e.Args[0], sc)
	return o, err
}

func joinedLabels(separator string, names []string) func(labels.Labels) (string, bool) {
	values := make([]string, len(names))
	return func(l labels.Labels) (string, bool) {
		for i, n := range names {
			values[i] = l.Get(n)
		}
		return strings.Join(values, separator), true
	}
}

func replacedLabel(re *regexp.Regexp, template, src string) func(labels.Labels) (string, bool) {
	var buf []byte
	return func(l labels.Labels) (string, bool) {
		v := l.Get(src)
		at := re.FindStringSubmatchIndex(v)
		if at == nil {
			return "", false
		}
		buf = re.ExpandString(buf[:0], template, v, at)
		return string(buf), true
	}
}
