package alertmanager

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/alertmanager/alert"
	"github.com/prometheus/alertmanager/nflog"
	"github.com/prometheus/alertmanager/nflog/nflogpb"
	"github.com/prometheus/alertmanager/notify"

	pb "github.com/amphora-metrics/amphora/pkg/wire/alertmanagerpb"
)

const (
	// claimLeast is how long a claim holds at least that is not renewed. A sender may be held up for
	// seconds, and whoever takes over from it then notifies a second time.
	claimLeast = 10 * time.Second
	// claimAgain is how soon a notification that another replica is sending is looked at again.
	claimAgain = 500 * time.Millisecond
)

// claimTTL is how long a claim holds that is not renewed.
func (m *Alertmanager) claimTTL() time.Duration { return max(m.cfg.PeerTimeout, claimLeast) }

// errLostClaim ends a notification whose sender was silent for so long that another replica took over.
var errLostClaim = errors.New("another replica took the notification over")

// errOutdated ends a notification that would say what is not so any more. The group's next one says what is.
var errOutdated = errors.New("another replica has newer alerts than the notification")

// outdated says whether what is known by now speaks against a notification of alerts. Replicas that were
// dead miss what comes in, so that one may think that an alert has ended which is sent still, or that one
// fires whose end the receiver was told.
func (in *instance) outdated(ctx context.Context, to *nflogpb.Receiver, group string, alerts []*alert.Alert) bool {
	var told time.Time // when the receiver was last notified of the group
	if entries, err := in.notified.Query(nflog.QGroupKey(group), nflog.QReceiver(to)); err == nil && len(entries) > 0 {
		told = entries[0].GetTimestamp().AsTime()
	}
	// The alerts are as they were when the group looked at them. Whoever told of it since, while this replica
	// let others go first, knew better. What was told in the future is by a clock that is wrong.
	if looked, ok := notify.Now(ctx); ok && told.After(looked) && !told.After(time.Now()) {
		return true
	}
	return slices.ContainsFunc(alerts, func(a *alert.Alert) bool {
		now, err := in.alerts.Get(a.Fingerprint())
		if err != nil || now.Resolved() == a.Resolved() {
			return false
		}
		return a.Resolved() || now.UpdatedAt.After(a.UpdatedAt) && told.After(a.UpdatedAt)
	})
}

// held is a claim that this replica has.
type held struct {
	in         *instance
	from       []peer // who granted it
	req        *pb.ClaimRequest
	unfinished []string // names of notifications of holders who died

	mu   sync.Mutex // guards name
	name string
}

// claimOf is the claim under which ctx runs, nil if there is none.
func claimOf(ctx context.Context) *held {
	h, _ := ctx.Value(keyOfClaim).(*held)
	return h
}

// claim implements replicas. The claim is asked of all replicas that can be reached, always in the
// same order, so that the death of one of them does not give it to two.
func (in *instance) claim(ctx context.Context, to *nflogpb.Receiver, group string, alerts []*alert.Alert) (context.Context, func(), error) {
	req := &pb.ClaimRequest{Key: fmt.Sprintf("%s/%s/%s/%d/%s", in.id, to.GetGroupName(), to.GetIntegration(), to.GetIdx(), group),
		Holder: in.m.deps.Self + "/" + rand.Text(), TtlMs: in.m.claimTTL().Milliseconds(),
		Receiver: to.GetGroupName(), Integration: to.GetIntegration(), Index: to.GetIdx(), Group: group}
	for _, a := range alerts {
		req.Alerts = append(req.Alerts, &pb.Known{Fingerprint: uint64(a.Fingerprint()), UpdatedAt: nanos(a.UpdatedAt), Resolved: a.Resolved()})
	}
	for {
		h, granted := in.claimAll(ctx, req)
		if granted && in.outdated(ctx, to, group, alerts) {
			h.release()
			return nil, nil, errOutdated
		}
		if granted {
			within, release := h.hold(ctx)
			return within, release, nil
		}
		in.m.metrics.claimsDenied.Inc()
		h.release()
		if err := pause(ctx, claimAgain); err != nil {
			return nil, nil, err
		}
	}
}

// claimAll asks one replica after the other until one does not grant the claim. What they logged is merged.
func (in *instance) claimAll(ctx context.Context, req *pb.ClaimRequest) (h *held, granted bool) {
	h = &held{in: in, req: req}
	r, err := in.m.deps.Replicas(in.id)
	if err != nil {
		in.m.metrics.ringCheckErrors.Inc()
	}
	for _, addr := range r.Addrs {
		c, err := in.m.deps.Client(addr)
		if err != nil {
			continue
		}
		call, cancel := context.WithTimeout(ctx, peerCall)
		answer, err := c.Claim(in.act(call), req)
		cancel()
		if err != nil {
			in.log.Debug("replica does not answer a claim, the others decide", "replica", addr, "err", err)
			continue
		}
		if !answer.GetGranted() {
			return h, false
		}
		h.from = append(h.from, peer{addr, c})
		if name := answer.GetUnfinished(); name != "" {
			h.unfinished = append(h.unfinished, name)
		}
		if addr == in.m.deps.Self {
			continue
		}
		if err := in.merge(ctx, &pb.State{Alerts: answer.GetAlerts()}); err != nil {
			in.log.Warn("alerts of a replica not taken, the notification says what is known here", "replica", addr, "err", err)
		}
		if err := in.mergePart(answer.GetNotification(), in.notified.Merge); err != nil {
			in.m.metrics.mergeFailures.WithLabelValues("state").Inc()
			in.log.Error("log of a replica cannot be read, a notification may be sent twice", "replica", addr, "err", err)
		}
	}
	return h, true
}

// hold renews the claim until the returned function is called. The context ends when another replica has
// the claim, so that this one does not try again what the other sends.
func (h *held) hold(ctx context.Context) (context.Context, func()) {
	within, lose := context.WithCancelCause(context.WithValue(ctx, keyOfClaim, h))
	renew, cancel := context.WithCancel(context.Background())
	var renewing sync.WaitGroup
	renewing.Go(func() {
		for pause(renew, h.in.m.claimTTL()/3) == nil {
			if !h.tell(renew) {
				lose(errLostClaim)
			}
		}
	})
	return within, func() {
		cancel()
		renewing.Wait()
		lose(nil)
		h.release()
	}
}

// intend tells those who granted the claim what is about to be sent. It returns whether a holder before
// was sending the same when it died.
func (h *held) intend(ctx context.Context, name string) (doubt bool) {
	h.mu.Lock()
	h.name = name
	h.mu.Unlock()
	h.tell(ctx) // whoever does not hear it now hears it with the next renewal
	return slices.Contains(h.unfinished, name)
}

// tell renews the claim. It returns false if another replica has it.
func (h *held) tell(ctx context.Context) bool {
	h.mu.Lock()
	name := h.name
	h.mu.Unlock()
	return h.each(ctx, &pb.ClaimRequest{Key: h.req.GetKey(), Holder: h.req.GetHolder(), TtlMs: h.req.GetTtlMs(), Notification: name})
}

func (h *held) release() {
	h.each(context.Background(), &pb.ClaimRequest{Key: h.req.GetKey(), Holder: h.req.GetHolder(), Release: true})
}

// each sends req to all that granted the claim, at once; one that does not answer forgets it in time. It
// returns false if one says that another replica has the claim.
func (h *held) each(ctx context.Context, req *pb.ClaimRequest) bool {
	ctx, cancel := context.WithTimeout(ctx, peerCall)
	defer cancel()
	denied := make([]bool, len(h.from))
	var wg sync.WaitGroup
	for i, p := range h.from {
		wg.Go(func() {
			answer, err := p.client.Claim(h.in.act(ctx), req)
			denied[i] = err == nil && !req.GetRelease() && !answer.GetGranted()
		})
	}
	wg.Wait()
	return !slices.Contains(denied, true)
}
