package remotewritetest

import (
	"syscall"
	"testing"
	"time"
)

// CPUTime is the processor time this process has used. Benchmarks report it beside the wall clock,
// which other work on the machine disturbs.
func CPUTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// ReportPerSample reports the processor time since start for each of n samples per iteration.
func ReportPerSample(b *testing.B, start time.Duration, n int) {
	b.ReportMetric(float64((CPUTime()-start).Nanoseconds())/float64(b.N)/float64(n), "cpu-ns/sample")
}
