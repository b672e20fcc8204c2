package ingester

import (
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

// metadataRetained is how long metadata is kept after it was last seen.
const metadataRetained = 10 * time.Minute

// metadataStore holds the metadata of one tenant's metrics. The zero value is empty.
type metadataStore struct {
	mu      sync.Mutex // guards metrics
	metrics map[string]map[frame.Metadata]time.Time
}

// put takes in, adds to counts what the limits refuse, and returns the first refusal.
func (s *metadataStore) put(i *Ingester, id tenant.ID, in []frame.Metadata, counts *[numReasons]int) *refusal {
	v, now := i.limits(id), i.now()
	perTenant := i.localLimit(id, limits.MaxGlobalMetadataPerUser.Of(v))
	perMetric := i.localLimit(id, limits.MaxGlobalMetadataPerMetric.Of(v))
	var first *refusal
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range in {
		if r := s.putOne(m, now, perTenant, perMetric); r != nil {
			counts[r.reason]++
			if first == nil {
				first = r
			}
		}
	}
	return first
}

// putOne needs s.mu.
func (s *metadataStore) putOne(m frame.Metadata, now time.Time, perTenant, perMetric int) *refusal {
	entries, known := s.metrics[m.Name]
	if _, seen := entries[m]; seen {
		entries[m] = now
		return nil
	}
	if !known {
		if perTenant > 0 && len(s.metrics) >= perTenant {
			row := limits.MaxGlobalMetadataPerUser.Row()
			return &refusal{reasonMetadataPerTenant, errs.Limit(errs.Invalid, "max-metadata-per-user", row.Flag, row.Name,
				"per-user metric metadata limit exceeded")}
		}
	} else if perMetric > 0 && len(entries) >= perMetric {
		row := limits.MaxGlobalMetadataPerMetric.Row()
		return &refusal{reasonMetadataPerMetric, errs.Limit(errs.Invalid, "max-metadata-per-metric", row.Flag, row.Name,
			"per-metric metadata limit of %d exceeded for metric %s", perMetric, m.Name)}
	}
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

// purge forgets what was last seen before the retention.
func (s *metadataStore) purge(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, entries := range s.metrics {
		for m, seen := range entries {
			if now.Sub(seen) > metadataRetained {
				delete(entries, m)
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

func (s *metadataStore) size() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.metrics)
}

// cloneString copies s, which may be part of a request's memory.
func cloneString(s string) string { return strings.Clone(s) }
