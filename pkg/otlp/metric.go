package otlp

import (
	"strings"

	"github.com/prometheus/otlptranslator"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
)

// The fields of Metric that hold points, by which a metric says what it is.
const (
	dataGauge       = 5
	dataSum         = 7
	dataHistogram   = 9
	dataExponential = 10
	dataSummary     = 11
)

// The temporalities.
const (
	temporalityDelta      = 1
	temporalityCumulative = 2
)

// metric is the metric whose points are being read.
type metric struct {
	name, help, unit string // as sent
	data             uint32 // one of the constants above; 0: none
	body             []byte // the message that holds the points
	temporality      uint64
	monotonic        bool
	addUp            bool // its points are deltas, and are added up

	metricName
	kind             remotewrite.Kind
	helpRef, unitRef uint32
	familyRef        uint32
	sumRef, countRef uint32 // of the series of histograms and summaries
	bucketRef        uint32
}

// metricKey is what the name of a metric depends on.
type metricKey struct {
	name, unit     string
	kind           otlptranslator.MetricType
	suffixes, utf8 bool
}

// metricName is what Prometheus calls a metric and its unit.
type metricName struct{ family, unitName string }

// metric reads a Metric and writes the series of its points.
func (t *Translator) metric(b []byte) error {
	m, err := readMetric(b)
	if err != nil || m.data == 0 {
		return err
	}
	points, err := countPoints(m.body)
	if err != nil || points == 0 {
		return err
	}
	t.res.Points += points
	if err := t.acceptable(&m); err != nil {
		// The times still count: the resource was alive.
		t.refuse(points, func() error { return err })
		return nil
	}
	t.metadata(&m)
	var f field
	for rest := m.body; len(rest) > 0; {
		rest, _ = f.next(rest)
		if !f.is(1, wireBytes) {
			continue
		}
		if err := t.point(&m, f.data); err != nil {
			return err
		}
		if err := t.enc.Err(); err != nil {
			return err
		}
	}
	t.endMetric(&m)
	return nil
}

// readMetric reads a Metric without its points. Of several kinds of points, the last counts.
func readMetric(b []byte) (m metric, err error) {
	var f field
	for len(b) > 0 {
		var ok bool
		if b, ok = f.next(b); !ok {
			return m, malformed("metric")
		}
		switch f.number {
		case 1, 2, 3, dataGauge, dataSum, dataHistogram, dataExponential, dataSummary:
			if f.wire != wireBytes {
				return m, malformed("field of a metric")
			}
		}
		switch f.number {
		case 1:
			m.name = view(f.data)
		case 2:
			m.help = view(f.data)
		case 3:
			m.unit = view(f.data)
		case dataGauge, dataSum, dataHistogram, dataExponential, dataSummary:
			m.data, m.body = f.number, f.data
		}
	}
	for rest := m.body; len(rest) > 0; {
		var ok bool
		if rest, ok = f.next(rest); !ok {
			return m, malformed("data of a metric")
		}
		switch {
		case f.is(2, wireVarint) && m.data != dataGauge && m.data != dataSummary:
			m.temporality = f.num
		case f.is(3, wireVarint) && m.data == dataSum:
			m.monotonic = f.num != 0
		}
	}
	return m, nil
}

// countPoints counts the points in the data of a metric.
func countPoints(b []byte) (n int, err error) {
	var f field
	for len(b) > 0 {
		var ok bool
		if b, ok = f.next(b); !ok {
			return 0, malformed("data of a metric")
		}
		if f.number == 1 {
			if f.wire != wireBytes {
				return 0, malformed("data point")
			}
			n++
		}
	}
	return n, nil
}

// acceptable says why no point of m can be stored, and else finds its name.
func (t *Translator) acceptable(m *metric) error {
	if t.resource.bad != nil {
		return t.resource.bad
	}
	if err := t.checkTemporality(m); err != nil {
		return err
	}
	name, err := t.nameOf(m)
	if err != nil {
		return errs.New(errs.Invalid, "metric %q cannot be named: its name has no letter or digit", clip(m.name))
	}
	m.metricName = name
	return nil
}

// checkTemporality says why the points of m cannot be stored, and whether they are to be added up.
func (t *Translator) checkTemporality(m *metric) error {
	if m.data == dataGauge || m.data == dataSummary || m.temporality == temporalityCumulative {
		return nil
	}
	switch {
	case m.temporality != temporalityDelta:
		return errs.New(errs.Invalid, "metric %q has neither cumulative nor delta temporality", clip(m.name))
	case t.set.Deltas:
		return nil
	case t.set.Streams == nil:
		return errs.New(errs.Invalid, "metric %q has delta temporality, which is not stored: let the sender export cumulative values, "+
			"or put a deltatocumulative processor into its collector, or see the limits otel_delta_to_cumulative_enabled and otel_native_delta_ingestion", clip(m.name))
	case m.data == dataSum && !m.monotonic:
		return errs.New(errs.Invalid, "metric %q has delta temporality and may fall: where it stands is not known to who sees only changes", clip(m.name))
	}
	m.addUp, m.temporality = true, temporalityCumulative
	return nil
}

// nameOf returns what Prometheus calls m. Names are remembered across requests: they depend on
// nothing secret, and making one costs as much as storing a few points.
func (t *Translator) nameOf(m *metric) (metricName, error) {
	key := metricKey{m.name, m.unit, typeOf(m), t.set.Suffixes, t.set.UTF8}
	if name, ok := t.names[key]; ok {
		return name, nil
	}
	namer := otlptranslator.MetricNamer{WithMetricSuffixes: t.set.Suffixes, UTF8Allowed: t.set.UTF8}
	name, err := namer.Build(otlptranslator.Metric{Name: m.name, Unit: m.unit, Type: key.kind})
	if err != nil || name == "" {
		return metricName{}, errs.New(errs.Invalid, "no name: %w", err)
	}
	// The texts belong to the request.
	units := otlptranslator.UnitNamer{}
	key.name, key.unit = strings.Clone(m.name), strings.Clone(m.unit)
	out := metricName{strings.Clone(name), strings.Clone(units.Build(m.unit))}
	t.names[key] = out
	return out, nil
}

func typeOf(m *metric) otlptranslator.MetricType {
	switch m.data {
	case dataGauge:
		return otlptranslator.MetricTypeGauge
	case dataSum:
		if m.monotonic {
			return otlptranslator.MetricTypeMonotonicCounter
		}
		return otlptranslator.MetricTypeNonMonotonicCounter
	case dataHistogram:
		return otlptranslator.MetricTypeHistogram
	case dataExponential:
		return otlptranslator.MetricTypeExponentialHistogram
	}
	return otlptranslator.MetricTypeSummary
}

// metadata readies what is said about the family with each of its series.
func (t *Translator) metadata(m *metric) {
	m.helpRef = t.enc.Symbol(m.help)
	m.unitRef = t.enc.Symbol(m.unitName)
	m.familyRef = t.enc.Symbol(m.family)
	switch {
	case m.temporality == temporalityDelta:
		m.kind = remotewrite.Unknown // it is not what Prometheus calls by the name of its type
	case m.data == dataSum && m.monotonic:
		m.kind = remotewrite.Counter
	case m.data == dataGauge, m.data == dataSum:
		m.kind = remotewrite.Gauge
	case m.data == dataSummary:
		m.kind = remotewrite.Summary
	default:
		m.kind = remotewrite.HistogramKind
	}
	if m.data == dataSummary || m.data == dataHistogram && !t.set.CustomBuckets {
		m.sumRef, m.countRef = t.enc.Symbol(t.enc.Join(m.family, "_sum")), t.enc.Symbol(t.enc.Join(m.family, "_count"))
		if m.data == dataHistogram {
			m.bucketRef = t.enc.Symbol(t.enc.Join(m.family, "_bucket"))
		}
	}
}

// point writes the series of one data point. A point that cannot be stored is refused, which is no
// error. Errors: Invalid (malformed).
func (t *Translator) point(m *metric, b []byte) error {
	t.attrs, t.exemplars = t.attrs[:0], t.exemplars[:0]
	switch m.data {
	case dataGauge, dataSum:
		return t.number(m, b)
	case dataSummary:
		return t.summary(m, b)
	case dataHistogram:
		return t.histogram(m, b)
	}
	return t.exponential(m, b)
}

// endSeries closes a series of m.
func (t *Translator) endSeries(m *metric) {
	t.enc.Metadata(m.kind, m.helpRef, m.unitRef)
	_ = t.enc.EndSeries() // the error stays in the encoder
}

// refusePoint refuses the point being read.
func (t *Translator) refusePoint(m *metric, why error) {
	t.refuse(1, func() error { return errs.New(errs.Invalid, "data point of metric %q: %w", clip(m.name), why) })
}

// start is when the series of a point started, if that is of interest.
func (t *Translator) start(ns uint64) int64 {
	if !t.set.StartTimes {
		return 0
	}
	return milliseconds(ns)
}
