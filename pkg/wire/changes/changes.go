// Package changes owns the message by which queriers tell frontends which data was written or deleted
// after it may have been read, so that an outdated cached answer is not used.
package changes

import (
	"encoding/json"
	"slices"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// Path is where the querier answers with the log of the tenants of the context. It is no route: only
// frontends ask for it.
const Path = "/changes"

// Most bounds the changes of a log; beyond, it begins later.
const Most = 2000

// Change says that samples with MinTime <= t <= MaxTime became others at the time At. All times are
// milliseconds.
type Change struct {
	MinTime int64 `json:"min"`
	MaxTime int64 `json:"max"`
	At      int64 `json:"at"`
}

// Log is what changed.
type Log struct {
	// Time is when the log was asked for, by the earliest clock of those that were.
	Time int64 `json:"time"`
	// Since is the beginning of the log: nothing is known of earlier changes.
	Since   int64    `json:"since"`
	Changes []Change `json:"changes"`
}

// Merge adds what another source knows, so that l begins when both do.
func (l *Log) Merge(o Log) {
	l.Time, l.Since = min(l.Time, o.Time), max(l.Since, o.Since)
	l.Changes = append(l.Changes, o.Changes...)
}

// Bounded returns l with no more than Most changes: of too many the oldest are forgotten.
func (l Log) Bounded() Log {
	if len(l.Changes) <= Most {
		return l
	}
	ats := make([]int64, len(l.Changes))
	for i, c := range l.Changes {
		ats[i] = c.At
	}
	slices.Sort(ats)
	oldest := ats[len(ats)-Most]
	l.Since = max(l.Since, oldest)
	l.Changes = slices.DeleteFunc(slices.Clone(l.Changes), func(c Change) bool { return c.At <= oldest })
	return l
}

// Encode returns l as it travels.
func (l Log) Encode() ([]byte, error) { return json.Marshal(l) }

// Decode reads a log. Errors: Internal.
func Decode(b []byte) (Log, error) {
	var l Log
	if err := json.Unmarshal(b, &l); err != nil {
		return Log{}, errs.New(errs.Internal, "a log of changes cannot be read: %w", err)
	}
	return l, nil
}
