package otlp

import (
	"errors"
	"math"
	"strconv"

	"github.com/prometheus/prometheus/model/value"
)

// noRecordedValue is the flag of a point that says: nothing was measured any more.
const noRecordedValue = 1

// stale is the value that ends a series.
func stale() float64 { return math.Float64frombits(value.StaleNaN) }

// number reads and writes a NumberDataPoint.
func (t *Translator) number(m *metric, b []byte) error {
	var f field
	var start, at, flags uint64
	var v numberValue
	has, whole := false, b
	for len(b) > 0 {
		var ok bool
		if b, ok = f.next(b); !ok {
			return malformed("number data point")
		}
		switch {
		case f.is(7, wireBytes):
			if err := t.attribute(f.data); err != nil {
				return err
			}
		case f.is(2, wireFixed64):
			start = f.num
		case f.is(3, wireFixed64):
			at = f.num
		case f.is(4, wireFixed64):
			v, has = numberValue{f: f.double()}, true
		case f.is(6, wireFixed64):
			v, has = numberValue{isInt: true, i: int64(f.num)}, true
		case f.is(5, wireBytes):
			if m.data == dataSum {
				t.exemplar(f.data)
			}
		case f.is(8, wireVarint):
			flags = f.num
		}
	}
	t.resource.saw(at)
	ended := flags&noRecordedValue != 0
	if !has && !ended {
		t.refusePoint(m, errors.New("it has no value"))
		return nil
	}
	if err := t.pointLabels(); err != nil {
		t.refusePoint(m, err)
		return nil
	}
	if m.addUp && !t.owned(m, whole) {
		return nil
	}
	value, show := v.float(), true
	switch {
	case ended:
		value = stale()
	case m.addUp:
		var err error
		if value, start, show, err = t.set.Streams.number(t.arrival(m, start, at), v); err != nil {
			t.refusePoint(m, err)
			return nil
		}
	}
	if !show {
		return nil
	}
	t.setName(m.familyRef)
	t.enc.Series(t.refs)
	t.enc.Sample(value, milliseconds(at), t.start(start))
	if _, err := t.writeExemplars(0, math.Inf(1), at); err != nil {
		return err
	}
	t.endSeries(m)
	return nil
}

// summary reads and writes a SummaryDataPoint.
func (t *Translator) summary(m *metric, b []byte) error {
	var f field
	var start, at, count, flags uint64
	sum := 0.0
	quantiles := t.hist.quantiles[:0]
	for len(b) > 0 {
		var ok bool
		if b, ok = f.next(b); !ok {
			return malformed("summary data point")
		}
		switch {
		case f.is(7, wireBytes):
			if err := t.attribute(f.data); err != nil {
				return err
			}
		case f.is(2, wireFixed64):
			start = f.num
		case f.is(3, wireFixed64):
			at = f.num
		case f.is(4, wireFixed64):
			count = f.num
		case f.is(5, wireFixed64):
			sum = f.double()
		case f.is(6, wireBytes):
			q, err := readQuantile(f.data)
			if err != nil {
				return err
			}
			quantiles = append(quantiles, q)
		case f.is(8, wireVarint):
			flags = f.num
		}
	}
	t.hist.quantiles = quantiles
	t.resource.saw(at)
	if err := t.pointLabels(); err != nil {
		t.refusePoint(m, err)
		return nil
	}
	s := series{m: m, at: milliseconds(at), start: t.start(start), ended: flags&noRecordedValue != 0}
	t.float(s, m.sumRef, sum)
	t.float(s, m.countRef, float64(count))
	t.withExtra("quantile")
	for _, q := range quantiles {
		text := t.enc.Keep(strconv.AppendFloat(t.enc.Spare(maxFloatBytes), q.of, 'f', -1, 64))
		t.floatExtra(s, m.familyRef, t.enc.Symbol(text), q.value)
		t.endSeries(m)
	}
	return nil
}

// maxFloatBytes is the longest a float is written without an exponent.
const maxFloatBytes = 350

type quantile struct{ of, value float64 }

// readQuantile reads a ValueAtQuantile.
func readQuantile(b []byte) (q quantile, err error) {
	var f field
	for len(b) > 0 {
		var ok bool
		if b, ok = f.next(b); !ok {
			return q, malformed("quantile")
		}
		switch {
		case f.is(1, wireFixed64):
			q.of = f.double()
		case f.is(2, wireFixed64):
			q.value = f.double()
		}
	}
	return q, nil
}

// series is what the series of one histogram or summary point have in common.
type series struct {
	m         *metric
	at, start int64
	ended     bool // every value is the one that ends a series
}

func (s *series) value(v float64) float64 {
	if s.ended {
		return stale()
	}
	return v
}

// float writes a series of the point, called name.
func (t *Translator) float(s series, name uint32, v float64) {
	t.setName(name)
	t.enc.Series(t.refs)
	t.enc.Sample(s.value(v), s.at, s.start)
	t.endSeries(s.m)
}

// floatExtra begins a series of the point with one label more; endSeries must follow.
func (t *Translator) floatExtra(s series, name, extra uint32, v float64) {
	t.setExtra(name, extra)
	t.enc.Series(t.extra)
	t.enc.Sample(s.value(v), s.at, s.start)
}
