package ingest

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// gauges returns a request with a gauge of n points and, if delta, a metric of two points that is
// refused.
func gauges(n int, delta bool) pmetricotlp.ExportRequest {
	md := pmetric.NewMetrics()
	ms := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics()
	m := ms.AppendEmpty()
	m.SetName("room.temperature")
	points := m.SetEmptyGauge().DataPoints()
	for i := range n {
		p := points.AppendEmpty()
		p.SetTimestamp(pcommon.NewTimestampFromTime(time.UnixMilli(1000)))
		p.SetIntValue(int64(i))
	}
	if delta {
		d := ms.AppendEmpty()
		d.SetName("requests")
		s := d.SetEmptySum()
		s.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		s.DataPoints().AppendEmpty().SetIntValue(1)
		s.DataPoints().AppendEmpty().SetIntValue(1)
	}
	return pmetricotlp.NewExportRequestFromMetrics(md)
}

func protobuf(t testing.TB, r pmetricotlp.ExportRequest) []byte {
	t.Helper()
	b, err := r.MarshalProto()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func doOTLP(a *API, r *http.Request) *httptest.ResponseRecorder {
	r = r.WithContext(tenant.Inject(r.Context(), "t1"))
	rec := httptest.NewRecorder()
	if err := a.OTLP(rec, r); err != nil {
		a.WriteOTLPError(rec, r, err)
	}
	return rec
}

func TestOTLPIsTakenInEveryEncoding(t *testing.T) {
	plain := protobuf(t, gauges(1, false))
	text, err := gauges(1, false).MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	var zipped, framed bytes.Buffer
	gz, lz := gzip.NewWriter(&zipped), lz4.NewWriter(&framed)
	for _, err := range []error{func() error { _, err := gz.Write(plain); return err }(), gz.Close(), func() error { _, err := lz.Write(plain); return err }(), lz.Close()} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		body           []byte
		kind, encoding string
		answer         string
	}{
		"protobuf": {plain, "application/x-protobuf", "", ""},
		"json":     {text, "application/json; charset=utf-8", "", "{}"},
		"identity": {plain, "application/x-protobuf", "identity", ""},
		"gzip":     {zipped.Bytes(), "application/x-protobuf", "gzip", ""},
		"zstd":     {enc.EncodeAll(plain, nil), "application/x-protobuf", "zstd", ""},
		"lz4":      {framed.Bytes(), "application/x-protobuf", "lz4", ""},
	} {
		s := &sink{written: remotewrite.Written{Samples: 1}}
		a := newAPI(s)
		rec := doOTLP(a, request(c.body, "Content-Type", c.kind, "Content-Encoding", c.encoding))
		if rec.Code != 200 || rec.Body.String() != c.answer || !strings.HasPrefix(c.kind, rec.Header().Get("Content-Type")) {
			t.Errorf("%s: %d %q as %q", name, rec.Code, rec.Body, rec.Header().Get("Content-Type"))
		}
		if s.version != remotewrite.V2 || s.id != "t1" || s.origin != remotewrite.OTLP || !bytes.Contains(s.body, []byte("room_temperature")) {
			t.Errorf("%s: pushed %q of version %d", name, s.body, s.version)
		}
		if left := a.bodies.now.Load(); left != 0 {
			t.Errorf("%s: %d bytes stay reserved", name, left)
		}
	}
}

func TestOTLPErrorsAreStatusesOfTheRequestsEncoding(t *testing.T) {
	body := protobuf(t, gauges(1, false))
	for _, c := range []struct {
		err    error
		status int
		retry  bool
	}{
		{errs.New(errs.Invalid, "bad sample"), 400, false},
		{errs.New(errs.RateLimited, "too fast"), 429, true},
		{errs.New(errs.Unavailable, "no quorum"), 503, true},
		{errs.New(errs.Timeout, "slow"), 503, true},
		{errs.New(errs.Internal, "bug"), 503, true},
		{errs.New(errs.Unimplemented, "off"), 503, false},
		{errs.New(errs.BodyTooLarge, "much"), 413, false},
		{errs.New(errs.Denied, "no"), 403, false},
		{errs.New(errs.Canceled, "gone"), 499, false},
	} {
		for _, kind := range []string{typeProtobuf, typeJSON} {
			b := body
			if kind == typeJSON {
				b, _ = gauges(1, false).MarshalJSON()
			}
			rec := doOTLP(newAPI(&sink{err: c.err}), request(b, "Content-Type", kind))
			if rec.Code != c.status || (rec.Header().Get("Retry-After") != "") != c.retry || rec.Header().Get("Content-Type") != kind {
				t.Errorf("%v: %d, Retry-After %q, %q", c.err, rec.Code, rec.Header().Get("Retry-After"), rec.Header().Get("Content-Type"))
			}
			var s status.Status
			if kind == typeJSON {
				if err := json.Unmarshal(rec.Body.Bytes(), &s); err != nil {
					t.Errorf("%v: %v", c.err, err)
				}
			} else if err := proto.Unmarshal(rec.Body.Bytes(), &s); err != nil {
				t.Errorf("%v: %v", c.err, err)
			}
			if !strings.Contains(s.GetMessage(), c.err.Error()) || s.GetCode() != int32(errs.KindOf(c.err).GRPCCode()) {
				t.Errorf("%v: status %v", c.err, &s)
			}
		}
	}
	if rec := doOTLP(newAPI(&sink{err: errs.New(errs.Accepted, "other replica")}), request(body, "Content-Type", typeProtobuf)); rec.Code != 202 || rec.Body.Len() != 0 {
		t.Errorf("deduplicated: %d %s", rec.Code, rec.Body)
	}
}

func TestOTLPThatCannotBeReadIsRefused(t *testing.T) {
	body := protobuf(t, gauges(1, false))
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	bomb := enc.EncodeAll(make([]byte, 40<<20), nil)
	announced := request(nil, "Content-Type", typeProtobuf)
	announced.ContentLength = 1 << 40
	for name, c := range map[string]struct {
		r      *http.Request
		status int
		want   string
	}{
		"text":         {request(body, "Content-Type", "text/plain"), 415, "content type"},
		"no type":      {request(body), 415, "content type"},
		"br":           {request(body, "Content-Type", typeProtobuf, "Content-Encoding", "br"), 415, "encoding"},
		"not zstd":     {request(body, "Content-Type", typeProtobuf, "Content-Encoding", "zstd"), 400, "zstd"},
		"cut":          {request(body[:len(body)-1], "Content-Type", typeProtobuf), 400, "malformed"},
		"not JSON":     {request(body, "Content-Type", typeJSON), 400, "JSON"},
		"bomb":         {request(bomb, "Content-Type", typeProtobuf, "Content-Encoding", "zstd"), 413, "(err-amphora-distributor-max-otlp-request-size)"},
		"announced":    {announced, 413, "(err-amphora-distributor-max-otlp-request-size)"},
		"lz4 of other": {request(body, "Content-Type", typeProtobuf, "Content-Encoding", "lz4"), 400, "lz4"},
	} {
		s := &sink{}
		a := newAPI(s)
		rec := doOTLP(a, c.r)
		if rec.Code != c.status || !strings.Contains(rec.Body.String(), c.want) || s.calls != 0 {
			t.Errorf("%s: %d %q", name, rec.Code, rec.Body)
		}
		if left := a.bodies.now.Load(); left != 0 {
			t.Errorf("%s: %d bytes stay reserved", name, left)
		}
	}
}

// TestPartOfAnExportIsAPartialSuccess: what is good is stored, and the client learns how many points are
// not; an export of which nothing is stored is an error.
func TestPartOfAnExportIsAPartialSuccess(t *testing.T) {
	invalid := errs.New(errs.Invalid, "out of order")
	for name, c := range map[string]struct {
		req      pmetricotlp.ExportRequest
		written  int
		err      error
		status   int
		rejected int64
		message  string
	}{
		"delta beside a gauge":      {gauges(3, true), 3, nil, 200, 2, "delta temporality"},
		"delta alone":               {gauges(0, true), 0, nil, 400, 0, "delta temporality"},
		"one refused when stored":   {gauges(3, false), 2, invalid, 200, 1, "out of order"},
		"all refused when stored":   {gauges(3, false), 0, invalid, 400, 0, "out of order"},
		"both":                      {gauges(3, true), 1, invalid, 200, 4, "delta temporality"},
		"refused, nobody says what": {gauges(3, false), 3, invalid, 200, 1, "out of order"},
		"nothing at all":            {gauges(0, false), 0, nil, 200, 0, ""},
	} {
		s := &sink{written: remotewrite.Written{Samples: c.written}, err: c.err}
		rec := doOTLP(newAPI(s), request(protobuf(t, c.req), "Content-Type", typeProtobuf))
		if rec.Code != c.status {
			t.Errorf("%s: %d %q", name, rec.Code, rec.Body)
		}
		if c.status != 200 {
			if !strings.Contains(rec.Body.String(), c.message) {
				t.Errorf("%s: %q", name, rec.Body)
			}
			continue
		}
		out := pmetricotlp.NewExportResponse()
		if err := out.UnmarshalProto(rec.Body.Bytes()); err != nil {
			t.Fatal(err)
		}
		if p := out.PartialSuccess(); p.RejectedDataPoints() != c.rejected || !strings.Contains(p.ErrorMessage(), c.message) {
			t.Errorf("%s: %d rejected, %q", name, p.RejectedDataPoints(), p.ErrorMessage())
		}
	}
}

func TestTheTenantsLimitsChooseTheTranslation(t *testing.T) {
	s := &sink{}
	a := newAPI(s)
	a.limits = func(id tenant.ID) limits.View {
		return limits.OTelTranslationStrategy.With(limits.View{}, "NoTranslation")
	}
	if rec := doOTLP(a, request(protobuf(t, gauges(1, false)), "Content-Type", typeProtobuf)); rec.Code != 200 || !bytes.Contains(s.body, []byte("room.temperature")) {
		t.Errorf("%d, pushed %q", rec.Code, s.body)
	}
}

func FuzzAnyOTLPIsAnsweredAndLeavesNothing(f *testing.F) {
	f.Add(protobuf(f, gauges(3, true)), typeProtobuf, "")
	f.Add([]byte(`{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"a","gauge":{"dataPoints":[{"asInt":"1"}]}}]}]}]}`), typeJSON, "")
	f.Add([]byte("\x04\"M\x18h@\xa7"), typeProtobuf, "lz4")
	f.Add([]byte("\x1f\x8b\x08\x00"), typeJSON, "gzip")
	f.Fuzz(func(t *testing.T, body []byte, contentType, encoding string) {
		a := newAPI(&sink{})
		r := request(body)
		r.Header = http.Header{"Content-Type": {contentType}, "Content-Encoding": {encoding}}
		if rec := doOTLP(a, r); rec.Code != 200 && (rec.Code < 400 || rec.Code >= 500) {
			t.Errorf("status %d %s", rec.Code, rec.Body)
		}
		if left := a.bodies.now.Load(); left != 0 {
			t.Errorf("%d bytes stay reserved", left)
		}
	})
}

func FuzzAnyCallIsAnsweredAndLeavesNothing(f *testing.F) {
	message := protobuf(f, gauges(2, true))
	f.Add(append([]byte{0, 0, 0, 0, byte(len(message))}, message...), "", "1S")
	f.Add([]byte{1, 0, 0, 0, 3, 0x1f, 0x8b, 8}, "gzip", "99999999H")
	f.Add([]byte("\x01\x00\x00\x00\x0a\xff\x06\x00\x00sNaPpY"), "snappy", "x")
	f.Fuzz(func(t *testing.T, body []byte, encoding, timeout string) {
		a := newAPI(&sink{})
		r := request(body)
		r.ProtoMajor = 2
		r.Header = http.Header{"Content-Type": {typeGRPC}, "Grpc-Encoding": {encoding}, "Grpc-Timeout": {timeout}}
		r = r.WithContext(tenant.Inject(r.Context(), "t1"))
		rec := httptest.NewRecorder()
		if err := a.ExportGRPC(rec, r); err != nil {
			if status := a.WriteGRPCError(rec, r, err); status >= 500 && errs.KindOf(err) != errs.Timeout {
				t.Errorf("%v", err)
			}
		}
		if rec.Header().Get(http.TrailerPrefix+"Grpc-Status") == "" {
			t.Error("no status")
		}
		if left := a.bodies.now.Load(); left != 0 {
			t.Errorf("%d bytes stay reserved", left)
		}
	})
}
