package compactor

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

type metrics struct {
	runsStarted, runsCompleted, runsFailed, runsStopped prometheus.Counter
	lastRun                                             prometheus.Gauge
	runDuration, jobDuration                            prometheus.Histogram
	groupRuns, groupFailures, diskFull, panics          prometheus.Counter
	jobs, blocksIn                                      *prometheus.CounterVec
	setAside, marked                                    *prometheus.CounterVec
	cleanStarted, cleanCompleted, cleanFailed           prometheus.Counter
	lastClean                                           prometheus.Gauge
	deleted, deletionFailures, estimateFailures         prometheus.Counter
	uploads, uploadsFailed                              prometheus.Counter

	perTenant

	mu    sync.Mutex // guards known
	known map[tenant.ID]bool
}

// perTenant are the gauges of each tenant that this process cleans up.
type perTenant struct {
	blocks, marks, partials, aside, updated *prometheus.GaugeVec
	backlogJobs, backlogBytes               *prometheus.GaugeVec
	backlogSeconds                          *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "amphora_compactor_" + name, Help: help})
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: "amphora_compactor_" + name, Help: help}, []string{label})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: "amphora_compactor_" + name, Help: help})
	}
	ofTenant := func(name, help string, more ...string) *prometheus.GaugeVec {
		return f.NewGaugeVec(prometheus.GaugeOpts{Name: "amphora_" + name, Help: help}, append([]string{"user"}, more...))
	}
	duration := func(name, help string) prometheus.Histogram {
		return f.NewHistogram(prometheus.HistogramOpts{Name: "amphora_compactor_" + name, Help: help,
			Buckets: prometheus.ExponentialBuckets(0.1, 4, 10), NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100})
	}
	return &metrics{
		runsStarted:      counter("runs_started_total", "Rounds through all tenants that began."),
		runsCompleted:    counter("runs_completed_total", "Rounds in which nothing failed."),
		runsFailed:       counter("runs_failed_total", "Rounds in which a tenant could not be compacted."),
		runsStopped:      counter("runs_stopped_total", "Rounds that a stop of the process ended."),
		lastRun:          gauge("last_successful_run_timestamp_seconds", "When a round ended in which nothing failed."),
		runDuration:      duration("run_duration_seconds", "Time of a round through all tenants."),
		jobDuration:      duration("job_duration_seconds", "Time of one job."),
		groupRuns:        counter("group_compaction_runs_started_total", "Tries of jobs."),
		groupFailures:    counter("group_compactions_failures_total", "Tries of jobs that failed."),
		diskFull:         counter("disk_out_of_space_errors_total", "Tries of jobs that failed because the disk was full. Give the compactor a larger one."),
		panics:           counter("panics_total", "Panics of jobs, of cleaning up and of checks of uploaded blocks, each of which ended that piece of work alone. The log has the stack."),
		jobs:             vec("jobs_completed_total", "Jobs done.", "stage"),
		blocksIn:         vec("blocks_compacted_total", "Blocks that went into new ones.", "stage"),
		setAside:         vec("blocks_marked_for_no_compaction_total", "Blocks set aside because they cannot be compacted. Look at them with the bucket tool.", "reason"),
		marked:           vec("blocks_marked_for_deletion_total", "Blocks marked for deletion.", "reason"),
		cleanStarted:     counter("block_cleanup_started_total", "Rounds of cleaning up that began."),
		cleanCompleted:   counter("block_cleanup_completed_total", "Rounds of cleaning up in which nothing failed."),
		cleanFailed:      counter("block_cleanup_failed_total", "Rounds of cleaning up in which something failed."),
		lastClean:        gauge("block_cleanup_last_successful_run_timestamp_seconds", "When a round of cleaning up ended in which nothing failed."),
		deleted:          counter("blocks_cleaned_total", "Blocks deleted."),
		deletionFailures: counter("block_cleanup_failures_total", "Blocks that could not be deleted; they are tried again."),
		estimateFailures: f.NewCounter(prometheus.CounterOpts{Name: "amphora_bucket_index_estimated_compaction_jobs_errors_total",
			Help: "Failures to estimate the jobs that are due."}),
		uploads:       counter("block_uploads_total", "Blocks published by the block upload API."),
		uploadsFailed: counter("block_uploads_failed_total", "Uploaded blocks that were refused because they are damaged."),
		perTenant: perTenant{
			blocks:         ofTenant("bucket_blocks_count", "Blocks of the tenant in the bucket, those marked for deletion included."),
			marks:          ofTenant("bucket_blocks_marked_for_deletion_count", "Blocks of the tenant that are marked for deletion."),
			partials:       ofTenant("bucket_blocks_partials_count", "Blocks of the tenant without a meta file."),
			aside:          ofTenant("bucket_blocks_marked_for_no_compaction_count", "Blocks of the tenant that are set aside from compaction."),
			updated:        ofTenant("bucket_index_last_successful_update_timestamp_seconds", "When the tenant's bucket index was brought up to date."),
			backlogJobs:    ofTenant("bucket_index_estimated_compaction_jobs", "Compaction jobs of the tenant that are due.", "type"),
			backlogBytes:   ofTenant("bucket_index_estimated_compaction_bytes", "Bytes of the blocks of these jobs.", "type"),
			backlogSeconds: ofTenant("bucket_index_estimated_compaction_seconds", "How long these jobs take if all compactors are as quick as this one was lately; absent before its first job. A rise means that compaction does not keep up."),
		},
		known: map[tenant.ID]bool{},
	}
}

// compacted counts a job.
func (m *metrics) compacted(s Stage, blocks int) {
	m.jobs.WithLabelValues(string(s)).Inc()
	m.blocksIn.WithLabelValues(string(s)).Add(float64(blocks))
}

// tenant sets what is known of a tenant.
func (m *metrics) tenant(id tenant.ID, scan *block.Scan, jobs []Job, now time.Time, estimate func(int64) time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known[id] = true
	user := string(id)
	m.blocks.WithLabelValues(user).Set(float64(len(scan.Index.Blocks)))
	m.marks.WithLabelValues(user).Set(float64(len(scan.Index.DeletionMarks)))
	m.partials.WithLabelValues(user).Set(float64(len(scan.Partial)))
	m.aside.WithLabelValues(user).Set(float64(len(scan.Marks.NoCompact)))
	m.updated.WithLabelValues(user).Set(float64(now.Unix()))
	n, bytes := map[Stage]int{}, map[Stage]int64{}
	for i := range jobs {
		n[jobs[i].Stage]++
		bytes[jobs[i].Stage] += jobs[i].Bytes()
	}
	if takes := estimate(bytes[Split] + bytes[Merge] + bytes[Rewrite]); takes > 0 || len(jobs) == 0 {
		m.backlogSeconds.WithLabelValues(user).Set(takes.Seconds())
	}
	for _, s := range []Stage{Split, Merge, Rewrite} {
		m.backlogJobs.WithLabelValues(user, string(s)).Set(float64(n[s]))
		m.backlogBytes.WithLabelValues(user, string(s)).Set(float64(bytes[s]))
	}
}

// forget drops the metrics of a tenant.
func (m *metrics) forget(id tenant.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drop(id)
}

func (m *metrics) drop(id tenant.ID) {
	delete(m.known, id)
	labels := prometheus.Labels{"user": string(id)}
	for _, v := range []*prometheus.GaugeVec{m.blocks, m.marks, m.partials, m.aside, m.updated, m.backlogJobs, m.backlogBytes, m.backlogSeconds} {
		v.DeletePartialMatch(labels)
	}
}

// keepTenants drops the metrics of all other tenants: another process has them now, or nobody.
func (m *metrics) keepTenants(ids []tenant.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	keep := make(map[tenant.ID]bool, len(ids))
	for _, id := range ids {
		keep[id] = true
	}
	for id := range m.known {
		if !keep[id] {
			m.drop(id)
		}
	}
}
