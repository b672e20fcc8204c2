package querier

import (
	"context"
	"math"
	"testing"
	"time"

	"github.com/prometheus/prometheus/storage"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/memory"
)

func TestAQueryBorrowsWhatItHoldsAndReturnsIt(t *testing.T) {
	c := full(t)
	account := c.memory.Account(memory.Queries)
	q, err := c.q.Querier(0, math.MaxInt32)
	if err != nil {
		t.Fatal(err)
	}
	// A million steps of 16 bytes for each series, of which those count at which it has a value.
	set := q.Select(asTenant(t), true, &storage.SelectHints{Start: 0, End: math.MaxInt32, Step: 10}, all)
	n := int64(0)
	for set.Next() {
		n++
	}
	if set.Err() != nil || n != 40 {
		t.Fatalf("%d series, %v", n, set.Err())
	}
	const each = (200*15_000 + 5*60_000) / 10 * pointBytes
	if held := account.Held(); held < n*each*9/10 || held > n*each*12/10 {
		t.Errorf("%d bytes held, want about %d", held, n*each)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	if held := account.Held(); held != 0 {
		t.Errorf("%d bytes held by no query", held)
	}
}

// TestAReadKeepsToTheMemoryOfItsContext fetches samples and chunks of 40 series for a read that may use some memory, and for
// one that may use too little for them.
func TestAReadKeepsToTheMemoryOfItsContext(t *testing.T) {
	c := full(t)
	account, over := c.memory.Account(memory.Queries), errs.New(errs.TooLarge, "over")
	for most, want := range map[int64]error{1 << 30: nil, 4000: over} {
		for name, read := range map[string]func(context.Context) (int, error){
			"samples": func(ctx context.Context) (n int, err error) {
				q, err := c.q.Querier(0, math.MaxInt32)
				if err != nil {
					return 0, err
				}
				defer closing(t, q)
				set := q.Select(ctx, false, nil, all)
				for set.Next() {
					n++
				}
				return n, set.Err()
			},
			"chunks": func(ctx context.Context) (n int, err error) {
				q, err := c.q.ChunkQuerier(0, math.MaxInt32)
				if err != nil {
					return 0, err
				}
				defer closing(t, q)
				set := q.Select(ctx, true, nil, all)
				for set.Next() {
					n++
				}
				return n, set.Err()
			},
		} {
			ctx, working := account.Lasting(asTenant(t), most, over)
			n, err := read(memory.Counting(ctx))
			if want == nil && (n != 40 || err != nil) || want != nil && errs.KindOf(err) != errs.TooLarge {
				t.Errorf("%s within %d bytes: %d series, %v", name, most, n, err)
			}
			if want == nil && working.Peak() < 40*seriesOverheadBytes {
				t.Errorf("%s of 40 series: %d bytes", name, working.Peak())
			}
			working.End()
			if held := account.Held(); held != 0 {
				t.Errorf("%s: %d bytes held by no read", name, held)
			}
		}
	}
}

// TestAShortRangeOfLongWindowsBorrowsForItsSteps reads a day, or the lookback, before each of a few steps that are close
// to each other.
func TestAShortRangeOfLongWindowsBorrowsForItsSteps(t *testing.T) {
	const steps = 20
	for _, c := range []struct {
		name         string
		step, before time.Duration
		rng          int64
	}{
		{"windows of a day", time.Millisecond, 24 * time.Hour, 24 * time.Hour.Milliseconds()},
		{"windows of a second", time.Millisecond, time.Second, 1000},
		{"no windows", time.Millisecond, 5 * time.Minute, 0},
		{"an hour of windows of a day", 3 * time.Minute, 24 * time.Hour, 24 * time.Hour.Milliseconds()},
	} {
		end := int64(1_000_000_000)
		step := c.step.Milliseconds()
		start := end - steps*step - c.before.Milliseconds()
		p := pointsOf(storage.SelectHints{Start: start, End: end, Step: step, Range: c.rng})
		if got := p.bytes(start, end, start, end); got != pointBytes*(steps+1) {
			t.Errorf("%s: %d bytes for a series at %d steps, want %d", c.name, got, steps+1, pointBytes*(steps+1))
		}
	}
}

// full is a querier over three nodes with 40 series of 200 samples.
func full(t *testing.T) *cluster {
	var nodes []*node
	for _, zone := range []string{"a", "b", "c"} {
		n := newNode(t, zone)
		add(t, n, reference(40, 200))
		nodes = append(nodes, n)
	}
	return newCluster(t, nodes, nil)
}

func TestReadsAreRefusedWhenMemoryIsShort(t *testing.T) {
	c := full(t)
	account := c.memory.Account(memory.Queries)
	taken := int64(0)
	for _, step := range []int64{1 << 40, 1 << 30, 1 << 20, 1 << 10} {
		for account.Reserve(step) == nil {
			taken += step
		}
	}
	give := func(n int64) { account.Release(n); taken -= n }
	if err := c.tryRead(asTenant(t), t); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("without room: %v", err)
	}
	give(50 << 10)
	if err := c.tryRead(asTenant(t), t); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("without room for all of it: %v", err)
	}
	give(1 << 20)
	if err := c.tryRead(asTenant(t), t); err != nil {
		t.Errorf("with room: %v", err)
	}
	c.memory.Account(memory.Chunks).Take(2 << 20)
	q, err := c.q.Querier(0, math.MaxInt32)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if _, _, err := q.LabelNames(asTenant(t), nil); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("label names over the line: %v", err)
	}
	// An ingester that was asked and not needed gives back when it notices, after the answer.
	for deadline := time.Now().Add(30 * time.Second); account.Held() != taken; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes held by no query", account.Held()-taken)
		}
	}
}

func TestAnAnswerThatComesAfterTheQueryBorrowsNothing(t *testing.T) {
	c := full(t)
	own, working := c.memory.Workings().Begin(asTenant(t), 0, nil)
	defer working.End()
	for name, ctx := range map[string]context.Context{"process": asTenant(t), "working set": own} {
		b := newBudget(ctx, c.q, limits.View{})
		if err := b.use(1000); err != nil {
			t.Fatal(err)
		}
		b.release()
		held := c.memory.Account(memory.Queries).Held()
		if err := b.use(1); errs.KindOf(err) != errs.Canceled {
			t.Errorf("%s: a series after the end: %v", name, err)
		}
		if err := b.chargeChunks(1, 1); errs.KindOf(err) != errs.Canceled {
			t.Errorf("%s: chunks after the end: %v", name, err)
		}
		if got := c.memory.Account(memory.Queries).Held(); got != held {
			t.Errorf("%s: %d bytes held, %d before the late answer", name, got, held)
		}
	}
}
