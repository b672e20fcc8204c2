package otlp

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote/otlptranslator/prometheusremotewrite"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"

	"github.com/amphora-metrics/amphora/pkg/remotewrite/remotewritetest"
)

// batch is what a collector sends for ten processes: metrics of ten points with six attributes.
func batch(kind string, points int) pmetric.Metrics {
	md := pmetric.NewMetrics()
	at := pcommon.NewTimestampFromTime(time.UnixMilli(1_700_000_000_000))
	for r := 0; points > 0; r++ {
		rm := md.ResourceMetrics().AppendEmpty()
		for _, kv := range [][2]string{{"service.name", "checkout"}, {"service.namespace", "shop"}, {"service.instance.id", fmt.Sprintf("pod-%d", r)},
			{"k8s.cluster.name", "prod-eu-1"}, {"k8s.namespace.name", "shop-prod"}, {"host.name", fmt.Sprintf("node-%d", r)}, {"telemetry.sdk.language", "go"}} {
			rm.Resource().Attributes().PutStr(kv[0], kv[1])
		}
		sm := rm.ScopeMetrics().AppendEmpty()
		sm.Scope().SetName("go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp")
		for k := 0; k < 10 && points > 0; k++ {
			m := sm.Metrics().AppendEmpty()
			m.SetName(fmt.Sprintf("http.server.request.%d", k))
			m.SetUnit("s")
			m.SetDescription("Duration of HTTP server requests.")
			for p := 0; p < 10 && points > 0; p++ {
				points--
				attributes := addPoint(m, kind, at, p)
				attributes.PutStr("http.request.method", "GET")
				attributes.PutStr("http.route", fmt.Sprintf("/api/v1/items/%d", p))
				attributes.PutInt("http.response.status_code", int64(200+p))
				attributes.PutStr("network.protocol.version", "1.1")
				attributes.PutStr("server.address", "checkout.shop.svc.cluster.local")
				attributes.PutStr("url.scheme", "https")
			}
		}
	}
	return md
}

func addPoint(m pmetric.Metric, kind string, at pcommon.Timestamp, p int) pcommon.Map {
	switch kind {
	case "sum":
		if p == 0 {
			m.SetEmptySum().SetIsMonotonic(true)
			m.Sum().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		}
		x := m.Sum().DataPoints().AppendEmpty()
		x.SetTimestamp(at)
		x.SetStartTimestamp(at - 1e12)
		x.SetIntValue(int64(p) * 1000)
		return x.Attributes()
	case "histogram":
		if p == 0 {
			m.SetEmptyHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		}
		x := m.Histogram().DataPoints().AppendEmpty()
		x.SetTimestamp(at)
		x.SetCount(15 * 7)
		x.SetSum(1.5)
		x.ExplicitBounds().FromRaw([]float64{0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10})
		for range 15 {
			x.BucketCounts().Append(7)
		}
		return x.Attributes()
	}
	if p == 0 {
		m.SetEmptyExponentialHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	}
	x := m.ExponentialHistogram().DataPoints().AppendEmpty()
	x.SetTimestamp(at)
	x.SetScale(5)
	x.SetCount(160 * 3)
	x.SetSum(1.5)
	for range 160 {
		x.Positive().BucketCounts().Append(3)
	}
	return x.Attributes()
}

// keeper is room that gives the same memory again.
type keeper struct{ buf []byte }

func (k *keeper) Grow(buf []byte, n int) ([]byte, error) {
	k.buf = append(make([]byte, 0, 2*(cap(buf)+n)), buf...)
	return k.buf, nil
}
func (k *keeper) Reserve(int) error { return nil }

func BenchmarkTranslate(b *testing.B) {
	const points = 5000
	s := Settings{Suffixes: true, Promote: []string{"k8s.cluster.name", "k8s.namespace.name"}, UnderscoreKeys: true, PreserveUnderscores: true}
	for _, kind := range []string{"sum", "histogram", "exponential"} {
		body := marshal(b, batch(kind, points))
		b.Run("points="+kind, func(b *testing.B) {
			tr, k := NewTranslator(), &keeper{}
			cpu := remotewritetest.CPUTime()
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				res, err := tr.Translate(body, &s, k.buf, k)
				if err != nil || res.Points != points || res.Refused > 0 {
					b.Fatal(res.Points, res.First, err)
				}
			}
			remotewritetest.ReportPerSample(b, cpu, points)
		})
		b.Run("points="+kind+"/reference", func(b *testing.B) {
			rs := prometheusremotewrite.Settings{AddMetricSuffixes: true, LabelNameUnderscoreSanitization: true, LabelNamePreserveMultipleUnderscores: true}
			cpu := remotewritetest.CPUTime()
			b.ReportAllocs()
			for b.Loop() {
				req := pmetricotlp.NewExportRequest()
				if err := req.UnmarshalProto(body); err != nil {
					b.Fatal(err)
				}
				if _, err := prometheusremotewrite.NewPrometheusConverter(nowhere{}).FromMetrics(context.Background(), req.Metrics(), rs); err != nil {
					b.Fatal(err)
				}
			}
			remotewritetest.ReportPerSample(b, cpu, points)
		})
	}
}

// nowhere is storage that keeps nothing.
type nowhere struct{ storage.AppenderV2 }

func (nowhere) Append(storage.SeriesRef, labels.Labels, int64, int64, float64, *histogram.Histogram, *histogram.FloatHistogram, storage.AOptions) (storage.SeriesRef, error) {
	return 1, nil
}
