package distributor

import "github.com/amphora-metrics/amphora/pkg/remotewrite"

// notTranslated is the reason of data points of another protocol that have no form here.
const notTranslated = "otlp_parse_error"

// countRequest counts the push by how it came, and what was lost on the way here.
func (p *push) countRequest() {
	switch {
	case p.req.Handed: // another counted it
	case p.req.Origin == remotewrite.OTLP:
		p.t.metrics.requestsIn[byOTLP].Inc()
	case p.req.Origin == remotewrite.Influx:
		p.t.metrics.requestsIn[byInflux].Inc()
	case p.req.Origin == remotewrite.Import:
		p.t.metrics.requestsIn[byImport].Inc()
	default:
		p.t.metrics.requestsIn[p.req.Version].Inc()
	}
	if p.req.Refused > 0 && p.split.part == nil {
		p.d.metrics.discardedSamples.WithLabelValues(notTranslated, string(p.t.id), "").Add(float64(p.req.Refused))
	}
}
