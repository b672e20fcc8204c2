package alertmanager

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
	pb "github.com/amphora-metrics/amphora/pkg/wire/alertmanagerpb"
)

const (
	// peerCall bounds a call to another replica that notifications or writes wait for.
	peerCall = 2 * time.Second
	// readCall bounds a call that fetches all state of a tenant.
	readCall = 10 * time.Second
	// maxPending bounds the bytes that wait to be sent to other replicas; beyond, they get everything
	// when they can take it.
	maxPending = 4 << 20
	// catchUp is how often a replica that missed something is tried again.
	catchUp = time.Second
	// meetEvery is how often a replica looks for others that came, or came back.
	meetEvery = 5 * time.Second
)

// peer is another replica of a tenant.
type peer struct {
	addr   string
	client pb.AlertmanagerClient
}

// replicator brings what changes on this replica of a tenant to the others.
type replicator struct {
	log     *slog.Logger
	metrics *metrics
	state   *state
	disk    *durability
	peers   func() []peer
	changed func() // called when something changed and nobody else has it

	wake chan struct{}

	mu      sync.Mutex // guards what follows
	pending *pb.State
	waiting []chan int // get the number of replicas that took all that is pending
	behind  map[string]bool
	met     map[string]bool // who was told all that changed, or is behind; nil: nobody was looked for yet
}

func newReplicator(log *slog.Logger, m *metrics, disk *durability, s *state, peers func() []peer, changed func()) *replicator {
	return &replicator{log: log, metrics: m, disk: disk, state: s, peers: peers, changed: changed,
		wake: make(chan struct{}, 1), pending: &pb.State{}, behind: map[string]bool{}}
}

// silence and notification take what upstream broadcasts. They are called under its locks and must
// not wait.
func (r *replicator) silence(data []byte) {
	r.add("sil", data, journalSilences, func(s *pb.State) { s.Silences = append(s.Silences, data...) })
}

func (r *replicator) notification(data []byte) {
	r.add("nfl", data, journalNotifications, func(s *pb.State) { s.Notifications = append(s.Notifications, data...) })
}

func (r *replicator) add(kind string, data []byte, record byte, to func(*pb.State)) {
	if r.state.foreign(data) {
		return
	}
	r.disk.add(record, data)
	r.metrics.replications.WithLabelValues(kind).Inc()
	r.mu.Lock()
	if len(r.pending.Silences)+len(r.pending.Notifications)+len(data) > maxPending {
		r.metrics.replicationFailures.WithLabelValues(kind).Inc()
		for _, p := range r.peers() {
			r.behind[p.addr] = true
		}
	} else {
		to(r.pending)
	}
	r.mu.Unlock()
	r.rouse()
}

func (r *replicator) rouse() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// flush waits until everything so far was sent, and returns how many other replicas have it.
func (r *replicator) flush(ctx context.Context) (int, error) {
	done := make(chan int, 1)
	r.mu.Lock()
	r.waiting = append(r.waiting, done)
	r.mu.Unlock()
	r.rouse()
	select {
	case n := <-done:
		return n, nil
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// run sends until ctx ends, and then what is left.
func (r *replicator) run(ctx context.Context) {
	again := time.NewTicker(catchUp)
	defer again.Stop()
	look := time.NewTicker(meetEvery)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			r.send()
			return
		case <-look.C:
			r.meet(r.peers())
		case <-r.wake:
			r.send()
		case <-again.C:
			r.catchUp(ctx)
		}
	}
}

// send brings what is pending to the other replicas, all at once.
func (r *replicator) send() {
	r.mu.Lock()
	out, waiting := r.pending, r.waiting
	r.pending, r.waiting = &pb.State{}, nil
	r.mu.Unlock()
	peers := r.peers()
	r.meet(peers)
	took := len(peers)
	if len(out.Silences) > 0 || len(out.Notifications) > 0 {
		if took = r.sendTo(peers, out); took == 0 {
			r.changed()
		}
	}
	for _, w := range waiting {
		w <- took
	}
}

func (r *replicator) sendTo(peers []peer, out *pb.State) int {
	ctx, cancel := context.WithTimeout(context.Background(), peerCall)
	defer cancel()
	took := make([]bool, len(peers))
	var wg sync.WaitGroup
	for i, p := range peers {
		wg.Go(func() {
			_, err := p.client.UpdateState(r.state.act(ctx), out)
			took[i] = err == nil
			if err != nil {
				r.missed(p.addr, out, err)
			}
		})
	}
	wg.Wait()
	n := 0
	for _, ok := range took {
		if ok {
			n++
		}
	}
	return n
}

// tellAll makes every other replica get everything: they may not have what the journal had.
func (r *replicator) tellAll() {
	peers := r.peers()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range peers {
		r.behind[p.addr] = true
	}
}

// meet notes that replicas that were not seen the last time have to be given everything: nobody told them what
// changed while they were parted from this one.
func (r *replicator) meet(peers []peer) {
	now := make(map[string]bool, len(peers))
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range peers {
		now[p.addr] = true
		if r.met != nil && !r.met[p.addr] {
			r.behind[p.addr] = true
		}
	}
	r.met = now
}

// missed notes that a replica has to be given everything.
func (r *replicator) missed(addr string, out *pb.State, err error) {
	if len(out.Silences) > 0 {
		r.metrics.replicationFailures.WithLabelValues("sil").Inc()
	}
	if len(out.Notifications) > 0 {
		r.metrics.replicationFailures.WithLabelValues("nfl").Inc()
	}
	r.log.Debug("replica did not take what changed, it will get everything", "replica", addr, "kind", errs.KindOf(err).String(), "err", err)
	r.mu.Lock()
	r.behind[addr] = true
	r.mu.Unlock()
}

// catchUp gives everything to the replicas that missed something. What they miss from now on is noted
// anew.
func (r *replicator) catchUp(ctx context.Context) {
	r.mu.Lock()
	behind := r.behind
	if len(behind) == 0 {
		r.mu.Unlock()
		return
	}
	r.behind = map[string]bool{} // whoever is no replica any more is forgotten
	r.mu.Unlock()
	var todo []peer
	for _, p := range r.peers() {
		if behind[p.addr] {
			todo = append(todo, p)
		}
	}
	if len(todo) == 0 {
		return
	}
	all, err := r.state.full()
	if err != nil {
		r.log.Error("state of a tenant cannot be encoded, replicas that missed something stay behind", "err", err)
	}
	ctx, cancel := context.WithTimeout(ctx, peerCall)
	defer cancel()
	var wg sync.WaitGroup
	for _, p := range todo {
		wg.Go(func() {
			if err == nil {
				if _, err := p.client.UpdateState(r.state.act(ctx), all); err == nil {
					return
				}
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			r.behind[p.addr] = true
		})
	}
	wg.Wait()
}
