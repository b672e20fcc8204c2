package memory

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// newMetrics registers what is read from l when it is scraped.
func newMetrics(reg prometheus.Registerer, l *Ledger) {
	f := promauto.With(reg)
	gauge := func(name, help string, labels prometheus.Labels, value func() float64) {
		f.NewGaugeFunc(prometheus.GaugeOpts{Name: "amphora_memory_" + name, Help: help, ConstLabels: labels}, value)
	}
	gauge("limit_bytes", "Memory this process may use.", nil, func() float64 { return float64(l.limits.Process) })
	gauge("go_limit_bytes", "Memory the Go runtime is to stay within.", nil, func() float64 { return float64(l.limits.Go) })
	gauge("used_bytes", "Memory in use or reserved. Near the limit, new series, reads and writes are refused.", nil,
		func() float64 { return float64(l.inUse()) })
	gauge("unreserved_bytes", "Of the memory in use, what no account reserved. A lasting rise is a leak, or a use without an account.", nil,
		func() float64 { return float64(l.beside.Load()) })
	gauge("pressure", "How short the process is of memory. 0: not, 1: caches shrink, 2: new series are refused, 3: reads too, 4: writes too.", nil,
		func() float64 { return float64(l.level.Load() + 1) })
	f.NewCounterFunc(prometheus.CounterOpts{Name: "amphora_memory_evicted_queries_total",
		Help: "Queries that were ended to make room for lighter ones because the process was short of memory."},
		func() float64 { return float64(l.workings.evictions.Load()) })
	for u := range numUses {
		a := &l.accounts[u]
		labels := prometheus.Labels{"account": u.String()}
		gauge("reserved_bytes", "Memory reserved, by use.", labels, func() float64 { return float64(a.held.Load()) })
		f.NewCounterFunc(prometheus.CounterOpts{Name: "amphora_memory_refused_total", ConstLabels: labels,
			Help: "Reservations refused because the process was short of memory. A lasting rise calls for more memory or more processes."},
			func() float64 { return float64(a.refused.Load()) })
	}
}
