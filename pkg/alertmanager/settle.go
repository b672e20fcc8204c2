package alertmanager

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/alertmanager/cluster"
	"github.com/prometheus/alertmanager/nflog/nflogpb"

	pb "github.com/amphora-metrics/amphora/pkg/wire/alertmanagerpb"
)

const (
	// settleEvery is how often other replicas are asked until the state is complete.
	settleEvery = 300 * time.Millisecond
	// settleMost bounds the wait for others to see this replica.
	settleMost = 30 * time.Second
	// claimLeast is how long a claim holds at least that is not renewed. A sender may be held up for
	// seconds, and whoever takes over from it then notifies a second time.
	claimLeast = 10 * time.Second
	// claimAgain is how soon a notification that another replica is sending is looked at again.
	claimAgain = 500 * time.Millisecond
)

// others are the other replicas that are alive, in the order in which they send.
func (in *instance) others() []peer {
	r, err := in.m.deps.Replicas(in.id)
	if err != nil {
		in.m.metrics.ringCheckErrors.Inc()
		return nil
	}
	var out []peer
	for _, addr := range r.Addrs {
		if addr == in.m.deps.Self {
			continue
		}
		if c, err := in.m.deps.Client(addr); err == nil {
			out = append(out, peer{addr, c})
		}
	}
	return out
}

// WaitReady implements notify.Peer.
func (in *instance) WaitReady(ctx context.Context) error {
	select {
	case <-in.settled:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (in *instance) isSettled() bool {
	select {
	case <-in.settled:
		return true
	default:
		return false
	}
}

// settle finds the state of the tenant before anybody is notified: from the other replicas, and if
// none has it, from object storage. It also waits until those that it reaches see this replica alive,
// because they would not tell it what they send before.
func (in *instance) settle(ctx context.Context) {
	begin := time.Now()
	outcome := "failed"
	defer func() {
		in.m.metrics.initialSyncs.WithLabelValues(outcome).Inc()
		in.m.metrics.initialSyncSeconds.Observe(time.Since(begin).Seconds())
		close(in.settled)
	}()
	for {
		found, seen := in.ask(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case !seen && time.Since(begin) < settleMost:
		case found:
			outcome = "from-replica"
			return
		default:
			outcome = in.restore(ctx)
			return
		}
		if pause(ctx, settleEvery) != nil {
			return
		}
	}
}

// ask merges the state of the other replicas. found says that one had all, seen that all that
// answered see this replica.
func (in *instance) ask(ctx context.Context) (found, seen bool) {
	ctx, cancel := context.WithTimeout(ctx, readCall)
	defer cancel()
	peers := in.others()
	in.m.metrics.fetches.Inc()
	answers := make([]*pb.State, len(peers))
	var wg sync.WaitGroup
	for i, p := range peers {
		wg.Go(func() {
			s, err := p.client.ReadState(in.act(ctx), &pb.ReadStateRequest{})
			if err != nil {
				in.log.Debug("replica did not tell its state", "replica", p.addr, "err", err)
				return
			}
			answers[i] = s
		})
	}
	wg.Wait()
	seen = true
	for i, s := range answers {
		if s == nil {
			continue
		}
		seen = seen && slices.Contains(s.GetReplicas(), in.m.deps.Self)
		if !s.GetSettled() {
			continue
		}
		if err := in.merge(ctx, s); err != nil {
			in.m.metrics.mergeFailures.WithLabelValues("state").Inc()
			in.log.Error("state of a replica cannot be read, another one is asked", "replica", peers[i].addr, "err", err)
			continue
		}
		found = true
	}
	if !found {
		in.m.metrics.fetchFailures.Inc()
	}
	return found, seen
}

// position is this replica's place among those of the tenant that are alive, 0 for the first.
func (in *instance) position() int {
	r, err := in.m.deps.Replicas(in.id)
	if err != nil {
		in.m.metrics.ringCheckErrors.Inc()
		return 0
	}
	if i := slices.Index(r.Addrs, in.m.deps.Self); i >= 0 {
		return i
	}
	return len(r.Addrs)
}

// wait implements replicas.
func (in *instance) wait() time.Duration {
	return time.Duration(in.position()) * in.m.cfg.PeerTimeout
}

// spread implements replicas.
func (in *instance) spread() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*peerCall)
	defer cancel()
	_, _ = in.repl.flush(ctx) // a replica that missed it gets everything
}

// claim implements replicas. The claim is asked of all replicas that can be reached, always in the
// same order, so that the death of one of them does not give it to two.
func (in *instance) claim(ctx context.Context, to *nflogpb.Receiver, group string) (context.Context, func(), error) {
	req := &pb.ClaimRequest{Key: fmt.Sprintf("%s/%s/%s/%d/%s", in.id, to.GetGroupName(), to.GetIntegration(), to.GetIdx(), group),
		Holder: in.m.deps.Self + "/" + rand.Text(), TtlMs: in.m.claimTTL().Milliseconds(),
		Receiver: to.GetGroupName(), Integration: to.GetIntegration(), Index: to.GetIdx(), Group: group}
	for {
		from, granted := in.claimAll(ctx, req)
		if granted {
			held, release := in.hold(ctx, from, req)
			return held, release, nil
		}
		in.m.metrics.claimsDenied.Inc()
		in.unclaim(from, req)
		if err := pause(ctx, claimAgain); err != nil {
			return nil, nil, err
		}
	}
}

// claimAll asks one replica after the other, and returns those that granted the claim. What they
// logged is merged.
func (in *instance) claimAll(ctx context.Context, req *pb.ClaimRequest) (from []peer, granted bool) {
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
			return from, false
		}
		from = append(from, peer{addr, c})
		if addr == in.m.deps.Self {
			continue
		}
		if err := in.mergePart(answer.GetNotification(), in.notified.Merge); err != nil {
			in.m.metrics.mergeFailures.WithLabelValues("state").Inc()
			in.log.Error("log of a replica cannot be read, a notification may be sent twice", "replica", addr, "err", err)
		}
	}
	return from, true
}

// claimTTL is how long a claim holds that is not renewed.
func (m *Alertmanager) claimTTL() time.Duration { return max(m.cfg.PeerTimeout, claimLeast) }

// errLostClaim ends a notification whose sender was silent for so long that another replica took over.
var errLostClaim = errors.New("another replica took the notification over")

// hold renews a claim until the returned function is called. The context ends when another replica has
// the claim, so that this one does not try again what the other sends.
func (in *instance) hold(ctx context.Context, from []peer, req *pb.ClaimRequest) (context.Context, func()) {
	held, lose := context.WithCancelCause(ctx)
	renew, cancel := context.WithCancel(context.Background())
	var renewing sync.WaitGroup
	renewing.Go(func() {
		for pause(renew, in.m.claimTTL()/3) == nil {
			if !in.each(renew, from, &pb.ClaimRequest{Key: req.GetKey(), Holder: req.GetHolder(), TtlMs: req.GetTtlMs()}) {
				lose(errLostClaim)
			}
		}
	})
	return held, func() {
		cancel()
		renewing.Wait()
		lose(nil)
		in.unclaim(from, req)
	}
}

func (in *instance) unclaim(from []peer, req *pb.ClaimRequest) {
	in.each(context.Background(), from, &pb.ClaimRequest{Key: req.GetKey(), Holder: req.GetHolder(), Release: true})
}

// each sends a claim to all replicas at once; one that does not answer forgets it in time. It returns
// false if one says that another replica has it.
func (in *instance) each(ctx context.Context, to []peer, req *pb.ClaimRequest) bool {
	ctx, cancel := context.WithTimeout(ctx, peerCall)
	defer cancel()
	denied := make([]bool, len(to))
	var wg sync.WaitGroup
	for i, p := range to {
		wg.Go(func() {
			answer, err := p.client.Claim(in.act(ctx), req)
			denied[i] = err == nil && !req.GetRelease() && !answer.GetGranted()
		})
	}
	wg.Wait()
	return !slices.Contains(denied, true)
}

// view shows the replicas of the tenant on its status page. It implements cluster.ClusterPeer.
type view struct{ in *instance }

// Name implements cluster.ClusterPeer.
func (v view) Name() string { return v.in.m.deps.Self }

// Status implements cluster.ClusterPeer.
func (v view) Status() string {
	if v.in.isSettled() {
		return "ready"
	}
	return "settling"
}

// Peers implements cluster.ClusterPeer.
func (v view) Peers() []cluster.ClusterMember {
	r, err := v.in.m.deps.Replicas(v.in.id)
	if err != nil {
		return nil
	}
	var out []cluster.ClusterMember
	for _, addr := range r.Addrs {
		out = append(out, member(addr))
	}
	return out
}

// member is a replica by its address.
type member string

// Name implements cluster.ClusterMember.
func (m member) Name() string { return string(m) }

// Address implements cluster.ClusterMember.
func (m member) Address() string { return string(m) }
