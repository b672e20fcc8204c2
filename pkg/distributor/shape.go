package distributor

import (
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"

	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
)

// tenantLabel has the tenant while rules are applied, so that one rule can serve several.
const tenantLabel = "__meta_tenant_id"

// shaping is the state of a push whose tenant has rules.
type shaping struct {
	relabel *labels.Builder
	results []uint32 // hashes of the labels that the series are stored under; empty without rules
	twins   []uint32 // a table of them

	shortened [][]byte // names of the labels whose values shape shortened last
}

func (s *shaping) reset() {
	s.relabel.Reset(labels.EmptyLabels())
	s.results = s.results[:0]
	clear(s.shortened)
	s.shortened = s.shortened[:0]
}

// readShape reads the rules by which the tenant's series change.
func (l *tenantLimits) readShape(v limits.View) {
	rules := limits.MetricRelabelConfigs.Of(v)
	scheme := model.LegacyValidation
	if l.utf8 {
		scheme = model.UTF8Validation
	}
	l.relabel, l.shapeLimits.rules = rules.Rules(scheme), rules.String()
	l.dropLabels = limits.DropLabels.Of(v)
	l.shorten = readShortening(v)
	l.shapeLimits.drop = strings.Join(l.dropLabels, "\xff")
	if len(l.relabel) > 0 && l.utf8 {
		l.shapeLimits.rules += " utf8" // which decides where a rule may write to
	}
}

// rewrites says whether there are rules, which may make several series one.
func (l *tenantLimits) rewrites() bool { return len(l.relabel) > 0 || len(l.dropLabels) > 0 }

// shaped says whether series may be stored under other labels than they come with.
func (l *tenantLimits) shaped() bool { return l.rewrites() || l.deduplicates() || l.shorten.on() }

// shape turns the n labels of a series, of which ls are the first, into those it is stored under.
// Without keep the series is not stored. The labels are good until the next call of decode. Errors:
// BodyTooLarge.
func (p *push) shape(ls []remotewrite.Label, n int) (out []remotewrite.Label, m int, keep bool, err error) {
	if !p.lim.shaped() || n > len(ls) {
		return ls, n, true, nil // if there are more than are ever looked at, the series is refused
	}
	ls = p.lim.withoutReplica(ls)
	if len(p.lim.relabel) > 0 {
		if ls, keep, err = p.applyRules(ls); !keep {
			return nil, 0, false, err
		}
	}
	ls = slices.DeleteFunc(ls, func(l remotewrite.Label) bool {
		return slices.ContainsFunc(p.lim.dropLabels, func(name string) bool { return name == string(l.Name) })
	})
	p.shortenValues(ls)
	return ls, len(ls), len(ls) > 0 || !p.lim.rewrites(), nil
}

// applyRules runs the relabel rules of the tenant over ls.
func (p *push) applyRules(ls []remotewrite.Label) (out []remotewrite.Label, keep bool, err error) {
	base, err := p.build(ls)
	if err != nil {
		return nil, false, err
	}
	p.relabel.Reset(base)
	p.relabel.Set(tenantLabel, string(p.t.id))
	if !relabel.ProcessBuilder(p.relabel, p.lim.relabel...) {
		return nil, false, nil
	}
	p.relabel.Del(tenantLabel)
	p.labels = remotewrite.Views(p.labels[:0], p.relabel.Labels())
	return p.labels, true, nil
}

// dropByRule leaves out series i, which the rules of the tenant drop.
func (p *push) dropByRule(i int) {
	p.refs[i] = skipped
	p.refused[relabelled] += p.samplesOf(i)
	p.spare(i)
}

// spare notes that what series i brings is left out on purpose.
func (p *push) spare(i int) {
	from, to := p.batch.Samples(i)
	p.spared.Samples += to - from
	from, to = p.batch.Histograms(i)
	p.spared.Histograms += to - from
	from, to = p.batch.Exemplars(i)
	p.spared.Exemplars += to - from
}

// resultHash is never 0.
func resultHash(ls labels.Labels) uint32 {
	var scratch [1024]byte
	return uint32(xxhash.Sum64(ls.Bytes(scratch[:0]))) | 1
}
