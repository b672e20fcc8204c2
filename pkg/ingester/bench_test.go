package ingester

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/grafana/dskit/services"

	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

const (
	benchSeries = 200_000
	benchFrame  = 2_000
)

// benchFrames returns frames of one scrape that define all series.
func benchFrames() []*frame.Frame {
	var out []*frame.Frame
	for at := 0; at < benchSeries; at += benchFrame {
		f := &frame.Frame{Tenant: "t1"}
		for k := at; k < at+benchFrame; k++ {
			ref := frame.MakeRef(uint32(k), 0)
			f.Defs = append(f.Defs, frame.Def{Ref: ref, Labels: metric("http_requests_total", "cluster", "eu-west-1", "namespace", "shop",
				"pod", fmt.Sprintf("frontend-6c8f9d7b5-%05d", k/100), "container", "frontend", "code", "200", "handler", fmt.Sprintf("/api/v1/%d", k%100))})
			f.Refs = append(f.Refs, ref)
			f.Times = append(f.Times, base)
			f.Values = append(f.Values, float64(k))
		}
		out = append(out, f)
	}
	return out
}

func benchSite(b *testing.B, sync bool) (*site, frame.Stream, []*frame.Frame) {
	s := newSite(b, siteOptions{view: limits.MaxGlobalSeriesPerUser.With(limits.View{}, 0), change: func(c *Config) { c.WAL.Sync = sync }})
	st := s.OpenStream()
	frames := benchFrames()
	for _, f := range frames {
		if res := st.Push(context.Background(), f); res.Outcome != frame.Stored || res.Message != "" {
			b.Fatalf("%+v", res)
		}
		f.Defs = nil
	}
	return s, st, frames
}

// cpuTime is what the process has used so far. Benchmarks report it because it does not depend on
// what else the machine does.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// scrape moves f to the next scrape.
func scrape(f *frame.Frame) {
	for k := range f.Times {
		f.Times[k] += 15_000
		f.Values[k] += float64(k % 7)
	}
}

func BenchmarkPush(b *testing.B) {
	for _, sync := range []bool{false, true} {
		b.Run(fmt.Sprintf("series=200k/frame=2000/sync=%v", sync), func(b *testing.B) {
			s, st, frames := benchSite(b, sync)
			b.ReportAllocs()
			next, cpu := 0, cpuTime(b)
			for b.Loop() {
				f := frames[next%len(frames)]
				if next++; next%len(frames) == 0 {
					s.now.Add(15_000)
				}
				scrape(f)
				if res := st.Push(context.Background(), f); res.Outcome != frame.Stored || res.Message != "" {
					b.Fatalf("%+v", res)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchFrame, "ns/sample")
			b.ReportMetric(float64((cpuTime(b)-cpu).Nanoseconds())/float64(b.N)/benchFrame, "cpu-ns/sample")
		})
		b.Run(fmt.Sprintf("series=200k/frame=2000/streams=8/sync=%v", sync), func(b *testing.B) {
			_, st, frames := benchSite(b, sync)
			work := make(chan *frame.Frame, len(frames))
			for _, f := range frames {
				work <- f
			}
			b.ReportAllocs()
			b.SetParallelism(8)
			b.ResetTimer()
			cpu := cpuTime(b)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					f := <-work
					scrape(f)
					if res := st.Push(context.Background(), f); res.Outcome != frame.Stored || res.Message != "" {
						b.Errorf("%+v", res)
					}
					work <- f
				}
			})
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchFrame, "ns/sample")
			b.ReportMetric(float64((cpuTime(b)-cpu).Nanoseconds())/float64(b.N)/benchFrame, "cpu-ns/sample")
		})
	}
}

// BenchmarkRestart compares a start that reads the log back with one from the snapshot of a
// planned stop.
func BenchmarkRestart(b *testing.B) {
	const scrapes = 20
	for _, snapshot := range []bool{false, true} {
		b.Run(fmt.Sprintf("series=200k/scrapes=%d/snapshot=%v", scrapes+1, snapshot), func(b *testing.B) {
			s, st, frames := benchSite(b, false)
			for range scrapes {
				for _, f := range frames {
					scrape(f)
					if res := st.Push(context.Background(), f); res.Outcome != frame.Stored {
						b.Fatalf("%+v", res)
					}
				}
			}
			s.cfg.SnapshotOnShutdown = snapshot
			start := time.Now()
			if err := services.StopAndAwaitTerminated(context.Background(), s.Ingester); err != nil {
				b.Fatal(err)
			}
			stop := time.Since(start)
			benchStarts(b, s.dir, float64((scrapes+1)*benchSeries))
			b.ReportMetric(stop.Seconds(), "s/stop")
		})
	}
}

// benchStarts starts ingesters on copies of dir.
func benchStarts(b *testing.B, dir string, samples float64) {
	var cpu time.Duration
	for b.Loop() {
		b.StopTimer()
		copied := b.TempDir()
		if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		start := cpuTime(b)
		again := newSite(b, siteOptions{dir: copied, change: func(c *Config) { c.SnapshotOnShutdown = false }})
		cpu += cpuTime(b) - start
		b.StopTimer()
		if n := again.series.Load(); n != benchSeries {
			b.Fatalf("%d series read back", n)
		}
		if err := services.StopAndAwaitTerminated(context.Background(), again.Ingester); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(samples*float64(b.N)/cpu.Seconds(), "samples/cpu-s")
	b.ReportMetric(cpu.Seconds()/float64(b.N), "cpu-s/op")
}

func BenchmarkIdleTenants(b *testing.B) {
	const tenants, series = 1000, 10
	for b.Loop() {
		b.StopTimer()
		s := newSite(b, siteOptions{})
		st := s.OpenStream()
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		b.StartTimer()
		for n := range tenants {
			f := &frame.Frame{Tenant: fmt.Sprintf("tenant-%d", n)}
			for k := range series {
				f.Defs = append(f.Defs, frame.Def{Ref: frame.MakeRef(uint32(k), 0), Labels: metric("up", "instance", fmt.Sprint(k))})
				f.Refs = append(f.Refs, frame.MakeRef(uint32(k), 0))
				f.Times = append(f.Times, base)
				f.Values = append(f.Values, 1)
			}
			if res := st.Push(context.Background(), f); res.Outcome != frame.Stored {
				b.Fatalf("%+v", res)
			}
		}
		b.StopTimer()
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/tenants, "B/tenant")
		b.ReportMetric(float64(runtime.NumGoroutine())/tenants, "goroutines/tenant")
		if err := services.StopAndAwaitTerminated(context.Background(), s.Ingester); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkQuery(b *testing.B) {
	s, st, frames := benchSite(b, false)
	for range 20 {
		for _, f := range frames {
			scrape(f)
			if res := st.Push(context.Background(), f); res.Outcome != frame.Stored {
				b.Fatalf("%+v", res)
			}
		}
	}
	b.ReportAllocs()
	n, cpu := 0, cpuTime(b)
	for b.Loop() {
		n += len(s.query(b, "t1", everything()))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/series")
	b.ReportMetric(float64((cpuTime(b)-cpu).Nanoseconds())/float64(n), "cpu-ns/series")
}
