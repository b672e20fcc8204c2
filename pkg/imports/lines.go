package imports

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"

	"github.com/prometheus/prometheus/model/labels"
	staleness "github.com/prometheus/prometheus/model/value"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
)

// lineBytes is about how much memory decoding takes for a byte of a line.
const lineBytes = 8

// line is one series with its samples.
type line struct {
	Metric     map[string]string `json:"metric"`
	Values     []value           `json:"values"`
	Histograms json.RawMessage   `json:"histograms"` // instead of values: an array
	Timestamps []moment          `json:"timestamps"`
}

// moment is a time in milliseconds.
type moment int64

// UnmarshalJSON implements json.Unmarshaler. The library would leave a null as the time of an earlier line.
func (m *moment) UnmarshalJSON(b []byte) error {
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil {
		return errs.New(errs.Invalid, "timestamp %.40s is not a whole number of milliseconds", b)
	}
	*m = moment(n)
	return nil
}

// value is a number, or the text of one that JSON cannot write.
type value float64

// UnmarshalJSON implements json.Unmarshaler. What is null is no number.
func (v *value) UnmarshalJSON(b []byte) error {
	if len(b) > 1 && b[0] == '"' {
		text := string(b[1 : len(b)-1])
		if text == "StaleNaN" { // the series ends here
			*v = value(math.Float64frombits(staleness.StaleNaN))
			return nil
		}
		f, ok := special(text)
		if !ok {
			return errs.New(errs.Invalid, "%.40s is not a number", b)
		}
		*v = value(f)
		return nil
	}
	if string(b) == "null" {
		f, _ := special("NaN")
		*v = value(f)
		return nil
	}
	f, err := strconv.ParseFloat(string(b), 64)
	if err != nil {
		return errs.New(errs.Invalid, "%.40s is not a number", b)
	}
	*v = value(f)
	return nil
}

// Lines makes a remote write 2.0 body of JSON objects, one on each line:
//
//	{"metric":{"__name__":"up","job":"node"},"values":[1,0],"timestamps":[1700000000000,1700000015000]}
//
// or with native histograms, as AppendHistogram writes them, in place of values.
// Errors: Invalid, naming the line; BodyTooLarge, those of room.
func Lines(text []byte, o Options, buf []byte, room remotewrite.Room) (Result, error) {
	w := new(writer)
	w.begin(o, buf, room)
	return w.end(w.lines(text))
}

func (w *writer) lines(text []byte) error {
	var l line
	for number := 1; len(text) > 0; number++ {
		var row []byte
		row, text, _ = bytes.Cut(text, []byte("\n"))
		if row = bytes.TrimSpace(row); len(row) == 0 {
			continue
		}
		if err := w.enc.Reserve(lineBytes * len(row)); err != nil {
			return err
		}
		l = line{Values: l.Values[:0], Timestamps: l.Timestamps[:0], Histograms: l.Histograms[:0]}
		if err := json.Unmarshal(row, &l); err != nil {
			return errs.New(errs.Invalid, "line %d, nothing is stored: %.300s", number, err)
		}
		if err := w.line(&l); err != nil {
			return errs.New(errs.Invalid, "line %d, nothing is stored: %w", number, err)
		}
		if err := w.enc.Err(); err != nil {
			return err
		}
	}
	return nil
}

// line writes one line. The encoder's errors stay with it.
func (w *writer) line(l *line) error {
	native := len(l.Histograms) > 0
	switch {
	case native && (l.Histograms[0] != '[' || len(l.Values) > 0):
		return errs.New(errs.Invalid, "histograms must be an array, in place of values")
	case !native && len(l.Values) != len(l.Timestamps):
		return errs.New(errs.Invalid, "%d values have %d timestamps", len(l.Values), len(l.Timestamps))
	case len(l.Timestamps) == 0:
		return nil
	}
	if err := w.series(labels.FromMap(l.Metric)); err != nil {
		return err
	}
	if native {
		if err := w.natives(l.Histograms, l.Timestamps); err != nil {
			return err
		}
	}
	for i, v := range l.Values {
		w.enc.Sample(float64(v), int64(l.Timestamps[i]), 0)
	}
	_ = w.enc.EndSeries() // see above
	return nil
}
