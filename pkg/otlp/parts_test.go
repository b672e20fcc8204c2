package otlp

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// mixed is a request of two resources with two scopes each, of all that is added up and a gauge.
func mixed() pmetric.Metrics {
	md := pmetric.NewMetrics()
	const delta = pmetric.AggregationTemporalityDelta
	for r := range 2 {
		rm := md.ResourceMetrics().AppendEmpty()
		rm.Resource().Attributes().PutStr("service.name", fmt.Sprint("shop-", r))
		rm.Resource().Attributes().PutStr("region", "eu")
		for s := range 2 {
			sm := rm.ScopeMetrics().AppendEmpty()
			sm.Scope().SetName(fmt.Sprint("scope-", s))
			sm.Scope().Attributes().PutStr("team", "a")
			sm.SetSchemaUrl("http://schema")
			ms := sm.Metrics()
			m := ms.AppendEmpty()
			m.SetName("requests")
			m.SetDescription("how many")
			m.SetUnit("1")
			sum := m.SetEmptySum()
			sum.SetIsMonotonic(true)
			sum.SetAggregationTemporality(delta)
			h := ms.AppendEmpty()
			h.SetName("took")
			h.SetEmptyHistogram().SetAggregationTemporality(delta)
			x := ms.AppendEmpty()
			x.SetName("waited")
			x.SetEmptyExponentialHistogram().SetAggregationTemporality(delta)
			g := ms.AppendEmpty()
			g.SetName("heat")
			g.SetEmptyGauge()
			for i := range 10 {
				mark := func(p interface {
					Attributes() pcommon.Map
					SetTimestamp(pcommon.Timestamp)
				}) {
					p.Attributes().PutInt("i", int64(i))
					p.SetTimestamp(sec(10))
				}
				p := sum.DataPoints().AppendEmpty()
				mark(p)
				p.SetStartTimestamp(sec(0))
				p.SetIntValue(int64(i))
				e := p.Exemplars().AppendEmpty()
				e.SetIntValue(1)
				e.SetTimestamp(sec(9))
				hp := h.Histogram().DataPoints().AppendEmpty()
				mark(hp)
				hp.ExplicitBounds().FromRaw([]float64{1})
				hp.BucketCounts().FromRaw([]uint64{1, 2})
				hp.SetCount(3)
				xp := x.ExponentialHistogram().DataPoints().AppendEmpty()
				mark(xp)
				xp.SetZeroCount(1)
				xp.SetCount(1)
				gp := g.Gauge().DataPoints().AppendEmpty()
				mark(gp)
				gp.SetIntValue(7)
			}
		}
	}
	return md
}

// written are the series of a translation, with all that belongs to them.
func written(t *testing.T, res Result) (out []string) {
	t.Helper()
	var req writev2.Request
	if err := req.Unmarshal(res.Body); err != nil {
		t.Fatal(err)
	}
	for _, ts := range req.Timeseries {
		var b strings.Builder
		for _, ref := range ts.LabelsRefs {
			b.WriteString(req.Symbols[ref] + " ")
		}
		m, _ := ts.ToMetadata(req.Symbols)
		fmt.Fprint(&b, ts.Samples, len(ts.Exemplars), m)
		for _, h := range ts.Histograms {
			b.WriteString(h.String())
		}
		out = append(out, b.String())
	}
	return out
}

// TestARequestAndItsPartsSayTheSame: what three processes write of the parts of a request is what one
// process writes of the whole.
func TestARequestAndItsPartsSayTheSame(t *testing.T) {
	set := Settings{Tenant: "t1", StartTimes: true, Exemplars: true, Scope: true, Promote: []string{"region"}}
	translate := func(body []byte, change func(*Settings)) Result {
		t.Helper()
		s := set
		s.Streams = newAdder(t, 1<<20).set.Streams
		change(&s)
		res, err := NewTranslator().Translate(body, &s, nil, plenty{})
		if err != nil || res.Refused != 0 {
			t.Fatal(err, res.First)
		}
		return res
	}
	body := marshal(t, mixed())
	whole := translate(body, func(*Settings) {})
	want := written(t, whole)

	place := func(self int) Place {
		return func(hash uint64) (int, int64) {
			if peer := int(hash % 3); peer != self {
				return peer, 0
			}
			return Here, 0
		}
	}
	mine := translate(body, func(s *Settings) { s.Place = place(2) })
	if mine.Points != whole.Points || mine.PartPoints == 0 || len(mine.Parts) != 2 {
		t.Fatalf("%d points, %d of them in %d parts", mine.Points, mine.PartPoints, len(mine.Parts))
	}
	got, handed := written(t, mine), 0
	for peer, part := range mine.Parts {
		theirs := translate(part, func(s *Settings) { s.Place, s.Handed = place(peer), true })
		if theirs.Unplaced != 0 || theirs.PartPoints != 0 {
			t.Errorf("part %d: %+v", peer, theirs)
		}
		handed += theirs.Points
		got = append(got, written(t, theirs)...)
	}
	if handed != mine.PartPoints {
		t.Errorf("the parts have %d points, want %d", handed, mine.PartPoints)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%d series in parts, %d at once", len(got), len(want))
		for i := range min(len(got), len(want)) {
			if got[i] != want[i] {
				t.Fatalf("got  %s\nwant %s", got[i], want[i])
			}
		}
	}

	// A part that came to the wrong one is not passed on, and nothing of it is counted.
	if wrong := translate(mine.Parts[0], func(s *Settings) { s.Place, s.Handed = place(1), true }); wrong.Unplaced != wrong.Points || wrong.PartPoints != 0 {
		t.Errorf("at the wrong process: %+v", wrong)
	}
	nobody := translate(body, func(s *Settings) { s.Place = func(uint64) (int, int64) { return Nobody, 0 } })
	if nobody.Unplaced != 120 || nobody.PartPoints != 0 {
		t.Errorf("with nobody: %d unplaced", nobody.Unplaced)
	}
}

// TestPartsAreAccountedFor: they are memory of the request, which is refused when there is too little.
func TestPartsAreAccountedFor(t *testing.T) {
	body := marshal(t, mixed())
	translate := func(peer, most int) (Result, *counted, error) {
		room := &counted{most: most}
		set := Settings{Streams: newAdder(t, 1<<20).set.Streams, Place: func(uint64) (int, int64) { return peer, 0 }}
		res, err := NewTranslator().Translate(body, &set, nil, room)
		return res, room, err
	}
	_, none, err := translate(Nobody, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	res, some, err := translate(0, 1<<30)
	if err != nil || some.reserved-none.reserved < partCopies*len(res.Parts[0]) {
		t.Errorf("%d bytes of a part take %d: %v", len(res.Parts[0]), some.reserved-none.reserved, err)
	}
	if _, _, err := translate(0, none.reserved+100); err == nil {
		t.Error("parts take memory that there is not")
	}
}

// counted is room that counts what is taken beside it.
type counted struct {
	plenty
	reserved, most int
}

func (c *counted) Reserve(n int) error {
	if c.reserved += n; c.reserved > c.most {
		return errors.New("full")
	}
	return nil
}

// TestAHigherEpochBeginsAnew: meanwhile another process may have counted, from zero.
func TestAHigherEpochBeginsAnew(t *testing.T) {
	a := newAdder(t, 1<<20)
	epoch := int64(0)
	a.set.Place = func(uint64) (int, int64) { return Here, epoch }
	for _, step := range []struct {
		what       string
		epoch      int64
		start, end int
		v          int64
		want       string
	}{
		{"the first", 5, 0, 10, 5, "5@10 from 0"},
		{"the next, without the first", 5, 10, 20, 3, "3@20 from 10"},
		{"one more", 5, 20, 30, 4, "7@30 from 10"},
		{"sent again when it was elsewhere", 7, 20, 30, 4, "7@30 from 10"},
		{"one that another may have counted", 7, 5, 15, 3, ""},
		{"back again", 7, 40, 50, 2, "2@50 from 40"},
		{"sent again", 7, 40, 50, 2, "2@50 from 40"},
		{"of meanwhile", 7, 30, 40, 9, ""},
		{"of who does not know yet", 6, 50, 60, 1, "1@60 from 50"},
		{"one more", 7, 60, 70, 4, "5@70 from 50"},
	} {
		epoch = step.epoch
		if got := a.sum(step.start, step.end, step.v); got != step.want {
			t.Errorf("%s: %q, want %q", step.what, got, step.want)
		}
	}
	if n := a.set.Streams.Len(); n != 1 || a.set.Streams.Bytes() != streamBytes {
		t.Errorf("%d streams of %d bytes", n, a.set.Streams.Bytes())
	}
}
