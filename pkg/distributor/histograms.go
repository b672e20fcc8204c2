package distributor

import (
	"context"
	"errors"

	"github.com/prometheus/prometheus/model/histogram"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

// readHistograms decodes and checks the native histograms. A tenant that does not store them has
// them ignored.
func (p *push) readHistograms(context.Context) error {
	if p.batch.HistogramCount() == 0 || !p.lim.histograms {
		return nil
	}
	for i := range p.refs {
		if p.refs[i] == skipped {
			continue
		}
		from, to := p.batch.Histograms(i)
		p.forgetSeen()
		first := len(p.hists)
		for j := from; j < to; j++ {
			h, err := p.batch.Histogram(j)
			if err != nil {
				return err
			}
			p.addHistogram(i, first, h)
		}
	}
	p.counts.Histograms = len(p.hists)
	return nil
}

// addHistogram adds h to series i, whose histograms begin at first, or refuses it.
func (p *push) addHistogram(i, first int, h remotewrite.Histogram) {
	if !p.timeOK(h.Time) {
		p.refuseTime(i, h.Time)
		return
	}
	p.t.observeLatest(h.Time)
	if err := h.Validate(); err != nil {
		c, id := histogramCheck(err)
		p.refuse(i, c, 1, func() error {
			return errs.WithID(errs.Invalid, id, "", "native histogram of series %s with timestamp %d: %w", p.seriesText(i), h.Time, err)
		})
		return
	}
	if had, c := p.lim.reduceBuckets(&h); c != valid {
		p.refuse(i, c, 1, func() error {
			return c.errorf("native histogram of series %s has %d buckets, the limit is %d", p.seriesText(i), had, p.lim.buckets)
		})
		return
	}
	if p.contradicts(first, &h) {
		p.refuseDuplicate(i, h.Time)
		return
	}
	if !p.startDue(i) || !marksStart(h.StartTime, h.Time) {
		h.StartTime = 0
	}
	p.hists = append(p.hists, seriesHistogram{uint32(i),
		frame.Histogram{Time: h.Time, StartTime: h.StartTime, H: h.H, FH: h.FH}})
}

// reduceBuckets lowers the resolution of h until it fits the tenant's limit; it returns how many
// buckets h had.
func (l *tenantLimits) reduceBuckets(h *remotewrite.Histogram) (had int, c check) {
	had = buckets(h)
	if l.buckets <= 0 || had <= l.buckets {
		return had, valid
	}
	if !l.reduce {
		return had, tooManyBuckets
	}
	for buckets(h) > l.buckets {
		switch schema := schemaOf(h); {
		case histogram.IsCustomBucketsSchema(schema):
			return had, customNotReducible
		case schema <= histogram.ExponentialSchemaMin:
			return had, notReducible
		case h.H != nil:
			if h.H.ReduceResolution(schema-1) != nil {
				return had, notReducible
			}
		default:
			if h.FH.ReduceResolution(schema-1) != nil {
				return had, notReducible
			}
		}
	}
	return had, valid
}

func buckets(h *remotewrite.Histogram) int {
	if h.H != nil {
		return len(h.H.PositiveBuckets) + len(h.H.NegativeBuckets)
	}
	return len(h.FH.PositiveBuckets) + len(h.FH.NegativeBuckets)
}

func schemaOf(h *remotewrite.Histogram) int32 {
	if h.H != nil {
		return h.H.Schema
	}
	return h.FH.Schema
}

// histogramCheck names what Validate found.
func histogramCheck(err error) (check, errs.ID) {
	for _, r := range []struct {
		err error
		id  errs.ID
	}{
		{histogram.ErrHistogramCountMismatch, "native-histogram-count-mismatch"},
		{histogram.ErrHistogramCountNotBigEnough, "native-histogram-count-not-big-enough"},
		{histogram.ErrHistogramNegativeBucketCount, "native-histogram-negative-bucket-count"},
		{histogram.ErrHistogramNegativeCount, "native-histogram-negative-bucket-count"},
		{histogram.ErrHistogramSpanNegativeOffset, "native-histogram-span-negative-offset"},
		{histogram.ErrHistogramSpansBucketsMismatch, "native-histogram-spans-buckets-mismatch"},
		{histogram.ErrHistogramCustomBucketsMismatch, "native-histogram-custom-buckets-mismatch"},
		{histogram.ErrHistogramCustomBucketsInfinite, "native-histogram-custom-buckets-infinite"},
	} {
		if errors.Is(err, r.err) {
			return invalidHistogram, r.id
		}
	}
	if errors.Is(err, histogram.ErrHistogramsInvalidSchema) || errors.Is(err, histogram.ErrHistogramsUnknownSchema) {
		return invalidSchema, invalidSchema.row().id
	}
	return invalidHistogram, "native-histogram-custom-buckets-invalid"
}
