package wal

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

// rig is a log under test with its registry and what it logged.
type rig struct {
	*Log
	reg  *prometheus.Registry
	logs *bytes.Buffer
}

func smallTuning(d disk) tuning {
	return tuning{disk: d, segmentBytes: 8 << 10, batchBytes: 2 << 10, queueBytes: 64 << 10}
}

// openOn opens a log on d without replaying it.
func openOn(t testing.TB, d disk, dir string, sync bool) *rig {
	t.Helper()
	r := &rig{reg: prometheus.NewRegistry(), logs: new(bytes.Buffer)}
	l, err := open(dir, Options{Config: Config{Sync: sync}, Logger: slog.New(slog.NewTextHandler(r.logs, nil)), Reg: r.reg}, smallTuning(d))
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	r.Log = l
	t.Cleanup(func() { l.Close() })
	return r
}

// replayed opens a log on d and returns what it replays.
func replayed(t testing.TB, d disk) (*rig, []string, ReplayStats) {
	t.Helper()
	return replayedIn(t, d, t.TempDir())
}

func replayedIn(t testing.TB, d disk, dir string) (*rig, []string, ReplayStats) {
	t.Helper()
	r := openOn(t, d, dir, true)
	got, stats := r.replay(t)
	return r, got, stats
}

func (r *rig) replay(t testing.TB) ([]string, ReplayStats) {
	t.Helper()
	var got []string
	last := -1
	stats, err := r.Replay(t.Context(), func(segment int, rec []byte) error {
		if segment < last {
			t.Errorf("segment %d replayed after %d", segment, last)
		}
		last = segment
		got = append(got, string(rec))
		return nil
	})
	if err != nil {
		t.Fatalf("replay: %v", err)
	}
	return got, stats
}

// put appends recs and waits for each; the test fails if one is not acknowledged.
func (r *rig) put(t testing.TB, recs ...string) (segment int) {
	t.Helper()
	for _, rec := range recs {
		var err error
		if segment, err = r.Append([]byte(rec)).Wait(t.Context()); err != nil {
			t.Fatalf("append: %v", err)
		}
	}
	return segment
}

func (r *rig) cutNow(t testing.TB) int {
	t.Helper()
	n, err := r.Cut()
	if err != nil {
		t.Fatalf("cut: %v", err)
	}
	return n
}

// metric returns the value of one metric.
func (r *rig) metric(t testing.TB, name string) float64 {
	t.Helper()
	found, err := r.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		if f.GetName() == metricPrefix+name {
			m := f.GetMetric()[0]
			return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func equal(t testing.TB, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("%s: got %d records %.200q, want %d %.200q", what, len(got), got, len(want), want)
	}
}

// numbered returns records from..to-1, which do not compress.
func numbered(from, to int) []string {
	var out []string
	for i := from; i < to; i++ {
		out = append(out, fmt.Sprintf("%06d-%s", i, strings.Repeat(string(rune('a'+i%26)), i%40)))
	}
	return out
}

func TestRecordsReplayInOrderOnTheRealDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there")
	want := numbered(0, 500)
	for round := range 3 {
		r := &rig{}
		l, err := Open(dir, Options{Config: Config{Sync: round%2 == 0}})
		if err != nil {
			t.Fatal(err)
		}
		r.Log = l
		got, _ := r.replay(t)
		equal(t, "replay", got, want[:round*100])
		tickets := []Ticket{}
		for _, rec := range want[round*100 : round*100+100] {
			tickets = append(tickets, l.Append([]byte(rec)))
		}
		for i, ticket := range tickets {
			if segment, err := ticket.Wait(t.Context()); err != nil || segment != round {
				t.Fatalf("record %d: segment %d, err %v; want segment %d", i, segment, err, round)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if first, last := l.Segments(); first != 0 || last != round || l.Bytes() == 0 {
			t.Fatalf("segments %d to %d, %d bytes", first, last, l.Bytes())
		}
	}
}

func TestOnlyOneProcessOpensALog(t *testing.T) {
	dir := t.TempDir()
	openOn(t, osDisk{}, dir, true)
	_, err := Open(dir, Options{})
	if errs.KindOf(err) != errs.Conflict || !strings.Contains(err.Error(), dir) {
		t.Fatalf("second open: %v, want a conflict that names %s", err, dir)
	}
}

func TestALogTakesNothingBeforeReplayAndAfterClose(t *testing.T) {
	r := openOn(t, newMemDisk(), t.TempDir(), true)
	check := func(when string) {
		t.Helper()
		_, err := r.Append([]byte("x")).Wait(t.Context())
		_, cutErr := r.Cut()
		for _, err := range []error{err, cutErr, r.Checkpoint(t.Context(), 1, nil)} {
			if errs.KindOf(err) != errs.Unavailable {
				t.Errorf("%s: %v, want unavailable", when, err)
			}
		}
	}
	check("before replay")
	r.replay(t)
	if _, err := r.Replay(t.Context(), nil); errs.KindOf(err) != errs.Conflict {
		t.Errorf("second replay: %v, want conflict", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	check("after close")
	if err := r.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
}

func TestCloseWritesWhatWasAppended(t *testing.T) {
	for _, sync := range []bool{true, false} {
		d := newMemDisk()
		r := openOn(t, d, t.TempDir(), sync)
		r.replay(t)
		want := numbered(0, 300)
		for _, rec := range want {
			r.Append([]byte(rec))
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		_, got, _ := replayed(t, d.survive(func(synced bool) bool { return synced }))
		equal(t, "after a power cut", got, want)
	}
}

func TestCutSeparatesBeforeFromAfter(t *testing.T) {
	r, _, _ := replayed(t, newMemDisk())
	if n := r.cutNow(t); n != 0 {
		t.Errorf("cut of an empty segment: %d, want 0", n)
	}
	before := r.Append([]byte("a"))
	n := r.cutNow(t)
	if s, _ := before.Wait(t.Context()); s >= n {
		t.Errorf("record before the cut lies in %d, want less than %d", s, n)
	}
	if s := r.put(t, "b"); s < n {
		t.Errorf("record after the cut lies in %d, want %d", s, n)
	}
}

func TestSegmentsAreClosedAtTheirSize(t *testing.T) {
	d := newMemDisk()
	r, _, _ := replayed(t, d)
	want := numbered(0, 2000)
	r.put(t, want...)
	_, last := r.Segments()
	files, _ := d.List("")
	if last < 3 || len(files) != last+1 {
		t.Fatalf("last segment %d, %d files", last, len(files))
	}
	var sum int64
	for _, f := range files {
		sum += f.bytes
		if f.bytes > 8<<10 {
			t.Errorf("%s has %d bytes", f.name, f.bytes)
		}
	}
	if sum != r.Bytes() || float64(sum) != r.metric(t, "wal_storage_size_bytes") {
		t.Errorf("bytes %d, metric %v, on disk %d", r.Bytes(), r.metric(t, "wal_storage_size_bytes"), sum)
	}
	_, got, _ := replayed(t, d.clone())
	equal(t, "replay", got, want)
}

func TestRecordSizesAreBounded(t *testing.T) {
	r, _, _ := replayed(t, newMemDisk())
	if _, err := r.Append(make([]byte, maxRecordBytes+1)).Wait(t.Context()); errs.KindOf(err) != errs.Invalid {
		t.Errorf("too large a record: %v, want invalid", err)
	}
	big := string(bytes.Repeat([]byte("0123456789abcdef"), maxRecordBytes/16))
	r.put(t, big, "")
	_, got, _ := replayed(t, r.tune.disk.(*memDisk).clone())
	equal(t, "replay", got, []string{big, ""})
}

func TestAHangingDiskNeverBlocksAppend(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := newMemDisk()
		r, _, _ := replayedIn(t, d, dir)
		gate := make(chan struct{})
		d.setFault(func(op, _ string) error {
			if op == "sync" {
				<-gate
			}
			return nil
		})
		var tickets []Ticket
		refused := 0
		for range 200 {
			ticket := r.Append(make([]byte, 1000))
			if _, err := ticket.Wait(canceled(t)); errs.KindOf(err) == errs.Unavailable {
				refused++
			} else {
				tickets = append(tickets, ticket)
			}
		}
		if len(tickets) > 66 || refused != 200-len(tickets) || r.metric(t, "wal_appends_refused_total") != float64(refused) {
			t.Errorf("%d taken, %d refused, metric %v", len(tickets), refused, r.metric(t, "wal_appends_refused_total"))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := tickets[0].Wait(ctx); errs.KindOf(err) != errs.Timeout {
			t.Errorf("wait: %v, want timeout", err)
		}
		if _, err := r.Cut(); errs.KindOf(err) != errs.Unavailable {
			t.Errorf("cut: %v, want unavailable", err)
		}
		close(gate)
		for _, ticket := range tickets {
			if _, err := ticket.Wait(t.Context()); err != nil {
				t.Fatalf("after the hang: %v", err)
			}
		}
		r.put(t, "goes on")
	})
}

func TestCloseOfAHangingDiskEnds(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := newMemDisk()
		r, _, _ := replayedIn(t, d, dir)
		gate := make(chan struct{})
		d.setFault(func(string, string) error { <-gate; return nil })
		r.Append([]byte("x"))
		if err := r.Close(); errs.KindOf(err) != errs.Unavailable {
			t.Errorf("close: %v, want unavailable", err)
		}
		close(gate)
		synctest.Wait()
	})
}

func canceled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestAppendDoesNotAllocate(t *testing.T) {
	d := newMemDisk()
	r := &rig{reg: prometheus.NewRegistry(), logs: new(bytes.Buffer)}
	l, err := open(t.TempDir(), Options{Reg: r.reg}, tuning{d, segmentBytes, batchBytes, queueBytes})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	r.Log = l
	r.replay(t)
	rec := make([]byte, 100)
	gate := make(chan struct{})
	r.put(t, string(make([]byte, 1<<20))) // a pooled buffer large enough
	d.setFault(func(string, string) error { <-gate; return nil })
	l.Append(rec)
	if n := testing.AllocsPerRun(1000, func() { l.Append(rec) }); n != 0 {
		t.Errorf("%v allocations per append, want 0", n)
	}
	close(gate)
}

func TestUnknownFilesAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"notes.txt", "checkpoint.00000007.tmp", "0001"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	openOn(t, osDisk{}, dir, true)
	left, _ := osDisk{}.List(dir)
	var names []string
	for _, e := range left {
		names = append(names, e.name)
	}
	equal(t, "files", names, []string{"0001", lockName, "notes.txt"})
}

func TestSyncIsTheDefault(t *testing.T) {
	var c Config
	set := config.NewSet()
	set.Mount("wal", &c)
	if f := set.Fields(); !c.Sync || len(f) != 1 || f[0].Flag != "wal.sync" {
		t.Fatalf("config %+v, fields %d", c, len(f))
	}
}

func TestMetricNamesAreLinted(t *testing.T) {
	r, _, _ := replayed(t, newMemDisk())
	problems, err := testutil.GatherAndLint(r.reg)
	if err != nil || len(problems) > 0 {
		t.Fatalf("%v %v", problems, err)
	}
}
