package imports

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
)

// room gives n bytes.
type room struct{ n int }

var errRoom = errors.New("no memory")

func (r *room) Reserve(n int) error {
	if r.n -= n; r.n < 0 {
		return errRoom
	}
	return nil
}

func (r *room) Grow(buf []byte, n int) ([]byte, error) {
	if err := r.Reserve(n); err != nil {
		return buf, err
	}
	return append(make([]byte, 0, 2*cap(buf)+n), buf...), nil
}

// show writes what a body has, one series a line.
func show(t *testing.T, res Result, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	var req writev2.Request
	if err := req.Unmarshal(res.Body); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	b := labels.NewScratchBuilder(0)
	n := 0
	for _, ts := range req.Timeseries {
		ls, err := ts.ToLabels(&b, req.Symbols)
		if err != nil {
			t.Fatal(err)
		}
		m, err := ts.ToMetadata(req.Symbols)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(&out, ls)
		for _, s := range ts.Samples {
			n++
			fmt.Fprintf(&out, " %g@%d", s.Value, s.Timestamp)
		}
		for _, x := range ts.Exemplars {
			e, err := x.ToExemplar(&b, req.Symbols)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&out, " # %s %g@%d", e.Labels, e.Value, e.Ts)
		}
		fmt.Fprintf(&out, " %s %q %q\n", m.Type, m.Help, m.Unit)
	}
	if n != res.Samples {
		t.Errorf("%d samples, told %d", n, res.Samples)
	}
	return out.String()
}

var at = Options{Time: time.UnixMilli(5000)}

func TestTextIsImported(t *testing.T) {
	res, err := Text([]byte(`# HELP http_requests_total Requests.
# TYPE http_requests_total counter
http_requests_total{code="200",b="x"} 1027 1395066363000
http_requests_total{code="400"} 3
# TYPE rt histogram
rt_bucket{le="0.5"} 1
rt_bucket{le="+Inf"} 2
rt_sum 1.5
rt_count 2
other 1e3
`), "", at, nil, &room{1 << 20})
	const want = `{__name__="http_requests_total", b="x", code="200"} 1027@1395066363000 counter "Requests." ""
{__name__="http_requests_total", code="400"} 3@5000 counter "Requests." ""
{__name__="rt_bucket", le="0.5"} 1@5000 histogram "" ""
{__name__="rt_bucket", le="+Inf"} 2@5000 histogram "" ""
{__name__="rt_sum"} 1.5@5000 histogram "" ""
{__name__="rt_count"} 2@5000 histogram "" ""
{__name__="other"} 1000@5000 unknown "" ""
`
	if got := show(t, res, err); got != want {
		t.Errorf("got\n%s", got)
	}
	res, err = Text([]byte("# TYPE a_seconds counter\n# UNIT a_seconds seconds\na_seconds_total{x=\"1\"} 2 7 # {trace_id=\"t\"} 0.5\n# EOF\n"),
		"application/openmetrics-text; version=1.0.0", at, nil, &room{1 << 20})
	if got := show(t, res, err); got != `{__name__="a_seconds_total", x="1"} 2@7000 # {trace_id="t"} 0.5@7000 counter "" "seconds"`+"\n" {
		t.Errorf("OpenMetrics: %s", got)
	}
}

func TestLinesAreImported(t *testing.T) {
	o := at
	o.Extra = labels.FromStrings("job", "extra", "zone", "z")
	res, err := Lines([]byte(`{"metric":{"__name__":"up","job":"node","instance":"a"},"values":[1,0.5,"Infinity",null],"timestamps":[1000,2000,3000,4000]}

{"metric":{"__name__":"empty"},"values":[],"timestamps":[]}
{"timestamps":[9],"values":[7],"metric":{"__name__":"x"}}`), o, nil, &room{1 << 20})
	const want = `{__name__="up", instance="a", job="extra", zone="z"} 1@1000 0.5@2000 +Inf@3000 NaN@4000 unknown "" ""
{__name__="x", job="extra", zone="z"} 7@9 unknown "" ""
`
	if got := show(t, res, err); got != want {
		t.Errorf("got\n%s", got)
	}
}

// TestWhatIsMalformedIsNotTakenAtAll, and the error is short whatever was sent.
func TestWhatIsMalformedIsNotTakenAtAll(t *testing.T) {
	long := strings.Repeat("x", 10_000)
	for _, text := range []string{"good 1\nbad{\n", "good 1\n" + long + "{ 1\n", "a{b=\"" + long + "} 1\n", "good 1 soon\n"} {
		if _, err := Text([]byte(text), "text/plain", at, nil, &room{1 << 20}); errs.KindOf(err) != errs.Invalid || len(err.Error()) > 500 {
			t.Errorf("%.50q: %v", text, err)
		}
	}
	const good = `{"metric":{"__name__":"a"},"values":[1],"timestamps":[1]}` + "\n"
	for _, line := range []string{"{", `{"metric":{"a":"b"},"values":[1],"timestamps":[1]}`, `{"metric":{"__name__":"a"},"values":[1],"timestamps":[]}`,
		`{"metric":{"__name__":"a"},"values":["one"],"timestamps":[1]}`, `{"metric":{"__name__":"a"},"values":[1],"timestamps":["` + long + `"]}`, "[]"} {
		if _, err := Lines([]byte(good+line), at, nil, &room{1 << 20}); errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), "line 2") || len(err.Error()) > 500 {
			t.Errorf("%.50q: %v", line, err)
		}
	}
	if _, err := Lines([]byte(strings.Repeat(good, 100)), at, nil, &room{2000}); !errors.Is(err, errRoom) {
		t.Errorf("without memory: %v", err)
	}
}

func FuzzText(f *testing.F) {
	f.Add([]byte("# TYPE a counter\na{b=\"c\"} 1 2\n"), false)
	f.Add([]byte("# TYPE a_s counter\n# UNIT a_s s\na_s_total 1 # {x=\"y\"} 2 3\n# EOF\n"), true)
	f.Fuzz(func(t *testing.T, text []byte, open bool) {
		kind := ""
		if open {
			kind = "application/openmetrics-text"
		}
		res, err := Text(text, kind, at, nil, &room{1 << 24})
		scan(t, res, err)
	})
}

func FuzzLines(f *testing.F) {
	f.Add([]byte(`{"metric":{"__name__":"up","job":"node"},"values":[1,"NaN",null],"timestamps":[1000,2000,3000]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		res, err := Lines(text, at, nil, &room{1 << 24})
		scan(t, res, err)
	})
}

func scan(t *testing.T, res Result, err error) {
	t.Helper()
	if err != nil {
		return
	}
	var b remotewrite.Batch
	if err := b.Scan(remotewrite.NewKeys(), &remotewrite.Request{Version: remotewrite.V2, Body: res.Body}); err != nil || len(b.Times) != res.Samples {
		t.Fatalf("%d samples, told %d: %v", len(b.Times), res.Samples, err)
	}
}
