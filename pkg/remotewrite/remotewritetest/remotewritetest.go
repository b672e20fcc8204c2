// Package remotewritetest makes push bodies with the shape of production data, for tests and
// benchmarks.
package remotewritetest

import (
	"fmt"
	"math/rand"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
)

// seriesPerPod is how many series one scrape target brings.
const seriesPerPod = 110

// Series returns n different series as a Kubernetes cluster has them: targets with gauges,
// counters by code, classic histograms and devices, about 12 labels and 320 bytes of text each.
func Series(n int) []labels.Labels {
	r := rand.New(rand.NewSource(1))
	words := strings.Fields("http request duration seconds container memory usage bytes cpu go gc grpc server handled msg " +
		"kube state node network receive transmit errors cache hits queue latency process open")
	names := make([]string, 60)
	for i := range names {
		parts := make([]string, 3+r.Intn(4))
		for j := range parts {
			parts[j] = words[r.Intn(len(words))]
		}
		names[i] = strings.Join(parts, "_")
	}
	out := make([]labels.Labels, 0, n)
	for pod := 0; len(out) < n; pod++ {
		ns := fmt.Sprintf("team-%02d-prod", pod%47)
		service := fmt.Sprintf("service-%s-%d", words[pod%len(words)], pod%311)
		common := []string{
			"cluster", "prod-eu-west-1", "container", "app", "endpoint", "http-metrics",
			"instance", fmt.Sprintf("10.%d.%d.%d:8080", r.Intn(32), r.Intn(256), r.Intn(256)),
			"job", ns + "/" + service, "namespace", ns,
			"node", fmt.Sprintf("ip-10-%d-%d-%d.eu-west-1.compute.internal", pod%32, pod/32%256, pod%7),
			"pod", fmt.Sprintf("%s-%010x-%05x", service, r.Uint32(), pod), "prometheus", "monitoring/k8s", "service", service,
		}
		for k := 0; k < seriesPerPod && len(out) < n; k++ {
			out = append(out, labels.FromStrings(append(own(k, names), common...)...))
		}
	}
	return out
}

// own returns the labels that tell series k of a target from its others.
func own(k int, names []string) []string {
	codes := []string{"200", "204", "400", "404", "500", "503"}
	bounds := []string{"0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"}
	handlers := []string{"/api/v1/query", "/api/v1/query_range", "/api/v1/push", "/metrics"}
	switch {
	case k < 30:
		return []string{model.MetricNameLabel, names[k]}
	case k < 54:
		return []string{model.MetricNameLabel, names[30+(k-30)/6] + "_total", "code", codes[k%6], "method", "GET"}
	case k < 102:
		return []string{model.MetricNameLabel, names[40] + "_bucket", "le", bounds[k%12], "handler", handlers[(k-54)/12]}
	}
	return []string{model.MetricNameLabel, names[50+(k-102)/2], "device", fmt.Sprintf("eth%d", k%2)}
}

// V1 returns an RW 1.0 body with one sample per series.
func V1(series []labels.Labels, value float64, ms int64) []byte {
	var req prompb.WriteRequest
	for _, ls := range series {
		req.Timeseries = append(req.Timeseries, prompb.TimeSeries{Labels: prompb.FromLabels(ls, nil),
			Samples: []prompb.Sample{{Value: value, Timestamp: ms}}})
	}
	return MustMarshal(&req)
}

// V2 returns an RW 2.0 body with one sample per series.
func V2(series []labels.Labels, value float64, ms int64) []byte {
	symbols := writev2.NewSymbolTable()
	var req writev2.Request
	for _, ls := range series {
		req.Timeseries = append(req.Timeseries, writev2.TimeSeries{LabelsRefs: symbols.SymbolizeLabels(ls, nil),
			Samples: []writev2.Sample{{Value: value, Timestamp: ms}}})
	}
	req.Symbols = symbols.Symbols()
	return MustMarshal(&req)
}

// MustMarshal encodes m.
func MustMarshal(m interface{ Marshal() ([]byte, error) }) []byte {
	b, err := m.Marshal()
	if err != nil {
		panic("BUG: marshal: " + err.Error())
	}
	return b
}
