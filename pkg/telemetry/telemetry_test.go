package telemetry

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-kit/log/level"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/amphora-metrics/amphora/pkg/config"
)

// logger returns a log at debug level that leaves out the time.
func logger(t *testing.T, format string) (*slog.Logger, *bytes.Buffer) {
	t.Helper()
	var b bytes.Buffer
	l, _, err := NewLogger(Config{LogLevel: "debug", LogFormat: format}, &b)
	if err != nil {
		t.Fatal(err)
	}
	return l, &b
}

func TestLogLinesHaveTheUsualKeysAndTheLevelCanChange(t *testing.T) {
	var b bytes.Buffer
	l, lev, err := NewLogger(Config{LogLevel: "info", LogFormat: FormatLogfmt}, &b)
	if err != nil {
		t.Fatal(err)
	}
	l.Debug("no")
	l.Warn("block not uploaded", "tenant", "a b", "err", errors.New("x"))
	if got := b.String(); !strings.HasPrefix(got, "ts=") || !strings.HasSuffix(got, ` level=warn msg="block not uploaded" tenant="a b" err=x`+"\n") {
		t.Errorf("got %s", got)
	}
	lev.Set(slog.LevelDebug)
	b.Reset()
	l.Debug("yes")
	if b.Len() == 0 {
		t.Error("the level did not change")
	}
	for _, bad := range []Config{{LogLevel: "loud", LogFormat: FormatJSON}, {LogLevel: "info", LogFormat: "xml"}} {
		if _, _, err := NewLogger(bad, &b); err == nil {
			t.Errorf("%+v accepted", bad)
		}
	}
}

type credentials struct {
	User string
	key  config.Secret
}

func TestSecretsAreNotLogged(t *testing.T) {
	c := credentials{"ann", "hunter2"}
	for _, format := range []string{FormatLogfmt, FormatJSON} {
		l, b := logger(t, format)
		l.With("a", c.key, "b", c).WithGroup("g").Info("x", "c", &c, "d", []credentials{c}, "e", map[string]credentials{"k": c},
			"f", struct{ C *credentials }{&c}, slog.Group("h", "i", c), "plain", struct{ N int }{5})
		if err := GoKit(l).Log("msg", "x", "c", c, "k", c.key); err != nil {
			t.Fatal(err)
		}
		if got := b.String(); strings.Contains(got, "hunter") || strings.Count(got, "********") != 9 || !strings.Contains(got, "5") {
			t.Errorf("%s: %d masks in %s", format, strings.Count(got, "********"), got)
		}
	}
}

func TestGoKitLinesKeepLevelMessageAndKeys(t *testing.T) {
	l, b := logger(t, FormatLogfmt)
	g := GoKit(l.With("component", "ring"))
	if err := level.Warn(g).Log("msg", "lost a peer", "ts", time.Now(), "peer", 5, "odd"); err != nil {
		t.Fatal(err)
	}
	if err := level.Debug(g).Log("err", io.EOF); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"level=warn msg=\"lost a peer\" component=ring peer=5 odd=(MISSING)\n", "level=debug msg=\"\" component=ring err=EOF\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in %s", want, b.String())
		}
	}
}

func TestAThrottleLogsOnceAPeriodAndSaysWhatItLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, b := logger(t, FormatLogfmt)
		th := NewThrottle(l, time.Minute)
		for range 100 {
			th.Log(t.Context(), slog.LevelWarn, "slow")
			time.Sleep(time.Second)
		}
		if n := strings.Count(b.String(), "\n"); n != 2 || !strings.Contains(b.String(), "left_out=59\n") {
			t.Errorf("%d lines: %s", n, b.String())
		}
	})
}

// names gathers r and returns the names in order.
func names(t *testing.T, r *Registry) string {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "go_") && !strings.HasPrefix(f.GetName(), "process_") {
			out = append(out, f.GetName())
		}
	}
	return strings.Join(out, " ")
}

func TestTheNamespaceChangesOurNamesOnly(t *testing.T) {
	for ns, want := range map[string]string{
		"amphora": "amphora_build_info amphora_ring_members amphora_x_total b_total",
		"cortex":  "b_total cortex_build_info cortex_ring_members cortex_x_total mimir_build_info",
		"acme":    "acme_build_info acme_ring_members acme_x_total b_total",
	} {
		r := NewRegistry(Config{Namespace: ns})
		promauto.With(r).NewCounter(prometheus.CounterOpts{Name: "amphora_x_total"})
		promauto.With(r).NewCounter(prometheus.CounterOpts{Name: "b_total"})
		promauto.With(r.Prefixed()).NewGauge(prometheus.GaugeOpts{Name: "ring_members"})
		for range 2 {
			if got := names(t, r); got != want {
				t.Errorf("namespace %s: %s, want %s", ns, got, want)
			}
		}
	}
}

func TestNamesThatMeetAreAnErrorAndTheRestIsServed(t *testing.T) {
	r := NewRegistry(Config{Namespace: "cortex"})
	for _, name := range []string{"amphora_x_total", "cortex_x_total", "amphora_y_total"} {
		promauto.With(r).NewCounter(prometheus.CounterOpts{Name: name})
	}
	families, err := r.Gather()
	n := 0
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "cortex_") {
			n++
		}
	}
	if err == nil || !strings.Contains(err.Error(), "cortex_x_total") || n != 3 {
		t.Errorf("%d families, err %v", n, err)
	}
}

func TestNamespacesThatCannotBeginANameAreRefused(t *testing.T) {
	var c Config
	s := config.NewSet()
	s.Mount("", &c)
	_, err := config.Load(s, []string{"-metrics.namespace=a-b"}, func(string) string { return "" })
	if err == nil || !strings.Contains(err.Error(), "metrics.namespace (flag -metrics.namespace)") {
		t.Errorf("err = %v", err)
	}
}

func TestMetricsAreServedAsTextAndWithNativeHistograms(t *testing.T) {
	r := NewRegistry(Config{Namespace: "cortex"})
	promauto.With(r).NewHistogram(prometheus.HistogramOpts{
		Name: "amphora_request_duration_seconds", Help: "Time.", Buckets: prometheus.DefBuckets, NativeHistogramBucketFactor: 1.1,
	}).Observe(0.3)
	l, b := logger(t, FormatLogfmt)
	get := func(accept string) *httptest.ResponseRecorder {
		req := httptest.NewRequest("GET", "/metrics", nil)
		req.Header.Set("Accept", accept)
		rec := httptest.NewRecorder()
		r.Handler(l).ServeHTTP(rec, req)
		if rec.Code != 200 {
			t.Fatalf("%s: status %d", accept, rec.Code)
		}
		return rec
	}
	if text := get("text/plain").Body.String(); !strings.Contains(text, `cortex_request_duration_seconds_bucket{le="0.5"} 1`) ||
		!strings.Contains(text, "cortex_build_info{branch=") || strings.Contains(text, "amphora_") {
		t.Errorf("text:\n%s", text)
	}
	if text := get("application/openmetrics-text").Body.String(); !strings.HasSuffix(text, "# EOF\n") {
		t.Error("OpenMetrics is not spoken")
	}
	rec := get(string(expfmt.NewFormat(expfmt.TypeProtoDelim)))
	dec := expfmt.NewDecoder(rec.Body, expfmt.ResponseFormat(rec.Header()))
	for {
		var f dto.MetricFamily
		if err := dec.Decode(&f); err != nil {
			t.Fatalf("no native histogram: %v", err)
		}
		if f.GetName() == "cortex_request_duration_seconds" {
			if h := f.Metric[0].GetHistogram(); len(h.PositiveSpan) == 0 || len(h.Bucket) == 0 {
				t.Errorf("histogram %v lacks native or classic buckets", h)
			}
			break
		}
	}
	if b.Len() > 0 {
		t.Errorf("logged: %s", b.String())
	}
}

func BenchmarkGather(b *testing.B) {
	for _, ns := range []string{"amphora", "cortex"} {
		b.Run("namespace="+ns, func(b *testing.B) {
			r := NewRegistry(Config{Namespace: ns})
			v := promauto.With(r).NewCounterVec(prometheus.CounterOpts{Name: "amphora_x_total"}, []string{"tenant"})
			for i := range 1000 {
				v.WithLabelValues(string(rune('a' + i)))
			}
			for i := range 300 {
				promauto.With(r).NewCounter(prometheus.CounterOpts{Name: "amphora_y" + strings.Repeat("y", i)})
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Gather(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// goneClient is a connection that broke.
type goneClient struct{ http.ResponseWriter }

func (goneClient) Write([]byte) (int, error) {
	return 0, &net.OpError{Op: "write", Net: "tcp", Err: syscall.EPIPE}
}

func TestAScrapeWhoseClientIsGoneIsNoError(t *testing.T) {
	var out bytes.Buffer
	r := NewRegistry(Config{Namespace: "amphora"})
	r.Handler(slog.New(slog.NewTextHandler(&out, nil))).ServeHTTP(goneClient{httptest.NewRecorder()}, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if out.Len() > 0 {
		t.Errorf("logged: %.300s", out.String())
	}
	scrapeLog{slog.New(slog.NewTextHandler(&out, nil))}.Println("error gathering metrics:", errors.New("twice the same"))
	if !strings.Contains(out.String(), "level=ERROR") || !strings.Contains(out.String(), "twice the same") {
		t.Errorf("a collector that is broken: %q", out.String())
	}
}
