package ingester

import (
	"context"
	"strconv"
	"strings"
	"testing"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/memory"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

// budgetBytes is so much that the memory of the test itself does not count.
const budgetBytes = 1 << 50

// fill takes so much of a new budget that part (0..1) of it is in use.
func fill(part float64) (*memory.Ledger, func()) {
	l := memory.New(memory.Limits{Process: budgetBytes, Go: budgetBytes}, memory.Deps{})
	n := int64(part * budgetBytes)
	l.Account(memory.Chunks).Take(n)
	return l, func() { l.Account(memory.Chunks).Release(n) }
}

func TestWhenMemoryIsShortNewSeriesWaitAndKnownOnesGoOn(t *testing.T) {
	l := memory.New(memory.Limits{Process: budgetBytes, Go: budgetBytes}, memory.Deps{})
	s := newSite(t, siteOptions{memory: l})
	w := newSender(s.Ingester)
	known, fresh := metric("up", "instance", "a"), metric("up", "instance", "b")
	w.mustPush(t, "t1", point{known, base, 1})
	if n := l.Account(memory.Series).Held() - headBytes; n < headSeriesBytes || n > headSeriesBytes+100 {
		t.Errorf("%d bytes held for one series", n)
	}

	n := int64(budgetBytes / 100 * 80)
	l.Account(memory.Chunks).Take(n)
	res := w.push(context.Background(), w.frame("t1", point{known, base + minute, 2}, point{fresh, base + minute, 3}))
	if res.Outcome != frame.Stored || res.Rejected != 1 || res.Kind != errs.Unavailable || !strings.Contains(res.Message, "err-amphora-memory-limit") {
		t.Errorf("a new series beside a known one: %+v", res)
	}
	equal(t, s.dump(t, "t1"), map[string]string{known.String(): "0:1 60000:2"})
	if n := s.counter(t, "amphora_discarded_samples_total"); n != 0 {
		t.Errorf("%g samples count as discarded, but the sender keeps them", n)
	}
	l.Account(memory.Chunks).Release(n)
	w.mustPush(t, "t1", point{known, base + minute, 2}, point{fresh, base + minute, 3})
	equal(t, s.dump(t, "t1"), map[string]string{known.String(): "0:1 60000:2", fresh.String(): "60000:3"})
}

func TestARefusalThatPassesIsToldRatherThanOneForGood(t *testing.T) {
	l, calm := fill(0.8)
	s := newSite(t, siteOptions{memory: l, view: limits.OutOfOrderTimeWindow.With(limits.View{}, 0)})
	w := newSender(s.Ingester)
	calm()
	known := metric("up")
	w.mustPush(t, "t1", point{known, base + minute, 1})
	l.Account(memory.Chunks).Take(budgetBytes / 100 * 80)
	res := w.push(context.Background(), w.frame("t1", point{known, base, 1}, point{metric("down"), base + minute, 1}))
	if res.Kind != errs.Unavailable || res.Rejected != 2 {
		t.Errorf("%+v", res)
	}
}

func TestReadsAreRefusedBeforeWrites(t *testing.T) {
	l, _ := fill(0)
	s := newSite(t, siteOptions{memory: l})
	w := newSender(s.Ingester)
	w.mustPush(t, "t1", point{metric("up"), base, 1})
	l.Account(memory.Chunks).Take(budgetBytes / 100 * 90)
	ctx := tenant.Inject(context.Background(), "t1")
	if err := s.Query(everything(), &queryStream{ctx: ctx}); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("a read: %v", err)
	}
	w.mustPush(t, "t1", point{metric("up"), base + minute, 1})
	l.Account(memory.Chunks).Take(budgetBytes / 100 * 6)
	res := w.push(context.Background(), w.frame("t1", point{metric("up"), base + 2*minute, 1}))
	if res.Outcome != frame.Failed || res.Kind != errs.Unavailable {
		t.Errorf("a write: %+v", res)
	}
	l.Account(memory.Chunks).Release(budgetBytes / 100 * 6)
	if n := l.Account(memory.Frames).Held(); n != 0 {
		t.Errorf("%d bytes of frames are held", n)
	}
	w.mustPush(t, "t1", point{metric("up"), base + 2*minute, 1})
}

func TestWhatWasAcknowledgedIsReadBackHoweverShortMemoryIs(t *testing.T) {
	s := newSite(t, siteOptions{})
	w := newSender(s.Ingester)
	w.mustPush(t, "t1", point{metric("up"), base, 1}, point{metric("down"), base, 1})
	l, calm := fill(0.99)
	again := s.crashed(t, siteOptions{memory: l})
	if n := l.Account(memory.Series).Held() - headBytes; n < 2*headSeriesBytes {
		t.Errorf("%d bytes held for two series", n)
	}
	calm()
	equal(t, again.dump(t, "t1"), map[string]string{metric("up").String(): "0:1", metric("down").String(): "0:1"})
	if _, err := again.Flush(context.Background(), nil, true); err != nil {
		t.Fatal(err)
	}
	if n := l.Account(memory.Series).Held(); n != headBytes {
		t.Errorf("%d bytes held after all series left memory", n)
	}
}

func TestReadingBackDoesNotGatherAllSamplesOnTheHeap(t *testing.T) {
	s := newSite(t, siteOptions{})
	w := newSender(s.Ingester)
	const series, scrapes = 100, 1000
	for k := range int64(scrapes) {
		var points []point
		for n := range series {
			points = append(points, point{metric("m", "n", strconv.Itoa(n)), base + k*1000, float64(k)})
		}
		w.mustPush(t, "t1", points...)
	}
	want := s.dump(t, "t1")
	l := memory.New(memory.Limits{Process: budgetBytes, Go: budgetBytes}, memory.Deps{})
	again := s.crashed(t, siteOptions{memory: l})
	if n := again.lookup("t1").head.Unreleased(); n >= series*scrapes {
		t.Errorf("%d samples are on the heap", n)
	}
	if n := l.Account(memory.Chunks).Held(); n >= series*scrapes*sampleBytes {
		t.Errorf("%d bytes are reserved for samples", n)
	}
	if n := l.Account(memory.Replay).Held(); n != 0 {
		t.Errorf("%d bytes are reserved for reading back", n)
	}
	equal(t, again.dump(t, "t1"), want)
}
