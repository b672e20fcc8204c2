package ingester

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/limits"
)

const (
	// minActivityPeriod and maxActivityPeriod bound how often it is looked which series are not
	// active any more.
	minActivityPeriod = time.Second
	maxActivityPeriod = time.Minute
)

// timing is what time it is, also for the activity of series.
type timing struct {
	now   func() time.Time
	clock activeClock
	// untangle is the least time between two tries to tell tuples apart after there were too many.
	untangle time.Duration

	refreshing sync.Mutex // held by refreshActivity
}

func (i *Ingester) activityPeriod() time.Duration {
	return min(max(i.cfg.ActiveSeries.IdleTimeout/100, minActivityPeriod), maxActivityPeriod)
}

// tick is the tick of now.
func (i *Ingester) tick() uint32 { return max(1, i.clock.tick(i.now().UnixMilli())) }

// refreshActivity ends the activity of the series that have been idle for long enough.
func (i *Ingester) refreshActivity() {
	i.refreshing.Lock()
	defer i.refreshing.Unlock()
	now := i.tick()
	for _, t := range i.all() {
		t.metadata.purge(i.now(), i.cfg.MetadataRetention)
		t.replace()
		t.refreshGroups(i.now())
		t.activity.expire(now, i.clock.oldest(now))
	}
}

// activeCollector reads the counts of active series when they are scraped.
type activeCollector struct {
	ing *Ingester

	series, histograms, buckets, owned, local, loading, lag *prometheus.Desc
	tracker, trackerHistograms, trackerBuckets              *prometheus.Desc
	setUsage, setLimit                                      *prometheus.Desc
}

func newActiveCollector(i *Ingester) *activeCollector {
	desc := func(name, help string, more ...string) *prometheus.Desc {
		return prometheus.NewDesc("amphora_ingester_"+name, help, append([]string{"user"}, more...), nil)
	}
	return &activeCollector{
		ing:        i,
		series:     desc("active_series", "Series that had a sample within the idle timeout."),
		histograms: desc("active_native_histogram_series", "Active series whose newest sample is a native histogram."),
		buckets:    desc("active_native_histogram_buckets", "Buckets of the newest samples of active native histogram series."),
		owned:      desc("owned_series", "Series in memory that the ring places on this ingester. Less than all: series moved away, and leave with the next cut."),
		loading:    desc("active_series_loading", "1 while the series in memory are sorted by changed trackers and label sets; their counts are too low meanwhile."),
		lag:        desc("oldest_pending_push_seconds", "Age of the tenant's oldest push under way; absent if there is none. A rise means that the disk or the process is slow."),
		tracker:    desc("active_series_custom_tracker", "Active series that the tracker of this name matches.", "name"),
		trackerHistograms: desc("active_native_histogram_series_custom_tracker",
			"Active series of native histograms that the tracker of this name matches.", "name"),
		trackerBuckets: desc("active_native_histogram_buckets_custom_tracker", "Buckets of the active native histograms that the tracker of this name matches.", "name"),
		setUsage:       desc("usage_per_labelset", "Series in memory that count for a label set.", "limit", "labelset"),
		setLimit:       desc("limits_per_labelset", "Limit of a label set, over all ingesters; 0: none.", "limit", "labelset"),
		local:          desc("local_limits", "This ingester's share of a limit of the tenant. It falls as ingesters are added.", "limit"),
	}
}

// Describe makes the collector an unchecked one.
func (c *activeCollector) Describe(chan<- *prometheus.Desc) {}

// Collect sends the counts of now.
func (c *activeCollector) Collect(ch chan<- prometheus.Metric) {
	for _, t := range c.ing.all() {
		n := t.activity.counts()
		gauge := func(d *prometheus.Desc, v int64, more ...string) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), append([]string{string(t.id)}, more...)...)
		}
		gauge(c.owned, n.owned)
		if _, _, since := t.pending.lag(); since > 0 {
			ch <- prometheus.MustNewConstMetric(c.lag, prometheus.GaugeValue, c.ing.now().Sub(time.UnixMilli(since)).Seconds(), string(t.id))
		}
		v := c.ing.limits(t.id)
		for _, limit := range []limits.Key[int]{limits.MaxGlobalSeriesPerUser, limits.MaxActiveSeriesPerUser} {
			if global := limit.Of(v); global > 0 {
				gauge(c.local, int64(t.localLimit(global)), limit.String())
			}
		}
		for _, s := range t.activity.bySet() {
			gauge(c.setUsage, s.owned, "max_series", s.limit.Labels.String())
			gauge(c.setLimit, int64(s.limit.MaxSeries), "max_series", s.limit.Labels.String())
		}
		if !c.ing.cfg.ActiveSeries.Metrics {
			continue
		}
		if t.activity.sorting.Load() {
			gauge(c.loading, 1)
		}
		for _, x := range t.activity.byTracker() {
			gauge(c.tracker, x.active, x.name)
			if x.histograms > 0 {
				gauge(c.trackerHistograms, x.histograms, x.name)
				gauge(c.trackerBuckets, x.buckets, x.name)
			}
		}
		gauge(c.series, n.active)
		if n.histograms > 0 {
			gauge(c.histograms, n.histograms)
			gauge(c.buckets, n.buckets)
		}
	}
}
