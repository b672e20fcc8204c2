package ingester

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
)

func TestBlocksOfLateSamplesAreLabelledIfTheTenantWantsIt(t *testing.T) {
	for _, wanted := range []bool{false, true} {
		v := limits.OutOfOrderTimeWindow.With(limits.View{}, time.Hour)
		s := newSite(t, siteOptions{view: limits.OutOfOrderBlocksExternalLabelEnabled.With(v, wanted)})
		w := newSender(s.Ingester)
		w.mustPush(t, "t1", point{metric("a"), base + hour, 1})
		w.mustPush(t, "t1", point{metric("a"), base + hour/2, 2})
		if _, err := s.Flush(t.Context(), nil, true); err != nil {
			t.Fatal(err)
		}
		got := map[string]int{}
		err := s.bucket.Iter(t.Context(), "t1/", func(name string) error {
			r, err := s.bucket.Get(t.Context(), path.Join(name, block.MetaFile))
			if s.bucket.IsObjNotFoundErr(err) {
				return nil // no block
			}
			if err != nil {
				return err
			}
			defer r.Close()
			b, err := io.ReadAll(r)
			if err != nil {
				return err
			}
			var m block.Meta
			if err := json.Unmarshal(b, &m); err != nil {
				return err
			}
			got[fmt.Sprint(m.Compaction.FromOutOfOrder(), m.Thanos.Labels)]++
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]int{"false map[]": 1, "true map[]": 1}
		if wanted {
			want = map[string]int{"false map[]": 1, "true map[__out_of_order__:true]": 1}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("wanted %v: blocks in the bucket %v, want %v", wanted, got, want)
		}
	}
}

// histogram makes a frame with the buckets of a classic histogram at one time: each counts what
// those below count, and one more.
func (s *sender) histogram(id string, at int64, buckets int) *frame.Frame {
	points := make([]point, buckets)
	for k := range points {
		points[k] = point{metric("h_bucket", "le", fmt.Sprintf("%04d", k)), at, float64(at + int64(k))}
	}
	return s.frame(id, points...)
}

// forget has the next frame define refs again.
func (s *sender) forget(refs []frame.Ref) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range refs {
		delete(s.bound, r)
	}
}

// seen counts the buckets that a query sees, by time.
func (s *site) seen(t *testing.T, id string) map[int64]int {
	out := map[int64]int{}
	q := &queryStream{ctx: tenant.Inject(context.Background(), tenant.ID(id))}
	err := s.ask(&ingesterpb.QueryRequest{MinTime: 0, MaxTime: base + 10*hour,
		Matchers: []*ingesterpb.Matcher{{Type: ingesterpb.Matcher_EQUAL, Name: "__name__", Value: "h_bucket"}}}, q)
	if err != nil {
		t.Error(err)
		return nil
	}
	for _, series := range q.series {
		times := map[int64]bool{}
		for _, c := range series.Chunks {
			chunk, err := chunkenc.FromData(chunkenc.Encoding(c.Encoding), c.Data)
			if err != nil {
				t.Error(err)
				return nil
			}
			for it := chunk.Iterator(nil); it.Next() != chunkenc.ValNone; {
				times[it.AtT()] = true
			}
		}
		for at := range times {
			out[at]++
		}
	}
	return out
}

// TestNoQuerySeesAPartOfAHistogram pushes histograms from several streams, in order and late, while
// queries run and the head is cut, and wants every query to see whole histograms.
func TestNoQuerySeesAPartOfAHistogram(t *testing.T) {
	const buckets, rounds = 120, 60
	s := newSite(t, siteOptions{view: limits.OutOfOrderTimeWindow.With(limits.View{}, time.Hour)})
	var pushing sync.WaitGroup
	var done atomic.Bool
	for stream := range 3 {
		pushing.Go(func() {
			w := newSender(s.Ingester)
			for r := range int64(rounds) {
				at := base + hour + 10*r + int64(stream) // streams overtake each other
				if stream == 2 {
					at = base + hour - r - 1 // always late
				}
				f := w.histogram("t1", at, buckets)
				res := w.push(context.Background(), f)
				for res.Outcome == frame.UnknownRefs || res.Outcome == frame.Failed && strings.Contains(res.Message, "flushed") {
					if res.Outcome == frame.UnknownRefs { // the series left memory since the push before
						w.forget(res.Unknown)
						f = w.histogram("t1", at, buckets)
					}
					res = w.push(context.Background(), f)
				}
				if res.Outcome != frame.Stored {
					t.Errorf("push: %+v", res)
				}
			}
		})
	}
	var asking sync.WaitGroup
	for range 2 {
		asking.Go(func() {
			for !done.Load() && !t.Failed() {
				for at, n := range s.seen(t, "t1") {
					if n != buckets {
						t.Errorf("%d of %d buckets at %d", n, buckets, at-base)
					}
				}
			}
		})
	}
	asking.Go(func() {
		for !done.Load() {
			if _, err := s.Flush(context.Background(), nil, true); err != nil {
				t.Error(err)
			}
		}
	})
	pushing.Wait()
	done.Store(true)
	asking.Wait()
	if got := s.seen(t, "t1"); len(got) != 3*rounds {
		t.Errorf("%d histograms are stored, want %d", len(got), 3*rounds)
	}
}

func TestBlocksWhoseRetentionIsOverLeaveTheDisk(t *testing.T) {
	s := newSite(t, siteOptions{})
	w := newSender(s.Ingester)
	w.mustPush(t, "t1", point{metric("a"), base, 1})
	if _, err := s.Flush(t.Context(), nil, true); err != nil {
		t.Fatal(err)
	}
	info, err := s.Tenant("t1")
	if err != nil || len(info.Blocks) != 1 {
		t.Fatalf("%+v, %v", info, err)
	}
	s.now.Add(14 * hour)
	newSender(s.Ingester).mustPush(t, "t1", point{metric("a"), base + 14*hour, 1}) // the tenant is not idle
	s.keepHouse(t.Context())
	dir := path.Join(s.dir, "tenants", "t1", info.Blocks[0].ID)
	poll(t, "the block to leave the disk", func() bool {
		_, err := os.Stat(dir)
		return errors.Is(err, fs.ErrNotExist)
	})
}
