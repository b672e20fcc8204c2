package imports

import (
	"errors"
	"io"
	"math"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
)

// family is what the text says about the metrics that follow.
type family struct {
	name       string
	kind       remotewrite.Kind
	help, unit uint32
}

// about makes f the family name, empty if it was another.
func (f *family) about(name []byte) {
	if f.name != string(name) {
		*f = family{name: string(name)}
	}
}

// has says whether a metric of that name is of the family.
func (f *family) has(name string) bool {
	suffix, ok := strings.CutPrefix(name, f.name)
	switch suffix {
	case "", "_total", "_count", "_sum", "_bucket", "_created", "_info", "_gcount", "_gsum":
		return ok && f.name != ""
	}
	return false
}

func kindOf(t model.MetricType) remotewrite.Kind {
	switch t {
	case model.MetricTypeCounter:
		return remotewrite.Counter
	case model.MetricTypeGauge:
		return remotewrite.Gauge
	case model.MetricTypeHistogram:
		return remotewrite.HistogramKind
	case model.MetricTypeGaugeHistogram:
		return remotewrite.GaugeHistogram
	case model.MetricTypeSummary:
		return remotewrite.Summary
	}
	return remotewrite.Unknown
}

// Text makes a remote write 2.0 body of text in the format of contentType: OpenMetrics, or else
// Prometheus's own. Errors: Invalid, BodyTooLarge, those of room.
func Text(text []byte, contentType string, o Options, buf []byte, room remotewrite.Room) (Result, error) {
	w := new(writer)
	w.begin(o, buf, room)
	return w.end(w.text(text, contentType))
}

func (w *writer) text(text []byte, contentType string) error {
	if !strings.HasPrefix(contentType, "application/openmetrics-text") {
		contentType = "text/plain"
	}
	p, err := textparse.New(text, contentType, labels.NewSymbolTable(), textparse.ParserOptions{FallbackContentType: "text/plain"})
	if p == nil {
		return errs.New(errs.Invalid, "content type %.100q: %w", contentType, err)
	}
	var f family
	var ls labels.Labels
	for {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return errs.New(errs.Invalid, "nothing is stored: %.300s", err) // it may quote a line of any length
		}
		switch entry {
		case textparse.EntryHelp:
			name, help := p.Help()
			f.about(name)
			f.help = w.enc.Symbol(string(help))
		case textparse.EntryType:
			name, kind := p.Type()
			f.about(name)
			f.kind = kindOf(kind)
		case textparse.EntryUnit:
			name, unit := p.Unit()
			f.about(name)
			f.unit = w.enc.Symbol(string(unit))
		case textparse.EntrySeries:
			p.Labels(&ls)
			if err := w.sample(p, &f, ls); err != nil {
				return err
			}
		}
	}
}

// sample writes the sample that p stands at.
func (w *writer) sample(p textparse.Parser, f *family, ls labels.Labels) error {
	if err := w.series(ls); err != nil {
		return err
	}
	_, at, v := p.Series()
	ms := w.o.Time.UnixMilli()
	if at != nil {
		ms = *at
	}
	w.enc.Sample(v, ms, 0)
	for x := (exemplar.Exemplar{}); p.Exemplar(&x); x = (exemplar.Exemplar{}) {
		w.refs = w.refs[:0]
		x.Labels.Range(func(l labels.Label) { w.refs = append(w.refs, w.enc.Symbol(l.Name), w.enc.Symbol(l.Value)) })
		if !x.HasTs {
			x.Ts = ms
		}
		w.enc.Exemplar(w.refs, x.Value, x.Ts)
	}
	if f.has(ls.Get(model.MetricNameLabel)) {
		w.enc.Metadata(f.kind, f.help, f.unit)
	}
	return w.enc.EndSeries()
}

// special is a number that JSON has no form for.
func special(s string) (float64, bool) {
	switch s {
	case "NaN":
		return math.NaN(), true
	case "Inf", "+Inf", "Infinity":
		return math.Inf(1), true
	case "-Inf", "-Infinity":
		return math.Inf(-1), true
	}
	return 0, false
}
