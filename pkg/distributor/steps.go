package distributor

import (
	"context"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

// step is one thing done to every push. An error ends the push with nothing stored; samples that
// are refused alone go to push.refuse, and the rest goes on.
type step struct {
	name string
	run  func(*push, context.Context) error
}

// steps is what happens to a push, in order. Before them stand only the instance limits
// (Distributor.admit), whose shares are given back when the push is answered. Up to "ingestion
// rate" nothing is remembered, so a refused push leaves no trace but its counters.
func steps() []step {
	return []step{
		{"request rate", (*push).checkRequestRate},
		{"scan", (*push).scan},
		{"tenant by label", (*push).splitByLabel},
		{"count what came", (*push).countArrived},
		{"look up series", (*push).lookUp},
		{"validate new series", (*push).validate},
		{"count duplicates of replicas", (*push).countDuplicates},
		{"check times", (*push).checkTimes},
		{"duplicate samples", (*push).dropDuplicates},
		{"histograms", (*push).readHistograms},
		{"series that became one", (*push).mergeTwins},
		{"start times", (*push).markStarts},
		{"exemplars", (*push).readExemplars},
		{"metadata", (*push).readMetadata},
		{"ingestion rate", (*push).checkIngestionRate},
		{"find ingesters", (*push).route},
		{"remember series", (*push).remember},
		{"attribute usage", (*push).attribute},
		{"define series", (*push).define},
		{"make frames", (*push).makeFrames},
		{"replicate", (*push).replicate},
	}
}

// checkRequestRate, and checkIngestionRate below, let through what rules record: or else the clients
// of a tenant could silence its alerts.
func (p *push) checkRequestRate(context.Context) error {
	p.lim = p.t.limitsOf(p.d.deps.Limits(p.t.id), p.now, &p.d.deps)
	p.t.setRates(p.lim, p.d.deps.HealthyDistributors(), p.now)
	if p.lim.replicas.ignored {
		p.d.warnIgnored(p.t.id)
	}
	if p.split.same {
		return nil
	}
	p.countRequest()
	if p.source == frame.Rule || p.req.Handed || p.t.rates.requests.AllowN(p.now, 1) {
		return nil
	}
	p.d.metrics.discardedRequests.WithLabelValues(rateLimited.row().reason, string(p.t.id)).Inc()
	return errs.Limit(errs.RateLimited, "tenant-max-request-rate", "distributor.request-rate-limit", "request_rate",
		"tenant %s makes more push requests than its limit of %g a second with bursts of %d",
		p.t.id, p.lim.requestRate, burst(p.lim.requestRate, p.lim.requestBurst))
}

func (p *push) scan(context.Context) error {
	if p.split.part != nil {
		return nil // it was given its series
	}
	return p.batch.Scan(p.d.keys, p.req)
}

func (p *push) countArrived(context.Context) error {
	m := &p.t.metrics
	m.samplesIn.Add(float64(len(p.batch.Times) + p.batch.HistogramCount()))
	m.exemplarsIn.Add(float64(p.batch.ExemplarCount()))
	m.metadataIn.Add(float64(p.batch.MetadataCount()))
	return nil
}

// countRefused counts the samples that were refused.
func (p *push) countRefused() {
	for c, n := range p.refused {
		if n > 0 {
			p.d.metrics.discardedSamples.WithLabelValues(check(c).row().reason, string(p.t.id), p.group()).Add(float64(n))
		}
	}
}

// checkIngestionRate takes the whole push or nothing. Samples refused before do not count.
func (p *push) checkIngestionRate(context.Context) error {
	user := string(p.t.id)
	p.countRefused()
	samples := p.counts.Samples + p.counts.Histograms
	total := samples + p.counts.Exemplars + len(p.metadata)
	if total == 0 {
		return nil
	}
	if p.source != frame.Rule && !p.t.rates.ingestion.AllowN(p.now, total) {
		reason := rateLimited.row().reason
		p.d.metrics.discardedSamples.WithLabelValues(reason, user, p.group()).Add(float64(samples))
		p.attributeAll(rateLimited)
		p.d.metrics.discardedExemplars.WithLabelValues(reason, user).Add(float64(p.counts.Exemplars))
		p.d.metrics.discardedMetadata.WithLabelValues(reason, user).Add(float64(len(p.metadata)))
		r := rateLimited.row()
		return errs.Limit(errs.RateLimited, r.id, r.flag, r.key,
			"tenant %s is over its limit of %g samples a second with bursts of %d: this request has %d samples, %d exemplars and %d metadata entries",
			p.t.id, p.lim.ingestionRate, burst(p.lim.ingestionRate, p.lim.ingestionBurst), samples, p.counts.Exemplars, len(p.metadata))
	}
	p.d.ingestion.add(total)
	m := &p.t.metrics
	m.received.Inc()
	m.receivedSamples.Add(float64(samples))
	m.receivedExemplars.Add(float64(p.counts.Exemplars))
	m.receivedMeta.Add(float64(len(p.metadata)))
	return nil
}

// overloaded is the answer to a push that an instance limit keeps out.
func (d *Distributor) overloaded(id errs.ID, reason, flag string, limit int) error {
	d.metrics.rejected.WithLabelValues(reason).Inc()

	return errs.WithID(errs.Unavailable, id, "Try again later, or add distributors, or raise -"+flag+".",
		"this distributor is at its limit of %d for pushes in flight", limit)
}

// tooFast is the answer to a push while the process takes more samples than it may.
func (d *Distributor) tooFast(limit float64) error {
	d.metrics.rejected.WithLabelValues("distributor_max_ingestion_rate").Inc()
	return errs.WithID(errs.Unavailable, "distributor-max-ingestion-rate",
		"Try again later, or add distributors, or raise -distributor.instance-limits.max-ingestion-rate.",
		"this distributor is at its limit of %g samples a second", limit)
}
