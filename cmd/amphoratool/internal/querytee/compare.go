package querytee

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"
)

// comparison says what counts as the same.
type comparison struct {
	tolerance        float64
	relative, errors bool
	until            float64 // seconds; newer values are left out
}

func (c *command) comparison(now time.Time) comparison {
	k := comparison{tolerance: c.tolerance, relative: c.relative, errors: c.exactErrors, until: math.Inf(1)}
	if c.skipRecent > 0 {
		k.until = float64(now.Add(-c.skipRecent).UnixMilli()) / 1000
	}
	return k
}

// answers says how got differs from want; empty: not at all.
func (k comparison) answers(want, got answer) string {
	switch {
	case want.status != got.status:
		return fmt.Sprintf("status %d, want %d", got.status, want.status)
	case want.status/100 != 2 && (!k.errors || bytes.Equal(want.body, got.body)):
		return ""
	}
	var w, g envelope
	if json.Unmarshal(want.body, &w) != nil || json.Unmarshal(got.body, &g) != nil {
		if bytes.Equal(want.body, got.body) {
			return ""
		}
		return "the bodies differ, and are not both JSON"
	}
	switch {
	case w.Status != g.Status:
		return fmt.Sprintf("status %q, want %q", g.Status, w.Status)
	case w.Error != g.Error || w.ErrorType != g.ErrorType:
		return fmt.Sprintf("error %s: %s, want %s: %s", g.ErrorType, g.Error, w.ErrorType, w.Error)
	}
	var wq, gq result
	if json.Unmarshal(w.Data, &wq) == nil && json.Unmarshal(g.Data, &gq) == nil && wq.Type != "" {
		return k.results(wq, gq)
	}
	if !sameData(w.Data, g.Data) {
		return "the data differ"
	}
	return ""
}

// envelope is what every answer of the API has.
type envelope struct {
	Status, Error, ErrorType string
	Data                     json.RawMessage
}

// result is the data of a query.
type result struct {
	Type   string          `json:"resultType"`
	Result json.RawMessage `json:"result"`
}

// series is one of a vector or a matrix.
type series struct {
	Metric     map[string]string `json:"metric"`
	Value      *sample           `json:"value"`
	Histogram  *sample           `json:"histogram"`
	Values     []sample          `json:"values"`
	Histograms []sample          `json:"histograms"`
}

// sample is a time with a number in quotes, or with a histogram.
type sample struct {
	at   float64
	text string
	h    *buckets
}

type buckets struct {
	Count   string               `json:"count"`
	Sum     string               `json:"sum"`
	Buckets [][4]json.RawMessage `json:"buckets"`
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *sample) UnmarshalJSON(data []byte) error {
	var pair [2]json.RawMessage
	if err := json.Unmarshal(data, &pair); err != nil {
		return err
	}
	if err := json.Unmarshal(pair[0], &s.at); err != nil {
		return err
	}
	if json.Unmarshal(pair[1], &s.text) == nil {
		return nil
	}
	s.h = new(buckets)
	return json.Unmarshal(pair[1], s.h)
}

func (k comparison) results(want, got result) string {
	if want.Type != got.Type {
		return fmt.Sprintf("a %s, want a %s", got.Type, want.Type)
	}
	if want.Type == "scalar" || want.Type == "string" {
		var w, g sample
		if json.Unmarshal(want.Result, &w) != nil || json.Unmarshal(got.Result, &g) != nil {
			return "the result cannot be read"
		}
		return k.samples([]sample{w}, []sample{g})
	}
	var w, g []series
	if json.Unmarshal(want.Result, &w) != nil || json.Unmarshal(got.Result, &g) != nil {
		return "the result cannot be read"
	}
	byLabels := map[string]series{}
	for _, s := range g {
		byLabels[labelsOf(s.Metric)] = s
	}
	for _, ws := range w {
		name := labelsOf(ws.Metric)
		gs, there := byLabels[name]
		delete(byLabels, name)
		if !there && k.anyOld(ws) {
			return fmt.Sprintf("the series %s is missing", name)
		}
		for _, pair := range [][2][]sample{{ws.floats(), gs.floats()}, {ws.histograms(), gs.histograms()}} {
			if d := k.samples(pair[0], pair[1]); d != "" {
				return fmt.Sprintf("series %s: %s", name, d)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(byLabels)) {
		if k.anyOld(byLabels[name]) {
			return fmt.Sprintf("there is a series %s, which should not be", name)
		}
	}
	return ""
}

func (s series) floats() []sample {
	if s.Value != nil {
		return []sample{*s.Value}
	}
	return s.Values
}

func (s series) histograms() []sample {
	if s.Histogram != nil {
		return []sample{*s.Histogram}
	}
	return s.Histograms
}

// anyOld says whether a series has values that are compared.
func (k comparison) anyOld(s series) bool {
	return slices.ContainsFunc(slices.Concat(s.floats(), s.histograms()), func(x sample) bool { return x.at <= k.until })
}

// labelsOf is a text that equal sets of labels have.
func labelsOf(m map[string]string) string {
	data, err := json.Marshal(m) // sorted by key
	if err != nil {
		return fmt.Sprint(m)
	}
	return string(data)
}

func (k comparison) samples(want, got []sample) string {
	recent := func(s sample) bool { return s.at > k.until }
	want, got = slices.DeleteFunc(slices.Clone(want), recent), slices.DeleteFunc(slices.Clone(got), recent)
	if len(want) != len(got) {
		return fmt.Sprintf("%d values, want %d", len(got), len(want))
	}
	for i, w := range want {
		g := got[i]
		if w.at != g.at || !k.same(w, g) {
			return fmt.Sprintf("%s at %g, want %s at %g", g, g.at, w, w.at)
		}
	}
	return ""
}

// String shows what is compared.
func (s sample) String() string {
	if s.h == nil {
		return s.text
	}
	return fmt.Sprintf("histogram of %s with the sum %s and %d buckets", s.h.Count, s.h.Sum, len(s.h.Buckets))
}

func (k comparison) same(a, b sample) bool {
	if a.h == nil || b.h == nil {
		return a.h == nil && b.h == nil && k.near(a.text, b.text)
	}
	if !k.near(a.h.Count, b.h.Count) || !k.near(a.h.Sum, b.h.Sum) || len(a.h.Buckets) != len(b.h.Buckets) {
		return false
	}
	for i, x := range a.h.Buckets {
		for j, part := range x {
			if !k.near(unquoted(part), unquoted(b.h.Buckets[i][j])) {
				return false
			}
		}
	}
	return true
}

func unquoted(raw json.RawMessage) string { return string(bytes.Trim(raw, `"`)) }

// near compares numbers as text.
func (k comparison) near(a, b string) bool {
	if a == b {
		return true
	}
	x, errA := strconv.ParseFloat(a, 64)
	y, errB := strconv.ParseFloat(b, 64)
	if errA != nil || errB != nil {
		return false
	}
	if math.IsNaN(x) || math.IsNaN(y) {
		return math.IsNaN(x) && math.IsNaN(y)
	}
	if math.IsInf(x, 0) || math.IsInf(y, 0) {
		return x == y
	}
	most := k.tolerance
	if k.relative {
		most *= math.Abs(x)
	}
	return math.Abs(x-y) <= most
}

// sameData compares what is no result of a query: lists whose order does not matter, and what is in them.
func sameData(a, b json.RawMessage) bool {
	var x, y []json.RawMessage
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return canonical(a) == canonical(b)
	}
	texts := func(list []json.RawMessage) []string {
		out := make([]string, len(list))
		for i, raw := range list {
			out[i] = canonical(raw)
		}
		slices.Sort(out)
		return out
	}
	return slices.Equal(texts(x), texts(y))
}

// canonical is the same for JSON that means the same.
func canonical(raw json.RawMessage) string {
	var v any
	if json.Unmarshal(raw, &v) != nil {
		return string(raw)
	}
	data, err := json.Marshal(v)
	if err != nil {
		return string(raw)
	}
	return string(data)
}
