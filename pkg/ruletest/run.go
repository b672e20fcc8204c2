package ruletest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// mostShown bounds what is listed of one failure.
const mostShown = 100

// loader gives upstream's manager rule files that lie in memory.
type loader struct {
	files  map[string][]byte
	parser parser.Parser
}

// Load implements rules.GroupLoader.
func (l loader) Load(name string, lax bool, scheme model.ValidationScheme) (*rulefmt.RuleGroups, []error) {
	return rulefmt.Parse(l.files[name], lax, scheme, l.parser, slog.New(slog.DiscardHandler))
}

// Parse implements rules.GroupLoader.
func (l loader) Parse(text string) (parser.Expr, error) { return l.parser.ParseExpr(text) }

// trial is one test while it runs.
type trial struct {
	*Test
	r      *Runner
	memory *memory
	parser parser.Parser
	engine *promql.Engine
	groups []*rules.Group
	input  []*feed
	begin  time.Time
	every  time.Duration
	fuzzy  bool

	failures []Failure
}

// feed is an input series of which some values are stored already.
type feed struct {
	labels labels.Labels
	values []parser.SequenceValue
	next   int
}

// test runs one test. An error says that it cannot be run.
func (r *Runner) test(ctx context.Context, f *File, t *Test, files map[string][]byte) ([]Failure, error) {
	x := &trial{Test: t, r: r, memory: newMemory(r.Limits.Samples), begin: time.Unix(0, 0).UTC(), every: time.Duration(f.EvaluationInterval), fuzzy: f.FuzzyCompare}
	if !t.Start.IsZero() {
		x.begin = t.Start.Time
	}
	most := time.Duration(0)
	for _, a := range t.Alerts {
		most = max(most, time.Duration(a.At))
	}
	for _, e := range t.Expressions {
		most = max(most, time.Duration(e.At))
	}
	if x.every <= 0 || t.Interval <= 0 {
		return nil, errs.New(errs.Invalid, "intervals must be positive")
	}
	x.parser = bounded{r.Parser, x.every, r.Limits.Samples}
	x.engine = promql.NewEngine(promql.EngineOpts{Logger: slog.New(slog.DiscardHandler), MaxSamples: r.Limits.Samples, Timeout: r.Limits.Time, Parser: x.parser,
		NoStepSubqueryIntervalFn: func(int64) int64 { return x.every.Milliseconds() }, EnableAtModifier: true, EnableNegativeOffset: true})
	defer func() { _ = x.engine.Close() }() // it tracks no queries
	if err := x.load(ctx, f.GroupEvalOrder, files); err != nil {
		return nil, err
	}
	if n := int64(most/x.every+1) * int64(max(1, len(x.groups))); n > int64(r.Limits.Evaluations) {
		return nil, errs.New(errs.Invalid, "it would evaluate groups %d times, at most %d are allowed; name earlier times or a longer evaluation_interval", n, r.Limits.Evaluations)
	}
	if err := x.read(); err != nil {
		return nil, err
	}
	for i := range int64(most/x.every) + 1 { // not by adding up: the last time may be the last there is
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		broken, err := x.step(ctx, time.Duration(i)*x.every)
		if err != nil || broken {
			return x.failures, err
		}
	}
	for i := range t.Expressions {
		x.expression(ctx, &t.Expressions[i])
	}
	return x.failures, nil
}

// load makes the groups of rules in the order in which they are evaluated.
func (x *trial) load(ctx context.Context, order []string, files map[string][]byte) error {
	external, err := url.Parse(x.ExternalURL)
	if err != nil {
		return errs.New(errs.Invalid, "external_url: %w", err)
	}
	m := rules.NewManager(&rules.ManagerOptions{
		QueryFunc: rules.EngineQueryFunc(x.engine, x.memory), Appendable: x.memory, Queryable: x.memory, Context: ctx, ExternalURL: external,
		NotifyFunc: func(context.Context, string, ...*rules.Alert) {}, Logger: slog.New(slog.DiscardHandler),
		GroupLoader: loader{files, x.parser}, Parser: x.parser, NameValidationScheme: x.r.Scheme,
	})
	byKey, problems := m.LoadGroups(time.Duration(x.Interval), labels.FromMap(x.ExternalLabels), x.ExternalURL, nil, x.r.Lax, slices.Sorted(maps.Keys(files))...)
	if len(problems) > 0 {
		return errs.Wrap(errs.Invalid, errors.Join(problems...))
	}
	x.groups = slices.Collect(maps.Values(byKey))
	place := func(g *rules.Group) int {
		if i := slices.Index(order, g.Name()); i >= 0 {
			return i
		}
		return len(order)
	}
	slices.SortFunc(x.groups, func(a, b *rules.Group) int {
		return cmp.Or(cmp.Compare(place(a), place(b)), cmp.Compare(a.File(), b.File()), cmp.Compare(a.Name(), b.Name()))
	})
	for _, g := range x.groups {
		for _, rule := range g.Rules() {
			if a, ok := rule.(*rules.AlertingRule); ok {
				a.SetRestored(true) // it then writes ALERTS
			}
		}
	}
	return nil
}

// read reads the input series. Repetitions are counted before they are made: a short text may mean a billion
// values.
func (x *trial) read() error {
	repeated := regexp.MustCompile(`x\s*([0-9]+)`)
	left := x.r.Limits.Samples
	over := func() error {
		return errs.New(errs.Invalid, "a test may have at most %d samples, and a histogram counts as several", x.r.Limits.Samples)
	}
	for _, in := range x.Input {
		each := 1
		if n := len(in.Values); slices.Contains([]byte(in.Values), '{') {
			each += n / 8
		}
		left -= len(in.Values) / 2
		for _, m := range repeated.FindAllStringSubmatch(in.Values, -1) {
			n, err := strconv.Atoi(m[1])
			if err != nil || n > left/each {
				return over()
			}
			left -= n * each
		}
		if left < 0 {
			return over()
		}
		ls, values, err := x.r.Parser.ParseSeriesDesc(in.Series + " " + in.Values)
		if err != nil {
			return errs.New(errs.Invalid, "input series %q: %w", in.Series, err)
		}
		x.input = append(x.input, &feed{labels: ls, values: values})
	}
	return nil
}

// step stores what comes until a time, evaluates all groups, and looks at the alerts that are expected before
// the next step. broken says that rules failed, so that there is no sense in going on.
func (x *trial) step(ctx context.Context, at time.Duration) (broken bool, err error) {
	ts := x.begin.Add(at)
	for _, in := range x.input {
		for ; in.next < len(in.values) && in.next <= int(at/time.Duration(x.Interval)); in.next++ {
			v := in.values[in.next]
			if v.Omitted {
				continue
			}
			t := x.begin.Add(time.Duration(in.next) * time.Duration(x.Interval)).UnixMilli()
			if err := x.memory.add(in.labels, sample{t: t, f: v.Value, h: v.Histogram}); err != nil {
				return false, fmt.Errorf("input series %s: %w", in.labels, err)
			}
		}
	}
	for _, g := range x.groups {
		g.Eval(ctx, ts)
		for _, rule := range g.Rules() {
			if err := rule.LastError(); err != nil {
				x.failures = append(x.failures, Failure{Kind: FailedEvaluation, Name: rule.Name(), At: model.Duration(at).String(), Error: err.Error()})
				broken = true
			}
		}
	}
	for i := range x.Alerts {
		if a := &x.Alerts[i]; !broken && time.Duration(a.At) >= at && time.Duration(a.At)-at < x.every {
			x.alert(a)
		}
	}
	return broken, nil
}

// alert compares the alerts of a name that fire now with those that are expected.
func (x *trial) alert(a *AlertTest) {
	got := x.firing(a.Name)
	var want []string
	for _, e := range a.Expect {
		ls := maps.Clone(e.Labels)
		if ls == nil {
			ls = map[string]string{}
		}
		ls[labels.AlertName] = a.Name
		want = append(want, labels.FromMap(ls).String()+" "+labels.FromMap(e.Annotations).String())
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		x.fail(Failure{Kind: FailedAlert, Name: a.Name, At: a.At.String()}, want, got)
	}
}

// firing returns labels and annotations of the alerts of a name that fire now, in order.
func (x *trial) firing(name string) (all []string) {
	for _, g := range x.groups {
		for _, rule := range g.Rules() {
			r, ok := rule.(*rules.AlertingRule)
			if !ok || r.Name() != name {
				continue
			}
			for _, one := range r.ActiveAlerts() {
				if one.State == rules.StateFiring {
					all = append(all, one.Labels.String()+" "+one.Annotations.String())
				}
			}
		}
	}
	slices.Sort(all)
	return all
}

func (x *trial) fail(f Failure, want, got []string) {
	f.Expected, f.Got = want[:min(len(want), mostShown)], got[:min(len(got), mostShown)]
	x.failures = append(x.failures, f)
}

// value is an expected or found value of an expression.
type value struct {
	labels labels.Labels
	f      float64
	h      *histogram.FloatHistogram
}

func (v value) String() string {
	if v.h != nil {
		return v.labels.String() + " " + v.h.TestExpression()
	}
	return v.labels.String() + " " + strconv.FormatFloat(v.f, 'g', -1, 64)
}

// expression compares what an expression is with what is expected.
func (x *trial) expression(ctx context.Context, e *ExprTest) {
	f := Failure{Kind: FailedExpression, Name: e.Expr, At: e.At.String()}
	want, err := x.expected(e)
	var got []value
	if err == nil {
		got, err = x.query(ctx, e.Expr, x.begin.Add(time.Duration(e.At)))
	}
	if err != nil {
		f.Error = err.Error()
		x.failures = append(x.failures, f)
		return
	}
	order := func(a, b value) int { return labels.Compare(a.labels, b.labels) }
	slices.SortStableFunc(want, order)
	slices.SortStableFunc(got, order)
	if !slices.EqualFunc(want, got, x.same) {
		x.fail(f, texts(want), texts(got))
	}
}

func texts(all []value) []string {
	out := make([]string, 0, len(all))
	for _, v := range all {
		out = append(out, v.String())
	}
	return out
}

func (x *trial) same(a, b value) bool {
	if !labels.Equal(a.labels, b.labels) || (a.h == nil) != (b.h == nil) {
		return false
	}
	if a.h != nil {
		return a.h.TestExpression() == b.h.TestExpression()
	}
	return a.f == b.f || x.fuzzy && (math.Nextafter(a.f, math.Inf(1)) == b.f || math.Nextafter(a.f, math.Inf(-1)) == b.f)
}

func (x *trial) expected(e *ExprTest) (out []value, err error) {
	for _, s := range e.Expect {
		v := value{f: s.Value}
		if v.labels, err = x.r.Parser.ParseMetric(s.Labels); err != nil {
			return nil, fmt.Errorf("labels %q: %w", s.Labels, err)
		}
		if s.Histogram != "" {
			if regexp.MustCompile(`x\s*[0-9]`).MatchString(s.Histogram) {
				return nil, fmt.Errorf("histogram %q is more than one", s.Histogram)
			}
			_, values, err := x.r.Parser.ParseSeriesDesc("{} " + s.Histogram)
			if err != nil || len(values) != 1 || values[0].Histogram == nil {
				return nil, errors.Join(fmt.Errorf("histogram %q is not one histogram", s.Histogram), err)
			}
			v.h = values[0].Histogram
		}
		out = append(out, v)
	}
	return out, nil
}

func (x *trial) query(ctx context.Context, expr string, at time.Time) ([]value, error) {
	q, err := x.engine.NewInstantQuery(ctx, x.memory, nil, expr, at)
	if err != nil {
		return nil, err
	}
	defer q.Close()
	res := q.Exec(ctx)
	if res.Err != nil {
		return nil, res.Err
	}
	var out []value
	switch v := res.Value.(type) {
	case promql.Vector:
		for _, s := range v {
			one := value{labels: s.Metric.Copy(), f: s.F}
			if s.H != nil {
				one.h = s.H.Copy()
			}
			out = append(out, one)
		}
	case promql.Scalar:
		out = append(out, value{f: v.V})
	default:
		return nil, fmt.Errorf("the expression is a %s, and tests are of vectors and scalars", res.Value.Type())
	}
	return out, nil
}
