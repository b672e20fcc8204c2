package ingester

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"os"
	"runtime"
	"sync"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/head"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wal"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

const (
	// replayBatchBytes is how many bytes of records travel to a worker at a time.
	replayBatchBytes = 256 << 10
	// replayQueue is the number of batches that may wait for a worker.
	replayQueue = 8
	// replayPart of the process's memory is for what waits, however many workers there are.
	replayPart = 0.05
)

// recover opens the heads of all tenants that have anything on disk and brings back what the log
// holds and blocks do not. Damage is reported and passed over.
func (i *Ingester) recover(ctx context.Context) error {
	r := i.newReplay()
	stats, err := r.run(ctx)
	if err != nil {
		return err
	}
	// A segment that is gone has no bytes to be counted as lost.
	if err := i.loadCompleteSince(ctx, stats.Corruptions > 0 || r.total.damaged > 0); err != nil {
		return err
	}
	if i.firstOwn, err = i.wal.Cut(); err != nil {
		return fmt.Errorf("start a segment of the write-ahead log: %w", err)
	}
	if err := i.openTenantsOnDisk(); err != nil {
		return err
	}
	for _, t := range i.all() {
		t.replaying.Store(false)
		t.lastPush.Store(i.now().UnixMilli())
		if err := t.head.SetLimits(t.window, int(t.exemplars.Load())); err != nil {
			return fmt.Errorf("tenant %s: apply limits: %w", t.id, err)
		}
	}
	if len(r.restored) == 0 {
		if err := r.checkpoint(ctx); err != nil {
			i.log.Warn("write-ahead log not truncated at start, will retry once all of it is in blocks", "err", err)
		}
	} else {
		i.log.Info("heads came back from the snapshot of the last stop", "tenants", len(r.restored), "series", i.series.Load())
	}
	if stats.Segments == 0 {
		return nil
	}
	i.log.Info("write-ahead log read back", "tenants", i.numTenants(), "series", i.series.Load(), "records", stats.Records,
		"samples", r.total.samples, "refused_samples", r.total.refused, "samples_in_blocks", r.total.inBlocks,
		"undefined_samples", r.total.undefined, "damaged_records", r.total.damaged,
		"damaged_places", stats.Corruptions, "lost_bytes", stats.LostBytes, "torn_bytes", stats.TornBytes, "took", stats.Duration)
	return nil
}

// run brings the heads back: from the snapshot of a planned stop, and from the log who is not in it.
func (r *replay) run(ctx context.Context) (stats wal.ReplayStats, err error) {
	s, err := r.ing.claimSnapshot()
	if err == nil && s != nil {
		r.restored, err = r.ing.restore(ctx, s)
	}
	if err == nil && s != nil && len(r.restored) == len(s.Tenants) {
		err = r.ing.wal.Resume(s.Log)
	} else if err == nil {
		stats, err = r.ing.wal.Replay(ctx, r.add)
	}
	if err = errors.Join(err, r.finish()); err != nil {
		return stats, fmt.Errorf("read back the write-ahead log: %w", err)
	}
	return stats, nil
}

// openTenantsOnDisk opens the heads of tenants that have blocks but nothing in the log.
func (i *Ingester) openTenantsOnDisk() error {
	entries, err := os.ReadDir(i.tenantsDir())
	if err != nil {
		return errs.New(errs.Unavailable, "list tenants on disk: %w", err)
	}
	var (
		mu  sync.Mutex // guards out
		out error
	)
	each(entries, 2*runtime.GOMAXPROCS(0), func(e os.DirEntry) { // half of them wait for the disk
		id, err := tenant.Parse(e.Name())
		if err != nil || !e.IsDir() {
			return
		}
		if _, err := i.open(id, true); err != nil {
			mu.Lock()
			defer mu.Unlock()
			out = errors.Join(out, err)
		}
	})
	return out
}

// replay distributes records to workers, each of which owns some of the tenants.
type replay struct {
	ing      *Ingester
	last     int // the last segment of the log
	now      int64
	seed     maphash.Seed
	workers  []*replayWorker
	reserved int64 // bytes of the budget
	running  sync.WaitGroup
	total    replayCounts
	// restored are the tenants that are there already. What the log says of them is passed over, so
	// that the definitions of former heads are not known.
	restored map[tenant.ID]bool
}

type replayCounts struct{ samples, refused, inBlocks, undefined, damaged int64 }

// replayBatch is records of one worker, in order.
type replayBatch struct {
	bytes []byte
	items []replayItem
}

// replayItem is one record, which ends at end in the bytes of its batch.
type replayItem struct{ segment, end int }

func (i *Ingester) newReplay() *replay {
	r := &replay{ing: i, seed: maphash.MakeSeed(), now: i.now().UnixMilli()}
	_, r.last = i.wal.Segments()
	n := max(1, runtime.GOMAXPROCS(0))
	queue := int(max(1, min(replayQueue, i.memory.replayBytes/int64(n*replayBatchBytes))))
	r.reserved = int64(n * (queue + 2) * replayBatchBytes)
	i.memory.replay.Take(r.reserved)
	for range n {
		w := &replayWorker{replay: r, in: make(chan *replayBatch, queue), free: make(chan *replayBatch, queue+2),
			next: &replayBatch{}, sessions: map[sessionKey]*session{}, failed: make(chan struct{})}
		r.workers = append(r.workers, w)
		r.running.Go(w.run)
	}
	return r
}

// add is called for each record of the log.
func (r *replay) add(segment int, rec []byte) error {
	d := decoder{b: rec}
	if d.byte() != recordPush {
		r.total.damaged++
		return nil
	}
	name := d.bytes()
	if r.restored[tenant.ID(name)] {
		return nil
	}
	w := r.workers[maphash.Bytes(r.seed, name)%uint64(len(r.workers))]
	w.next.bytes = append(w.next.bytes, rec...)
	w.next.items = append(w.next.items, replayItem{segment, len(w.next.bytes)})
	if len(w.next.bytes) >= replayBatchBytes {
		return w.send()
	}
	return nil
}

// finish waits for the workers.
func (r *replay) finish() error {
	var out []error
	for _, w := range r.workers {
		if len(w.next.items) > 0 {
			out = append(out, w.send())
		}
		close(w.in)
	}
	r.running.Wait()
	r.ing.memory.replay.Release(r.reserved)
	for _, w := range r.workers {
		out = append(out, w.err)
		r.total.samples += w.counts.samples
		r.total.refused += w.counts.refused
		r.total.inBlocks += w.counts.inBlocks
		r.total.undefined += w.counts.undefined
		r.total.damaged += w.counts.damaged
	}
	return errors.Join(out...)
}

// checkpoint drops the segments at the front of the log whose samples are all in blocks. It is
// the one moment at which the definitions of former processes are known.
func (r *replay) checkpoint(ctx context.Context) error {
	first, keep := r.ing.wal.Segments()
	for _, t := range r.ing.all() {
		keep = min(keep, t.segments.firstNeeded())
	}
	if keep <= first {
		return nil
	}
	return r.ing.wal.Checkpoint(ctx, keep, func(emit func([]byte) error) error {
		for _, w := range r.workers {
			for key, s := range w.sessions {
				if err := s.emitSeries(key, emit); err != nil {
					return fmt.Errorf("tenant %s: %w", key.tenant, err)
				}
			}
		}
		return nil
	})
}

// sessionKey names one head of the past.
type sessionKey struct {
	tenant string
	id     uint64
}

// session maps the references of a head of the past to the tenant's head of now.
type session struct {
	t    *tenantHead
	skip compacted
	refs refPages
	// waiting holds definitions whose series has no sample yet: most of them never will, because
	// their samples are in blocks.
	waiting map[head.Ref]labels.Labels
}

// refPages maps old references to those of now. Neighbours of a record are neighbours here.
type refPages struct {
	pages map[uint64]*refPage
	at    uint64 // the number of page
	page  *refPage
}

type refPage [1024]head.Ref

func (p *refPages) of(old head.Ref) head.Ref {
	at := uint64(old) / uint64(len(refPage{}))
	if p.page == nil || at != p.at {
		page := p.pages[at]
		if page == nil {
			return 0
		}
		p.at, p.page = at, page
	}
	return p.page[uint64(old)%uint64(len(refPage{}))]
}

func (p *refPages) bind(old, now head.Ref) {
	at := uint64(old) / uint64(len(refPage{}))
	page := p.pages[at]
	if page == nil {
		if p.pages == nil {
			p.pages = map[uint64]*refPage{}
		}
		page = new(refPage)
		p.pages[at] = page
	}
	page[uint64(old)%uint64(len(refPage{}))] = now
}

// emitSeries emits the definitions of the live series of s under their old references, all of
// them: a series that left memory and came back had several.
func (s *session) emitSeries(key sessionKey, emit func([]byte) error) error {
	w := seriesWriter{emit: emit, rec: record{tenant: key.tenant, session: key.id}}
	for at, page := range s.refs.pages {
		for k, now := range page {
			ls, ok := labels.EmptyLabels(), false
			if now != 0 {
				ls, ok = s.t.head.Labels(now)
			}
			if !ok {
				continue
			}
			if err := w.add(series{head.Ref(at*uint64(len(page)) + uint64(k)), ls}); err != nil {
				return err
			}
		}
	}
	return w.flush()
}

// replayWorker brings back the tenants that hash to it.
type replayWorker struct {
	replay   *replay
	in, free chan *replayBatch
	next     *replayBatch // being filled by the reader

	sessions map[sessionKey]*session
	rec      record
	visit    visit
	app      head.Appender // between uses only its memory counts
	counts   replayCounts
	err      error
	failed   chan struct{} // closed once err is set
}

// send hands the next batch over.
func (w *replayWorker) send() error {
	select {
	case w.in <- w.next:
	case <-w.failed:
		return w.err
	}
	select {
	case w.next = <-w.free:
		w.next.bytes, w.next.items = w.next.bytes[:0], w.next.items[:0]
	default:
		w.next = &replayBatch{bytes: make([]byte, 0, replayBatchBytes+replayBatchBytes/4)}
	}
	return nil
}

func (w *replayWorker) run() {
	for b := range w.in {
		from := 0
		for _, item := range b.items {
			if err := w.apply(item.segment, b.bytes[from:item.end]); err != nil {
				w.err = err
				close(w.failed)
				return
			}
			from = item.end
		}
		select {
		case w.free <- b:
		default:
		}
	}
}

// apply brings one record back. An error ends the start: it is the disk's, not the record's.
func (w *replayWorker) apply(segment int, b []byte) error {
	if err := w.rec.decode(b); err != nil {
		w.counts.damaged++
		return nil
	}
	key := sessionKey{w.rec.tenant, w.rec.session}
	s := w.sessions[key]
	if s == nil {
		id, err := tenant.Parse(key.tenant)
		if err != nil {
			w.counts.damaged++
			return nil
		}
		t, err := w.replay.ing.open(id, true)
		if err != nil {
			return err
		}
		s = &session{t: t, waiting: map[head.Ref]labels.Labels{}, skip: w.replay.inBlocks(t)}
		w.sessions[key] = s
	}
	for _, d := range w.rec.series {
		if s.refs.of(d.ref) == 0 {
			s.waiting[d.ref] = d.labels
		}
	}
	app := s.t.head.TryAppender(math.MinInt64, &w.app)
	if app == nil { // nobody cuts yet
		return errs.New(errs.Internal, "tenant %s: the head takes no samples", key.tenant)
	}
	maxt := w.append(app, s, segment)
	if err := app.Commit(); err != nil {
		return fmt.Errorf("tenant %s: commit: %w", key.tenant, err)
	}
	s.t.readBack(len(w.rec.samples) + len(w.rec.histograms)*histogramSamples)
	if maxt != math.MinInt64 {
		s.t.segments.note(segment, maxt)
	}
	return nil
}

// inBlocks returns what of the log is in blocks of t. A note about segments that the log has not
// reached is about another log, one that somebody removed.
func (r *replay) inBlocks(t *tenantHead) compacted {
	c, err := readCompacted(t.dir)
	if err != nil {
		r.ing.log.Warn("note on what is in blocks not readable, samples may be read back twice", "tenant", t.id, "err", err)
		return compacted{}
	}
	if c.Segment > r.last+1 {
		return compacted{}
	}
	t.segments.compacted(c.Before, c.Segment)
	return c
}

// append adds what of w.rec is not in blocks and returns its newest time. What the head refuses
// was there already.
func (w *replayWorker) append(app *head.Appender, s *session, segment int) (maxt int64) {
	maxt = math.MinInt64
	before := int64(math.MinInt64)
	if segment < s.skip.Segment {
		before = s.skip.Before
	}
	w.visit = s.t.activity.visit(0)
	now := w.replay.now
	for k := range w.rec.samples {
		x := &w.rec.samples[k]
		if x.t < before {
			w.counts.inBlocks++
			continue
		}
		ref, ls, ok := s.target(x.ref)
		if !ok {
			w.counts.undefined++
			continue
		}
		got, err := app.Append(ref, ls, x.t, x.v)
		if w.took(s, x.ref, got, ls, err) {
			maxt = max(maxt, x.t)
			w.visit.replayed(got, w.replay.ing.clock.tick(min(x.t, now)), 0)
		}
	}
	for k := range w.rec.histograms {
		x := &w.rec.histograms[k]
		if x.t < before {
			w.counts.inBlocks++
			continue
		}
		ref, ls, ok := s.target(x.ref)
		if !ok {
			w.counts.undefined++
			continue
		}
		got, err := app.AppendHistogram(ref, ls, x.t, x.h, x.fh)
		if w.took(s, x.ref, got, ls, err) {
			maxt = max(maxt, x.t)
			w.visit.replayed(got, w.replay.ing.clock.tick(min(x.t, now)), uint32(bucketsOf(x))+1)
		}
	}
	if s.t.exemplars.Load() == 0 {
		return maxt
	}
	for k := range w.rec.exemplars {
		if ref := s.refs.of(w.rec.exemplars[k].ref); ref != 0 {
			if err := app.AppendExemplar(ref, w.rec.exemplars[k].e); err != nil {
				w.counts.refused++
			}
		}
	}
	return maxt
}

// target returns the series that old names: by its reference of now, else by labels.
func (s *session) target(old head.Ref) (head.Ref, labels.Labels, bool) {
	if ref := s.refs.of(old); ref != 0 {
		return ref, labels.EmptyLabels(), true
	}
	ls, ok := s.waiting[old]
	return 0, ls, ok
}

// took counts one sample and remembers its series; it says whether the sample was stored.
func (w *replayWorker) took(s *session, old, now head.Ref, ls labels.Labels, err error) bool {
	if err != nil {
		w.counts.refused++
		return false
	}
	w.counts.samples++
	if s.refs.of(old) == 0 {
		s.refs.bind(old, now)
		w.visit.adopt(now, frame.ShardToken(s.t.id, ls), ls)
		delete(s.waiting, old)
	}
	return true
}
