package ingester

import (
	"errors"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/memory"
)

// accounts are the ingester's in the budget of the process.
type accounts struct{ series, frames, queries *memory.Account }

func accountsOf(l *memory.Ledger) accounts {
	return accounts{series: l.Account(memory.Series), frames: l.Account(memory.Frames), queries: l.Account(memory.Queries)}
}

// headBytes is what a head takes without series.
const headBytes = 40_000

// headSeriesBytes is what a series takes in the head beside its labels: its state, an open chunk, its
// places in the index. It is somewhat low on purpose: what is really used counts as well, and what is
// reserved for nothing is lost to others.
const headSeriesBytes = 800

// seriesBytes is what the series ls takes in the head.
func seriesBytes(ls labels.Labels) int64 { return headSeriesBytes + int64(ls.ByteSize()) }

// shortOfMemory is what the hook of a head returns when the process has no memory for a new series.
// The samples of known series are stored, and the sender comes back with the rest.
type shortOfMemory struct{ err error }

func isShortOfMemory(err error) bool {
	_, ok := errors.AsType[*shortOfMemory](err)
	return ok
}

func (s *shortOfMemory) Error() string { return s.err.Error() }
func (s *shortOfMemory) Unwrap() error { return s.err }
