package config

import (
	"fmt"
	"time"

	"github.com/prometheus/common/model"
)

// ParseDuration accepts Prometheus's form (1d, 1h30m, 0) and Go's (1.5h, 250us).
func ParseDuration(s string) (time.Duration, error) {
	if d, err := model.ParseDuration(s); err == nil {
		return time.Duration(d), nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration; write it like 30s, 5m, 1h30m or 2d", s)
	}
	return d, nil
}

// FormatDuration is the inverse of ParseDuration.
func FormatDuration(d time.Duration) string {
	if d%time.Millisecond == 0 && d >= 0 {
		return model.Duration(d).String()
	}
	return d.String()
}
