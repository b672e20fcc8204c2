package ingester

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/protobuf/proto"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
	"github.com/amphora-metrics/amphora/pkg/wire/packed"
)

func filled(t testing.TB) (*site, *sender) {
	s := newSite(t, siteOptions{})
	a := newSender(s.Ingester)
	var ps []point
	for k := range 700 {
		ps = append(ps, point{metric("m", "i", fmt.Sprintf("%03d", k)), base, float64(k)})
	}
	a.mustPush(t, "t1", ps...)
	return s, a
}

func TestQueryStreamsSortedSeriesInBoundedMessages(t *testing.T) {
	s, _ := filled(t)
	var all []string
	q := &queryStream{ctx: tenant.Inject(t.Context(), "t1")}
	q.each = func(m *ingesterpb.QueryResponse) error {
		if len(m.Series) > messageSeries {
			t.Errorf("message with %d series", len(m.Series))
		}
		for _, series := range m.Series {
			all = append(all, labels.FromStrings(series.Labels...).Get("i"))
		}
		return nil
	}
	if err := s.Query(everything(), q); err != nil {
		t.Fatal(err)
	}
	if len(all) != 700 || !slices.IsSorted(all) {
		t.Fatalf("%d series, sorted %v", len(all), slices.IsSorted(all))
	}
	gone := errors.New("peer is gone")
	q.each = func(*ingesterpb.QueryResponse) error { return gone }
	if err := s.Query(everything(), q); !errors.Is(err, gone) {
		t.Errorf("send error: %v", err)
	}
	ctx, cancel := context.WithCancel(q.ctx)
	cancel()
	if err := s.Query(everything(), &queryStream{ctx: ctx}); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled query: %v", err)
	}
}

func TestPackedSeriesAreThoseThatAreNot(t *testing.T) {
	s, a := filled(t)
	a.mustPush(t, "t1", point{metric("m", "i", "000"), base + 1, 7}, point{metric("long", "l", strings.Repeat("x", 300)), base, 1})
	for _, change := range []func(*ingesterpb.QueryRequest){
		func(*ingesterpb.QueryRequest) {},
		func(r *ingesterpb.QueryRequest) { r.ShardIndex, r.ShardCount = 1, 3 },
		func(r *ingesterpb.QueryRequest) { r.Matchers = []*ingesterpb.Matcher{{Name: "i", Value: "nobody"}} },
		func(r *ingesterpb.QueryRequest) { r.MinTime, r.MaxTime = 0, base-1 },
	} {
		req := everything()
		change(req)
		want := s.query(t, "t1", req)
		req.Packed = true
		var got []*ingesterpb.Series
		n, chunks := 0, 0
		q := &queryStream{ctx: tenant.Inject(t.Context(), "t1"), each: func(m *ingesterpb.QueryResponse) error {
			if len(m.Series) > 0 {
				t.Errorf("%d series are not packed", len(m.Series))
			}
			n, chunks = n+int(m.PackedSeries), chunks+int(m.PackedChunks)
			r := packed.Read(m.Packed)
			for ls, ok := r.Next(); ok; ls, ok = r.Next() {
				one := &ingesterpb.Series{Labels: pairs(ls)}
				for c, ok := r.Chunk(); ok; c, ok = r.Chunk() {
					one.Chunks = append(one.Chunks, &ingesterpb.Chunk{MinTime: c.MinTime, MaxTime: c.MaxTime, Encoding: uint32(c.Encoding), Data: c.Data})
					chunks--
				}
				got = append(got, one)
			}
			return r.Err()
		}}
		if err := s.Query(req, q); err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want) || n != len(want) || chunks != 0 {
			t.Fatalf("%d series, counted as %d with %d chunks too many, want %d", len(got), n, chunks, len(want))
		}
		for i := range got {
			if !proto.Equal(got[i], want[i]) {
				t.Fatalf("packed %v, want %v", got[i], want[i])
			}
		}
	}
}

func TestPackedMessagesAreBounded(t *testing.T) {
	s, a := filled(t)
	var ps []point
	for k := range 2000 {
		ps = append(ps, point{metric("long", "i", fmt.Sprintf("%04d", k), "text", strings.Repeat("x", 250)), base, float64(k)})
	}
	a.mustPush(t, "t1", ps...)
	req, n, messages := everything(), 0, 0
	req.Packed = true
	q := &queryStream{ctx: tenant.Inject(t.Context(), "t1"), each: func(m *ingesterpb.QueryResponse) error {
		if len(m.Packed) > packedBytes+1024 {
			t.Errorf("a message of %d bytes", len(m.Packed))
		}
		n, messages = n+int(m.PackedSeries), messages+1
		return nil
	}}
	if err := s.Query(req, q); err != nil || n != 2700 || messages < 2 {
		t.Errorf("%d series in %d messages, %v", n, messages, err)
	}
	gone := errors.New("peer is gone")
	q.each = func(*ingesterpb.QueryResponse) error { return gone }
	if err := s.Query(req, q); !errors.Is(err, gone) {
		t.Errorf("send error: %v", err)
	}
}

func TestShardsPartTheSeries(t *testing.T) {
	s, _ := filled(t)
	seen := map[string]bool{}
	for shard := range uint32(3) {
		req := everything()
		req.ShardIndex, req.ShardCount = shard, 3
		series := s.query(t, "t1", req)
		if len(series) < 150 {
			t.Errorf("shard %d has %d series", shard, len(series))
		}
		for _, x := range series {
			ls := labels.FromStrings(x.Labels...)
			if seen[ls.String()] || labels.StableHash(ls)%3 != uint64(shard) {
				t.Errorf("series %s in shard %d", ls, shard)
			}
			seen[ls.String()] = true
		}
	}
	if len(seen) != 700 {
		t.Errorf("shards together have %d series", len(seen))
	}
}

func TestLabelQueries(t *testing.T) {
	s, a := filled(t)
	a.mustPush(t, "t1", point{metric("n", "zone", "b"), base, 1}, point{metric("n", "zone", "a"), base, 1})
	ctx := tenant.Inject(t.Context(), "t1")
	names, err := s.LabelNames(ctx, &ingesterpb.LabelNamesRequest{MaxTime: base + hour})
	if err != nil || strings.Join(names.Names, ",") != "__name__,i,zone" {
		t.Errorf("names: %v, %v", names, err)
	}
	values, err := s.LabelValues(ctx, &ingesterpb.LabelValuesRequest{Name: "zone", MaxTime: base + hour})
	if err != nil || strings.Join(values.Values, ",") != "a,b" {
		t.Errorf("values: %v, %v", values, err)
	}
	values, err = s.LabelValues(ctx, &ingesterpb.LabelValuesRequest{Name: "i", MaxTime: base + hour, Limit: 5,
		Matchers: []*ingesterpb.Matcher{{Name: "__name__", Value: "m"}}})
	if err != nil || len(values.Values) != 5 {
		t.Errorf("limited values: %v, %v", values, err)
	}
	q := &seriesReceiver{queryStream: queryStream{ctx: ctx}}
	err = s.Series(&ingesterpb.SeriesRequest{MaxTime: base + hour, Matchers: []*ingesterpb.Matchers{
		{Matchers: []*ingesterpb.Matcher{{Name: "zone", Value: "a"}}}, {Matchers: []*ingesterpb.Matcher{{Type: ingesterpb.Matcher_REGEX, Name: "zone", Value: "a|b"}}}}}, q)
	if err != nil || len(q.got) != 2 || q.got[0].Labels[3] != "a" {
		t.Errorf("series: %v, %v", q.got, err)
	}
	if err := s.Query(&ingesterpb.QueryRequest{Matchers: []*ingesterpb.Matcher{{Type: ingesterpb.Matcher_REGEX, Name: "x", Value: "("}}}, &queryStream{ctx: ctx}); errs.KindOf(err) != errs.Invalid {
		t.Errorf("bad matcher: %v", err)
	}
	if _, err := s.LabelNames(t.Context(), &ingesterpb.LabelNamesRequest{}); errs.KindOf(err) != errs.Unauthenticated {
		t.Errorf("no tenant: %v", err)
	}
	if got := s.dump(t, "nobody"); len(got) != 0 {
		t.Errorf("another tenant sees %v", got)
	}
}

type seriesReceiver struct {
	queryStream
	got []*ingesterpb.SeriesLabels
}

func (q *seriesReceiver) Send(m *ingesterpb.SeriesResponse) error {
	q.got = append(q.got, m.Series...)
	return nil
}

func TestTenantStatsTellRatesBySource(t *testing.T) {
	s, a := filled(t)
	f := a.frame("t1", point{metric("rule"), base, 1})
	f.Source = frame.Rule
	if res := a.push(t.Context(), f); res.Outcome != frame.Stored {
		t.Fatalf("%+v", res)
	}
	s.lookup("t1").stats.tick()
	out, err := s.TenantStats(tenant.Inject(t.Context(), "t1"), nil)
	if err != nil || out.Series != 701 || out.ApiIngestionRate != 700/rateTick.Seconds() || out.RuleIngestionRate != 1/rateTick.Seconds() {
		t.Errorf("stats: %v, %v", out, err)
	}
	all, err := s.AllTenantStats(t.Context(), nil)
	if err != nil || len(all.Tenants) != 1 || all.Tenants[0].Stats.IngestionRate != 701/rateTick.Seconds() {
		t.Errorf("all stats: %v, %v", all, err)
	}
}
