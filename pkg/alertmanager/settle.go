package alertmanager

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/alertmanager/cluster"

	pb "github.com/amphora-metrics/amphora/pkg/wire/alertmanagerpb"
)

const (
	// settleEvery is how often other replicas are asked until the state is complete.
	settleEvery = 300 * time.Millisecond
	// settleMost bounds the wait for others to see this replica.
	settleMost = 30 * time.Second
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
// because they would not tell it what they send before, and until so many have answered that one of them
// has every silence that was acknowledged before all replicas died.
func (in *instance) settle(ctx context.Context) {
	begin := time.Now()
	outcome := "failed"
	defer func() {
		in.m.metrics.initialSyncs.WithLabelValues(outcome).Inc()
		in.m.metrics.initialSyncSeconds.Observe(time.Since(begin).Seconds())
		close(in.settled)
		if in.recalled {
			in.repl.tellAll()
		}
	}()
	for {
		found, ready := in.ask(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case !ready && time.Since(begin) < settleMost:
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

// ask merges the state of the other replicas. found says that one had all, ready that all that answered
// see this replica, and that they are enough if none had all.
func (in *instance) ask(ctx context.Context) (found, ready bool) {
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
	seen, answered := true, 1
	for i, s := range answers {
		if s == nil {
			continue
		}
		answered++
		seen = seen && slices.Contains(s.GetReplicas(), in.m.deps.Self)
		if err := in.merge(ctx, s); err != nil {
			in.m.metrics.mergeFailures.WithLabelValues("state").Inc()
			in.log.Error("state of a replica cannot be read, another one is asked", "replica", peers[i].addr, "err", err)
			continue
		}
		if err := in.keep(ctx, s); err != nil {
			in.log.Warn("state of a replica not written to the journal, this replica would not know it after the death of all", "err", err)
		}
		found = found || s.GetSettled()
	}
	if !found {
		in.m.metrics.fetchFailures.Inc()
	}
	return found, seen && (found || answered >= in.quorum())
}

// quorum is how many replicas know every silence that was acknowledged.
func (in *instance) quorum() int {
	r, err := in.m.deps.Replicas(in.id)
	if err != nil {
		in.m.metrics.ringCheckErrors.Inc()
	}
	return r.Quorum
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
	if err := in.disk.wait(ctx); err != nil {
		in.log.Error("what was notified is not in the journal, it may be notified again if all replicas die", "err", err)
	}
	_, _ = in.repl.flush(ctx) // a replica that missed it gets everything
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
