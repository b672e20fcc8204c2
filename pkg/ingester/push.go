package ingester

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/head"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

// Push stores f: in the head, visible to queries at once, then in the log, and returns when that
// is on disk. Of a frame with an unknown reference nothing is stored.
func (s *stream) Push(ctx context.Context, f *frame.Frame) frame.Result {
	g := &s.ing.pushGate
	through, err := g.enter(ctx)
	if err != nil {
		return frame.FailedWith(err)
	}
	res := s.push(ctx, f)
	g.leavePush(through, res)
	return res
}

// push is Push behind the gate.
func (s *stream) push(ctx context.Context, f *frame.Frame) frame.Result {
	i := s.ing
	size := frameBytes(f)
	if err := i.admit(size); err != nil {
		return frame.FailedWith(err)
	}
	defer i.release(size)
	id, err := tenant.Parse(f.Tenant)
	if err != nil {
		return frame.FailedWith(err)
	}
	p := i.takePush(i.pushes.enter())
	defer func() {
		i.pushes.leave(p.phase)
		i.givePush(p)
	}()
	// The head of an idle tenant may be closed between lookup and use; then a new one is opened.
	for range 3 {
		t, err := i.open(id, false)
		if err != nil {
			return frame.FailedWith(err)
		}
		if t.enter() {
			t.pending.begin(p, f, size, i.now().UnixMilli())
			defer t.pending.end(p)
			res := p.store(ctx, s, t, f)
			t.leave()
			return p.persist(ctx, s, t, f, res)
		}
	}
	return frame.FailedWith(errs.New(errs.Unavailable, "tenant %s is being closed", id))
}

// frameBytes estimates what f takes in memory until it is stored.
func frameBytes(f *frame.Frame) int64 {
	return int64(24*len(f.Refs) + 400*(len(f.Defs)+len(f.Histograms)) + 200*(len(f.Exemplars)+len(f.Metadata)))
}

// byDefinition marks an entry of push.refs that is an index into the frame's definitions.
const byDefinition = head.Ref(1) << 63

// push is the working memory of one push.
type push struct {
	phase uint32
	bound *bindings
	frame *frame.Frame

	refs    []head.Ref // of the float samples
	hists   []head.Ref // of the histograms
	exs     []head.Ref // of the exemplars
	defs    map[frame.Ref]int
	defRefs []head.Ref // of the definitions, once a sample of theirs is stored
	unknown []frame.Ref

	rec     record
	buf     []byte
	visit   visit
	waiting waiting
	active  activeLimit
	app     head.Appender // between uses only its memory counts
	// mint and maxt are the oldest and the newest time stored.
	mint, maxt int64

	rejected int // samples
	first    *refusal
	short    error // why new series were refused that may be sent again
	counts   [numReasons]int
	group    string // of what is refused, in metrics
}

// store brings f into the head of t, as one batch, and fills p.rec with what was stored. The
// result is final if its outcome is not Stored.
func (p *push) store(ctx context.Context, s *stream, t *tenantHead, f *frame.Frame) frame.Result {
	p.bound, p.frame = s.bindingsOf(t), f
	if err := p.resolve(f); err != nil {
		return frame.FailedWith(err)
	}
	if len(p.unknown) > 0 {
		return p.unknownRefs()
	}
	p.rec.tenant, p.rec.session, p.mint, p.maxt = string(t.id), t.session, math.MaxInt64, math.MinInt64
	app, err := t.appender(ctx, f, &p.app)
	if err != nil {
		return frame.FailedWith(err)
	}
	p.visit, p.active = t.activity.visit(t.ing.tick()), t.activeLimit()
	if err := p.append(app, t, f); err != nil {
		if rerr := app.Rollback(); rerr != nil {
			err = errors.Join(err, rerr)
		}
		return frame.FailedWith(err)
	}
	if len(p.unknown) > 0 {
		if err := app.Rollback(); err != nil {
			return frame.FailedWith(err)
		}
		return p.unknownRefs()
	}
	if err := app.Commit(); err != nil {
		return frame.FailedWith(errs.New(errs.Internal, "tenant %s: commit: %w", t.id, err))
	}
	if p.rejected > 0 {
		p.group = p.groupOf(t, f)
	}
	t.chunks.took(t.ing.memory.chunks, len(p.rec.samples)+len(p.rec.histograms)*histogramSamples)
	return frame.Result{Outcome: frame.Stored}
}

// unknownRefs names every unknown reference once: a series may have many samples in one frame, and
// the sender spells out the labels of all it is told.
func (p *push) unknownRefs() frame.Result {
	slices.Sort(p.unknown)
	return frame.Result{Outcome: frame.UnknownRefs, Unknown: slices.Clone(slices.Compact(p.unknown))}
}

// resolve finds the series of every reference in f, and lists the unknown ones.
func (p *push) resolve(f *frame.Frame) error {
	if len(f.Times) != len(f.Refs) || len(f.Values) != len(f.Refs) || len(f.StartTimes) != 0 && len(f.StartTimes) != len(f.Refs) {
		return errs.New(errs.Invalid, "columns of a frame differ in length")
	}
	for d := range f.Defs {
		if f.Defs[d].Ref.Index() >= maxRefIndex {
			return errs.New(errs.Invalid, "series reference %d is out of range: one stream may bind %d series of a tenant", f.Defs[d].Ref.Index(), maxRefIndex)
		}
		p.defs[f.Defs[d].Ref] = d
	}
	for k := range f.Histograms {
		if (f.Histograms[k].H == nil) == (f.Histograms[k].FH == nil) {
			return errs.New(errs.Invalid, "a histogram of a frame is not exactly one of integer and float")
		}
	}
	p.defRefs = resized(p.defRefs, len(f.Defs))
	clear(p.defRefs)
	p.refs = resized(p.refs, len(f.Refs))
	for k, r := range f.Refs {
		p.refs[k] = p.find(r)
	}
	p.hists = resized(p.hists, len(f.Histograms))
	for k := range f.Histograms {
		p.hists[k] = p.find(f.Histograms[k].Ref)
	}
	p.exs = resized(p.exs, len(f.Exemplars))
	for k := range f.Exemplars {
		p.exs[k] = p.find(f.Exemplars[k].Ref)
	}
	return nil
}

// find returns what r names: a series of the head, or a definition of the frame, which counts
// more because the sender just said so.
func (p *push) find(r frame.Ref) head.Ref {
	if len(p.defs) > 0 {
		if d, ok := p.defs[r]; ok {
			return byDefinition | head.Ref(d)
		}
	}
	ref := p.bound.lookup(r)
	if ref == 0 {
		p.unknown = append(p.unknown, r)
	}
	return ref
}

// append adds the samples of f to app. It returns an error if the whole push must fail, and
// leaves references the head does not know any more in p.unknown.
func (p *push) append(app *head.Appender, t *tenantHead, f *frame.Frame) error {
	wanted := zeroAtStart(t.ing.limits(t.id))
	zero := wanted && len(f.StartTimes) > 0
	for k := range f.Refs {
		ref, ls, d := p.target(p.refs[k], f)
		if p.active.share > 0 && !p.active.allows(t, &p.visit, app, ref, ls) {
			p.overActive(t, named{ref, ls})
			continue
		}
		if zero && f.StartTimes[k] != 0 && f.StartTimes[k] < f.Times[k] {
			ref = p.appendZero(app, t, named{ref, ls}, f.StartTimes[k], d)
		}
		got, err := app.Append(ref, ls, f.Times[k], f.Values[k])
		if err == nil {
			if ref != 0 && got != ref {
				p.moved(t, got)
			}
			p.rec.samples = append(p.rec.samples, sample{got, f.Times[k], f.Values[k]})
			p.took(d, got, f.Times[k])
			p.visit.float(got)
		} else if err := p.refuse(err, t, f.Refs[k], named{ref, ls}, f.Times[k]); err != nil {
			return err
		}
	}
	for k := range f.Histograms {
		h := &f.Histograms[k]
		ref, ls, d := p.target(p.hists[k], f)
		if p.active.share > 0 && !p.active.allows(t, &p.visit, app, ref, ls) {
			p.overActive(t, named{ref, ls})
			continue
		}
		if wanted && h.StartTime != 0 && h.StartTime < h.Time {
			ref = p.appendZeroHistogram(app, t, named{ref, ls}, h, d)
		}
		x := histogramSample{t: h.Time}
		if h.H != nil { // the head keeps the newest of a series, but the frame is the sender's again
			x.h = h.H.Copy()
		} else {
			x.fh = h.FH.Copy()
		}
		got, err := app.AppendHistogram(ref, ls, x.t, x.h, x.fh)
		if err == nil {
			if ref != 0 && got != ref {
				p.moved(t, got)
			}
			x.ref = got
			p.rec.histograms = append(p.rec.histograms, x)
			p.took(d, got, h.Time)
			p.visit.histogram(got, bucketsOf(&x))
		} else if err := p.refuse(err, t, h.Ref, named{ref, ls}, h.Time); err != nil {
			return err
		}
	}
	if len(p.unknown) > 0 || t.exemplars.Load() == 0 {
		return nil
	}
	for k := range f.Exemplars {
		p.appendExemplar(app, f, k)
	}
	return nil
}

// zeroAtStart says whether a zero marks where a series started. The distributor leaves the start out
// where the protocol of the push does not want one.
func zeroAtStart(v limits.View) bool {
	return limits.CreatedTimestampZeroIngestion.Of(v) || limits.OTelCreatedTimestampZeroIngestion.Of(v)
}

// target splits an entry of refs: the series if it is known, else the labels to find it by; d is
// the definition it came by, -1 if it came by binding.
func (p *push) target(entry head.Ref, f *frame.Frame) (ref head.Ref, ls labels.Labels, d int) {
	if entry&byDefinition == 0 {
		return entry, labels.EmptyLabels(), -1
	}
	d = int(entry &^ byDefinition)
	return p.defRefs[d], f.Defs[d].Labels, d
}

// took notes that a sample of the series ref was stored, which definition d named.
func (p *push) took(d int, ref head.Ref, t int64) {
	if d >= 0 && p.defRefs[d] == 0 {
		p.defRefs[d] = ref
		p.visit.adopt(ref, p.frame.Defs[d].Token, p.frame.Defs[d].Labels)
	}
	p.mint, p.maxt = min(p.mint, t), max(p.maxt, t)
}

// moved takes the definition of ref along, a series that left memory and was made again between
// look-up and append: no definition in the log and no binding names it yet. The next push by the
// old reference finds it unknown.
func (p *push) moved(t *tenantHead, ref head.Ref) {
	if ls, ok := t.head.Labels(ref); ok {
		p.rec.series = append(p.rec.series, series{ref, ls})
		p.visit.adopt(ref, frame.ShardToken(t.id, ls), ls)
	}
}

// appendZero marks the start of series s with a zero, and returns the reference of the series to go on
// with. A head that has no room for it there, because it has samples of the series as new, refuses
// it, which is fine.
func (p *push) appendZero(app *head.Appender, t *tenantHead, s named, start int64, d int) head.Ref {
	got, err := app.AppendStart(s.ref, s.ls, start, nil, nil)
	if err != nil {
		return s.ref
	}
	p.rec.samples = append(p.rec.samples, sample{got, start, 0})
	return p.marked(t, s.ref, got, start, d)
}

// appendZeroHistogram is appendZero for a histogram like h.
func (p *push) appendZeroHistogram(app *head.Appender, t *tenantHead, s named, h *frame.Histogram, d int) head.Ref {
	z := histogramSample{t: h.StartTime}
	if h.H != nil {
		z.h = &histogram.Histogram{CounterResetHint: histogram.CounterReset,
			Schema: h.H.Schema, ZeroThreshold: h.H.ZeroThreshold, CustomValues: h.H.CustomValues}
	} else {
		z.fh = &histogram.FloatHistogram{CounterResetHint: histogram.CounterReset,
			Schema: h.FH.Schema, ZeroThreshold: h.FH.ZeroThreshold, CustomValues: h.FH.CustomValues}
	}
	got, err := app.AppendStart(s.ref, s.ls, z.t, z.h, z.fh)
	if err != nil {
		return s.ref
	}
	z.ref = got
	p.rec.histograms = append(p.rec.histograms, z)
	return p.marked(t, s.ref, got, z.t, d)
}

// marked notes that a zero of the series ref is stored, under got.
func (p *push) marked(t *tenantHead, ref, got head.Ref, start int64, d int) head.Ref {
	if ref != 0 && got != ref {
		p.moved(t, got)
	}
	p.took(d, got, start)
	return got
}

func (p *push) appendExemplar(app *head.Appender, f *frame.Frame, k int) {
	x := &f.Exemplars[k]
	ref, _, _ := p.target(p.exs[k], f)
	if ref == 0 {
		p.note(exemplarRefusal(storage.ErrNotFound, x.Time))
		return
	}
	e := exemplar.Exemplar{Labels: x.Labels, Value: x.Value, Ts: x.Time, HasTs: true}
	if err := app.AppendExemplar(ref, e); err != nil {
		if r := exemplarRefusal(err, x.Time); r != nil {
			p.note(r)
		}
		return
	}
	p.rec.exemplars = append(p.rec.exemplars, exemplarSample{ref, e})
}

// named is a series as a sample named it: by its reference, or by its labels.
type named struct {
	ref head.Ref
	ls  labels.Labels
}

// refuse counts the refusal of one sample. It returns an error if the whole push must fail. Only
// the first refusal is told, so only for that one labels are looked up.
func (p *push) refuse(err error, t *tenantHead, r frame.Ref, s named, at int64) error {
	switch {
	case errors.Is(err, head.ErrUnknownRef):
		p.unknown = append(p.unknown, r)
		return nil
	case isShortOfMemory(err): // the rest goes on
		p.rejected++
		p.short = err
		return nil
	case errs.KindOf(err) == errs.Unavailable: // no series may be created at all
		return err
	}
	if p.first != nil {
		if r, ok := reasonOf(err); ok { // counted, but not put into words: that costs more than to store the sample
			p.attribute(t, s, r)
			p.rejected++
			p.counts[r]++
			return nil
		}
	}
	if s.ls.IsEmpty() {
		s.ls, _ = t.head.Labels(s.ref)
	}
	soft := refusalOf(err, s.ls, at)
	if soft == nil {
		return errs.New(errs.Internal, "append: %w", err)
	}
	p.attribute(t, s, soft.reason)
	p.rejected++
	p.note(soft)
	return nil
}

// attribute counts the refusal of a sample by values of its series' labels.
func (p *push) attribute(t *tenantHead, s named, why reason) {
	if p.visit.attributed {
		t.activity.refused(s.ref, s.ls, why)
	}
}

func (p *push) note(r *refusal) {
	p.counts[r.reason]++
	if p.first == nil {
		p.first = r
	}
}

// persist logs what store stored and waits until it is on disk; then the frame's bindings hold.
// res is what store returned.
func (p *push) persist(ctx context.Context, s *stream, t *tenantHead, f *frame.Frame, res frame.Result) frame.Result {
	i := s.ing
	if res.Outcome != frame.Stored {
		if res.Outcome == frame.Failed {
			i.metrics.failedPushes.Inc()
		}
		return res
	}
	if now := i.now(); p.mint < now.Add(-lateAge).UnixMilli() {
		i.late.note(t.id, &p.rec, now)
	}
	// A series is defined in the log by every push that names it by its labels until one such
	// push is on disk: so whatever order pushes of several streams take, a definition is in the
	// log before, or in, each record that needs it.
	for d, ref := range p.defRefs {
		if ref != 0 && !t.defined.has(uint64(ref)) {
			p.rec.series = append(p.rec.series, series{ref, f.Defs[d].Labels})
		}
	}
	if !p.rec.empty() {
		if err := p.log(ctx, t, p.rec); err != nil {
			i.metrics.failedPushes.Inc()
			if noSpace(err) {
				i.space.ask()
			}
			switch errs.KindOf(err) {
			case errs.Internal:
				err = errs.Wrap(errs.Unavailable, err)
			case errs.Invalid: // a single item that no record can hold
				err = errs.Wrap(errs.BodyTooLarge, err)
			}
			return frame.FailedWith(err)
		}
		for d, ref := range p.defRefs {
			if ref != 0 {
				t.defined.set(uint64(ref))
				p.bound.bind(f.Defs[d].Ref, ref)
			}
		}
		t.lastPush.Store(i.now().UnixMilli())
	}
	if len(f.Metadata) > 0 {
		if r := t.metadata.put(i, t.id, f.Metadata, &p.counts); r != nil && p.first == nil {
			p.first = r
		}
	}
	return p.result(i, t, f)
}

// log returns when r is on disk. What is too large for one record of the log goes by several, one
// after the other, which bounds what waits in memory; nothing is acknowledged before the last.
func (p *push) log(ctx context.Context, t *tenantHead, r record) error {
	p.buf = r.appendTo(p.buf[:0])
	if len(p.buf) > recordBytes {
		if first, rest, ok := r.halves(); ok {
			if err := p.log(ctx, t, first); err != nil {
				return err
			}
			return p.log(ctx, t, rest)
		}
	}
	segment, err := t.ing.wal.Append(p.buf).Wait(ctx)
	if err == nil {
		t.segments.note(segment, p.maxt)
	}
	return err
}

// result counts and reports.
func (p *push) result(i *Ingester, t *tenantHead, f *frame.Frame) frame.Result {
	i.samples.events.Add(int64(f.Samples() - p.rejected))
	t.stats.took(f.Source, f.Samples()-p.rejected, p.rejected, len(p.rec.exemplars))
	if n := len(p.rec.exemplars); n > 0 {
		i.metrics.exemplars.Add(float64(n))
	}
	res := frame.Result{Outcome: frame.Stored, Rejected: p.rejected}
	for d, ref := range p.defRefs {
		if r := f.Defs[d].Ref; ref == 0 && p.defs[r] == d { // of several of one reference the last counts
			res.Unknown = append(res.Unknown, r)
		}
	}
	if p.first != nil {
		if p.first.reason == reasonActiveSeries {
			p.first = p.active.refusal(p.counts[reasonActiveSeries])
		}
		res.Kind, res.Message = errs.KindOf(p.first), ofTenant(f.Tenant, p.first)
		if p.group != "" {
			t.groups.add(p.group, &p.counts, i.now())
		}
		for r, n := range p.counts {
			if n > 0 {
				t.stats.refused[r].Add(int64(n))
			}
		}
		i.logRefusal(t.id, p.first, p.rejected)
	}
	if p.short != nil { // the sender is to come back, whatever else is wrong
		res.Kind, res.Message = errs.KindOf(p.short), ofTenant(f.Tenant, p.short)
	}
	return res
}

// logRefusal logs one refusal in so many, and says so.
func (i *Ingester) logRefusal(id tenant.ID, r *refusal, samples int) {
	every := int64(max(1, i.cfg.ErrorSampleRate))
	if (i.refusals.Add(1)-1)%every != 0 {
		return
	}
	var err error = r
	if every > 1 {
		err = fmt.Errorf("%w (sampled 1/%d)", r, every)
	}
	i.log.Warn("part of a push refused, the rest was stored", "tenant", id, "refused_samples", samples, "err", err)
}
