package distributor

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/prometheus/common/model"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

// metadataPeriod is how often the metadata of a series that does not change is sent again, so that
// ingesters which forget it learn it anew.
const metadataPeriod = 5 * time.Minute

func metadataBucket(now time.Time) uint64 {
	return uint64(now.Unix()) / uint64(metadataPeriod/time.Second)
}

// metadataKey is never 0.
func metadataKey(hash, bucket uint64) uint32 {
	x := (hash + bucket) * 0x9e3779b97f4a7c15
	return uint32(x>>32) | 1
}

// readMetadata decodes and checks the metadata of an RW 1.0 request.
func (p *push) readMetadata(context.Context) error {
	for j := range p.batch.MetadataCount() {
		m, err := p.batch.Metadata(j)
		if err != nil {
			return err
		}
		if err := p.addMetadata(m); err != nil {
			return err
		}
	}
	return nil
}

// seriesMetadata takes what the series of w, with labels ls, says about its family. Every family
// is taken once per request, however many of its series say the same.
func (p *push) seriesMetadata(w *work, ls []remotewrite.Label) error {
	m := p.batch.SeriesMetadata(int(w.series))
	m.Name = familyName(nameOf(ls), m.Type)
	key := p.d.keys.Text(p.batch.SeriesMetadataHash(int(w.series)), m.Name)
	if _, ok := p.families[key]; ok {
		return nil
	}
	p.families[key] = struct{}{}
	return p.addMetadata(m)
}

// addTypeAndUnit adds to the labels of series i, of which there are n, the type and the unit that its
// metadata says. They replace labels that the sender gave these names.
func (p *push) addTypeAndUnit(i int, ls []remotewrite.Label, n int) ([]remotewrite.Label, int) {
	if p.batch.SeriesMetadataHash(i) == 0 {
		return ls, n
	}
	m := p.batch.SeriesMetadata(i)
	set := func(name string, value []byte) {
		if len(value) == 0 {
			return
		}
		had := len(ls)
		ls = slices.DeleteFunc(ls, func(l remotewrite.Label) bool { return string(l.Name) == name })
		ls = append(ls, remotewrite.Label{Name: []byte(name), Value: value})
		n += len(ls) - had
	}
	if m.Type != string(model.MetricTypeUnknown) {
		set(model.MetricTypeLabel, []byte(m.Type))
	}
	set(model.MetricUnitLabel, m.Unit)
	p.labels = ls
	return ls, n
}

// familyName leaves out the suffix that the series of a histogram or summary have.
func familyName(name []byte, kind string) []byte {
	switch model.MetricType(kind) {
	case model.MetricTypeHistogram, model.MetricTypeGaugeHistogram:
		if s, ok := bytes.CutSuffix(name, []byte("_bucket")); ok {
			return s
		}
	case model.MetricTypeSummary:
	default:
		return name
	}
	for _, suffix := range []string{"_count", "_sum"} {
		if s, ok := bytes.CutSuffix(name, []byte(suffix)); ok {
			return s
		}
	}
	return name
}

// addMetadata adds m or refuses it. A help text that is too long is cut. Errors: BodyTooLarge.
func (p *push) addMetadata(m remotewrite.Metadata) error {
	id, reason := errs.ID(""), ""
	switch {
	case len(m.Name) == 0 && !p.lim.metadataNames:
		return nil
	case len(m.Name) == 0:
		id, reason = "metadata-missing-metric-name", "missing_metric_name"
	case len(m.Name) > p.lim.metadataBytes:
		id, reason = "metadata-metric-name-too-long", "metric_name_too_long"
	case len(m.Unit) > p.lim.metadataBytes:
		id, reason = "metadata-unit-too-long", "unit_too_long"
	case !utf8.Valid(m.Name):
		id, reason = "metric-name-invalid", "metric_name_invalid"
	}
	if reason == "" {
		fm := frame.Metadata{Name: string(m.Name), Type: m.Type, Help: text(m.Help, p.lim.metadataBytes), Unit: text(m.Unit, p.lim.metadataBytes)}
		p.labelBytes += len(fm.Name) + len(fm.Help) + len(fm.Unit)
		p.metadata = append(p.metadata, familyMetadata{Metadata: fm})
		return p.checkText()
	}
	p.refuseMetadata(m, id, reason)
	return nil
}

// refuseMetadata counts m as refused and words the error if it is the first.
func (p *push) refuseMetadata(m remotewrite.Metadata, id errs.ID, reason string) {
	p.d.metrics.discardedMetadata.WithLabelValues(reason, string(p.t.id)).Inc()
	if p.first != nil {
		return
	}
	name := clip(m.Name)
	switch reason {
	case "missing_metric_name":
		p.first = errs.WithID(errs.Invalid, id, "", "metadata has no metric name")
	case "metric_name_invalid":
		p.first = errs.WithID(errs.Invalid, id, "", "metric name %q of metadata is not valid UTF-8", name)
	default:
		what, n := "metric name", len(m.Name)
		if reason == "unit_too_long" {
			what, n = "unit", len(m.Unit)
		}
		p.first = errs.Limit(errs.Invalid, id, "validation.max-metadata-length", "max_metadata_length",
			"%s of the metadata of %q has %d bytes, the limit is %d", what, name, n, p.lim.metadataBytes)
	}
}

// text is b as valid text of at most n bytes.
func text(b []byte, n int) string {
	if len(b) > n {
		for n > 0 && !utf8.RuneStart(b[n]) {
			n--
		}
		b = b[:n]
	}
	return strings.ToValidUTF8(string(b), "\uFFFD")
}
