package distributor

import (
	"context"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/amphora-metrics/amphora/pkg/distributor/ha"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// maxPairText bounds the name of a cluster or replica, which distributors tell each other.
const maxPairText = 4096

// replicaLimits are the limits of a tenant whose series come from several replicas.
type replicaLimits struct {
	pairs   *pairs // nil: its series are taken as they come
	policy  ha.Policy
	ignored bool // the tenant's limits ask for it, but the process does not elect replicas
}

// replicaLabels are the labels by which a series names its replica.
type replicaLabels struct{ cluster, replica string }

// readReplicas reads the limits of replicas.
func (l *tenantLimits) readReplicas(v limits.View, tracked bool) {
	names := replicaLabels{limits.HAClusterLabel.Of(v), limits.HAReplicaLabel.Of(v)}
	l.replicas.ignored = !tracked && limits.AcceptHASamples.Of(v)
	if !tracked || !limits.AcceptHASamples.Of(v) || names.cluster == "" || names.replica == "" || names.cluster == names.replica {
		return
	}
	l.replicaLabels = names
	l.replicas.policy = ha.Policy{
		Update:         limits.HATrackerUpdateTimeout.Of(v),
		Jitter:         limits.HATrackerUpdateTimeoutJitterMax.Of(v),
		Failover:       limits.HATrackerFailoverTimeout.Of(v),
		SampleFailover: limits.HATrackerSampleFailoverTimeout.Of(v),
		MaxClusters:    limits.HAMaxClusters.Of(v),
	}
	// Sooner than signs of life are shared nobody can be known to be silent.
	p := &l.replicas.policy
	p.Failover = max(p.Failover, p.Update+p.Jitter+time.Second)
}

// warnIgnored tells the operator, once, that replicas are not told apart though a tenant asks for it.
func (d *Distributor) warnIgnored(id tenant.ID) {
	d.ignored.Do(func() {
		d.deps.Logger.Warn("accept_ha_samples has no effect because distributor.ha_tracker.enable_ha_tracker is off; the series of every replica are stored", "tenant", id)
	})
}

// deduplicates says whether series are told apart by the replica they come from.
func (l *tenantLimits) deduplicates() bool { return l.replicas.pairs != nil }

// replicaOf finds the replica in ls, sorted labels of a series; at is the position of its label.
// Without ok the series lacks one of the two labels.
func (l *tenantLimits) replicaOf(ls []remotewrite.Label) (cluster, replica []byte, at int, ok bool) {
	at = -1
	for i := range ls {
		switch string(ls[i].Name) {
		case l.replicaLabels.cluster:
			cluster = ls[i].Value
		case l.replicaLabels.replica:
			replica, at = ls[i].Value, i
		}
	}
	return cluster, replica, at, len(cluster) > 0 && len(replica) > 0
}

// withoutReplica removes the label of the replica from ls if they name one.
func (l *tenantLimits) withoutReplica(ls []remotewrite.Label) []remotewrite.Label {
	if !l.deduplicates() {
		return ls
	}
	if _, _, at, ok := l.replicaOf(ls); ok {
		return slices.Delete(ls, at, at+1)
	}
	return ls
}

// dedupe is what a push knows of the replicas its series come from.
type dedupe struct {
	judged  []judgement // by number of the pair; good if stamped by this push
	asked   []uint32    // the pairs judged
	stamp   uint32
	elected uint32 // the pair that was found elected last
	lost    int    // series of others
	outside int    // samples of series that name no replica
}

// judgement is what becomes of the series of one replica. A replica is judged once for a push.
type judgement struct {
	stamp   uint32
	verdict ha.Verdict
	elected string // if it is another one
	samples int    // left out
}

func (d *dedupe) reset() {
	if d.stamp++; d.stamp == 0 {
		clear(d.judged)
		d.stamp = 1
	}
	if cap(d.judged) > maxPairs {
		d.judged = nil
	}
	d.asked, d.elected, d.lost, d.outside = d.asked[:0], 0, 0, 0
}

// fromElected says whether series i, of pair n, is to be stored; if not it is left out or refused.
func (p *push) fromElected(ctx context.Context, i int, n uint32) (bool, error) {
	if n == p.elected {
		return true, nil
	}
	j, err := p.judgePair(ctx, n)
	if err != nil {
		return false, err
	}
	switch j.verdict {
	case ha.Elected:
		p.elected = n
		return true, nil
	case ha.TooManyClusters:
		p.refs[i] = skipped
		p.refuse(i, tooManyClusters, p.samplesOf(i), func() error {
			return tooManyClusters.errorf("too many HA clusters (limit: %d): cluster %q is one more", p.lim.replicas.policy.MaxClusters,
				clip([]byte(p.lim.replicas.pairs.at(n).cluster)))
		})
		return false, nil
	default:
		p.refs[i] = skipped
		j.samples += p.samplesOf(i)
		p.lost++
		p.spare(i)
		return false, nil
	}
}

// judgePair returns the judgement about pair n. Errors: Unavailable.
func (p *push) judgePair(ctx context.Context, n uint32) (*judgement, error) {
	if int(n) < len(p.judged) && p.judged[n].stamp == p.stamp {
		return &p.judged[n], nil
	}
	if int(n) >= len(p.judged) {
		p.judged = append(p.judged, make([]judgement, int(n)+1-len(p.judged))...)
	}
	who := p.lim.replicas.pairs.at(n)
	v, elected, err := p.d.deps.Replicas.Check(ctx, ha.Sender{Tenant: p.t.id, Cluster: who.cluster, Replica: who.replica},
		&p.lim.replicas.policy, p.oldestSample)
	if err != nil {
		return nil, err
	}
	p.judged[n] = judgement{stamp: p.stamp, verdict: v, elected: elected}
	p.asked = append(p.asked, n)
	return &p.judged[n], nil
}

// oldestSample is the time of the oldest float sample, now if there is none.
func (p *push) oldestSample() time.Time {
	if len(p.batch.Times) == 0 {
		return p.now
	}
	oldest, _ := span(p.batch.Times)
	return time.UnixMilli(oldest)
}

// judgeNew finds out from which replica the series of w comes, whose sorted labels are ls, and
// whether it is to be stored. Errors: Unavailable; BodyTooLarge.
func (p *push) judgeNew(ctx context.Context, w *work, ls []remotewrite.Label) (bool, error) {
	i := int(w.series)
	cluster, replica, at, ok := p.lim.replicaOf(ls)
	if !ok {
		p.outside += p.samplesOf(i)
		return true, nil
	}
	most := maxPairText
	if !p.lim.shorten.on() {
		most = min(most, p.lim.valueBytes)
	}
	v := violation{label: at}
	switch long := max(len(cluster), len(replica)); {
	case long > most:
		v = violation{labelValueTooLong, at, long, most}
	case !utf8.Valid(cluster) || !utf8.Valid(replica):
		v.check = invalidLabelValue
	}
	if v.check != valid {
		p.refs[i] = skipped
		p.refuse(i, v.check, p.samplesOf(i), func() error { return v.error(ls) })
		return false, nil
	}
	n, added := p.lim.replicas.pairs.number(cluster, replica)
	if added {
		p.labelBytes += len(cluster) + len(replica)
		if err := p.checkText(); err != nil {
			return false, err
		}
	}
	w.pair = n
	stored, err := p.fromElected(ctx, i, n)
	w.lost = !stored && err == nil && p.judged[n].verdict == ha.NotElected
	return stored, err
}

// countDuplicates counts what was left out because another replica is elected. A client of which
// nothing else came is told so, with a status that is no reason to send it again.
func (p *push) countDuplicates(context.Context) error {
	if !p.lim.deduplicates() {
		return nil
	}
	if p.outside > 0 {
		p.t.metrics.nonHA.Add(float64(p.outside))
	}
	for _, n := range p.asked {
		if j := &p.judged[n]; j.samples > 0 {
			p.d.deps.Replicas.Deduped(p.t.id, p.lim.replicas.pairs.at(n).cluster, j.samples)
		}
	}
	if p.lost == 0 || p.lost < p.batch.Len() || p.batch.MetadataCount() > 0 {
		return nil
	}
	n := p.asked[0]
	p.first = errs.New(errs.Accepted, "replicas did not match: the samples are of replica %q of cluster %q, and %q is elected; nothing of them is stored, on purpose",
		clip([]byte(p.lim.replicas.pairs.at(n).replica)), clip([]byte(p.lim.replicas.pairs.at(n).cluster)), clip([]byte(p.judged[n].elected)))
	return nil
}
