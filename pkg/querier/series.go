package querier

import (
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/amphora-metrics/amphora/pkg/tombstone"
)

// series is the merged chunks of one series, sorted by time; they may overlap.
type series struct {
	lset       labels.Labels
	metas      []chunks.Meta
	mint, maxt int64
	untrimmed  bool // chunks may reach over mint and maxt
	mixed      bool // chunks come from several replicas or blocks
	hidden     tombstone.Intervals
}

func (s *series) Labels() labels.Labels { return s.lset }

// sampleSeries and chunkSeries are the two ways to read a series.
type (
	sampleSeries struct{ *series }
	chunkSeries  struct{ *series }
)

func (s sampleSeries) Iterator(it chunkenc.Iterator) chunkenc.Iterator {
	r, ok := it.(*samples)
	if !ok {
		r = &samples{}
	}
	r.reset(s.series)
	return r
}

// group returns the end of the chunks from i on that overlap each other, and the last time in them.
func group(ms []chunks.Meta, i int) (end int, maxt int64) {
	maxt = ms[i].MaxTime
	for end = i + 1; end < len(ms) && ms[end].MinTime <= maxt; end++ {
		maxt = max(maxt, ms[end].MaxTime)
	}
	return end, maxt
}

// samples iterates over chunks that may overlap. Chunks that stand alone, which are nearly all,
// are read one after the other; groups that overlap are merged sample by sample, one sample for
// each timestamp.
type samples struct {
	metas      []chunks.Meta
	i          int // the first chunk after the current group
	mint, maxt int64

	cur   chunkenc.Iterator // of the current group
	alone chunkenc.Iterator // reused from one single chunk to the next
	typ   chunkenc.ValueType

	mixed bool
	fresh bool // the current sample need not stand behind the last one in its chunk

	hidden tombstone.Intervals // of those that are not over
}

func (s *samples) reset(of *series) {
	*s = samples{metas: of.metas, mint: of.mint, maxt: of.maxt, mixed: of.mixed || len(of.hidden) > 0, alone: s.alone, hidden: of.hidden}
}

// hides says whether the sample at t is deleted. Times must not go back.
func (s *samples) hides(t int64) bool {
	for len(s.hidden) > 0 && s.hidden[0].Maxt < t {
		s.hidden = s.hidden[1:]
	}
	return len(s.hidden) > 0 && s.hidden[0].Mint <= t
}

// open makes the next group that reaches t the current one.
func (s *samples) open(t int64) bool {
	for s.i < len(s.metas) {
		start := s.i
		end, maxt := group(s.metas, start)
		if s.metas[start].MinTime > s.maxt {
			break
		}
		s.i = end
		if maxt < t {
			continue
		}
		if end == start+1 {
			s.alone = s.metas[start].Chunk.Iterator(s.alone)
			s.cur = s.alone
		} else {
			s.cur = newLanes(s.metas[start:end])
		}
		s.fresh = true
		return true
	}
	s.cur = nil
	return false
}

func (s *samples) Next() chunkenc.ValueType {
	if s.cur == nil {
		if s.i > 0 || !s.open(s.mint) {
			return s.end()
		}
	} else {
		s.fresh = false
	}
	for {
		for s.typ = s.cur.Next(); s.typ != chunkenc.ValNone; s.typ = s.cur.Next() {
			if t := s.cur.AtT(); t > s.maxt {
				return s.end()
			} else if t >= s.mint {
				if len(s.hidden) > 0 && s.hides(t) {
					s.fresh = true
					continue
				}
				return s.typ
			}
		}
		if s.cur.Err() != nil || !s.open(s.mint) {
			return chunkenc.ValNone
		}
	}
}

// end leaves the iterator without a sample for good.
func (s *samples) end() chunkenc.ValueType {
	if s.cur == nil || s.cur.Err() == nil {
		s.cur = nil
	}
	s.i, s.metas, s.typ = 1, nil, chunkenc.ValNone
	return chunkenc.ValNone
}

// millis is a time as Prometheus has it.
type millis = int64

func (s *samples) Seek(t millis) chunkenc.ValueType {
	t = max(t, s.mint)
	if s.cur == nil {
		if s.i > 0 || !s.open(t) {
			return s.end()
		}
	} else if s.typ != chunkenc.ValNone && s.cur.AtT() >= t {
		return s.typ
	}
	s.fresh = true
	for {
		if s.typ = s.cur.Seek(t); s.typ != chunkenc.ValNone {
			at := s.cur.AtT()
			if at > s.maxt {
				return s.end()
			}
			if len(s.hidden) > 0 && s.hides(at) {
				if s.hidden[0].Maxt >= s.maxt {
					return s.end()
				}
				t = s.hidden[0].Maxt + 1
				continue
			}
			return s.typ
		}
		if s.cur.Err() != nil || !s.open(t) {
			return chunkenc.ValNone
		}
	}
}

func (s *samples) At() (int64, float64) { return s.cur.At() }

// AtHistogram is as lanes' where one chunk follows another of a different origin.
func (s *samples) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	t, h := s.cur.AtHistogram(h)
	if s.fresh && s.mixed {
		forget(&h.CounterResetHint)
	}
	return t, h
}

func (s *samples) AtFloatHistogram(h *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	t, h := s.cur.AtFloatHistogram(h)
	if s.fresh && s.mixed {
		forget(&h.CounterResetHint)
	}
	return t, h
}

func (s *samples) AtT() int64  { return s.cur.AtT() }
func (s *samples) AtST() int64 { return s.cur.AtST() }

func (s *samples) Err() error {
	if s.cur == nil {
		return nil
	}
	return s.cur.Err()
}

func (s chunkSeries) Iterator(chunks.Iterator) chunks.Iterator {
	return &chunkIterator{series: s.series}
}

// chunkIterator yields chunks that do not overlap. A chunk that stands alone inside the time range
// passes as it is; others are written anew.
type chunkIterator struct {
	series *series
	i      int
	at     chunks.Meta
	anew   chunks.Iterator
	err    error
}

func (c *chunkIterator) At() chunks.Meta { return c.at }
func (c *chunkIterator) Err() error      { return c.err }

func (c *chunkIterator) Next() bool {
	for c.err == nil {
		if c.anew != nil {
			if c.anew.Next() {
				c.at = c.anew.At()
				return true
			}
			c.err, c.anew = c.anew.Err(), nil
			continue
		}
		s := c.series
		if c.i >= len(s.metas) || s.metas[c.i].MinTime > s.maxt {
			return false
		}
		start := c.i
		end, maxt := group(s.metas, start)
		c.i = end
		switch {
		case maxt < s.mint:
		case end == start+1 && !touches(s.hidden, s.metas[start].MinTime, maxt) && (s.untrimmed || s.metas[start].MinTime >= s.mint && maxt <= s.maxt):
			c.at = s.metas[start]
			return true
		default:
			part := *s
			part.metas = s.metas[start:end]
			c.anew = storage.NewSeriesToChunkEncoder(sampleSeries{&part}).Iterator(nil)
		}
	}
	return false
}

// Chunks appends the chunks to buf if each of them can be read by itself. It makes sampleSeries a
// series that the engine decodes itself.
func (s sampleSeries) Chunks(buf []chunks.Meta) (metas []chunks.Meta, mint, maxt int64, ok bool) {
	for i := range s.metas {
		if end, _ := group(s.metas, i); end != i+1 {
			return buf, 0, 0, false
		}
	}
	it := chunkIterator{series: s.series}
	for it.Next() {
		buf = append(buf, it.At())
	}
	return buf, s.mint, s.maxt, it.Err() == nil
}
