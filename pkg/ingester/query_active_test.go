package ingester

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
)

type activeAnswers struct {
	grpc.ServerStream
	ctx context.Context
	got []string
	max int
}

func (a *activeAnswers) Context() context.Context { return a.ctx }

func (a *activeAnswers) Send(m *ingesterpb.ActiveSeriesResponse) error {
	a.max = max(a.max, len(m.Series))
	for k, s := range m.Series {
		text := labels.FromStrings(s.Labels...).String()
		if len(m.Buckets) > 0 {
			text += fmt.Sprint(" ", m.Buckets[k])
		}
		a.got = append(a.got, text)
	}
	return nil
}

func (s *site) activeSeries(t *testing.T, id string, req *ingesterpb.ActiveSeriesRequest) *activeAnswers {
	t.Helper()
	a := &activeAnswers{ctx: tenant.Inject(t.Context(), tenant.ID(id))}
	if err := s.ActiveSeries(req, a); err != nil {
		t.Fatal(err)
	}
	slices.Sort(a.got)
	return a
}

func TestActiveSeriesAreListedByMatchers(t *testing.T) {
	s := newSite(t, siteOptions{})
	from := newSender(s.Ingester)
	from.mustPush(t, "t1", point{metric("m", "k", "idle"), base, 1})
	s.now.Add(idle + minute)
	from.mustPush(t, "t1", point{metric("m", "k", "1"), base + idle, 1}, point{metric("m", "k", "2"), base + idle, 1}, point{metric("n", "k", "1"), base + idle, 1})
	h := &histogram.Histogram{Count: 3, Sum: 3, PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}}, PositiveBuckets: []int64{1, 1}}
	f := &frame.Frame{Tenant: "t1", Defs: []frame.Def{{Ref: 1, Labels: metric("h", "k", "1")}}, Histograms: []frame.Histogram{{Ref: 1, Time: base + idle, H: h}}}
	if res := s.OpenStream().Push(context.Background(), f); res.Outcome != frame.Stored || res.Message != "" {
		t.Fatalf("%+v", res)
	}
	named := []*ingesterpb.Matcher{{Type: ingesterpb.Matcher_EQUAL, Name: "__name__", Value: "m"}}
	if got := s.activeSeries(t, "t1", &ingesterpb.ActiveSeriesRequest{Matchers: named}).got; fmt.Sprint(got) != `[{__name__="m", k="1"} {__name__="m", k="2"}]` {
		t.Errorf("by name: %s", got)
	}
	one := []*ingesterpb.Matcher{{Type: ingesterpb.Matcher_EQUAL, Name: "k", Value: "1"}}
	if got := s.activeSeries(t, "t1", &ingesterpb.ActiveSeriesRequest{Matchers: one, NativeHistograms: true}).got; fmt.Sprint(got) != `[{__name__="h", k="1"} 2]` {
		t.Errorf("native histograms: %s", got)
	}
	var all []string
	for shard := range uint32(3) {
		all = append(all, s.activeSeries(t, "t1", &ingesterpb.ActiveSeriesRequest{Matchers: one, ShardIndex: shard, ShardCount: 3}).got...)
	}
	slices.Sort(all)
	if fmt.Sprint(all) != `[{__name__="h", k="1"} {__name__="m", k="1"} {__name__="n", k="1"}]` {
		t.Errorf("shards: %s", all)
	}
	if got := s.activeSeries(t, "nobody", &ingesterpb.ActiveSeriesRequest{Matchers: one}).got; len(got) != 0 {
		t.Errorf("of another tenant: %s", got)
	}
	a := &activeAnswers{ctx: tenant.Inject(t.Context(), "t1")}
	if err := s.ActiveSeries(&ingesterpb.ActiveSeriesRequest{}, a); errs.KindOf(err) != errs.Invalid {
		t.Errorf("without matchers: %v", err)
	}
}

func TestActiveSeriesComeInSmallMessages(t *testing.T) {
	s := newSite(t, siteOptions{})
	var ps []point
	for k := range 3 * messageSeries {
		ps = append(ps, point{metric("m", "k", fmt.Sprint(k)), base, 1})
	}
	newSender(s.Ingester).mustPush(t, "t1", ps...)
	a := s.activeSeries(t, "t1", &ingesterpb.ActiveSeriesRequest{Matchers: []*ingesterpb.Matcher{{Name: "__name__", Value: "m"}}})
	if len(a.got) != len(ps) || a.max > messageSeries {
		t.Errorf("%d series in messages of up to %d", len(a.got), a.max)
	}
}
