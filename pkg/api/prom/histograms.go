package prom

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// activeFor is how old the newest sample of a native histogram may be that counts as active.
const activeFor = 20 * time.Minute

// bucketCount is what is known of the native histograms of one metric. Buckets are those of newest samples.
type bucketCount struct {
	Metric  string  `json:"metric"`
	Series  int     `json:"series_count"`
	Buckets int     `json:"bucket_count"`
	Average float64 `json:"avg_bucket_count"`
	Least   int     `json:"min_bucket_count"`
	Most    int     `json:"max_bucket_count"`
}

// ActiveHistograms answers how many buckets the native histograms of late have, by metric.
func (a *API) ActiveHistograms(w http.ResponseWriter, r *http.Request) error {
	c, err := a.countingParams(w, r)
	if err != nil {
		return err
	}
	if r.Form.Get("selector") == "" {
		return badParam("selector", errors.New("it is missing"))
	}
	ctx, cancel := a.bounded(r)
	defer cancel()
	end, series := a.b.Now(), 0
	hints := &storage.SelectHints{Start: end.Add(-activeFor).UnixMilli(), End: end.UnixMilli()}
	q, err := a.b.Storage.Querier(hints.Start, hints.End)
	if err != nil {
		return err
	}
	defer func() { _ = q.Close() }()
	by := map[string]*bucketCount{}
	set := q.Select(ctx, false, hints, c.ms...)
	var it chunkenc.Iterator
	for set.Next() {
		s := set.At()
		series++
		it = s.Iterator(it)
		h, err := newestHistogram(it)
		if err != nil {
			return err
		}
		if h == nil {
			continue
		}
		name := s.Labels().Get("__name__")
		x, n := by[name], len(h.PositiveBuckets)+len(h.NegativeBuckets)
		if x == nil {
			x = &bucketCount{Metric: name, Least: n}
			by[name] = x
		}
		x.Series, x.Buckets, x.Least, x.Most = x.Series+1, x.Buckets+n, min(x.Least, n), max(x.Most, n)
	}
	if err := set.Err(); err != nil {
		return err
	}
	list := make([]*bucketCount, 0, len(by))
	for _, x := range by {
		x.Average = float64(x.Buckets) / float64(x.Series)
		list = append(list, x)
	}
	slices.SortFunc(list, func(a, b *bucketCount) int { return cmp.Compare(a.Metric, b.Metric) })
	b, err := json.Marshal(map[string][]*bucketCount{"data": list})
	if err != nil {
		return fmt.Errorf("encode an answer: %w", err)
	}
	a.tell(w, r, end, series)
	a.writers.send(w, r, func(out *answer) { out.buf = append(out.buf, b...) })
	return nil
}

// newestHistogram returns the newest sample, nil unless that is a native histogram which has not ended.
func newestHistogram(it chunkenc.Iterator) (*histogram.FloatHistogram, error) {
	var newest *histogram.FloatHistogram
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		if kind == chunkenc.ValFloat {
			newest = nil
			continue
		}
		_, newest = it.AtFloatHistogram(newest)
	}
	if newest != nil && value.IsStaleNaN(newest.Sum) {
		newest = nil
	}
	return newest, it.Err()
}
