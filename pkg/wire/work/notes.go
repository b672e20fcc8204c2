package work

import (
	"errors"
	"maps"
	"regexp"
	"slices"
	"strconv"

	"github.com/prometheus/prometheus/util/annotations"

	"github.com/amphora-metrics/amphora/pkg/wire/querypb"
)

// positioned is an annotation that knows where in the query it arose.
type positioned interface {
	error
	SetQuery(query string)
}

// note is an annotation that another process put into words. As the engine's own, it shows its position
// when it is told the query, and until then two of one text are one.
type note struct {
	text, positioned string
	kind             error
	shown            bool
}

func (n *note) Error() string {
	if n.shown {
		return n.positioned
	}
	return n.text
}

// Unwrap tells warnings and informations apart.
func (n *note) Unwrap() error { return n.kind }

// SetQuery shows the position.
func (n *note) SetQuery(query string) { n.shown = query != "" }

// Merge makes one of two notes with one text: the later, over the values of both if it tells any.
func (n *note) Merge(other error) error {
	if o, ok := errors.AsType[*note](other); ok {
		n.positioned = mergeForced(n.positioned, o.positioned)
	}
	return n
}

// forced is a note on buckets that were not monotonous.
var forced = regexp.MustCompile(`^(.*, from buckets )(\S+)( to )(\S+)(, with a max diff of )(\S+)(, over )(-?\d+)( samples from )(\S+)( to )(\S+)( \(\S+\))$`)

// mergeForced makes one of two notes on buckets that were not monotonous: one from the least to the largest
// of both. Others stay as they are.
func mergeForced(a, b string) string {
	x, y := forced.FindStringSubmatch(a), forced.FindStringSubmatch(b)
	if x == nil || y == nil {
		return a
	}
	number := func(s string) float64 {
		f, _ := strconv.ParseFloat(s, 64) // the engine wrote it
		return f
	}
	keep := func(i int, other bool) {
		if other {
			x[i] = y[i]
		}
	}
	keep(2, number(y[2]) < number(x[2]))
	keep(4, number(y[4]) > number(x[4]))
	keep(6, number(y[6]) > number(x[6]))
	x[8] = strconv.FormatFloat(number(x[8])+number(y[8]), 'f', 0, 64)
	keep(10, y[10] < x[10]) // times of one form
	keep(12, y[12] > x[12])
	out := ""
	for _, part := range x[1:] {
		out += part
	}
	return out
}

// AddNotes adds annotations that were put into words.
func AddNotes(ws *annotations.Annotations, notes []*querypb.Note) {
	for _, n := range notes {
		kind := annotations.PromQLWarning
		if n.Info {
			kind = annotations.PromQLInfo
		}
		ws.Add(&note{text: n.Text, positioned: n.Positioned, kind: kind})
	}
}

// NotesToWire returns annotations in words. text is what their positions refer to.
func NotesToWire(ws annotations.Annotations, text string) []*querypb.Note {
	var out []*querypb.Note
	for _, raw := range slices.Sorted(maps.Keys(ws)) {
		err := ws[raw]
		if x, ok := errors.AsType[positioned](err); ok {
			x.SetQuery(text)
		}
		out = append(out, &querypb.Note{Info: errors.Is(err, annotations.PromQLInfo), Text: raw, Positioned: err.Error()})
	}
	return out
}
