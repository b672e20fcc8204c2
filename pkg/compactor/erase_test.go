package compactor

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/tombstone"
)

// paper is a document in memory.
type paper struct {
	mu   sync.Mutex
	text []byte
}

func (p *paper) Read(context.Context, string) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text, nil
}

func (p *paper) Change(_ context.Context, _ string, change func([]byte) ([]byte, error)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	b, err := change(p.text)
	if err == nil {
		p.text = b
	}
	return err
}

// deleter returns a compactor of w that takes requests, and a call to compact and clean up.
func (w *world) deleter() (requests *tombstone.Requests, round func()) {
	w.t.Helper()
	c := w.compactor()
	c.deps.Deletions = tombstone.NewRequests(tombstone.Deps{Logger: discard, Documents: &paper{}, Limits: func(tenant.ID) limits.View { return w.limits },
		Grace: time.Hour, Settle: 3 * time.Hour, Now: func() time.Time { return w.now }})
	return c.deps.Deletions, func() {
		w.t.Helper()
		if err := c.Compact(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
		if err := c.CleanUp(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
	}
}

// forget takes from the truth what lies in from <= t <= to of the series i.
func (w *world) forget(i string, from, to int64) {
	series := `{__name__="m", i="` + i + `"}`
	for at := range w.truth[series] {
		if at >= from && at <= to {
			delete(w.truth[series], at)
		}
	}
	if len(w.truth[series]) == 0 {
		delete(w.truth, series)
	}
}

// symbols are those of all blocks that are not marked.
func (w *world) symbols() []string {
	w.t.Helper()
	var out []string
	for _, b := range w.index() {
		m, err := block.ReadMeta(w.t.Context(), w.tenantBucket(), b.ID)
		if err != nil {
			w.t.Fatal(err)
		}
		path := w.t.TempDir() + "/index"
		if err := block.DownloadIndex(w.t.Context(), w.tenantBucket(), m, path); err != nil {
			w.t.Fatal(err)
		}
		r, err := index.NewFileReader(path, index.DecodePostingsRaw)
		if err != nil {
			w.t.Fatal(err)
		}
		for it := r.Symbols(); it.Next(); {
			out = append(out, string([]byte(it.At())))
		}
		if err := r.Close(); err != nil {
			w.t.Fatal(err)
		}
	}
	return out
}

func TestDeletedSeriesLeaveTheBlocks(t *testing.T) {
	w := newWorld(t)
	w.replica(0, 10, nil)  // alone in its range: it is rewritten
	w.replica(48, 10, nil) // these two are merged, which leaves the series out, too
	w.replica(48, 10, oneOf(1))
	w.replica(96, 2, nil) // has nothing of it
	requests, round := w.deleter()
	whole, err := requests.Add(t.Context(), "t1", []string{`{i="0003"}`}, -1<<60, 1<<60)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := requests.Add(t.Context(), "t1", []string{`m{i=~"0004|0009"}`, `{i="none"}`}, 600_000, 1_200_000); err != nil {
		t.Fatal(err)
	}
	round()
	w.whole("while the requests can be cancelled")
	w.now = w.now.Add(90 * time.Minute)
	round()
	w.forget("0003", -1<<60, 1<<60)
	w.forget("0004", 600_000, 1_200_000)
	w.forget("0009", 600_000, 1_200_000)
	w.whole("after")
	if slices.Contains(w.symbols(), "0003") {
		t.Error("a label of the deleted series is still in a block")
	}
	blocks := w.index()
	round() // which must find nothing to do
	if again := w.index(); len(again) != len(blocks) || again[0].ID != blocks[0].ID {
		t.Errorf("blocks were rewritten again: %v, were %v", again, blocks)
	}
	// A block that arrives with the series while the request is in force loses it, too.
	before := len(w.index())
	w.replica(144, 4, nil)
	round()
	w.forget("0003", -1<<60, 1<<60)
	w.whole("with a late block")
	if n := len(w.index()); n != before+1 {
		t.Errorf("%d blocks, want %d", n, before+1)
	}
	w.now = w.now.Add(4 * time.Hour)
	round()
	list, err := requests.List(t.Context(), "t1")
	if err != nil {
		t.Fatal(err)
	}
	for i := range list {
		if s := requests.State(&list[i]); s != tombstone.Processed {
			t.Errorf("request %s is %s", list[i].ID, s)
		}
	}
	if list[0].ID != whole.ID {
		t.Errorf("requests are %v", list)
	}
}

func TestABlockThatCannotBeRewrittenKeepsTheRequestInForce(t *testing.T) {
	w := newWorld(t)
	id := w.replica(0, 10, nil)
	if err := block.MarkNoCompact(t.Context(), w.tenantBucket(), id, w.now, "manual", ""); err != nil {
		t.Fatal(err)
	}
	requests, round := w.deleter()
	if _, err := requests.Add(t.Context(), "t1", []string{`{i="0003"}`}, -1<<60, 1<<60); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		w.now = w.now.Add(time.Hour)
		round()
	}
	if set, err := requests.InForce(t.Context(), "t1"); err != nil || set.Empty() {
		t.Errorf("the samples are in a block and show again: %v", err)
	}
}

func TestRetentionBySelectorShortensAndOutlivesThatOfTheTenant(t *testing.T) {
	w := newWorld(t)
	w.replica(0, 5, nil)
	w.replica(900, 5, nil)
	rules := func(text string, keep time.Duration) {
		t.Helper()
		v, err := limits.RetentionBySelector.WithText(limits.CompactorBlocksRetentionPeriod.With(limits.View{}, keep), text)
		if err != nil {
			t.Fatal(err)
		}
		w.limits = v
	}
	_, round := w.deleter()
	rules(`[{selector: '{i="0001"}', period: 0}, {selector: '{i="0002"}', period: 1h}, {selector: '{i=~"0001|0002"}', period: 1s}]`, 500*time.Hour)
	round()
	for i, upto := range map[string]int64{"0000": 500 * hour, "0002": 999 * hour, "0003": 500 * hour, "0004": 500 * hour} {
		w.forget(i, -1<<60, upto-1)
	}
	w.whole("after")
	blocks := w.index()
	w.now = w.now.Add(time.Hour)
	round()
	if again := w.index(); len(again) != 2 || again[0].ID != blocks[0].ID || again[1].ID != blocks[1].ID {
		t.Errorf("an hour later blocks were rewritten: %v, were %v", again, blocks)
	}
	rules(`[{selector: '{i="0002"}', period: 1h}]`, 500*time.Hour)
	round()
	if n := len(w.index()); n != 1 {
		t.Errorf("%d blocks, the old one is beyond every period", n)
	}
}
