package distributor

import (
	"context"
	"fmt"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
	"github.com/amphora-metrics/amphora/pkg/wire/labeltext"
)

// maxResends is how often a frame is sent again because its receiver does not know references.
const maxResends = 2

// answer is what a replica said to a frame.
type answer struct {
	replica int
	result  frame.Result
}

// replicate sends the frames and returns as soon as it is known of every replica set touched that
// a quorum has stored, or of one that it cannot any more. Slower replicas finish by themselves.
// Errors: Unavailable; BodyTooLarge; Canceled. What ingesters refused goes to push.first.
func (p *push) replicate(ctx context.Context) error {
	s := &p.places
	undecided := len(s.sets)
	if undecided == 0 {
		return nil
	}
	p.timer.Reset(p.d.cfg.RemoteTimeout)
	defer p.timer.Stop()
	for at := range s.replicas {
		p.begin(at)
	}
	for {
		for _, a := range p.take() {
			undecided -= p.judge(a)
		}
		if p.failed != nil {
			return p.unavailable(p.failed)
		}
		if undecided == 0 {
			p.stored()
			return nil
		}
		select {
		case <-p.wake:
		case <-ctx.Done():
			return fmt.Errorf("wait for ingesters: %w", context.Cause(ctx))
		case <-p.timer.C:
			late := frame.FailedWith(errs.New(errs.Timeout, "no answer within %s", p.d.cfg.RemoteTimeout))
			for at := range s.replicas {
				if !s.replicas[at].answered {
					undecided -= p.judge(answer{at, late})
				}
			}
		}
	}
}

// begin sends a replica its frame, if there is one and a way.
func (p *push) begin(at int) {
	r := &p.places.replicas[at]
	switch {
	case r.err != nil:
		p.queue(answer{at, frame.FailedWith(r.err)})
	case r.frame.Samples() == 0 && len(r.frame.Exemplars) == 0 && len(r.frame.Metadata) == 0:
		p.queue(answer{at, frame.Result{}}) // all it would have stored was refused
	default:
		p.send(at)
	}
}

func (p *push) send(at int) {
	r := &p.places.replicas[at]
	p.d.metrics.definitions.Add(float64(len(r.frame.Defs)))
	p.holders.Add(1)
	r.replica.Push(&r.frame, func(res frame.Result) { p.done(at, res) })
}

// done takes the answer of a replica, on any goroutine, perhaps long after the push was answered.
func (p *push) done(at int, res frame.Result) {
	r := &p.places.replicas[at]
	slot := func(set uint32) int { return p.topo.slotOf(set, r.number) }
	switch res.Outcome {
	case frame.Stored:
		p.d.metrics.framesStored.Inc()
		p.t.table.bind(r.marks, slot, r.incarnation, p.topo.epoch)
		if len(res.Unknown) > 0 {
			p.t.table.unbind(res.Unknown, slot, p.topo.epoch)
		}
	case frame.UnknownRefs:
		p.d.metrics.framesUnknown.Inc()
	default:
		p.d.metrics.framesFailed.Inc()
	}
	if !p.queue(answer{at, res}) && res.Outcome == frame.UnknownRefs {
		// The body with the labels is gone. The next push defines the series again.
		p.t.table.unbind(res.Unknown, slot, p.topo.epoch)
	}
	p.letGo()
}

// queue hands a to the push; false if that has been answered.
func (p *push) queue(a answer) bool {
	p.mu.Lock()
	if p.answered {
		p.mu.Unlock()
		return false
	}
	p.answers = append(p.answers, a)
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
	return true
}

// take returns the answers that arrived; they are good until the next call.
func (p *push) take() []answer {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers, p.taken = p.taken[:0], p.answers
	return p.taken
}

// judge counts an answer for the sets of its replica and returns how many of them it decides.
func (p *push) judge(a answer) (decided int) {
	s := &p.places
	r := &s.replicas[a.replica]
	if a.result.Outcome == frame.UnknownRefs {
		if p.resend(a.replica, a.result.Unknown) {
			return 0
		}
		a.result = frame.FailedWith(errs.New(errs.Unavailable, "ingester does not know %d series it was sent definitions for", len(a.result.Unknown)))
	}
	r.answered, r.stored = true, a.result.Outcome == frame.Stored
	r.err, r.lost = a.result.Err(), a.result.Rejected
	for _, at := range r.sets {
		set := &s.sets[at]
		switch {
		case !r.stored:
			set.failed++
		case r.err != nil:
			set.soft++
		default:
			set.clean++
		}
		if set.failed > len(set.replicas)-set.quorum && p.failed == nil {
			p.failed = set
		}
		if !set.decided && set.done() {
			set.decided = true
			decided++
		}
	}
	return decided
}

// done says whether further answers can change what the client is told. A refusal by a replica is
// only told if no quorum without one is possible, so it waits for the others.
func (s *pushSet) done() bool {
	n := len(s.replicas)
	stored := s.clean+s.soft >= s.quorum
	return s.clean >= s.quorum || s.clean+s.soft+s.failed == n || s.failed > n-s.quorum || stored && s.soft+s.failed > n-s.quorum
}

// unavailable is the answer if set has no quorum.
func (p *push) unavailable(set *pushSet) error {
	for _, at := range set.replicas {
		if r := &p.places.replicas[at]; r.answered && !r.stored {
			kind := errs.Unavailable
			if errs.KindOf(r.err) == errs.BodyTooLarge {
				kind = errs.BodyTooLarge // the same request will never fit
			}
			return errs.New(kind, "%d of %d ingesters of a series did not store it, %d must: %w",
				set.failed, len(set.replicas), set.quorum, r.err)
		}
	}
	return errs.New(errs.Unavailable, "%d ingesters are too few for a series, %d must store it", len(set.replicas), set.quorum)
}

// stored notes what follows from a quorum of every set having stored.
func (p *push) stored() {
	p.t.table.sent(p.work, p.refs)
	s := &p.places
	lost := 0
	for i := range s.sets {
		set := &s.sets[i]
		if set.clean >= set.quorum || set.soft == 0 {
			continue
		}
		for _, at := range set.replicas {
			if r := &s.replicas[at]; r.stored && r.err != nil {
				lost = max(lost, r.lost)
				// What may succeed later counts more: told of the other, the sender would not come back.
				if p.first == nil || errs.KindOf(r.err).Retry() && !errs.KindOf(p.first).Retry() {
					p.first = r.err
				}
			}
		}
	}
	// Which samples were refused is not said, so the count is the best guess.
	p.counts.Samples = max(p.counts.Samples-lost, 0)
}

// resend sends a frame again with definitions of unknown references; false if that is no use.
func (p *push) resend(at int, unknown []frame.Ref) bool {
	r := &p.places.replicas[at]
	if r.resends == maxResends || len(unknown) == 0 {
		return false
	}
	r.resends++
	series := make(map[frame.Ref]int, len(p.refs))
	for i, ref := range p.refs {
		if ref != skipped {
			series[ref] = i
		}
	}
	r.incarnation = r.replica.Incarnation()
	for _, ref := range unknown {
		i, ok := series[ref]
		if !ok {
			return false
		}
		if i < 0 {
			continue
		}
		series[ref] = -1 // defined; the receiver may name it once for each sample
		ls, err := p.labelsOf(i)
		if err != nil {
			return false
		}
		f := &p.series[i]
		r.frame.Defs = append(r.frame.Defs, frame.Def{Ref: ref, Token: f.token, Labels: ls})
		r.marks = append(r.marks, mark{ref, f.set})
	}
	p.send(at)
	return true
}

// labelsOf returns the labels of series i, which is valid. Errors: Invalid, BodyTooLarge.
func (p *push) labelsOf(i int) (labels.Labels, error) {
	w := p.need(i)
	if !w.labels.IsEmpty() {
		return w.labels, nil
	}
	ls, n, err := p.decode(i)
	if err != nil {
		return labels.EmptyLabels(), err
	}
	if ls, _, _, err = p.shape(ls, n); err != nil {
		return labels.EmptyLabels(), err
	}
	w.labels, err = p.build(ls)
	return w.labels, err
}

// build makes labels that own their memory. The text a request may expand to is bounded: a small
// RW 2.0 body can name a long symbol very often. Errors: BodyTooLarge.
func (p *push) build(ls []remotewrite.Label) (labels.Labels, error) {
	for i := range ls {
		n := max(len(ls[i].Name), len(ls[i].Value))
		if n > labeltext.MaxBytes {
			return labels.EmptyLabels(), errs.New(errs.BodyTooLarge, "a label takes %d bytes, at most %d are allowed", n, labeltext.MaxBytes)
		}
		p.labelBytes += len(ls[i].Name) + len(ls[i].Value)
	}
	if err := p.checkText(); err != nil {
		return labels.EmptyLabels(), err
	}
	return remotewrite.Build(&p.builder, ls), nil
}

// maxNamedBytes bounds the text of new series, exemplars and metadata of one request beyond the size
// of its body. An RW 1.0 body has its text in full and never reaches it.
const maxNamedBytes = 64 << 20

func (p *push) checkText() error {
	if p.labelBytes <= maxNamedBytes+len(p.req.Body) {
		return nil
	}
	return errs.New(errs.BodyTooLarge, "the labels and metadata that the request names have more than %d bytes; send smaller requests", maxNamedBytes)
}
