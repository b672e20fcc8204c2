package wal

import (
	"fmt"
	"strconv"
	"strings"
)

const (
	checkpointPrefix = "checkpoint."
	tempSuffix       = ".tmp"
)

func segmentName(n int) string    { return fmt.Sprintf("%08d", n) }
func checkpointName(n int) string { return checkpointPrefix + segmentName(n) }

// parseNumber reads the number of a file name made by segmentName.
func parseNumber(s string) (int, bool) {
	if len(s) < 8 || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 32)
	return int(n), err == nil
}

// survey learns from the directory which files there are. What an unfinished checkpoint left is
// removed; nothing else is touched before it has been replayed.
func (l *Log) survey() error {
	files, err := l.tune.disk.List(l.dir)
	if err != nil {
		return err
	}
	for _, e := range files {
		if n, ok := parseNumber(e.name); ok {
			l.segments[n] = e.bytes
			continue
		}
		rest, ok := strings.CutPrefix(e.name, checkpointPrefix)
		if n, isNumber := parseNumber(rest); ok && isNumber {
			if n > l.check.number {
				l.check = checkpoint{n, e.bytes}
			}
			continue
		}
		switch {
		case ok && strings.HasSuffix(rest, tempSuffix):
			if err := l.tune.disk.Remove(l.path(e.name)); err != nil {
				return err
			}
		case e.name != lockName:
			l.log.Warn("file in the directory of the write-ahead log is none of its own, left alone", "file", e.name)
		}
	}
	for n := range l.segments {
		if n <= l.check.number {
			delete(l.segments, n) // replaced; removed after the replay
		}
		l.number = max(l.number, n)
	}
	l.number = max(l.number, l.check.number+1)
	return nil
}

// sweep removes the files that the newest checkpoint replaces. What cannot be removed is tried
// again after the next checkpoint: replay passes over it.
func (l *Log) sweep() {
	l.mu.Lock()
	newest := l.check.number
	l.mu.Unlock()
	if newest < 0 {
		return
	}
	d := l.tune.disk
	files, err := d.List(l.dir)
	var segmentsErr, checksErr error
	removed := 0
	for _, e := range files {
		if n, ok := parseNumber(e.name); ok && n <= newest {
			segmentsErr = firstOf(segmentsErr, d.Remove(l.path(e.name)))
			removed++
		} else if rest, ok := strings.CutPrefix(e.name, checkpointPrefix); ok {
			if n, ok := parseNumber(rest); ok && n < newest {
				checksErr = firstOf(checksErr, d.Remove(l.path(e.name)))
			}
		}
	}
	segmentsErr = firstOf(err, segmentsErr)
	if removed > 0 {
		l.metrics.truncations.Inc()
	}
	if segmentsErr != nil {
		l.metrics.truncationsFailed.Inc()
	}
	if checksErr != nil {
		l.metrics.deletionsFailed.Inc()
	}
	if err := firstOf(segmentsErr, checksErr); err != nil {
		l.log.Warn("files replaced by a checkpoint remain, will retry after the next", "checkpoint", newest, "err", err)
	}
}

func firstOf(a, b error) error {
	if a != nil {
		return a
	}
	return b
}
