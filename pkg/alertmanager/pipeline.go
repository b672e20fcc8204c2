package alertmanager

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/alertmanager/alert"
	"github.com/prometheus/alertmanager/eventrecorder"
	"github.com/prometheus/alertmanager/inhibit"
	"github.com/prometheus/alertmanager/marker"
	"github.com/prometheus/alertmanager/nflog/nflogpb"
	"github.com/prometheus/alertmanager/notify"
	"github.com/prometheus/alertmanager/silence"
	"github.com/prometheus/alertmanager/timeinterval"

	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// replicas is what a pipeline needs of the other replicas of its tenant.
type replicas interface {
	// WaitReady returns once the state of this replica is complete.
	WaitReady(ctx context.Context) error
	// wait is how long this replica lets those before it go first.
	wait() time.Duration
	// claim returns once no other replica notifies the receiver about the group, and what those that
	// did logged is known here. It fails if another replica knows better than alerts. The context ends when another replica takes over, and release gives it
	// back.
	claim(ctx context.Context, to *nflogpb.Receiver, group string, alerts []*alert.Alert) (within context.Context, release func(), err error)
	// spread returns once what this replica logged has reached the others, or cannot.
	spread()
}

// pipeline is what a group of alerts passes through until a receiver has it.
type pipeline struct {
	id         tenant.ID
	view       func() limits.View
	own        *metrics
	metrics    *notify.Metrics
	log        notify.NotificationLog
	seen       *witness // by the inhibitor
	inhibitor  *inhibit.Inhibitor
	silencer   *silence.Silencer
	intervener *timeinterval.Intervener
	marker     marker.GroupMarker
	others     replicas
	sends      *inflight
	decisions  *decisions
}

// stages returns the pipeline of each receiver.
func (p *pipeline) stages(receivers map[string][]notify.Integration) notify.RoutingStage {
	out := make(notify.RoutingStage, len(receivers))
	for name, integrations := range receivers {
		var all notify.FanoutStage
		for i := range integrations {
			in := &integrations[i]
			to := &nflogpb.Receiver{GroupName: name, Integration: in.Name(), Idx: uint32(in.Index())}
			all = append(all, &onceStage{
				others: p.others, sends: p.sends, decisions: p.decisions, receiver: name + "/" + in.String(), to: to,
				dedup: notify.NewDedupStage(in, p.log, to),
				send: notify.MultiStage{
					notify.NewDedupStage(in, p.log, to),
					intentStage{id: p.id, log: p.log, to: to},
					doubtStage{notify.NewRetryStage(*in, name, p.metrics, eventrecorder.NopRecorder()), p.view, p.own},
					notify.NewSetNotifiesStage(p.log, to),
				},
			})
		}
		out[name] = notify.MultiStage{
			notify.NewClusterGossipSettleStage(p.others),
			p.seen,
			noted{notify.NewMuteStage(p.inhibitor, p.metrics), p.decisions, byInhibition},
			noted{notify.NewTimeActiveStage(p.intervener, p.marker, p.metrics), p.decisions, outsideTimes},
			noted{notify.NewTimeMuteStage(p.intervener, p.marker, p.metrics), p.decisions, insideTimes},
			noted{notify.NewMuteStage(p.silencer, p.metrics), p.decisions, bySilence},
			all,
		}
	}
	return out
}

// onceStage sends what no replica has sent. Waiting for the replicas before this one makes that
// likely; the claim makes it sure, since groups of different replicas may be out of step.
type onceStage struct {
	others    replicas
	sends     *inflight
	decisions *decisions
	receiver  string
	to        *nflogpb.Receiver
	dedup     notify.Stage
	send      notify.Stage
}

var errStopping = errors.New("the alertmanager is stopping")

// Exec implements notify.Stage.
func (s *onceStage) Exec(ctx context.Context, l *slog.Logger, alerts ...*alert.Alert) (context.Context, []*alert.Alert, error) {
	if err := pause(ctx, s.others.wait()); err != nil {
		return ctx, nil, err
	}
	_, due, err := s.dedup.Exec(ctx, l, alerts...)
	if err != nil || len(due) == 0 {
		s.note(outcomeUnchanged, "the receiver knows it from an earlier notification, which may be another replica's", err, alerts)
		return ctx, nil, err
	}
	if !s.sends.begin() {
		return ctx, nil, errStopping
	}
	defer s.sends.end()
	group, _ := notify.GroupKey(ctx)
	within, release, err := s.others.claim(ctx, s.to, group, alerts)
	if errors.Is(err, errOutdated) {
		s.note(outcomeHeld, err.Error(), nil, alerts)
		return ctx, nil, err
	}
	if err != nil {
		s.note(outcomeFailed, "", fmt.Errorf("another replica was sending it all the time: %w", err), alerts)
		return ctx, nil, err
	}
	defer release()
	after, sent, err := s.send.Exec(within, l, alerts...)
	s.others.spread()
	if reason, _ := notify.NotificationReason(after); len(sent) > 0 || err != nil {
		text := reason.String()
		if doubtful(after) {
			text += "; the replica that was sending it died before it said whether it arrived"
		}
		s.note(outcomeSent, text, err, alerts)
	} else {
		s.note(outcomeUnchanged, "another replica sent it meanwhile", nil, alerts)
	}
	return after, sent, err
}

// note remembers what became of alerts; an error is a failure.
func (s *onceStage) note(outcome, reason string, err error, alerts []*alert.Alert) {
	if err != nil {
		outcome, reason = outcomeFailed, err.Error()
	}
	s.decisions.note(s.receiver, outcome, reason, alerts...)
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// inflight counts what is under way until it is closed.
type inflight struct {
	mu     sync.Mutex // guards what follows
	n      int
	closed chan struct{} // nil: open; closed when n is 0
}

// begin counts one more, unless it is closed.
func (f *inflight) begin() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed != nil {
		return false
	}
	f.n++
	return true
}

func (f *inflight) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n--
	if f.closed != nil && f.n == 0 {
		close(f.closed)
	}
}

// close lets nothing begin any more and waits for what is under way or for ctx. It is called once.
func (f *inflight) close(ctx context.Context) {
	f.mu.Lock()
	done := make(chan struct{})
	f.closed = done
	if f.n == 0 {
		close(done)
	}
	f.mu.Unlock()
	select {
	case <-done:
	case <-ctx.Done():
	}
}
