// Package influx converts the Influx line protocol to remote write 2.0, so that it takes the one
// write path there is. Lines are parsed in place; only escaped text is copied.
//
// Each numeric or boolean field of a line becomes a sample of the series <measurement>_<field> with
// the tags as labels. String fields are dropped.
package influx

import (
	"bytes"
	"fmt"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
)

const (
	// maxTags and maxFields bound one line. No limit lets a series have as many labels.
	maxTags   = 4096
	maxFields = 65536
	// maxRefused is how many lines may be malformed before the rest is not looked at.
	maxRefused = 10_000
	// keep is the capacity up to which memory is kept for the next request.
	keep = 4096
)

// Result is what a request was made into.
type Result struct {
	// Body is a remote write 2.0 body in memory of the Room, the caller's also if there is an error.
	Body []byte
	// Lines is how many lines have points; Refused of them are malformed and not in Body.
	Lines, Refused int
	// First says what is wrong with the first of these.
	First error
}

// Translator translates one request after another, and then allocates little.
type Translator struct {
	enc remotewrite.Encoder
	res Result

	names   map[string]string // of labels, by tag
	metrics map[metric]uint32 // symbols of the names of series
	tags    []tag
	fields  []field
	refs    []uint32
	nameAt  int // in refs, of the value of the metric's name
}

// metric is what the name of a series is made of.
type metric struct{ measurement, field string }

type tag struct{ name, value string }

type field struct {
	key   string
	value float64
}

// NewTranslator returns a Translator.
func NewTranslator() *Translator {
	return &Translator{names: map[string]string{}, metrics: map[metric]uint32{}}
}

// Precision is the unit of timestamps.
type Precision time.Duration

// ParsePrecision reads the parameter precision of a request. Errors: Invalid.
func ParsePrecision(s string) (Precision, error) {
	switch s {
	case "", "n", "ns":
		return Precision(time.Nanosecond), nil
	case "u", "us", "µ":
		return Precision(time.Microsecond), nil
	case "ms":
		return Precision(time.Millisecond), nil
	case "s":
		return Precision(time.Second), nil
	case "m":
		return Precision(time.Minute), nil
	case "h":
		return Precision(time.Hour), nil
	}
	return 0, errs.New(errs.Invalid, "precision %.16q is none of ns, us, ms, s, m and h", s)
}

// Options says how lines are read.
type Options struct {
	Precision Precision
	Now       time.Time // of lines without timestamp
}

// Translate makes a remote write 2.0 body of lines, in buf or what room gives instead. body must not
// change meanwhile. Malformed lines are left out one by one. Errors: Invalid if there are very many,
// BodyTooLarge, those of room.
func (t *Translator) Translate(body []byte, o Options, buf []byte, room remotewrite.Room) (Result, error) {
	t.enc.Begin(buf, room)
	number := 1
	for len(body) > 0 && t.enc.Err() == nil {
		line, rest, newlines := cut(body)
		if err := t.line(line, o); err != nil {
			if t.res.Refused++; t.res.First == nil {
				t.res.First = errs.New(errs.Invalid, "line %d: %w", number, err)
			}
			if t.res.Refused > maxRefused {
				break // this is no line protocol
			}
		}
		body = rest
		number += newlines
	}
	res := t.res
	var err error
	res.Body, err = t.enc.End()
	t.reset()
	if err == nil && res.Refused > maxRefused {
		err = errs.New(errs.Invalid, "more than %d lines are malformed, nothing is stored; the first: %w", maxRefused, res.First)
	}
	return res, err
}

func (t *Translator) reset() {
	t.res = Result{}
	if len(t.names) > keep {
		t.names = map[string]string{}
	}
	if len(t.metrics) > keep {
		t.metrics = map[metric]uint32{}
	}
	clear(t.names)
	clear(t.metrics)
	t.tags, t.fields, t.refs = forget(t.tags), forget(t.fields), forget(t.refs)
}

// forget empties s with what it refers to, and keeps its memory unless it is unusually much.
func forget[T any](s []T) []T {
	if cap(s) > keep {
		return nil
	}
	clear(s[:cap(s)])
	return s[:0]
}

// cut takes the first line off b; newlines is how many ends of lines it has, as texts may have some.
// A quote counts only behind an equals sign, where a text begins.
func cut(b []byte) (line, rest []byte, newlines int) {
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		return b, nil, 0
	}
	if b[0] == '#' || bytes.IndexByte(b[:end], '"') < 0 { // no text: nearly all lines
		return b[:end], b[end+1:], 1
	}
	inText := false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '\\':
			i++
		case inText:
			inText = c != '"'
			if c == '\n' {
				newlines++
			}
		case c == '"':
			inText = i > 0 && b[i-1] == '='
		case c == '\n':
			return b[:i], b[i+1:], newlines + 1
		}
	}
	if inText { // a text without end must not take all lines that follow
		return b[:end], b[end+1:], 1
	}
	return b, nil, newlines
}

// malformed is an error of a line.
func malformed(format string, args ...any) error {
	return fmt.Errorf(format, args...)
}
