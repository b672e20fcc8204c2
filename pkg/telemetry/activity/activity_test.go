package activity

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/grafana/dskit/user"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// opened is a tracker on a file, and what it logged when it was opened.
func opened(t *testing.T, path string, entries int) (*Tracker, string) {
	t.Helper()
	var logs bytes.Buffer
	tr := Open(Config{Path: path, Entries: entries, Labels: true}, Deps{
		Log: slog.New(slog.NewTextHandler(&logs, nil)), Reg: prometheus.NewRegistry(), Target: "querier",
		Now: func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) },
	})
	t.Cleanup(func() { _ = tr.Close() })
	return tr, logs.String()
}

// killed copies a file as it is, which is what a kill leaves: who had it before is told to let go of another.
func killed(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	next := filepath.Join(t.TempDir(), "activity")
	if err := os.WriteFile(next, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return next
}

func TestWhatAKilledProcessWasAtIsLoggedAtTheNextStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "activity")
	tr, logs := opened(t, path, 4)
	if logs != "" {
		t.Fatalf("a first start has nothing to tell: %s", logs)
	}
	ctx := user.InjectOrgID(t.Context(), "team-a")
	under, end := tr.Begin(ctx, "GET /query", func() string { return "query=up" })
	Note(under, "time=17")
	_, endOther := tr.Begin(ctx, "GET /series", nil)
	endOther()

	after := killed(t, path)
	again, logs := opened(t, after, 4)
	if !strings.Contains(logs, `request="GET /query tenant=team-a query=up time=17"`) || !strings.Contains(logs, "since=2026-01-02T03:04:05Z") ||
		!strings.Contains(logs, "of=\"querier, process ") || strings.Contains(logs, "/series") || strings.Count(logs, "level=WARN") != 1 {
		t.Errorf("the next start logged:\n%s", logs)
	}
	if n := testutil.ToFloat64(again.metrics.left); n != 1 {
		t.Errorf("%v requests are said to be left, want 1", n)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	if _, logs = opened(t, after, 4); logs != "" {
		t.Errorf("what was told once is told again:\n%s", logs)
	}

	end()
	if _, logs = opened(t, killed(t, path), 4); logs != "" {
		t.Errorf("what has ended is told:\n%s", logs)
	}
}

func TestAProcessThatStopsLeavesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "activity")
	tr, _ := opened(t, path, 4)
	ctx, end := tr.Begin(t.Context(), "cut by the stop", nil)
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	Note(ctx, "after the end")
	end()
	if _, logs := opened(t, path, 4); logs != "" {
		t.Errorf("a process that stopped left:\n%s", logs)
	}
}

func TestSlotsAreBoundedAndUsedAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "activity")
	tr, _ := opened(t, path, 2)
	var ends []func()
	for i := range 3 {
		_, end := tr.Begin(t.Context(), fmt.Sprintf("request %d", i), nil)
		ends = append(ends, end)
	}
	if n := testutil.ToFloat64(tr.metrics.failed.WithLabelValues("full")); n != 1 {
		t.Errorf("%v requests had no slot, want 1", n)
	}
	ends[0]()
	_, end := tr.Begin(t.Context(), "request 3 "+strings.Repeat("é", entryBytes), nil)
	_, logs := opened(t, killed(t, path), 2)
	if !strings.Contains(logs, "request 1") || !strings.Contains(logs, "request 3 é") || strings.Contains(logs, "request 0") || strings.Contains(logs, "request 2") || strings.Contains(logs, "?") {
		t.Errorf("left:\n%s", logs)
	}
	end()
	ends[1]()
	ends[2]()
	if n := testutil.ToFloat64(tr.metrics.free); n != 2 {
		t.Errorf("%v slots are free after all, want 2", n)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 3*entryBytes || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", info, err)
	}
}

func TestProcessesOfOneDirectoryTakeFilesOfTheirOwn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "activity")
	first, _ := opened(t, path, 1)
	second, logs := opened(t, path, 1)
	if logs != "" || first.file.Name() != path || second.file.Name() != path+".2" {
		t.Errorf("the files are %s and %s; logged: %s", first.file.Name(), second.file.Name(), logs)
	}
}

func TestWithoutAFileTheProcessWorksAndSaysSo(t *testing.T) {
	dir := t.TempDir()
	other := filepath.Join(dir, "notes")
	if err := os.WriteFile(other, []byte("not ours"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		other: "something else", filepath.Join(other, "activity"): "not a directory", "": "",
	} {
		tr, logs := opened(t, path, 1)
		if !strings.Contains(logs, want) || want == "" && logs != "" {
			t.Errorf("%q: logged %q, want %q", path, logs, want)
		}
		ctx, end := tr.Begin(t.Context(), "request", nil)
		if Noted(ctx) {
			t.Errorf("%q: a note is said to be heard", path)
		}
		Note(ctx, "x")
		end()
	}
	if b, err := os.ReadFile(other); err != nil || string(b) != "not ours" {
		t.Errorf("a file of somebody else was changed: %q, %v", b, err)
	}
	var none *Tracker
	_, end := none.Begin(t.Context(), "request", nil)
	end()
	none.Label("a")()
	if err := none.Close(); err != nil {
		t.Error(err)
	}
}

func TestAFileThatCannotBeWrittenIsGivenUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "activity")
	tr, _ := opened(t, path, 2)
	_, end := tr.Begin(t.Context(), "request", nil)
	readOnly, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	was := tr.file
	tr.file = readOnly
	end()
	_ = was.Close()
	_ = readOnly.Close()
	if n := testutil.ToFloat64(tr.metrics.failed.WithLabelValues("write")); n != 1 || tr.file != nil {
		t.Errorf("%v failed writes, file %v", n, tr.file)
	}
	ctx, end := tr.Begin(t.Context(), "request", nil)
	defer end()
	if Noted(ctx) {
		t.Error("a request is named in a file that was given up")
	}
}

func TestOnlyWhatIsNoCredentialIsTold(t *testing.T) {
	got := Asked(url.Values{"query": {"up"}, "X-Amz-Signature": {"s3cret"}, "X-Amz-Security-Token": {"s3cret"}, "access_token": {"s3cret"}, "match[]": {"a", "b"}, "start": {"1"}})
	if want := "start=1 query=up match[]=a match[]=b"; got != want {
		t.Errorf("told: %q, want %q", got, want)
	}
	if n := len(Asked(url.Values{"match[]": make([]string, 100_000)})); n > 2*textBytes {
		t.Errorf("%d bytes are put together for a slot of %d", n, textBytes)
	}
}

// labelled returns the goroutines of the process by their labels, as profiles have them.
func labelled(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&b, 1); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestProfilesTellTenantsApart(t *testing.T) {
	tr, _ := opened(t, "", 1)
	_, end := tr.Begin(user.InjectOrgID(t.Context(), "reader"), "query", nil)
	if p := labelled(t); !strings.Contains(p, `"tenant":"reader"`) {
		t.Error("a query has no label")
	}
	end()
	end = tr.Label("writer")
	child := make(chan string)
	go func() { child <- labelled(t) }()
	if p := <-child; !strings.Contains(p, `"tenant":"writer"`) {
		t.Error("a push has no label")
	}
	end()
	if p := labelled(t); strings.Contains(p, "reader") || strings.Contains(p, "writer") {
		t.Error("labels stay")
	}
	off := Open(Config{Entries: 1}, Deps{})
	defer off.Label("nobody")()
	if strings.Contains(labelled(t), "nobody") {
		t.Error("labels that are switched off are there")
	}
}

func TestALabelOfAKnownTenantCostsNoMemory(t *testing.T) {
	tr, _ := opened(t, "", 1)
	tr.Label("a")()
	if n := testing.AllocsPerRun(100, func() { tr.Label("a")() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzParse(f *testing.F) {
	b := make([]byte, 2*entryBytes)
	copy(b, magic+"all\n")
	f.Add(append(b[:entryBytes:entryBytes], appendEntry(make([]byte, 0, entryBytes), time.Unix(1, 0), "x")[:entryBytes]...))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		left := parse(b)
		if len(left) > len(b)/entryBytes {
			t.Fatalf("%d entries in %d bytes", len(left), len(b))
		}
		for _, l := range left {
			if len(l.text) == 0 || strings.ToValidUTF8(l.text, "") != l.text {
				t.Fatalf("%+v", l)
			}
		}
	})
}

func BenchmarkBegin(b *testing.B) {
	tr := Open(Config{Path: filepath.Join(b.TempDir(), "activity"), Entries: 1024, Labels: true}, Deps{})
	ctx := user.InjectOrgID(context.Background(), "team-a")
	b.ReportAllocs()
	for b.Loop() {
		_, end := tr.Begin(ctx, "GET /prometheus/api/v1/query", func() string { return "query=sum(rate(x[5m]))" })
		end()
	}
}

func BenchmarkLabel(b *testing.B) {
	tr := Open(Config{Entries: 1, Labels: true}, Deps{})
	b.ReportAllocs()
	for b.Loop() {
		tr.Label("team-a")()
	}
}
