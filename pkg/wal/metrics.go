package wal

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics of the log. Where Prometheus's own write-ahead log has the same concept, the name
// behind the prefix is the same.
type metrics struct {
	fsync             prometheus.Histogram
	batchBytes        prometheus.Histogram
	records           prometheus.Counter
	writtenBytes      prometheus.Counter
	writesFailed      prometheus.Counter
	refused           prometheus.Counter
	queuedBytes       prometheus.Gauge
	segment           prometheus.Gauge
	storageBytes      prometheus.Gauge
	corruptions       prometheus.Counter
	lostBytes         prometheus.Counter
	tornTails         prometheus.Counter
	replaySeconds     prometheus.Gauge
	checkpoints       prometheus.Counter
	checkpointsFailed prometheus.Counter
	deletionsFailed   prometheus.Counter
	truncations       prometheus.Counter
	truncationsFailed prometheus.Counter
	truncateSeconds   prometheus.Histogram
}

// The names are those the field keys on: what the log itself counts stands behind wal_, checkpoints
// beside it.
const (
	metricPrefix = "amphora_ingester_tsdb_"
	walPrefix    = "wal_"
)

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: metricPrefix + name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: metricPrefix + name, Help: help})
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return f.NewHistogram(prometheus.HistogramOpts{Name: metricPrefix + name, Help: help, Buckets: buckets, NativeHistogramBucketFactor: 1.1})
	}
	return &metrics{
		fsync:             histogram(walPrefix+"fsync_duration_seconds", "Time of one fsync of the write-ahead log. Every push waits for one.", prometheus.ExponentialBuckets(0.0001, 2, 18)),
		batchBytes:        histogram(walPrefix+"batch_bytes", "Uncompressed bytes that one write and one fsync carry. A rise means that the disk is slower than the load.", prometheus.ExponentialBuckets(256, 4, 9)),
		records:           counter(walPrefix+"records_total", "Records written."),
		writtenBytes:      counter(walPrefix+"written_bytes_total", "Bytes written, compressed and framed."),
		writesFailed:      counter(walPrefix+"writes_failed_total", "Batches that could not be written or synced. Their pushes were answered with an error."),
		refused:           counter(walPrefix+"appends_refused_total", "Records refused because too many bytes already wait for the disk."),
		queuedBytes:       gauge(walPrefix+"queued_bytes", "Bytes that wait for the disk."),
		segment:           gauge(walPrefix+"segment_current", "Number of the segment that is written."),
		storageBytes:      gauge(walPrefix+"storage_size_bytes", "Bytes of the log on disk. A steady rise means that checkpoints fail."),
		corruptions:       counter(walPrefix+"corruptions_total", "Damaged places found in the log during replay. Each may have lost acknowledged records of this replica."),
		lostBytes:         counter(walPrefix+"lost_bytes_total", "Bytes in damaged places that could not be replayed."),
		tornTails:         counter(walPrefix+"torn_tails_total", "Unfinished last writes cut off during replay, as a crash leaves them."),
		replaySeconds:     gauge(walPrefix+"replay_duration_seconds", "Time the replay at start took."),
		checkpoints:       counter("checkpoint_creations_total", "Checkpoints begun."),
		checkpointsFailed: counter("checkpoint_creations_failed_total", "Checkpoints not made. The log grows until one succeeds."),
		deletionsFailed:   counter("checkpoint_deletions_failed_total", "Old checkpoints not removed. They are tried again with the next checkpoint."),
		truncations:       counter(walPrefix+"truncations_total", "Times segments were to be removed because a checkpoint replaced them."),
		truncationsFailed: counter(walPrefix+"truncations_failed_total", "Times such segments could not be removed. They are tried again with the next checkpoint."),
		truncateSeconds:   histogram(walPrefix+"truncate_duration_seconds", "Time of a checkpoint and the removal of what it replaced.", prometheus.ExponentialBuckets(0.01, 2, 14)),
	}
}
