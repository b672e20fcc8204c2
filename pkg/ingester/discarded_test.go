package ingester

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// TestDiscardedCountersStandBesideThoseOfADistributor: in one process both write the families of
// discarded samples, exemplars and metadata, and a page with a clash would leave one out.
func TestDiscardedCountersStandBesideThoseOfADistributor(t *testing.T) {
	s := newSite(t, siteOptions{})
	for _, c := range []struct {
		name, help, reason string
		labels             []string
	}{
		{"amphora_discarded_samples_total", "Samples refused. A rise means that a tenant loses data.", "rate_limited", []string{"reason", "user", "group"}},
		{"amphora_discarded_exemplars_total", "Exemplars dropped.", "exemplar_too_old", []string{"reason", "user"}},
		{"amphora_discarded_metadata_total", "Metadata refused.", "rate_limited", []string{"reason", "user"}},
	} {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: c.name, Help: c.help}, c.labels)
		s.reg.MustRegister(v)
		v.WithLabelValues(append([]string{c.reason, "t1"}, make([]string, len(c.labels)-2)...)...).Inc()
	}
	a := newSender(s.Ingester)
	a.push(t.Context(), a.frame("t1", point{metric("a"), base, 1}))
	for r := range numReasons {
		s.lookup("t1").stats.refused[r].Add(1)
	}
	if _, err := s.reg.Gather(); err != nil {
		t.Error(err)
	}
}
