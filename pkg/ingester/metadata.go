package ingester

import (
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

// metadataFile in a tenant's directory keeps its metadata over a restart.
const metadataFile = "metadata.json"

// metadataStore holds the metadata of one tenant's metrics. The zero value is empty.
type metadataStore struct {
	mu      sync.Mutex // guards the fields below
	metrics map[string]map[frame.Metadata]time.Time
	changed bool // since it was last written to disk
}

// put takes in, adds to counts what the limits refuse, and returns the first refusal.
func (s *metadataStore) put(i *Ingester, id tenant.ID, in []frame.Metadata, counts *[numReasons]int) *refusal {
	v, now := i.limits(id), i.now()
	most := metadataLimits{perTenant: limits.MaxGlobalMetadataPerUser.Of(v), perMetric: limits.MaxGlobalMetadataPerMetric.Of(v)}
	most.localPerTenant, most.localPerMetric = i.localLimit(id, most.perTenant), i.localLimit(id, most.perMetric)
	var first *refusal
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range in {
		if r := s.putOne(m, now, most); r != nil {
			counts[r.reason]++
			if first == nil {
				first = r
			}
		}
	}
	return first
}

// metadataLimits are those of the cluster and this ingester's shares of them; 0: no limit.
type metadataLimits struct{ perTenant, perMetric, localPerTenant, localPerMetric int }

// putOne needs s.mu.
func (s *metadataStore) putOne(m frame.Metadata, now time.Time, most metadataLimits) *refusal {
	entries, known := s.metrics[m.Name]
	if _, seen := entries[m]; seen {
		entries[m] = now
		return nil
	}
	if !known {
		if most.perTenant > 0 && len(s.metrics) >= most.localPerTenant {
			row := limits.MaxGlobalMetadataPerUser.Row()
			return &refusal{reasonMetadataPerTenant, errs.Limit(errs.Invalid, "max-metadata-per-user", row.Flag, row.Name,
				"per-user metric metadata limit of %d exceeded", most.perTenant)}
		}
	} else if most.perMetric > 0 && len(entries) >= most.localPerMetric {
		row := limits.MaxGlobalMetadataPerMetric.Row()
		return &refusal{reasonMetadataPerMetric, errs.Limit(errs.Invalid, "max-metadata-per-metric", row.Flag, row.Name,
			"per-metric metadata limit of %d exceeded for metric %s", most.perMetric, m.Name)}
	}
	s.changed = true
	m = frame.Metadata{Name: cloneString(m.Name), Type: cloneString(m.Type), Help: cloneString(m.Help), Unit: cloneString(m.Unit)}
	if !known {
		if s.metrics == nil {
			s.metrics = map[string]map[frame.Metadata]time.Time{}
		}
		entries = map[frame.Metadata]time.Time{}
		s.metrics[m.Name] = entries
	}
	entries[m] = now
	return nil
}

// purge forgets what was not seen for longer than retain.
func (s *metadataStore) purge(now time.Time, retain time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, entries := range s.metrics {
		for m, seen := range entries {
			if now.Sub(seen) > retain {
				delete(entries, m)
				s.changed = true
			}
		}
		if len(entries) == 0 {
			delete(s.metrics, name)
		}
	}
}

// list returns the metadata of metric, of all metrics if it is empty, sorted by name, newest first
// within a metric. most bounds the metrics, perMetric the entries of each; negative: no bound.
func (s *metadataStore) list(metric string, most, perMetric int64) []frame.Metadata {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	if metric != "" {
		if _, ok := s.metrics[metric]; ok {
			names = []string{metric}
		}
	} else {
		for name := range s.metrics {
			names = append(names, name)
		}
		sort.Strings(names)
	}
	if most >= 0 && int64(len(names)) > most {
		names = names[:most]
	}
	var out []frame.Metadata
	for _, name := range names {
		entries := s.metrics[name]
		from := len(out)
		for m := range entries {
			out = append(out, m)
		}
		added := out[from:]
		sort.Slice(added, func(a, b int) bool {
			ta, tb := entries[added[a]], entries[added[b]]
			if !ta.Equal(tb) {
				return ta.After(tb)
			}
			return added[a].Help < added[b].Help
		})
		if perMetric >= 0 && int64(len(added)) > perMetric {
			out = out[:int64(from)+perMetric]
		}
	}
	return out
}

// seen returns everything with when it was said last.
func (s *metadataStore) seen() (out []block.Metadata) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, entries := range s.metrics {
		for m, at := range entries {
			out = append(out, block.Metadata{Name: m.Name, Type: m.Type, Help: m.Help, Unit: m.Unit, Seen: at.Unix()})
		}
	}
	return out
}

func (s *metadataStore) size() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.metrics)
}

// cloneString copies s, which may be part of a request's memory.
func cloneString(s string) string { return strings.Clone(s) }

// savedMetadata is the content of metadataFile.
type savedMetadata struct{ Metadata []frame.Metadata }

// load reads what a former process wrote; it counts as seen now, because senders may have been unable
// to say it meanwhile.
func (s *metadataStore) load(dir string, now time.Time) error {
	var saved savedMetadata
	err := readJSON(filepath.Join(dir, metadataFile), &saved)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range saved.Metadata {
		_ = s.putOne(m, now, metadataLimits{}) // nothing is refused without limits
	}
	s.changed = false
	return err
}

// save writes the metadata to disk if it is other than what is there.
func (s *metadataStore) save(dir string) error {
	s.mu.Lock()
	if !s.changed {
		s.mu.Unlock()
		return nil
	}
	var saved savedMetadata
	for _, entries := range s.metrics {
		for m := range entries {
			saved.Metadata = append(saved.Metadata, m)
		}
	}
	s.changed = false
	s.mu.Unlock()
	err := writeJSON(dir, metadataFile, saved)
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.changed = true
	}
	return err
}
