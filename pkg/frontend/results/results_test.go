package results

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/amphora-metrics/amphora/pkg/wire/changes"
	"github.com/amphora-metrics/amphora/pkg/wire/querypb"
)

const minute = 60_000

// sample is an answer with what answers have: gaps, numbers of all sorts, histograms, notes.
func sample(rng *rand.Rand) *Answer {
	a := &Answer{Grid: Grid{Step: minute, Phase: 7}, Text: "sum(x)"}
	for at := int64(7); at < 10*minute; at += 5 * minute {
		e := Extent{Start: at, End: at + 4*minute, At: 99, Series: promql.Matrix{}}
		if rng.IntN(2) == 0 {
			e.Notes = []*querypb.Note{{Info: true, Text: "careful", Positioned: "careful (1:2)"}}
		}
		for i := range rng.IntN(4) {
			s := promql.Series{Metric: labels.FromStrings("__name__", "x", "i", fmt.Sprint(i))}
			for t := e.Start; t <= e.End; t += minute {
				switch rng.IntN(6) {
				case 0:
				case 1:
					h := tsdbutil.GenerateTestFloatHistogram(t / minute)
					h.CounterResetHint = histogram.GaugeType
					s.Histograms = append(s.Histograms, promql.HPoint{T: t, H: h})
				case 2:
					s.Floats = append(s.Floats, promql.FPoint{T: t, F: []float64{0, math.Inf(1), 1, -0.5, 1e300}[rng.IntN(5)]})
				default:
					s.Floats = append(s.Floats, promql.FPoint{T: t, F: rng.NormFloat64()})
				}
			}
			e.Series = append(e.Series, s)
		}
		a.Extents = append(a.Extents, e)
	}
	return a
}

func TestAnAnswerIsReadAsItWasWritten(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		a := sample(rng)
		b, err := a.Encode(1<<30, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeAnswer(b, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range a.Extents {
			if g, w := got.Extents[i].Series.String(), a.Extents[i].Series.String(); g != w || len(got.Extents[i].Notes) != len(a.Extents[i].Notes) {
				t.Fatalf("%s\nwant\n%s", g, w)
			}
		}
		b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
		if _, err := DecodeAnswer(b, nil); err == nil {
			t.Fatal("a flipped bit was not noticed")
		}
	}
}

func TestOneByteMoreThanNothingForEachEqualValue(t *testing.T) {
	s := promql.Series{Metric: labels.FromStrings("a", "b")}
	for i := range int64(1000) {
		s.Floats = append(s.Floats, promql.FPoint{T: i * minute, F: 42})
	}
	a := &Answer{Grid: Grid{Step: minute}, Extents: []Extent{{End: 999 * minute, Series: promql.Matrix{s}}}}
	if b, _ := a.Encode(1<<30, nil); len(b) > 1100 {
		t.Errorf("1000 equal values take %d bytes", len(b))
	}
}

func FuzzItemsOfOthers(f *testing.F) {
	b, err := sample(rand.New(rand.NewPCG(1, 2))).Encode(1<<30, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[5:])
	f.Add(EncodeFailure(3, "too much")[5:])
	f.Add((&Response{Type: "application/json", Body: []byte("{}")}).Encode()[5:])
	f.Fuzz(func(t *testing.T, b []byte) {
		item := seal(append(sealed(), b...))
		if a, err := DecodeAnswer(item, nil); err == nil {
			again, err := a.Encode(1<<30, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := DecodeAnswer(again, nil); err != nil {
				t.Fatalf("what was read once cannot be read again: %v", err)
			}
		}
		_, _, _ = DecodeFailure(item)
		_, _ = DecodeResponse(item)
	})
}

func TestWhatAChangeTouchesIsLeftOut(t *testing.T) {
	g := Grid{Step: minute}
	e := Extent{Start: 0, End: 60 * minute, At: 1_000_000_000}
	at := e.At + 1
	for name, c := range map[string]struct {
		reach   Reach
		changed []changes.Change
		since   int64
		floor   int64
		lapse   int64
		want    []Span
	}{
		"nothing changed":                    {want: []Span{{0, 60 * minute}}},
		"before it was read":                 {changed: []changes.Change{{MinTime: 0, MaxTime: minute, At: e.At - 2*Skew.Milliseconds()}}, want: []Span{{0, 60 * minute}}},
		"in the middle":                      {changed: []changes.Change{{MinTime: 10*minute + 1, MaxTime: 11*minute + 1, At: at}}, want: []Span{{0, 10 * minute}, {12 * minute, 60 * minute}}},
		"within the window of later times":   {reach: Reach{Back: 5 * minute}, changed: []changes.Change{{MinTime: 10 * minute, MaxTime: 10 * minute, At: at}}, want: []Span{{0, 9 * minute}, {16 * minute, 60 * minute}}},
		"ahead of earlier times":             {reach: Reach{Ahead: 5 * minute}, changed: []changes.Change{{MinTime: 10 * minute, MaxTime: 10 * minute, At: at}}, want: []Span{{0, 4 * minute}, {11 * minute, 60 * minute}}},
		"at a fixed time":                    {reach: Reach{Fixed: true, MinTime: -9 * minute, MaxTime: -8 * minute}, changed: []changes.Change{{MinTime: -8 * minute, MaxTime: -8 * minute, At: at}}},
		"all of time":                        {reach: Reach{Back: minute}, changed: []changes.Change{{MinTime: math.MinInt64, MaxTime: math.MaxInt64, At: at}}},
		"nobody knows":                       {since: at},
		"too old to be shown":                {reach: Reach{Back: 5 * minute}, floor: 20 * minute, want: []Span{{26 * minute, 60 * minute}}},
		"some samples came of age meanwhile": {lapse: e.At - 10*minute, want: []Span{{0, 9 * minute}, {41 * minute, 60 * minute}}},
	} {
		r := Rules{Reach: c.reach, Log: changes.Log{Since: c.since, Changes: c.changed}, Now: e.At + 30*minute, Floor: c.floor}
		if c.lapse != 0 {
			r.Lapses = []int64{c.lapse}
		}
		if got := r.Holds(&e, g); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v holds, want %v", name, got, c.want)
		}
	}
}

func TestTheMemoryOfItemsIsBounded(t *testing.T) {
	m := NewMemory(10_000, nil, prometheus.NewRegistry())
	now := time.Unix(0, 0)
	m.now = func() time.Time { return now }
	for i := range 100 {
		m.Set(fmt.Sprint(i), make([]byte, 1000), time.Minute)
		if _, ok := m.Get(context.Background(), "0"); !ok {
			t.Fatal("the item in use was evicted")
		}
	}
	if m.bytes > 10_000 || len(m.items) != m.order.Len() {
		t.Errorf("%d bytes in %d items", m.bytes, len(m.items))
	}
	m.Set("0", make([]byte, 20_000), time.Minute)
	if _, ok := m.Get(context.Background(), "0"); ok {
		t.Error("an item larger than the cache is kept, or what it replaced")
	}
	m.Shrink()
	now = now.Add(2 * time.Minute)
	if _, ok := m.Get(context.Background(), "99"); ok {
		t.Error("an item outlived its time")
	}
	for m.order.Len() > 0 {
		m.evict()
	}
	if m.bytes != 0 {
		t.Errorf("%d bytes of no items", m.bytes)
	}
}

func TestAnAnswerThatIsTooLargeIsNotWritten(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	for range 20 {
		a := sample(rng)
		b, err := a.Encode(1<<20, nil)
		if err != nil {
			t.Fatal(err)
		}
		for most := range len(b) {
			if _, err := a.Encode(most, nil); !errors.Is(err, ErrTooLarge) {
				t.Fatalf("%d bytes are written where %d are allowed: %v", len(b), most, err)
			}
		}
		if again, err := a.Encode(len(b), nil); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%d bytes are not written where as many are allowed: %v", len(b), err)
		}
	}
}
