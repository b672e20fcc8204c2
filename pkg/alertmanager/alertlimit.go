package alertmanager

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/prometheus/alertmanager/alert"
	"github.com/prometheus/alertmanager/silence"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"

	"github.com/amphora-metrics/amphora/pkg/limits"
)

// alertLimit keeps the alerts of one tenant within its limits. It is what the store of alerts calls.
type alertLimit struct {
	view     func() limits.View
	silencer *silence.Silencer
	refused  prometheus.Counter
	deleted  func(model.Fingerprint)
	taken    atomic.Int64 // alerts that were put and not refused

	mu    sync.Mutex // guards what follows
	sizes map[model.Fingerprint]int
	bytes int
}

// PreStore implements mem.AlertStoreCallback.
func (l *alertLimit) PreStore(a *alert.Alert, existing bool) error {
	v := l.view()
	count, size := limits.AlertmanagerMaxAlerts.Of(v), limits.AlertmanagerMaxAlertsSize.Of(v)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !existing && count > 0 && len(l.sizes) >= count {
		l.refused.Inc()
		return fmt.Errorf("too many alerts, limit: %d", count)
	}
	if size > 0 && l.bytes-l.sizes[a.Fingerprint()]+alertSize(a) > size {
		l.refused.Inc()
		return fmt.Errorf("alerts are too big, total size limit: %d bytes", size)
	}
	return nil
}

// PostStore implements mem.AlertStoreCallback.
func (l *alertLimit) PostStore(a *alert.Alert, _ bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.taken.Add(1)
	fp, n := a.Fingerprint(), alertSize(a)
	l.bytes += n - l.sizes[fp]
	l.sizes[fp] = n
}

// PostDelete implements mem.AlertStoreCallback.
func (l *alertLimit) PostDelete(a *alert.Alert) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fp := a.Fingerprint()
	l.bytes -= l.sizes[fp]
	delete(l.sizes, fp)
	l.deleted(fp)
}

// PostGC implements mem.AlertStoreCallback.
func (l *alertLimit) PostGC(fps model.Fingerprints) { l.silencer.PostGC(fps) }

// totals returns how many alerts there are and their size in bytes.
func (l *alertLimit) totals() (count, bytes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.sizes), l.bytes
}

func alertSize(a *alert.Alert) int {
	n := len(a.GeneratorURL)
	for k, v := range a.Labels {
		n += len(k) + len(v)
	}
	for k, v := range a.Annotations {
		n += len(k) + len(v)
	}
	return n
}
