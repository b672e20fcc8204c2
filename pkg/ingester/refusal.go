package ingester

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
)

// reason says why samples, exemplars or metadata were refused; it is a metric label that
// dashboards group by.
type reason uint8

const (
	reasonOutOfOrder reason = iota
	reasonTooOld
	reasonOutOfBounds
	reasonDuplicate
	reasonHistogram
	reasonLabels
	reasonSeriesPerTenant
	reasonSeriesPerMetric
	reasonActiveSeries
	reasonSeriesPerLabelSet
	reasonExemplar
	reasonExemplarTooOld
	reasonMetadataPerTenant
	reasonMetadataPerMetric
	numReasons
)

// of says which counter a reason belongs to.
type refused uint8

const (
	refusedSamples refused = iota
	refusedExemplars
	refusedMetadata
)

type reasonRow struct {
	name string
	of   refused
}

// reasonRows spells the reasons as the field does: hyphens and underscores differ for good.
func reasonRows() [numReasons]reasonRow {
	return [numReasons]reasonRow{
		reasonOutOfOrder:        {"sample-out-of-order", refusedSamples},
		reasonTooOld:            {"sample-too-old", refusedSamples},
		reasonOutOfBounds:       {"sample-timestamp-too-old", refusedSamples},
		reasonDuplicate:         {"new-value-for-timestamp", refusedSamples},
		reasonHistogram:         {"invalid-native-histogram", refusedSamples},
		reasonLabels:            {"labels-not-sorted", refusedSamples},
		reasonSeriesPerTenant:   {"per_user_series_limit", refusedSamples},
		reasonSeriesPerMetric:   {"per_metric_series_limit", refusedSamples},
		reasonActiveSeries:      {"per_user_active_series_limit", refusedSamples},
		reasonSeriesPerLabelSet: {"per_labelset_series_limit", refusedSamples},
		reasonExemplar:          {"exemplar-series-missing", refusedExemplars},
		reasonExemplarTooOld:    {"exemplar-out-of-order", refusedExemplars},
		reasonMetadataPerTenant: {"per_user_metadata_limit", refusedMetadata},
		reasonMetadataPerMetric: {"per_metric_metadata_limit", refusedMetadata},
	}
}

// refusal is the refusal of one sample, exemplar or piece of metadata; the rest of the push goes
// on.
type refusal struct {
	reason reason
	err    error
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// refusalOf makes the refusal for the error err of a head, nil if err is no fault of the sample.
// ls is empty if the series came by reference.
func refusalOf(err error, ls labels.Labels, t int64) *refusal {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r
	}
	why, ok := reasonOf(err)
	if !ok {
		return nil
	}
	window := limits.OutOfOrderTimeWindow.Row()
	at := time.UnixMilli(t).UTC().Format(time.RFC3339Nano) + inSeries(ls)
	switch why {
	case reasonOutOfOrder:
		err = errs.Limit(errs.Invalid, "sample-out-of-order", window.Flag, window.Name,
			"the sample at %s is older than the newest sample of its series, and out-of-order samples are not accepted", at)
	case reasonTooOld:
		err = errs.Limit(errs.Invalid, "sample-timestamp-too-old", window.Flag, window.Name,
			"the sample at %s is older than the out-of-order time window", at)
	case reasonOutOfBounds:
		err = errs.Limit(errs.Invalid, "sample-timestamp-too-old", window.Flag, window.Name,
			"the sample at %s is too old: its time is in a block already or far behind the newest sample", at)
	case reasonDuplicate:
		err = errs.WithID(errs.Invalid, "sample-duplicate-timestamp", "", "there is another value for the sample at %s", at)
	case reasonLabels:
		err = errs.WithID(errs.Invalid, "labels-not-sorted", "", "the labels of the sample at %s are not valid: %w", at, err)
	case reasonHistogram:
		err = errs.WithID(errs.Invalid, histogramFault(err), "", "the native histogram at %s is not valid: %w", at, err)
	default:
		return nil
	}
	return &refusal{why, err}
}

// reasonOf says for which reason the error err of a head refuses a sample; false if err is no fault
// of the sample.
func reasonOf(err error) (reason, bool) {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r.reason, true
	}
	switch {
	case errors.Is(err, storage.ErrOutOfOrderSample):
		return reasonOutOfOrder, true
	case errors.Is(err, storage.ErrTooOldSample):
		return reasonTooOld, true
	case errors.Is(err, storage.ErrOutOfBounds):
		return reasonOutOfBounds, true
	case errors.Is(err, storage.ErrDuplicateSampleForTimestamp):
		return reasonDuplicate, true
	case errors.Is(err, tsdb.ErrInvalidSample):
		return reasonLabels, true
	case histogramFault(err) != "":
		return reasonHistogram, true
	}
	return 0, false
}

func inSeries(ls labels.Labels) string {
	if ls.IsEmpty() {
		return ""
	}
	return " of series " + ls.String()
}

// histogramFault returns the id of what is wrong with a native histogram, "" if err is something
// else.
func histogramFault(err error) errs.ID {
	for _, row := range []struct {
		err error
		id  errs.ID
	}{
		{histogram.ErrHistogramCountMismatch, "native-histogram-count-mismatch"},
		{histogram.ErrHistogramCountNotBigEnough, "native-histogram-count-not-big-enough"},
		{histogram.ErrHistogramNegativeBucketCount, "native-histogram-negative-bucket-count"},
		{histogram.ErrHistogramSpanNegativeOffset, "native-histogram-span-negative-offset"},
		{histogram.ErrHistogramSpansBucketsMismatch, "native-histogram-spans-buckets-mismatch"},
		{histogram.ErrHistogramCustomBucketsMismatch, "native-histogram-custom-buckets-mismatch"},
		{histogram.ErrHistogramCustomBucketsInvalid, "native-histogram-custom-buckets-invalid"},
		{histogram.ErrHistogramCustomBucketsInfinite, "native-histogram-custom-buckets-infinite"},
		{histogram.ErrHistogramsInvalidSchema, "invalid-native-histogram-schema"},
		{histogram.ErrHistogramsUnknownSchema, "invalid-native-histogram-schema"},
	} {
		if errors.Is(err, row.err) {
			return row.id
		}
	}
	if _, ok := errors.AsType[histogram.Error](err); ok {
		return "invalid-native-histogram"
	}
	return ""
}

// exemplarRefusal is refusalOf for an exemplar; nil if the exemplar may be ignored silently.
func exemplarRefusal(err error, t int64) *refusal {
	if errors.Is(err, storage.ErrDuplicateExemplar) || errors.Is(err, storage.ErrExemplarsDisabled) {
		return nil
	}
	at := time.UnixMilli(t).UTC().Format(time.RFC3339Nano)
	switch {
	case errors.Is(err, storage.ErrOutOfOrderExemplar):
		return &refusal{reasonExemplarTooOld, errs.WithID(errs.Invalid, "exemplar-too-far-in-past", "",
			"the exemplar at %s is older than the newest of its series", at)}
	case errors.Is(err, storage.ErrExemplarLabelLength):
		return &refusal{reasonExemplar, errs.WithID(errs.Invalid, "exemplar-labels-too-long", "", "the exemplar at %s: %w", at, err)}
	}
	return &refusal{reasonExemplar, errs.WithID(errs.Invalid, "exemplar-series-missing", "",
		"the exemplar at %s has no series that is stored: %w", at, err)}
}

// ofTenant names the tenant in front of the text of err.
func ofTenant(tenant string, err error) string { return fmt.Sprintf("user=%s: %s", tenant, err) }
