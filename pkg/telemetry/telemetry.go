// Package telemetry owns how a process reports on itself: the log, the metrics and their namespace,
// traces, and build information. Nothing is sent anywhere unless the environment names a receiver.
package telemetry

import (
	"github.com/prometheus/common/model"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/telemetry/activity"
)

// Config of the log, the metrics and what names the requests under way.
type Config struct {
	LogLevel  string
	LogFormat string
	Namespace string          // of our metrics, "amphora"
	Activity  activity.Config // which the owner of the whole mounts
}

// Declare is part of config.Declarer; mount it at the top level.
func (c *Config) Declare(s *config.Set) {
	s.String(&c.LogLevel, "log.level", "info", "Lowest level that is logged.").OneOf("debug", "info", "warn", "error")
	s.String(&c.LogFormat, "log.format", FormatLogfmt, "Format of log lines.").OneOf(FormatLogfmt, FormatJSON)
	s.String(&c.Namespace, "metrics.namespace", ownNamespace,
		"Prefix of the names of Amphora's metrics. With cortex, dashboards and alerts made for Cortex and Mimir work unchanged.")
}

// Validate is part of config.Validator.
func (c *Config) Validate() error {
	if !model.LegacyValidation.IsValidMetricName(c.Namespace) {
		return config.Wrong("metrics.namespace", "%q cannot begin the name of a metric", c.Namespace)
	}
	return nil
}
