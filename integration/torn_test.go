package integration

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// TestNoQuerySeesHalfAHistogram pushes classic histograms to three replicas, in order and late, while
// they are read, and wants all buckets of one or none in every answer.
func TestNoQuerySeesHalfAHistogram(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	t.Parallel()
	const buckets, rounds = 60, 150
	ctx := bounded(t, 2*time.Minute)
	nodes := []harness.Spec{{Name: "front", Target: "distributor,querier"}}
	for k := range 3 {
		nodes = append(nodes, harness.Spec{Name: fmt.Sprintf("ingester-%d", k), Target: "ingester"})
	}
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Nodes: nodes, Files: true,
		Flags: []string{"-distributor.ingestion-rate-limit=0", "-ingester.out-of-order-time-window=1h"}})
	settled(ctx, t, []*harness.Node{c.Node("front")}, "ingester-0", "ingester-1", "ingester-2")
	base := c.Node("front").URL("")
	now := time.Now().UnixMilli()
	push := func(writer int, at int64) {
		var series []prompb.TimeSeries
		for k := range buckets {
			s := floats(time.UnixMilli(at), float64(k), "__name__", "h_bucket", "i", strconv.Itoa(k), "le", strconv.Itoa(k), "writer", strconv.Itoa(writer))
			series = append(series, s)
		}
		stored(t, pushV1(ctx, t, base, "team-a", series...))
	}
	push(0, now)
	push(1, now)
	reading, done := context.WithCancel(ctx)
	var writers, readers sync.WaitGroup
	var answers, partial atomic.Int64
	// met waits amid the pushes for an answer that has not all of them, in case these are much quicker than queries.
	met := func(r int64) {
		for r == rounds/2 && partial.Load() == 0 && ctx.Err() == nil && !t.Failed() {
			pause(ctx, t, 5*time.Millisecond)
		}
	}
	writers.Go(func() {
		for r := range int64(rounds) {
			push(0, now+r+1)
			met(r)
		}
	})
	writers.Go(func() {
		for r := range int64(rounds) {
			push(1, now-r-1) // late
			met(r)
		}
	})
	for writer := range 2 {
		readers.Go(func() {
			for reading.Err() == nil && !t.Failed() {
				got, err := raw(reading, base, "team-a", fmt.Sprintf(`h_bucket{writer="%d"}`, writer), now-60_000, now+60_000)
				if err != nil {
					continue
				}
				answers.Add(1)
				counts := map[int64]int{}
				for _, samples := range got {
					for _, s := range samples {
						counts[s.t]++
					}
				}
				if len(counts) < rounds {
					partial.Add(1)
				}
				for at, n := range counts {
					if n != buckets {
						t.Errorf("writer %d: %d of %d buckets at %d", writer, n, buckets, at-now)
					}
				}
			}
		})
	}
	writers.Wait()
	done()
	readers.Wait()
	t.Logf("%d answers, %d of them while samples arrived", answers.Load(), partial.Load())
	if partial.Load() == 0 {
		t.Error("no query met a push")
	}
}
