package transport

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

// nothing is a frame.Server that stores nothing, so that only the way to it is measured.
type nothing struct{}

func (*nothing) OpenStream() frame.Stream { return discard{} }

// discard takes every frame.
type discard struct{}

func (discard) Push(context.Context, *frame.Frame) frame.Result { return frame.Result{} }
func (discard) Close()                                          {}

// processCPU is the CPU time used by the process, which holds both ends.
func processCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// pipelined pushes frames with at most 32 under way.
func pipelined(b *testing.B, r frame.Replica, f *frame.Frame) {
	if res := push(r, f); res.Outcome != frame.Stored {
		b.Fatalf("%+v", res)
	}
	slots := make(chan struct{}, 32)
	done := func(res frame.Result) {
		if res.Outcome != frame.Stored {
			b.Errorf("%+v", res)
		}
		<-slots
	}
	b.ReportAllocs()
	start := processCPU()
	for b.Loop() {
		slots <- struct{}{}
		r.Push(f, done)
	}
	for range cap(slots) {
		slots <- struct{}{}
	}
	cpu := processCPU() - start
	b.ReportMetric(float64(cpu.Nanoseconds())/float64(b.N)/float64(f.Samples()), "cpu-ns/sample")
	b.ReportMetric(float64(cpu.Microseconds())/float64(b.N), "cpu-us/frame")
}

func BenchmarkPush(b *testing.B) {
	for name, n := range map[string]int{"samples=2000": 2000, "samples=60": 60} {
		f := scrape(0, n, false)
		b.Run("loopback/"+name, func(b *testing.B) {
			ing := startIngester(b, "", &nothing{})
			pool, _ := startReplicas(b, time.Minute)
			pipelined(b, replicaFor(b, pool, ing.addr), f)
		})
		b.Run("local/"+name, func(b *testing.B) {
			pool, _ := startReplicas(b, time.Minute)
			pipelined(b, newLocalReplica(&nothing{}, pool.shared), f)
		})
	}
	defs := scrape(0, 2000, true)
	for i := range defs.Defs {
		defs.Defs[i].Labels = labels.FromStrings("__name__", "http_requests_total", "cluster", "eu-1", "instance", "10.0.0.1:9090", "job", "api", "pod", defs.Defs[i].Labels.Get("i"))
	}
	b.Run("loopback/defs=2000", func(b *testing.B) {
		ing := startIngester(b, "", &nothing{})
		pool, _ := startReplicas(b, time.Minute)
		pipelined(b, replicaFor(b, pool, ing.addr), defs)
	})
}
