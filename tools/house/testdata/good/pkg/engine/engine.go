// Package engine owns evaluation.
package engine

import "github.com/prometheus/prometheus/promql"

var _ = promql.NewEngine
