package distributor

import (
	"bytes"
	"slices"
	"unicode/utf8"

	"github.com/amphora-metrics/amphora/pkg/remotewrite"
)

// exemplarCheck is one thing an exemplar can be dropped for.
type exemplarCheck uint8

const (
	exemplarValid exemplarCheck = iota
	exemplarLabelsMissing
	exemplarLabelsTooLong
	exemplarLabelsBlank
	exemplarTimestampInvalid
	exemplarTooOld
	exemplarTooFarInFuture
	exemplarTooMany
	numExemplarChecks
)

// reason is the value of the label of that name in metrics.
func (c exemplarCheck) reason() string {
	return [numExemplarChecks]string{
		exemplarLabelsMissing:    "exemplar_labels_missing",
		exemplarLabelsTooLong:    "exemplar_labels_too_long",
		exemplarLabelsBlank:      "exemplar_labels_blank",
		exemplarTimestampInvalid: "exemplar_timestamp_invalid",
		exemplarTooOld:           "exemplar_too_old",
		exemplarTooFarInFuture:   "exemplar_too_far_in_future",
		exemplarTooMany:          "too_many_exemplars_per_series_per_request",
	}[c]
}

// checkExemplar looks at an exemplar alone; ls are the first of its n labels. Lengths are looked at
// before any label is copied.
func checkExemplar(x remotewrite.Exemplar, ls []remotewrite.Label, n int) exemplarCheck {
	switch {
	case n == 0:
		return exemplarLabelsMissing
	case x.Time == 0:
		return exemplarTimestampInvalid
	case n > len(ls):
		return exemplarLabelsTooLong
	}
	chars := 0
	for _, l := range ls {
		if len(l.Name) == 0 || len(l.Value) == 0 || !utf8.Valid(l.Name) || !utf8.Valid(l.Value) {
			return exemplarLabelsBlank
		}
		if len(l.Name)+len(l.Value) > maxExemplarChars*utf8.UTFMax {
			return exemplarLabelsTooLong
		}
		if chars += utf8.RuneCount(l.Name) + utf8.RuneCount(l.Value); chars > maxExemplarChars {
			return exemplarLabelsTooLong
		}
	}
	return exemplarValid
}

func sortLabels(ls []remotewrite.Label) {
	slices.SortStableFunc(ls, func(a, b remotewrite.Label) int { return bytes.Compare(a.Name, b.Name) })
}
