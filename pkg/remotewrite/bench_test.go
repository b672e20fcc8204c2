package remotewrite

import (
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/remotewrite/remotewritetest"
)

const (
	benchSeries  = 200_000
	benchRequest = 2_000
)

func benchmarkScan(b *testing.B, v Version, encode func([]labels.Labels, float64, int64) []byte) {
	series := remotewritetest.Series(benchSeries)
	var reqs []Request
	for lo := 0; lo < benchSeries; lo += benchRequest {
		reqs = append(reqs, Request{Version: v, Body: encode(series[lo:lo+benchRequest], 42, 1763700000000)})
	}
	k := NewKeys()
	var batch Batch
	if err := batch.Scan(k, &reqs[0]); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	i := 0
	start := remotewritetest.CPUTime()
	for b.Loop() {
		if err := batch.Scan(k, &reqs[i%len(reqs)]); err != nil || batch.Len() != benchRequest {
			b.Fatal(err, batch.Len())
		}
		i++
	}
	remotewritetest.ReportPerSample(b, start, benchRequest)
}

func BenchmarkScanV1(b *testing.B) { benchmarkScan(b, V1, remotewritetest.V1) }
func BenchmarkScanV2(b *testing.B) { benchmarkScan(b, V2, remotewritetest.V2) }
