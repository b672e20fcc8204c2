package integration

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/integration/harness"
	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/bucket"
)

// longSeries is how many series the blocks of longAnswers have: so many that they are read and sent in many parts.
const longSeries = 25_000

// longAnswers are two store-gateways that own every block, a process before them, and an object store that can be made
// slow.
type longAnswers struct {
	*harness.Cluster
	base  *harness.Node
	store *harness.FaultProxy
	asks  []url.Values // a query for each block
	want  []string     // what is in its answer
}

// longBlock uploads a block of two hours, and returns the sum of all its samples.
func longBlock(ctx context.Context, t *testing.T, dir string, start time.Time, rnd *rand.Rand) (sum int) {
	t.Helper()
	bkt, err := bucket.NewFilesystem(dir)
	must(t, err)
	quiet, work := slog.New(slog.DiscardHandler), t.TempDir()
	w, err := tsdb.NewBlockWriter(quiet, work, 4*time.Hour.Milliseconds())
	must(t, err)
	app := w.Appender(ctx)
	for i := range longSeries {
		lset := labels.FromStrings("__name__", "long", "i", fmt.Sprintf("%05d", i))
		for j := range 12 {
			v := rnd.IntN(1 << 20)
			sum += v
			_, err := app.Append(0, lset, start.Add(time.Duration(j)*10*time.Minute).UnixMilli(), float64(v))
			must(t, err)
		}
	}
	must(t, app.Commit())
	id, err := w.Flush(ctx)
	must(t, err)
	must(t, w.Close())
	must(t, block.Upload(ctx, quiet, objstore.NewPrefixedBucket(bkt, wideTenant), filepath.Join(work, id.String()), block.Tags{}))
	return sum
}

func newLongAnswers(ctx context.Context, t *testing.T) *longAnswers {
	t.Helper()
	s, dir := &longAnswers{}, t.TempDir()
	s3, err := harness.StartS3(ctx, harness.TestLog(t), filepath.Join(dir, "s3"), 0, "blocks")
	t.Cleanup(func() {
		if s3 != nil {
			must(t, s3.Stop())
		}
	})
	harness.Need(t, err)
	s.store, err = harness.NewFaultProxy(s3.Endpoint)
	must(t, err)
	t.Cleanup(func() { must(t, s.store.Close()) })
	rnd := rand.New(rand.NewPCG(1, 2))
	for k := range 2 {
		start := time.Now().Add(-time.Duration(72-24*k) * time.Hour).Truncate(2 * time.Hour)
		sum := longBlock(ctx, t, filepath.Join(s3.Dir, "blocks"), start, rnd)
		s.asks = append(s.asks, url.Values{"query": {"sum(sum_over_time(long[2h]))"}, "time": {seconds(start.Add(2*time.Hour - time.Millisecond).UnixMilli())}})
		s.want = append(s.want, fmt.Sprintf(`"%d"]`, sum))
	}
	nodes := []harness.Spec{{Name: "base", Target: "ingester,distributor,querier,compactor", Zone: "a"}}
	for i, zone := range []string{"a", "b"} {
		nodes = append(nodes, harness.Spec{Name: fmt.Sprint("store-", i), Target: "store-gateway", Zone: zone})
	}
	s.Cluster = harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Dir: dir, Replicas: 1, Files: true, Nodes: nodes, Flags: append(s3.Flags("blocks"),
		"-blocks-storage.s3.endpoint="+s.store.Endpoint, "-store-gateway.sharding-ring.zone-awareness-enabled=true", "-store-gateway.sharding-ring.replication-factor=2",
		fmt.Sprintf("-querier.max-fetched-chunks-per-query=%d", longSeries), // what was charged in vain would be over it
		"-compactor.first-level-compaction-wait-period=100000h", "-compactor.cleanup-interval=1s", "-querier.timeout=2m")})
	s.base = s.Node("base")
	harness.Need(t, harness.Poll(ctx, func(context.Context) error {
		_, err := os.Stat(filepath.Join(s3.Dir, "blocks", wideTenant, block.BucketIndexFile))
		return err
	}))
	(&shelves{Cluster: s.Cluster, base: s.base}).seen(ctx, t, 2)
	return s
}

func (s *longAnswers) ask(ctx context.Context, k int) (reply, error) {
	return try(ctx, http.MethodGet, s.base.URL("/prometheus/api/v1/query?"+s.asks[k].Encode()), nil, "X-Scope-OrgID", wideTenant)
}

// chunks is how many the querier was ever sent of blocks.
func (s *longAnswers) chunks(ctx context.Context, t *testing.T) float64 {
	t.Helper()
	return float64(metric(t, call(ctx, t, http.MethodGet, s.base.URL("/metrics"), nil).body, `amphora_querier_chunks_fetched_total\{source="block"\}`))
}

// killedAmid asks about block k and kills n when a part of the answer has come. It returns what came of that; whole is
// whether others are to answer.
func (s *longAnswers) killedAmid(ctx context.Context, t *testing.T, k int, n *harness.Node, whole bool) reply {
	t.Helper()
	const chunkFiles = "/chunks/"
	before := s.chunks(ctx, t)
	s.store.Set(harness.Faults{Hold: chunkFiles})
	type result struct {
		reply
		err error
	}
	answer := make(chan result, 1)
	go func() {
		r, err := s.ask(ctx, k)
		answer <- result{r, err}
	}()
	// Chunks are read one request at a time, the next when nothing has come of the one before in many looks: however slow this
	// process or the others are, the rest of the answer waits until the store-gateway is dead.
	const looks = 20
	for in := 0; s.chunks(ctx, t) == before; in-- {
		if in <= 0 && s.store.Held() > 0 {
			s.store.Set(harness.Faults{Hold: chunkFiles, Pass: 1})
			in = looks
		}
		select {
		case r := <-answer:
			t.Fatalf("answered before a part was seen: %s, %v", r.reply, r.err)
		case <-ctx.Done():
			t.Fatal(context.Cause(ctx))
		case <-time.After(100 * time.Millisecond):
		}
	}
	must(t, n.Kill())
	s.store.Set(harness.Faults{})
	r := <-answer
	must(t, r.err)
	sent := s.chunks(ctx, t) - before
	if whole {
		sent -= longSeries
	}
	t.Logf("%s was killed when it had sent %g of %d chunks", n.Spec.Name, sent, longSeries)
	if sent <= 0 || sent >= longSeries {
		t.Errorf("%s was not killed in the middle of its answer: %g of %d chunks had come", n.Spec.Name, sent, longSeries)
	}
	return r.reply
}

// TestAStoreGatewayKilledAmidItsAnswerCostsNothing kills one that has sent a part of an answer, which the next owner then
// gives whole and within the limit of chunks, and then that one, after whom there is none: that is an error.
func TestAStoreGatewayKilledAmidItsAnswerCostsNothing(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 3*time.Minute)
	s := newLongAnswers(ctx, t)
	one, other := s.Node("store-0"), s.Node("store-1")
	if r := s.killedAmid(ctx, t, 0, one, true); r.status != http.StatusOK || !strings.Contains(r.body, s.want[0]) {
		t.Errorf("%s was killed in the middle of its answer: %s, want %s", one.Spec.Name, r, s.want[0])
	}
	page := call(ctx, t, http.MethodGet, s.base.URL("/metrics"), nil).body // on a slow machine it may have been asked already
	if n := metric(t, page, "amphora_querier_storegateway_refetches_total") + metric(t, page, "amphora_querier_storegateway_reads_hedged_total"); n < 1 {
		t.Errorf("%d times another store-gateway was asked", n)
	}
	begin := time.Now()
	r := s.killedAmid(ctx, t, 1, other, false)
	if r.status != http.StatusServiceUnavailable || !strings.Contains(r.body, "too many store-gateways failed") || time.Since(begin) > 30*time.Second {
		t.Errorf("both were killed: after %s %s", time.Since(begin).Round(time.Millisecond), r)
	}
	for _, n := range []*harness.Node{one, other} {
		must(t, n.Start())
		must(t, n.WaitReady(ctx))
	}
	for k := range s.asks {
		patiently(ctx, t, "the answer when both are back", func() error {
			r, err := s.ask(ctx, k)
			if err == nil && (r.status != http.StatusOK || !strings.Contains(r.body, s.want[k])) {
				err = fmt.Errorf("%s, want %s", r, s.want[k])
			}
			return err
		})
	}
}
