package distributor

import (
	"context"
	"fmt"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/remotewrite/remotewritetest"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

const (
	benchSeries  = 200_000
	benchRequest = 2_000
)

func benchRequests(c *cluster, v remotewrite.Version) []*remotewrite.Request {
	series := remotewritetest.Series(benchSeries)
	encode := map[remotewrite.Version]func([]labels.Labels, float64, int64) []byte{remotewrite.V1: remotewritetest.V1, remotewrite.V2: remotewritetest.V2}[v]
	var reqs []*remotewrite.Request
	for lo := 0; lo < benchSeries; lo += benchRequest {
		reqs = append(reqs, &remotewrite.Request{Version: v, Body: encode(series[lo:lo+benchRequest], 42, c.clock.Load())})
	}
	return reqs
}

var benchShapes = []clusterOptions{
	{replicas: 1, instances: 1},
	{replicas: 3, instances: 3, zones: true},
	{replicas: 3, instances: 30, zones: true},
}

func (o clusterOptions) name(v remotewrite.Version) string {
	return fmt.Sprintf("v=%d/rf=%d/ingesters=%d", v, o.replicas, o.instances)
}

// instant makes all ingesters answer at once and keep nothing.
func instant(c *cluster) {
	c.deps.Replica = func(string) (frame.Replica, error) { return instantReplica{}, nil }
}

type instantReplica struct{}

func (instantReplica) Push(_ *frame.Frame, done func(frame.Result)) { done(frame.Result{}) }
func (instantReplica) Incarnation() uint32                          { return 1 }

// BenchmarkPushHit pushes series that are known.
func BenchmarkPushHit(b *testing.B) {
	for _, v := range []remotewrite.Version{remotewrite.V1, remotewrite.V2} {
		for _, o := range benchShapes {
			b.Run(o.name(v), func(b *testing.B) {
				c := newCluster(b, o)
				instant(c)
				benchmarkHit(b, c, v)
				n, bytes := c.tenants.byID["t1"].table.size()
				b.ReportMetric(float64(bytes)/float64(n), "B/series")
			})
		}
	}
}

// BenchmarkPushMiss pushes series that are new, for a tenant that is new.
func BenchmarkPushMiss(b *testing.B) {
	for _, v := range []remotewrite.Version{remotewrite.V1, remotewrite.V2} {
		for _, o := range benchShapes {
			b.Run(o.name(v), func(b *testing.B) {
				c := newCluster(b, o)
				instant(c)
				reqs := benchRequests(c, v)
				b.ReportAllocs()
				i := 0
				start := remotewritetest.CPUTime()
				for b.Loop() {
					id := tenant.ID(fmt.Sprintf("t%d", i/len(reqs)))
					if _, err := c.Push(context.Background(), id, reqs[i%len(reqs)]); err != nil {
						b.Fatal(err)
					}
					i++
				}
				remotewritetest.ReportPerSample(b, start, benchRequest)
			})
		}
	}
}
