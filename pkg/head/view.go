package head

import (
	"context"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
)

// ChunkQuerier reads what is in memory and in local blocks, mint <= t <= maxt, as encoded chunks.
// Of every batch it shows all or nothing, for one Select.
func (h *Head) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	w := h.views.begin()
	q, err := h.chunkQuerier(mint, maxt)
	if err != nil {
		w.end()
		return nil, err
	}
	return &viewQuerier{q, w}, nil
}

type viewQuerier struct {
	storage.ChunkQuerier
	view *view
}

// Select is part of storage.ChunkQuerier.
func (q *viewQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.ChunkSeriesSet {
	return &chunkSet{set: q.ChunkQuerier.Select(ctx, sorted, hints, ms...), view: q.view}
}

// Close is part of storage.ChunkQuerier.
func (q *viewQuerier) Close() error {
	q.view.end()
	return q.ChunkQuerier.Close()
}

// chunkSet looks its series up one by one, or all that are left at once when late samples wait. A
// series that was looked up can be read at any time until the querier is closed.
type chunkSet struct {
	set   storage.ChunkSeriesSet
	view  *view
	now   storage.ChunkSeries
	ahead []storage.ChunkSeries
	whole bool // set has come to its end
	err   error
}

// Next is part of storage.ChunkSeriesSet.
func (s *chunkSet) Next() bool {
	if !s.whole && s.view.of.wanted.Load() > 0 {
		for s.advance() {
			s.ahead = append(s.ahead, s.now)
		}
	}
	if len(s.ahead) > 0 {
		s.now, s.ahead[0] = s.ahead[0], nil
		s.ahead = s.ahead[1:]
		return true
	}
	return !s.whole && s.advance()
}

// advance looks up one series more.
func (s *chunkSet) advance() bool {
	more := s.set.Next()
	// What was looked up before the query was overtaken is sound, what comes after it is not.
	overtaken := s.view.overtaken.Load()
	if more && !overtaken {
		s.now = s.set.At()
		return true
	}
	if overtaken {
		s.err, s.ahead = ErrOvertaken, nil
	}
	s.whole, s.now = true, nil
	s.view.end()
	return false
}

// At is part of storage.ChunkSeriesSet.
func (s *chunkSet) At() storage.ChunkSeries { return s.now }

// Err is part of storage.ChunkSeriesSet.
func (s *chunkSet) Err() error {
	if s.err != nil {
		return s.err
	}
	return s.set.Err()
}

// Warnings is part of storage.ChunkSeriesSet.
func (s *chunkSet) Warnings() annotations.Annotations { return s.set.Warnings() }
