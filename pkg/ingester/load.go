package ingester

import (
	"log/slog"
	"math"
	runtimemetrics "runtime/metrics"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

// LoadConfig says from which load of the process on queries are refused.
type LoadConfig struct {
	ReadCPU   float64 // cores
	ReadBytes int     // of the Go heap
}

// Declare names each setting once.
func (c *LoadConfig) Declare(s *config.Set) {
	s.Float(&c.ReadCPU, "read-path-cpu-utilization-limit", 0,
		"CPU cores in use, averaged over the last minute, above which the process refuses queries so that other replicas answer them; pushes continue. 0: no limit.").Expert()
	s.Int(&c.ReadBytes, "read-path-memory-utilization-limit", 0,
		"Bytes of memory in use above which the process refuses queries so that other replicas answer them; pushes continue. 0: no limit.").Expert()
}

// errTooLoaded refuses queries of a process that needs its strength for pushes.
var errTooLoaded = errs.WithID(errs.Unavailable, "ingester-too-busy",
	"To adjust it, set -ingester.read-path-cpu-utilization-limit or -ingester.read-path-memory-utilization-limit.",
	"the ingester is currently too busy to process queries, try again later")

// Usage is what a process has used and uses.
type Usage struct {
	CPU  time.Duration // since the start of the process
	Heap uint64        // bytes of the Go heap in use
}

// heapMetrics are those that together are what the heap has in use: live objects and garbage, and
// the room between them.
const (
	heapObjects = "/memory/classes/heap/objects:bytes"
	heapUnused  = "/memory/classes/heap/unused:bytes"
)

// processUsage asks the kernel and the Go runtime. It stops nothing.
func processUsage() (Usage, error) {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return Usage{}, err
	}
	heap := []runtimemetrics.Sample{{Name: heapObjects}, {Name: heapUnused}}
	runtimemetrics.Read(heap)
	u := Usage{CPU: time.Duration(r.Utime.Nano() + r.Stime.Nano())}
	for _, h := range heap {
		if h.Value.Kind() == runtimemetrics.KindUint64 {
			u.Heap += h.Value.Uint64()
		}
	}
	return u, nil
}

// loadWindow is what the CPU average is over. A burst of seconds is no reason to refuse queries.
const loadWindow = time.Minute

// load watches the process.
type load struct {
	cfg   LoadConfig
	log   *slog.Logger
	usage func() (Usage, error)

	over atomic.Pointer[string] // the limit that is exceeded, nil if none

	// Of the one goroutine that looks.
	last    Usage
	lastAt  time.Time
	since   time.Time // of the first look
	cores   float64   // the average
	warmed  bool      // the average is over a whole window
	refused *prometheus.CounterVec
	cpu     prometheus.Gauge
	heap    prometheus.Gauge
}

func (l *load) init(c LoadConfig, log *slog.Logger, usage func() (Usage, error), reg prometheus.Registerer) {
	l.cfg, l.log, l.usage = c, log, usage
	if l.usage == nil {
		l.usage = processUsage
	}
	f := promauto.With(reg)
	l.refused = f.NewCounterVec(prometheus.CounterOpts{Name: "amphora_ingester_utilization_limited_read_requests_total",
		Help: "Queries refused because the process uses more CPU or memory than it may while answering queries."}, []string{"reason"})
	l.cpu = f.NewGauge(prometheus.GaugeOpts{Name: "amphora_ingester_utilization_limiter_current_cpu_load",
		Help: "CPU cores used, on average over the last minute."})
	l.heap = f.NewGauge(prometheus.GaugeOpts{Name: "amphora_ingester_utilization_limiter_current_memory_usage_bytes",
		Help: "Bytes of the Go heap in use."})
}

const (
	overCPU    = "cpu"
	overMemory = "memory"
)

// busy returns the refusal of queries, nil if they may be answered.
func (l *load) busy() error {
	over := l.over.Load()
	if over == nil {
		return nil
	}
	l.refused.WithLabelValues(*over).Inc()
	return errTooLoaded
}

// look asks what the process uses and draws the consequences. One goroutine calls it.
func (l *load) look(now time.Time) {
	u, err := l.usage()
	if err != nil {
		l.over.Store(nil)
		return
	}
	l.measure(u, now)
	l.cpu.Set(l.cores)
	l.heap.Set(float64(u.Heap))
	over := ""
	switch {
	case l.cfg.ReadBytes > 0 && u.Heap >= uint64(l.cfg.ReadBytes):
		over = overMemory
	case l.cfg.ReadCPU > 0 && l.warmed && l.cores >= l.cfg.ReadCPU:
		over = overCPU
	}
	switch was := l.over.Load(); {
	case over == "" && was != nil:
		l.over.Store(nil)
		l.log.Info("load is below its limit again, queries are answered", "limit", *was, "cpu_cores", l.cores, "heap_bytes", u.Heap)
	case over != "" && (was == nil || *was != over):
		l.over.Store(&over)
		l.log.Warn("load is above its limit, queries are refused until it falls; pushes go on", "limit", over, "cpu_cores", l.cores, "heap_bytes", u.Heap)
	}
}

// measure brings the average up to date. The weight of a look is that of its time in the window.
func (l *load) measure(u Usage, now time.Time) {
	if l.lastAt.IsZero() {
		l.last, l.lastAt, l.since = u, now, now
		return
	}
	passed := now.Sub(l.lastAt)
	if passed <= 0 {
		return
	}
	cores := (u.CPU - l.last.CPU).Seconds() / passed.Seconds()
	window := min(now.Sub(l.since), loadWindow)
	weight := 1 - math.Exp(-2*passed.Seconds()/window.Seconds())
	if l.lastAt.Equal(l.since) {
		weight = 1
	}
	l.cores += weight * (cores - l.cores)
	l.last, l.lastAt = u, now
	l.warmed = now.Sub(l.since) >= loadWindow
}
