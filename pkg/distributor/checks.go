package distributor

import (
	"strconv"
	"unicode/utf8"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
)

// check is one thing a sample can be refused for.
type check uint8

const (
	valid check = iota
	missingMetricName
	invalidMetricName
	tooManyLabels
	tooManyInfoLabels
	invalidLabelName
	invalidLabelValue
	labelNameTooLong
	labelValueTooLong
	duplicateLabel
	tooFarInFuture
	tooFarInPast
	duplicateSample
	tooManyBuckets
	notReducible
	customNotReducible
	invalidSchema
	invalidHistogram
	rateLimited
	relabelled
	tenantNotAllowed
	tooManyClusters
	numChecks
)

// checkRow says how a refusal looks: its error id, its reason in metrics, and, where a limit
// decides, the limit's flag and key.
type checkRow struct {
	id        errs.ID
	reason    string
	flag, key string
}

func (c check) row() checkRow {
	return [numChecks]checkRow{
		missingMetricName: {"missing-metric-name", "missing_metric_name", "", ""},
		invalidMetricName: {"metric-name-invalid", "metric_name_invalid", "validation.name-validation-scheme", "name_validation_scheme"},
		tooManyLabels: {"max-label-names-per-series", "max_label_names_per_series",
			"validation.max-label-names-per-series", "max_label_names_per_series"},
		tooManyInfoLabels: {"max-label-names-per-info-series", "max_label_names_per_info_series",
			"validation.max-label-names-per-info-series", "max_label_names_per_info_series"},
		invalidLabelName:  {"label-invalid", "label_invalid", "validation.name-validation-scheme", "name_validation_scheme"},
		invalidLabelValue: {"label-value-invalid", "label_value_invalid", "", ""},
		labelNameTooLong:  {"label-name-too-long", "label_name_too_long", "validation.max-length-label-name", "max_label_name_length"},
		labelValueTooLong: {"label-value-too-long", "label_value_too_long", "validation.max-length-label-value", "max_label_value_length"},
		duplicateLabel:    {"duplicate-label-names", "duplicate_label_names", "", ""},
		tooFarInFuture:    {"too-far-in-future", "too_far_in_future", "validation.create-grace-period", "creation_grace_period"},
		tooFarInPast:      {"too-far-in-past", "too_far_in_past", "validation.past-grace-period", "past_grace_period"},
		duplicateSample:   {"sample-duplicate-timestamp", "sample_duplicate_timestamp", "", ""},
		tooManyBuckets: {"max-native-histogram-buckets", "max_native_histogram_buckets",
			"validation.max-native-histogram-buckets", "max_native_histogram_buckets"},
		notReducible: {"not-reducible-native-histogram", "not_reducible_native_histogram",
			"validation.max-native-histogram-buckets", "max_native_histogram_buckets"},
		customNotReducible: {"native-histogram-custom-buckets-not-reducible", "native_histogram_custom_buckets_not_reducible",
			"validation.max-native-histogram-buckets", "max_native_histogram_buckets"},
		invalidSchema:    {"invalid-native-histogram-schema", "invalid_native_histogram_schema", "", ""},
		invalidHistogram: {"", "invalid_native_histogram", "", ""}, // has several ids, see histograms.go
		tenantNotAllowed: {"tenant-not-allowed", "tenant_not_allowed", "distributor.tenant-from-label.allowed", "tenant_from_label_allowed"},
		rateLimited:      {"tenant-max-ingestion-rate", "rate_limited", "distributor.ingestion-rate-limit", "ingestion_rate"},
		tooManyClusters:  {"tenant-too-many-ha-clusters", "too_many_ha_clusters", "distributor.ha-tracker.max-clusters", "ha_max_clusters"},
		relabelled:       {"", "relabel_configuration", "", ""}, // is never told
	}[c]
}

// errorf is the error of kind Invalid for c.
func (c check) errorf(format string, args ...any) error {
	r := c.row()
	if r.flag == "" {
		return errs.WithID(errs.Invalid, r.id, "", format, args...)
	}
	return errs.Limit(errs.Invalid, r.id, r.flag, r.key, format, args...)
}

// violation is what is wrong with the labels of a series, not yet put into words: of many refused
// series only the first one's error is shown.
type violation struct {
	check  check
	label  int // position of the offending label
	actual int
	limit  int
}

const metricName = "__name__"

// checkLabels finds what is wrong with labels sorted by name, of which there are n in all. leaves are
// checks to leave out, and ascii says that the labels are known to be of ASCII characters. seen are the
// names of the series checked before under the same limits and leaves, and become those of this one if
// nothing is wrong with it.
func (l *verdictLimits) checkLabels(ls []remotewrite.Label, n int, leaves uint16, ascii bool, seen *seenNames) violation {
	name := nameOf(ls)
	most, mostOfInfo := l.labels, l.infoLabels
	if leaves&entryAnyCount != 0 {
		most, mostOfInfo = mostLabels, mostLabels
	}
	switch {
	case len(name) == 0 && n <= len(ls):
		return violation{check: missingMetricName}
	case len(name) > 0 && string(name) != string(seen.metric) && !l.validMetricName(name):
		return violation{check: invalidMetricName}
	}
	if isInfo(name) {
		if n > mostOfInfo {
			return violation{check: tooManyInfoLabels, actual: n, limit: mostOfInfo}
		}
	} else if n > most {
		return violation{check: tooManyLabels, actual: n, limit: most}
	}
	if ascii && seen.fit(ls, l.valueBytes) {
		seen.metric = name
		return violation{}
	}
	at := 0
	for i := range ls {
		nm, v := ls[i].Name, ls[i].Value
		known := seen.has(nm, &at)
		switch {
		case !known && len(nm) > l.nameBytes:
			return violation{labelNameTooLong, i, len(nm), l.nameBytes}
		case len(v) > l.valueBytes:
			return violation{labelValueTooLong, i, len(v), l.valueBytes}
		case !known && !l.validLabelName(nm, leaves):
			return violation{check: invalidLabelName, label: i}
		case !ascii && !utf8.Valid(v):
			return violation{check: invalidLabelValue, label: i}
		case !known && i > 0 && string(nm) == string(ls[i-1].Name):
			return violation{check: duplicateLabel, label: i}
		}
	}
	seen.keep(ls)
	seen.metric = name
	return violation{}
}

// seenNames are the metric and the label names of a series that were found valid. Neighbours in a request
// mostly have the same ones, or one more or less, and to compare a name costs a fraction of what it costs
// to check it. They lie in the memory of the request.
type seenNames struct {
	metric []byte
	names  [][]byte
}

// fit says whether ls have these names, and no value longer than most.
func (s *seenNames) fit(ls []remotewrite.Label, most int) bool {
	if len(ls) != len(s.names) {
		return false
	}
	for i := range ls {
		if string(ls[i].Name) != string(s.names[i]) || len(ls[i].Value) > most {
			return false
		}
	}
	return true
}

// has says whether name is among the next two names from *at on, and moves *at behind it. As the names
// differ, no label that is found has the name of the one before it.
func (s *seenNames) has(name []byte, at *int) bool {
	for k := *at; k < len(s.names) && k < *at+2; k++ {
		if string(s.names[k]) == string(name) {
			*at = k + 1
			return true
		}
	}
	return false
}

func (s *seenNames) keep(ls []remotewrite.Label) {
	s.names = s.names[:0]
	for i := range ls {
		s.names = append(s.names, ls[i].Name)
	}
}

func (s *seenNames) reset() {
	s.metric = nil
	clear(s.names[:cap(s.names)])
	s.names = s.names[:0]
}

// error puts v into words for the series ls.
func (v violation) error(ls []remotewrite.Label) error {
	s := seriesText(ls)
	label := func() string { return clip(ls[v.label].Name) }
	switch v.check {
	case missingMetricName:
		return v.check.errorf("series %s has no metric name", s)
	case invalidMetricName:
		return v.check.errorf("metric name %q is not valid", clip(nameOf(ls)))
	case labelNameTooLong:
		return v.check.errorf("label name %q of series %s has %d bytes, the limit is %d", label(), s, v.actual, v.limit)
	case labelValueTooLong:
		return v.check.errorf("value of label %q of series %s has %d bytes, the limit is %d", label(), s, v.actual, v.limit)
	case invalidLabelName:
		return v.check.errorf("label name %q of series %s is not valid", label(), s)
	case invalidLabelValue:
		return v.check.errorf("value of label %q of series %s is not valid UTF-8", label(), s)
	case duplicateLabel:
		return v.check.errorf("label %q occurs more than once in series %s", label(), s)
	default:
		return v.check.errorf("series %s has %d labels, the limit is %d", s, v.actual, v.limit)
	}
}

func nameOf(ls []remotewrite.Label) []byte {
	for i := range ls {
		if string(ls[i].Name) == metricName {
			return ls[i].Value
		}
	}
	return nil
}

// isInfo says whether a metric carries facts as labels and so may have more of them.
func isInfo(name []byte) bool {
	const suffix = "_info"
	return len(name) > len(suffix) && string(name[len(name)-len(suffix):]) == suffix
}

func (l *verdictLimits) validMetricName(b []byte) bool {
	if l.utf8 {
		return validText(b)
	}
	return legacyName(b, true)
}

func (l *verdictLimits) validLabelName(b []byte, leaves uint16) bool {
	if l.utf8 || leaves&entryAnyName != 0 {
		return validText(b)
	}
	return legacyName(b, false)
}

// validText is what a name must be at least.
func validText(b []byte) bool { return len(b) > 0 && utf8.Valid(b) }

// legacyName checks [a-zA-Z_][a-zA-Z0-9_]*, with : as another letter if colon.
func legacyName(b []byte, colon bool) bool {
	for i, c := range b {
		switch {
		case c|0x20 >= 'a' && c|0x20 <= 'z', c == '_', c == ':' && colon:
		case c >= '0' && c <= '9' && i > 0:
		default:
			return false
		}
	}
	return len(b) > 0
}

const (
	// maxSeriesText bounds a series in an error, so that hostile labels do not fill logs.
	maxSeriesText = 256
	maxNameText   = 64
)

// seriesText is ls as in a query, cut to about maxSeriesText bytes.
func seriesText(ls []remotewrite.Label) string {
	b := append(make([]byte, 0, maxSeriesText+2*maxNameText), clip(nameOf(ls))...)
	b = append(b, '{')
	first := true
	for i := range ls {
		if string(ls[i].Name) == metricName {
			continue
		}
		if !first {
			b = append(b, ", "...)
		}
		first = false
		if len(b) > maxSeriesText {
			return string(append(b, "...}"...))
		}
		b = append(b, clip(ls[i].Name)...)
		b = append(b, '=')
		b = strconv.AppendQuote(b, clip(ls[i].Value))
	}
	return string(append(b, '}'))
}

// clip is at most maxNameText bytes of b, with dots if it is cut.
func clip(b []byte) string {
	if len(b) <= maxNameText {
		return string(b)
	}
	return string(b[:maxNameText]) + "..."
}
