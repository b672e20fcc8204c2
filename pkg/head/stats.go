package head

import (
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Stats is what is known of a head without a look at its series.
type Stats struct {
	Series           uint64
	MinTime, MaxTime int64 // in memory, in milliseconds; see Head.MinTime
	LateSamples      int64 // taken since the head was opened
	Blocks           int   // on disk
	BlockBytes       int64
	SymbolBytes      uint64 // of the symbol tables of blocks that are open

	Exemplars       int // kept
	ExemplarSeries  int // that have exemplars
	OldestExemplar  float64
	ExemplarsAtMost int
}

// Stats returns the figures of now.
func (h *Head) Stats() Stats {
	s := Stats{Series: h.NumSeries(), MinTime: h.MinTime(), MaxTime: h.MaxTime(), LateSamples: h.lateSamples.Load()}
	h.blocks.figures(&s)
	s.Exemplars = int(h.meters.read("prometheus_tsdb_exemplar_exemplars_in_storage"))
	s.ExemplarSeries = int(h.meters.read("prometheus_tsdb_exemplar_series_with_exemplars_in_storage"))
	s.OldestExemplar = h.meters.read("prometheus_tsdb_exemplar_last_exemplars_timestamp_seconds")
	s.ExemplarsAtMost = int(h.exemplars.granted())
	return s
}

// figures fills in what is about blocks.
func (l *blockList) figures(s *Stats) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, b := range l.all {
		b.mu.Lock()
		if !b.dropped {
			s.Blocks++
			s.BlockBytes += b.bytes
		}
		if b.open != nil {
			s.SymbolBytes += b.open.GetSymbolTableSize()
		}
		b.mu.Unlock()
	}
}

// fileBytes is what the files below dir take.
func fileBytes(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	})
	return n, err
}

// Faults counts what went wrong in the heads of a process.
type Faults struct{ TruncationsFailed, DamagedChunks float64 }

// Faults returns the counts of the heads that were opened with s.
func (s *Shared) Faults() Faults {
	if s == nil {
		return Faults{}
	}
	return Faults{
		TruncationsFailed: s.meters.read("prometheus_tsdb_head_truncations_failed_total"),
		DamagedChunks:     s.meters.read("prometheus_tsdb_mmap_chunk_corruptions_total"),
	}
}

// meters takes the metrics that a TSDB would register and keeps the single ones of a group
// whose first one's name begins with prefix. A registry for each tenant would take memory for all of
// them.
type meters struct {
	prefix string
	byName map[string]prometheus.Metric
}

// read returns the value of a counter or gauge, 0 if it is not known.
func (m *meters) read(name string) float64 {
	x := m.byName[name]
	if x == nil {
		return 0
	}
	var v dto.Metric
	if err := x.Write(&v); err != nil {
		return 0
	}
	return v.GetCounter().GetValue() + v.GetGauge().GetValue()
}

// nameOf returns the name of a single metric, "" of anything else.
func nameOf(c prometheus.Collector) string {
	m, ok := c.(prometheus.Metric)
	if !ok {
		return ""
	}
	_, rest, _ := strings.Cut(m.Desc().String(), `fqName: "`)
	name, _, _ := strings.Cut(rest, `"`)
	return name
}

// MustRegister is part of prometheus.Registerer.
func (m *meters) MustRegister(cs ...prometheus.Collector) {
	if len(cs) == 0 || !strings.HasPrefix(nameOf(cs[0]), m.prefix) {
		return
	}
	if m.byName == nil {
		m.byName = map[string]prometheus.Metric{}
	}
	for _, c := range cs {
		if x, ok := c.(prometheus.Metric); ok {
			m.byName[nameOf(c)] = x
		}
	}
}

// Register is part of prometheus.Registerer.
func (m *meters) Register(c prometheus.Collector) error {
	m.MustRegister(c)
	return nil
}

// Unregister is part of prometheus.Registerer.
func (m *meters) Unregister(prometheus.Collector) bool { return false }
