package prom

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
)

// mostColumns bounds the columns of an export.
const mostColumns = 64

// csvForm writes a line for each sample, of the columns that a format names: labels, __value__ and
// __timestamp__, which may be followed by the unit, as in __timestamp__:unix_s.
type csvForm struct {
	columns []csvColumn
	texts   []string // of the labels of the current series, as they are written
}

// csvColumn is one column.
type csvColumn struct {
	label string                          // or
	time  func(b []byte, ms int64) []byte // or
	value func(b []byte, v float64) []byte
}

// newCSVForm reads a format. Errors: Invalid.
func newCSVForm(format string) (*csvForm, error) {
	if format == "" {
		return nil, badParam("format", errors.New("it must name the columns, such as __name__,job,__value__,__timestamp__:rfc3339"))
	}
	f := &csvForm{}
	for name := range strings.SplitSeq(format, ",") {
		c, err := newCSVColumn(strings.TrimSpace(name))
		if err != nil {
			return nil, badParam("format", err)
		}
		f.columns = append(f.columns, c)
	}
	if len(f.columns) > mostColumns {
		return nil, badParam("format", errors.New("it has more than "+strconv.Itoa(mostColumns)+" columns"))
	}
	f.texts = make([]string, len(f.columns))
	return f, nil
}

func newCSVColumn(name string) (csvColumn, error) {
	switch name {
	case "__value__":
		return csvColumn{value: appendCSVValue}, nil
	case "__timestamp__", "__timestamp__:unix_ms":
		return csvColumn{time: func(b []byte, ms int64) []byte { return strconv.AppendInt(b, ms, 10) }}, nil
	case "__timestamp__:unix_s":
		return csvColumn{time: appendTimestamp}, nil
	case "__timestamp__:unix_ns":
		return csvColumn{time: func(b []byte, ms int64) []byte {
			if b = strconv.AppendInt(b, ms, 10); ms != 0 {
				b = append(b, "000000"...) // milliseconds times a million may be no int64
			}
			return b
		}}, nil
	case "__timestamp__:rfc3339":
		return csvColumn{time: func(b []byte, ms int64) []byte {
			return time.UnixMilli(ms).UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z07:00")
		}}, nil
	}
	if strings.HasPrefix(name, "__timestamp__:") {
		return csvColumn{}, errors.New("the unit of __timestamp__ must be unix_s, unix_ms, unix_ns or rfc3339")
	}
	if !model.UTF8Validation.IsValidLabelName(name) {
		return csvColumn{}, errors.New("a column must be the name of a label, __value__ or __timestamp__")
	}
	return csvColumn{label: name}, nil
}

// appendCSVValue appends v in the shortest form that reads as the same number.
func appendCSVValue(b []byte, v float64) []byte {
	if value.IsStaleNaN(v) {
		return append(b, "StaleNaN"...)
	}
	return strconv.AppendFloat(b, v, 'g', -1, 64)
}

func (c *csvForm) begin(_ *answer, ls labels.Labels) {
	for i, column := range c.columns {
		c.texts[i] = csvText(ls.Get(column.label))
	}
}

// csvText is s as a field.
func csvText(s string) string {
	if !strings.ContainsAny(s, ",\"\r\n") && strings.TrimSpace(s) == s {
		return s
	}
	return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
}

func (c *csvForm) sample(out *answer, t int64, v float64) {
	for i, column := range c.columns {
		if i > 0 {
			out.buf = append(out.buf, ',')
		}
		switch {
		case column.time != nil:
			out.buf = column.time(out.buf, t)
		case column.value != nil:
			out.buf = column.value(out.buf, v)
		default:
			out.buf = append(out.buf, c.texts[i]...)
		}
	}
	out.buf = append(out.buf, '\n')
}

func (*csvForm) end(*answer) {}

func (*csvForm) fail(out *answer, err error) {
	out.buf = append(append(append(out.buf, "# error: "...), strings.ReplaceAll(err.Error(), "\n", " ")...), '\n')
}

// histogram implements form: a column has room for one number.
func (*csvForm) histogram(*answer, int64, *histogram.Histogram, *histogram.FloatHistogram) bool {
	return false
}
