package app

import "github.com/amphora-metrics/amphora/pkg/querier"

// querier is the settings of reading: what is near is asked first unless they say otherwise.
func (c *Config) querier() querier.Config {
	q := c.Querier
	if len(q.PreferAvailabilityZones) == 0 && c.Ring.Zone != "" {
		q.PreferAvailabilityZones = []string{c.Ring.Zone}
	}
	return q
}
