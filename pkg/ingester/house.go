package ingester

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/head"
	"github.com/amphora-metrics/amphora/pkg/limits"
)

// compactSpread is how long after it is due a head may be cut: all heads are due at the same
// time of day, and cutting them at once would starve pushes.
const compactSpread = 10 * time.Minute

// keepHouse does what is due: cut heads, ship blocks, drop old ones, close idle tenants, truncate
// the log. One round runs at a time.
func (i *Ingester) keepHouse(ctx context.Context) {
	tenants := i.all()
	now := i.now()
	var due []*tenantHead
	// What the TSDB writes on a full disk may end the process, and what it writes is larger than
	// the room that is left.
	full := i.space.full() != nil
	for _, t := range tenants {
		if !full {
			t.saveMetadata()
		}
		t.applyLimits()
		t.groups.forgetIdle(now)
		t.noteSize()
		if !full && t.compactionDue(now) {
			due = append(due, t)
		}
		t.tidy(full, releaseSamples)
	}
	if len(due) > 0 {
		if _, err := i.compact(ctx, due, func(t *tenantHead) bool { return t.idle(now) }); err != nil {
			i.log.Error("heads not cut, will retry; memory and write-ahead log grow meanwhile", "err", err)
		}
	}
	if !full {
		if err := i.cutEarly(ctx, now); err != nil && ctx.Err() == nil {
			i.log.Error("idle series not cut early, will retry; memory grows meanwhile", "err", err)
		}
	}
	i.ship(ctx, tenants)
	i.reportBlocks(tenants)
	if i.truncated.due(now, i.cfg.Idle.TruncateInterval) {
		if err := i.truncate(ctx); err != nil && ctx.Err() == nil {
			i.log.Error("write-ahead log not truncated, will retry", "err", err)
		}
	}
	for _, t := range tenants {
		if t.idle(now) {
			if err := t.closeIdle(now); err != nil {
				i.log.Error("idle tenant not closed, will retry", "tenant", t.id, "err", err)
			}
		}
	}
}

// saveMetadata keeps the metadata for the next start. Losing it is no loss of samples, and senders
// say it again.
func (t *tenantHead) saveMetadata() {
	if !t.enter() {
		return
	}
	defer t.leave()
	if err := t.metadata.save(t.dir); err != nil {
		t.ing.log.Warn("metadata not written, a restart forgets it until senders say it again", "tenant", t.id, "err", err)
	}
}

func (t *tenantHead) idle(now time.Time) bool {
	return now.Sub(time.UnixMilli(t.lastPush.Load())) >= t.ing.cfg.Idle.HeadTimeout
}

// compactionDue says whether the head is to be cut in this round.
func (t *tenantHead) compactionDue(now time.Time) bool {
	if !t.enter() {
		return false
	}
	defer t.leave()
	if t.idle(now) && t.head.NumSeries() > 0 {
		return true
	}
	if !t.head.CompactDue() {
		return false
	}
	t.compacting.Lock()
	defer t.compacting.Unlock()
	if t.dueSince.IsZero() {
		t.dueSince = now
	}
	h := fnv.New32a()
	// The ingesters of a tenant take turns: pushes find a quorum of them that does not cut.
	_, _ = h.Write([]byte(t.id)) // never fails
	_, _ = h.Write([]byte(t.ing.lifecycler.ID))
	return now.Sub(t.dueSince) >= time.Duration(h.Sum32()%uint32(compactSpread/time.Second))*time.Second
}

// applyLimits brings changed limits to the head.
func (t *tenantHead) applyLimits() {
	v := t.ing.limits(t.id)
	window, exemplars := limits.OutOfOrderTimeWindow.Of(v), t.ing.localExemplars(t.id, v)
	t.compacting.Lock()
	defer t.compacting.Unlock()
	if window == t.window && int64(exemplars) == t.exemplars.Load() || !t.enter() {
		return
	}
	defer t.leave()
	if err := t.head.SetLimits(window, exemplars); err != nil {
		t.ing.log.Warn("changed limits not applied, will retry", "tenant", t.id, "err", err)
		return
	}
	t.window = window
	t.exemplars.Store(int64(exemplars))
}

// compact cuts the heads of due into blocks, everything of those that force names, and returns
// the number of new blocks.
func (i *Ingester) compact(ctx context.Context, due []*tenantHead, force func(*tenantHead) bool) (int, error) {
	// What was logged before the cut of the log was in the head before that, so that the late
	// samples of all earlier segments are in the blocks cut now.
	segment, err := i.wal.Cut()
	if err != nil {
		return 0, fmt.Errorf("cut write-ahead log: %w", err)
	}
	var (
		mu     sync.Mutex
		blocks int
		out    []error
	)
	each(due, max(1, runtime.GOMAXPROCS(0)/2), func(t *tenantHead) {
		n, err := t.compact(ctx, segment, force(t))
		mu.Lock()
		defer mu.Unlock()
		blocks += n
		if err != nil {
			out = append(out, fmt.Errorf("tenant %s: %w", t.id, err))
		}
	})
	return blocks, errors.Join(out...)
}

// compact cuts the head into blocks and remembers what of the log is in them. segment is the log's
// current one.
func (t *tenantHead) compact(ctx context.Context, segment int, force bool) (blocks int, err error) {
	t.compacting.Lock()
	defer t.compacting.Unlock()
	if !t.enter() {
		return 0, nil
	}
	defer t.leave()
	if !force && !t.head.CompactDue() {
		return 0, nil
	}
	m := t.ing.metrics
	start := time.Now()
	if force {
		m.forcedCompactions.Inc()
		defer m.forcedCompactions.Dec()
	}
	m.compactions.Inc()
	blocks, err = t.head.Compact(ctx, force)
	m.compactionDuration.Observe(time.Since(start).Seconds())
	if err != nil {
		m.compactionsFailed.Inc()
		return blocks, err
	}
	t.dueSince = time.Time{}
	t.chunks.released(t.ing.memory.chunks)
	done := compacted{Before: t.head.MinTime(), Segment: segment}
	if done.Before == math.MaxInt64 {
		return blocks, nil // the head never held a sample
	}
	if err := done.write(t.dir); err != nil {
		return blocks, fmt.Errorf("remember what is in blocks: %w", err)
	}
	t.segments.compacted(done.Before, done.Segment)
	return blocks, nil
}

// closeIdle closes the head of a tenant that has nothing here any more, neither in memory nor in
// blocks nor in the log, and removes its directory.
func (t *tenantHead) closeIdle(now time.Time) error {
	first, _ := t.ing.wal.Segments()
	if t.segments.lastHeld() >= first {
		return nil
	}
	t.compacting.Lock()
	defer t.compacting.Unlock()
	if !t.gate.TryLock() {
		return nil // in use
	}
	defer t.gate.Unlock()
	if t.closed || !t.idle(now) || t.head.NumSeries() > 0 || len(t.head.Blocks()) > 0 {
		return nil
	}
	// A push that comes now finds the gate shut and opens the tenant again, after the removal.
	opening := t.ing.opening.of(t.id)
	opening.Lock()
	defer opening.Unlock()
	t.closed = true
	t.chunks.released(t.ing.memory.chunks)
	err := t.head.Close()
	t.ing.memory.series.Release(headBytes)
	t.ing.mu.Lock()
	delete(t.ing.tenants, t.id)
	t.ing.mu.Unlock()
	t.ing.unbind(t)
	if err != nil {
		return errs.New(errs.Internal, "close: %w", err)
	}
	if err := os.RemoveAll(t.dir); err != nil {
		return fmt.Errorf("remove directory: %w", err)
	}
	t.ing.log.Info("idle tenant closed", "tenant", t.id)
	return nil
}

// truncate drops the segments of the log whose samples are all in blocks. Their place takes a
// checkpoint with the definitions of the series that later segments use.
func (i *Ingester) truncate(ctx context.Context) error {
	i.truncating.Lock()
	defer i.truncating.Unlock()
	first, keep := i.wal.Segments()
	if keep <= first {
		return nil
	}
	// Whatever is in a closed segment must have told its tenant so.
	if err := i.pushes.settle(ctx); err != nil {
		return fmt.Errorf("wait for pushes: %w", err)
	}
	tenants := i.all()
	for _, t := range tenants {
		keep = min(keep, t.segments.firstNeeded())
	}
	if keep <= first || first < i.firstOwn && keep < i.firstOwn {
		return nil
	}
	err := i.wal.Checkpoint(ctx, keep, func(emit func([]byte) error) error {
		for _, t := range tenants {
			if err := t.emitSeries(emit); err != nil {
				return fmt.Errorf("tenant %s: %w", t.id, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}

// checkpointSeries is the number of series in one record of a checkpoint.
const checkpointSeries = 1000

// emitSeries emits the definitions of the live series that the log has.
func (t *tenantHead) emitSeries(emit func([]byte) error) error {
	if !t.enter() {
		return nil
	}
	defer t.leave()
	w := seriesWriter{emit: emit, rec: record{tenant: string(t.id), session: t.session}}
	err := t.head.ForEachSeries(func(ref head.Ref, ls labels.Labels) error {
		if !t.defined.has(uint64(ref)) {
			return nil // whoever logs its first sample defines it, in a later segment
		}
		return w.add(series{ref, ls})
	})
	if err != nil {
		return err
	}
	return w.flush()
}

// seriesWriter gathers definitions into records.
type seriesWriter struct {
	emit func([]byte) error
	rec  record
	buf  []byte
}

func (w *seriesWriter) add(s series) error {
	w.rec.series = append(w.rec.series, s)
	if len(w.rec.series) < checkpointSeries {
		return nil
	}
	return w.flush()
}

func (w *seriesWriter) flush() error {
	if w.rec.empty() {
		return nil
	}
	w.buf = w.rec.appendTo(w.buf[:0])
	w.rec.reset()
	return w.emit(w.buf)
}

// each calls do for every item, n at a time, and waits.
func each[T any](items []T, n int, do func(T)) {
	var wg sync.WaitGroup
	room := make(chan struct{}, n)
	for _, x := range items {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			do(x)
		})
	}
	wg.Wait()
}
