package distributor

import "github.com/amphora-metrics/amphora/pkg/remotewrite"

// notTranslated is the reason of data points of another protocol that have no form here.
const notTranslated = "otlp_parse_error"

// countRequest counts the push by how it came, and what was lost on the way here.
func (p *push) countRequest() {
	user := string(p.t.id)
	switch p.req.Origin {
	case remotewrite.OTLP:
		p.d.metrics.requestsIn.WithLabelValues(user, "otlp").Inc()
		p.d.metrics.otlpRequests.WithLabelValues(user).Inc()
	case remotewrite.Influx:
		p.d.metrics.requestsIn.WithLabelValues(user, "influx").Inc()
		p.d.metrics.influxRequests.WithLabelValues(user).Inc()
	default:
		p.t.metrics.requestsIn[p.req.Version].Inc()
	}
	if p.req.Refused > 0 && p.split.part == nil {
		p.d.metrics.discardedSamples.WithLabelValues(notTranslated, user, "").Add(float64(p.req.Refused))
	}
}
