package cli

import (
	"strings"
	"time"
)

// Moment reads a time: RFC 3339, or a duration before now.
func Moment(text string, now time.Time) (time.Time, error) {
	if text == "" || text == "now" {
		return now, nil
	}
	if ago, err := time.ParseDuration(strings.TrimPrefix(text, "-")); err == nil {
		return now.Add(-ago), nil
	}
	return time.Parse(time.RFC3339, text)
}
