package distributor

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
	"github.com/amphora-metrics/amphora/pkg/wire/labeltext"
)

// skipped stands for the reference of a series of which nothing is stored.
const skipped frame.Ref = 1<<64 - 1

// keptSeries is the capacity up to which a push keeps its memory for the next one.
const keptSeries = 1 << 16

// push is one push request on its way. It owns all memory that the request needs, its frames
// included, and is used again once every replica is done with them.
type push struct {
	d      *Distributor
	t      *tenantState
	lim    *tenantLimits
	topo   *topology
	source frame.Source
	req    *remotewrite.Request
	now    time.Time
	nowMs  int64
	tick   uint32

	batch  remotewrite.Batch
	series []found     // what is known of each series
	refs   []frame.Ref // of each series, skipped if nothing of it is stored
	work   []work      // series that need more than a look into the table
	workOf []uint32    // position in work plus one, by series; empty if no work
	drops  []bool      // float samples that are refused; empty if none
	starts []int64     // start times to send, by float sample; empty if none

	decoded
	transient  []uint32 // entries to be freed when the push is done
	labelBytes int      // text copied out of the body
	leaves     uint16   // checks left out at the wish of the sender, as flags of an entry
	split      splitState
	parts      partList

	places placesState

	labels  []remotewrite.Label
	builder labeltext.Builder
	ring    ringBuffers

	outcome
	shaping
	dedupe
	replies
}

// outcome is what becomes of the parts of a request.
type outcome struct {
	first   error // the first refusal, which the client is told
	refused [numChecks]int
	counts  remotewrite.Written // what passed validation
	spared  remotewrite.Written // what is left out on purpose
}

// decoded is what has been decoded of the request, beside labels.
type decoded struct {
	names     seenNames // of the series whose labels were checked last
	hists     []seriesHistogram
	exemplars []seriesExemplar
	metadata  []familyMetadata
	families  map[uint64]struct{} // metadata of this request already in the list
	seen      map[int64]int       // samples of one series by time
}

// replies is the state of replication.
type replies struct {
	holders atomic.Int32 // the push itself and each frame under way
	wake    chan struct{}
	timer   *time.Timer

	taken  []answer // being looked at
	failed *pushSet // a set that cannot reach its quorum

	mu       sync.Mutex // guards answers and answered
	answers  []answer
	answered bool
}

// work is a series to be looked into.
type work struct {
	series   uint32
	token    uint32
	set      uint32
	place    bool // needs a place in the ring and the table
	hasToken bool
	labels   labels.Labels // empty: not built yet
	metaKey  uint32        // of what is remembered of metadata and start once it is sent; 0: nothing is
	meta     bool          // metadata is sent
	start    bool          // when the series started is sent
	pair     uint32        // number of the replica it comes from; 0: none
	dropped  bool          // by the rules of the tenant
	lost     bool          // its replica is not elected
}

type seriesHistogram struct {
	series uint32
	frame.Histogram
}

type seriesExemplar struct {
	series uint32
	frame.Exemplar
}

// familyMetadata is metadata on its way to the ingesters of its family.
type familyMetadata struct {
	frame.Metadata
	set uint32
}

func newPush(d *Distributor) *push {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return &push{d: d, decoded: decoded{families: map[uint64]struct{}{}, seen: map[int64]int{}},
		shaping: shaping{relabel: labels.NewBuilder(labels.EmptyLabels())}, dedupe: dedupe{stamp: 1},
		replies: replies{wake: make(chan struct{}, 1), timer: t}}
}

// start readies p for a request.
func (p *push) start(t *tenantState, source frame.Source, req *remotewrite.Request) {
	p.t, p.source, p.req = t, source, req
	p.now = p.d.deps.Now()
	p.nowMs = p.now.UnixMilli()
	p.tick = p.d.tick(p.now)
	p.leaves = 0
	if req.SkipLabelNames {
		p.leaves |= entryAnyName
	}
	if req.SkipLabelCount {
		p.leaves |= entryAnyCount
	}
	p.holders.Store(1)
}

// run takes the steps in order.
func (p *push) run(ctx context.Context) (remotewrite.Written, error) {
	for i := range p.d.steps {
		if err := p.d.steps[i].run(p, ctx); err != nil {
			return remotewrite.Written{}, err
		}
		if p.split.done {
			break
		}
	}
	// To a client that counts what was written, what is left out on purpose is no loss.
	return remotewrite.Written{
		Samples:    p.counts.Samples + p.spared.Samples,
		Histograms: p.counts.Histograms + p.spared.Histograms,
		Exemplars:  p.counts.Exemplars + p.spared.Exemplars,
	}, p.first
}

// finish is called when the request is answered: from now on nobody looks into its body.
func (p *push) finish() {
	p.mu.Lock()
	p.answered = true
	p.mu.Unlock()
	p.batch.Release()
	p.req = nil
	p.letGo()
}

// letGo gives up one hold on p; the last one makes it ready for another request.
func (p *push) letGo() {
	if p.holders.Add(-1) > 0 {
		return
	}
	if len(p.transient) > 0 {
		p.t.table.release(p.transient)
	}
	p.t.leave()
	d := p.d
	if cap(p.series) <= keptSeries {
		p.reset()
		d.pushes.Put(p)
	}
	d.underWay.Done()
}

func (p *push) reset() {
	p.t, p.lim, p.topo, p.split = nil, nil, nil, splitState{}
	p.series, p.refs, p.workOf, p.drops, p.starts = p.series[:0], p.refs[:0], p.workOf[:0], p.drops[:0], p.starts[:0]
	clear(p.work)
	clear(p.hists)
	clear(p.exemplars)
	clear(p.metadata)
	clear(p.labels[:cap(p.labels)])
	p.names.reset()
	p.builder.Reset()
	clear(p.families)
	p.forgetSeen()
	p.work, p.hists, p.exemplars, p.metadata = p.work[:0], p.hists[:0], p.exemplars[:0], p.metadata[:0]
	p.transient, p.labelBytes = p.transient[:0], 0
	p.outcome = outcome{}
	p.shaping.reset()
	p.parts.reset()
	p.dedupe.reset()
	p.places.reset()
	clear(p.answers)
	clear(p.taken)
	p.answers, p.answered, p.taken, p.failed = p.answers[:0], false, p.taken[:0], nil
	select {
	case <-p.wake:
	default:
	}
}

// samplesOf is how many float and histogram samples series i brings.
func (p *push) samplesOf(i int) int {
	from, to := p.batch.Samples(i)
	hFrom, hTo := p.batch.Histograms(i)
	return to - from + hTo - hFrom
}

// refuse drops n samples for c; err puts the reason into words and is only called for the first
// refusal.
func (p *push) refuse(i int, c check, n int, err func() error) {
	p.refused[c] += n
	p.attributeRefusal(i, c, n)
	if p.first == nil {
		p.first = err()
	}
}

// need returns the work of series i, added if there is none.
func (p *push) need(i int) *work {
	if len(p.workOf) == 0 {
		p.workOf = zeroed(p.workOf, len(p.series))
	}
	if p.workOf[i] == 0 {
		p.work = append(p.work, work{series: uint32(i)})
		p.workOf[i] = uint32(len(p.work))
	}
	return &p.work[p.workOf[i]-1]
}

// resized returns s with length n; its elements may be anything.
func resized[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// zeroed returns s with length n and zero elements.
func zeroed[T any](s []T, n int) []T {
	s = resized(s, n)
	clear(s)
	return s
}
