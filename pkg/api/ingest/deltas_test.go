package ingest

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/deltapb"
)

// counters returns a request with a gauge and n counters that tell changes.
func counters(n int) []byte {
	r := gauges(1, false)
	ms := r.Metrics().ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics()
	m := ms.AppendEmpty()
	m.SetName("requests")
	s := m.SetEmptySum()
	s.SetIsMonotonic(true)
	s.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	for i := range n {
		p := s.DataPoints().AppendEmpty()
		p.Attributes().PutInt("i", int64(i))
		p.SetTimestamp(pcommon.NewTimestampFromTime(time.UnixMilli(2000)))
		p.SetIntValue(1)
	}
	b, _ := r.MarshalProto()
	return b
}

// friends are peers that answer as a test says.
type friends struct {
	addr   func(hash uint64) (addr string, self bool, epoch int64)
	answer *deltapb.AddResponse
	err    error
	absent error // who is there is not known

	asked   []*deltapb.AddRequest
	learned map[string]int64
}

func (f *friends) Division() (func(uint64) (string, bool, int64), error) { return f.addr, f.absent }
func (f *friends) Changes() map[string]int64                             { return map[string]int64{"a": 1} }
func (f *friends) Learn(changes map[string]int64)                        { f.learned = changes }

func (f *friends) Add(_ context.Context, addr string, req *deltapb.AddRequest) (*deltapb.AddResponse, error) {
	if addr != "b" {
		return nil, errs.New(errs.Internal, "called %s", addr)
	}
	f.asked = append(f.asked, req)
	return f.answer, f.err
}

func deltasAPI(p Peers) (*API, *sink) {
	s := &sink{}
	a := newAPI(s)
	a.peers = p
	a.limits = func(tenant.ID) limits.View { return limits.OTelDeltaToCumulative.With(limits.View{}, true) }
	return a, s
}

// TestDeltasGoToWhoAddsThemUp and the client's answer says what became of all.
func TestDeltasGoToWhoAddsThemUp(t *testing.T) {
	here := func(uint64) (string, bool, int64) { return "a", true, 0 }
	there := func(uint64) (string, bool, int64) { return "b", false, 0 }
	nobody := func(uint64) (string, bool, int64) { return "", true, 0 }
	for name, c := range map[string]struct {
		peers  Peers
		status int
		says   string
		asked  int
	}{
		"alone":          {nil, 200, "", 0},
		"here":           {&friends{addr: here}, 200, "", 0},
		"there":          {&friends{addr: there, answer: &deltapb.AddResponse{Changes: map[string]int64{"b": 7}}}, 200, "", 1},
		"refused there":  {&friends{addr: there, answer: &deltapb.AddResponse{Refused: 3, Message: "too odd"}}, 200, "too odd", 1},
		"gone":           {&friends{addr: there, err: errs.New(errs.Unavailable, "no connection")}, 503, "no connection", 1},
		"too many there": {&friends{addr: there, err: errs.New(errs.RateLimited, "too many")}, 429, "too many", 1},
		"nobody":         {&friends{addr: nobody}, 503, "came or went", 0},
		"not known who":  {&friends{absent: errs.New(errs.Unavailable, "has not looked")}, 503, "has not looked", 0},
	} {
		a, s := deltasAPI(c.peers)
		rec := doOTLP(a, request(counters(3), "Content-Type", typeProtobuf))
		if rec.Code != c.status || !strings.Contains(rec.Body.String(), c.says) || c.says == "" && rec.Body.Len() != 0 {
			t.Errorf("%s: %d %q", name, rec.Code, rec.Body)
		}
		if name == "refused there" {
			if p := partialOf(t, rec); p.RejectedDataPoints() != 3 {
				t.Errorf("%d points rejected, want 3", p.RejectedDataPoints())
			}
		}
		f, _ := c.peers.(*friends)
		if f == nil {
			continue
		}
		if len(f.asked) != c.asked {
			t.Errorf("%s: %d calls, want %d", name, len(f.asked), c.asked)
		}
		if name == "there" && (f.learned["b"] != 7 || f.asked[0].Changes["a"] != 1) {
			t.Errorf("learned %v, told %v", f.learned, f.asked[0].Changes)
		}
		if f.absent == nil && s.calls != 1 {
			t.Errorf("%s: the gauge was pushed %d times", name, s.calls)
		}
	}
}

func partialOf(t *testing.T, rec *httptest.ResponseRecorder) pmetricotlp.ExportPartialSuccess {
	t.Helper()
	out := pmetricotlp.NewExportResponse()
	if err := out.UnmarshalProto(rec.Body.Bytes()); err != nil {
		t.Fatal(err)
	}
	return out.PartialSuccess()
}

// TestWhatIsHandedOnGoesNoFurther: two that take each other for the owner must not call in turns.
func TestWhatIsHandedOnGoesNoFurther(t *testing.T) {
	f := &friends{addr: func(uint64) (string, bool, int64) { return "b", false, 0 }}
	a, _ := deltasAPI(f)
	ctx := tenant.Inject(t.Context(), "t1")
	if _, err := a.Deltas().Add(ctx, &deltapb.AddRequest{Export: counters(2)}); errs.KindOf(err) != errs.Unavailable || len(f.asked) != 0 {
		t.Errorf("%v, %d calls", err, len(f.asked))
	}
	f.addr = func(uint64) (string, bool, int64) { return "a", true, 0 }
	res, err := a.Deltas().Add(ctx, &deltapb.AddRequest{Export: counters(2), Changes: map[string]int64{"c": 9}})
	if err != nil || res.Refused != 0 || res.Changes["a"] != 1 || f.learned["c"] != 9 {
		t.Errorf("%v, %v; learned %v", res, err, f.learned)
	}
	if _, err := a.Deltas().Add(ctx, &deltapb.AddRequest{Export: []byte("nonsense")}); errs.KindOf(err) != errs.Invalid {
		t.Errorf("nonsense: %v", err)
	}
	if _, err := a.Deltas().Add(t.Context(), &deltapb.AddRequest{}); err == nil {
		t.Error("added for no tenant")
	}
	alone, _ := deltasAPI(nil)
	if _, err := alone.Deltas().Add(ctx, &deltapb.AddRequest{}); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("alone: %v", err)
	}
}
