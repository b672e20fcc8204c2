package otlp

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/prometheus/common/model"

	"github.com/amphora-metrics/amphora/pkg/remotewrite"
)

const (
	targetInfo = "target_info"
	// targetStep is how far apart, in nanoseconds, the samples of target_info are in a request that
	// spans some time: half of how far back a query looks for one.
	targetStep = uint64(150e9)
	// targetSlack is a time, in nanoseconds, for which no sample of its own is worth its cost:
	// instruments that are read together are not read in the same instant.
	targetSlack = uint64(1e9)
	// maxTargetSamples bounds the samples of one resource; more are left out at the beginning.
	maxTargetSamples = 64
)

// targets are the series target_info of a request. Resources with the same labels have one.
type targets struct {
	list   []target
	byRefs map[string]int
	refs   []uint32 // of all targets, one after another
}

type target struct {
	end              int // in targets.refs
	earliest, latest uint64
}

func (s *targets) reset() {
	s.list, s.refs = forget(s.list), forget(s.refs)
	if len(s.byRefs) > maxKeptNames {
		s.byRefs = nil
	}
	clear(s.byRefs)
}

// describeTarget notes the attributes of the resource as labels of a series of its own, which
// queries join with the others by job and instance.
func (t *Translator) describeTarget() {
	r := &t.resource
	if r.latest == 0 {
		return
	}
	t.attrs, t.constants = t.attrs[:0], t.constants[:0]
	more := false
	for _, a := range r.attrs {
		identifies := a.key == serviceName || a.key == serviceNamespace || a.key == serviceInstance
		more = more || !identifies
		if a.key != nameLabel && (!identifies || t.set.KeepIdentifying) {
			t.attrs = append(t.attrs, label{key: a.key, value: a.value})
		}
	}
	if !more {
		return // job and instance say all there is
	}
	t.constant(model.InstanceLabel, r.instance, r.instance != "")
	t.constant(model.JobLabel, r.job, r.job != "")
	t.constant(nameLabel, "", true)
	slices.SortFunc(t.constants, func(a, b label) int { return strings.Compare(a.name, b.name) })
	if err := t.pointLabels(); err != nil {
		t.refuse(1, func() error { return err })
		return
	}
	identified := func(m label) bool { return m.name == model.JobLabel || m.name == model.InstanceLabel }
	if slices.ContainsFunc(t.merged, identified) {
		t.setName(t.enc.Symbol(targetInfo))
		t.noteTarget(r)
	}
}

// noteTarget adds r, whose labels are t.refs, to the targets.
func (t *Translator) noteTarget(r *resource) {
	key := t.enc.Spare(binary.MaxVarintLen32 * len(t.refs))
	for _, ref := range t.refs {
		key = binary.AppendUvarint(key, uint64(ref))
	}
	s := &t.targets
	if i, ok := s.byRefs[view(key)]; ok {
		s.list[i].earliest, s.list[i].latest = min(s.list[i].earliest, r.earliest), max(s.list[i].latest, r.latest)
		return
	}
	if s.byRefs == nil {
		s.byRefs = map[string]int{}
	}
	s.byRefs[t.enc.Keep(key)] = len(s.list)
	s.refs = append(s.refs, t.refs...)
	s.list = append(s.list, target{len(s.refs), r.earliest, r.latest})
}

// writeTargets writes the series of all targets.
func (t *Translator) writeTargets() {
	s := &t.targets
	if len(s.list) == 0 {
		return
	}
	help := t.enc.Symbol("Target metadata")
	begin := 0
	for _, g := range s.list {
		t.enc.Series(s.refs[begin:g.end])
		begin = g.end
		if steps := (g.latest - g.earliest) / targetStep; steps >= maxTargetSamples {
			g.earliest += (steps - maxTargetSamples + 1) * targetStep
		}
		for at := g.earliest; g.latest-at > targetSlack && at < g.latest; at += targetStep {
			t.enc.Sample(1, milliseconds(at), 0)
		}
		t.enc.Sample(1, milliseconds(g.latest), 0)
		t.enc.Metadata(remotewrite.Gauge, help, 0)
		if t.enc.EndSeries() != nil {
			return // the error stays in the encoder
		}
	}
}

// milliseconds is the time ns, in nanoseconds, as the storage counts it.
func milliseconds(ns uint64) int64 { return int64(ns / 1e6) }
