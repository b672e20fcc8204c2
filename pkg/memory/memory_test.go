package memory

import (
	"bytes"
	"context"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

const mb = 1 << 20

// process is a ledger over 100 MB of the Go runtime's, in a process that a test makes up.
type process struct {
	*Ledger
	usage usage
	clock time.Time
	reg   *prometheus.Registry
	log   bytes.Buffer
}

func newProcess(t *testing.T) *process {
	t.Helper()
	p := &process{clock: time.Unix(1_700_000_000, 0), reg: prometheus.NewPedanticRegistry()}
	p.Ledger = New(Limits{Process: 111 * mb, From: "memory.limit", Go: 100 * mb}, Deps{Logger: slog.New(slog.NewTextHandler(&p.log, nil)), Reg: p.reg})
	p.look = func() usage { return p.usage }
	p.collect = func() { p.usage.cycles++ }
	p.now = func() time.Time { return p.clock }
	p.beside.Store(0)
	return p
}

// collected lets a collection find live bytes.
func (p *process) collected(live int64) {
	p.usage.live = live
	p.usage.cycles++
	p.pass(0)
}

func (p *process) pass(d time.Duration) {
	p.clock = p.clock.Add(d)
	p.round(p.clock)
}

func (p *process) reserve(t *testing.T, u Use, n int64) {
	t.Helper()
	if err := p.Account(u).Reserve(n); err != nil {
		t.Fatalf("%d bytes for %s: %v", n, u, err)
	}
}

func (p *process) refuses(t *testing.T, u Use, n int64) {
	t.Helper()
	err := p.Account(u).Reserve(n)
	if errs.KindOf(err) != errs.Unavailable {
		t.Fatalf("%d bytes for %s, %d in use: %v, want Unavailable", n, u, p.inUse(), err)
	}
	for _, want := range []string{u.String(), "err-amphora-memory-limit", "-memory.limit", "116391936"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
}

func TestNewSeriesAreRefusedFirstThenReadsThenWritesAndNeverWhatIsOwed(t *testing.T) {
	p := newProcess(t)
	p.reserve(t, Series, 75*mb)
	p.refuses(t, Series, 1)
	p.refuses(t, Table, 1)
	p.reserve(t, Queries, 10*mb)
	p.refuses(t, Queries, 1)
	p.reserve(t, Bodies, 5*mb)
	p.reserve(t, Frames, 5*mb)
	p.refuses(t, Frames, 1)
	p.refuses(t, Bodies, 1)
	p.Account(Chunks).Take(10 * mb)
	p.Account(Replay).Take(10 * mb)
	if n := p.inUse(); n != 115*mb {
		t.Errorf("%d bytes in use", n)
	}
	// In the reverse order they come back.
	p.Account(Chunks).Release(10 * mb)
	p.Account(Replay).Release(10 * mb)
	p.Account(Frames).Release(2 * mb)
	p.reserve(t, Bodies, 2*mb)
	p.refuses(t, Queries, 1)
	p.Account(Bodies).Release(7 * mb)
	p.Account(Frames).Release(3 * mb)
	p.Account(Queries).Release(1 * mb)
	p.reserve(t, Queries, 1*mb)
	p.refuses(t, Series, 1)
	p.Account(Queries).Release(10 * mb)
	p.Account(Series).Release(1)
	p.reserve(t, Series, 1)
}

func TestARefusedReservationTakesNothing(t *testing.T) {
	p := newProcess(t)
	p.refuses(t, Series, 76*mb)
	if p.inUse() != 0 || p.Account(Series).Held() != 0 {
		t.Errorf("%d in use, %d held", p.inUse(), p.Account(Series).Held())
	}
	if p.Account(Series).Short() || p.Account(Series).Room() != nil {
		t.Error("short although nothing is in use")
	}
	p.Account(Chunks).Take(76 * mb)
	if !p.Account(Series).Short() || errs.KindOf(p.Account(Series).Room()) != errs.Unavailable || p.Account(Queries).Room() != nil {
		t.Error("not short over the line, or reads are")
	}
}

func TestWhatNobodyReservedCounts(t *testing.T) {
	p := newProcess(t)
	p.reserve(t, Series, 30*mb)
	p.collected(70 * mb) // 40 of them are nobody's
	p.refuses(t, Series, 6*mb)
	p.reserve(t, Series, 5*mb)
	p.Account(Series).Release(35 * mb)
	p.reserve(t, Queries, 45*mb)
	p.refuses(t, Queries, 1)
	// A collection finds the leak gone.
	p.collected(45 * mb)
	p.reserve(t, Queries, 40*mb)
	// Reserved and not used yet is no room for others.
	p.collected(1 * mb)
	p.refuses(t, Queries, 1)
}

func TestCachesShrinkBeforeAnythingIsRefused(t *testing.T) {
	p := newProcess(t)
	shrunk := 0
	p.OnPressure(func() { shrunk++ })
	p.collected(64 * mb)
	if shrunk != 0 {
		t.Error("caches shrink without need")
	}
	p.collected(70 * mb)
	p.collected(70 * mb)
	if shrunk != 1 {
		t.Errorf("shrunk %d times within a second", shrunk)
	}
	p.refuses(t, Caches, 1)
	p.reserve(t, Series, 1)
	p.pass(time.Second)
	if shrunk != 2 || p.log.Len() > 0 {
		t.Errorf("shrunk %d times; log %s", shrunk, p.log.String())
	}
}

func TestPressureIsToldWhenItBeginsWorsensAndEnds(t *testing.T) {
	p := newProcess(t)
	lines := func() []string {
		defer p.log.Reset()
		return strings.Split(strings.TrimSpace(p.log.String()), "\n")
	}
	p.reserve(t, Queries, 1*mb)
	p.collected(76 * mb)
	p.collected(77 * mb)
	if got := lines(); len(got) != 1 || !strings.Contains(got[0], "level=WARN") || !strings.Contains(got[0], "new series are refused") || !strings.Contains(got[0], "queries:") {
		t.Errorf("at the first line: %q", got)
	}
	p.collected(96 * mb)
	if got := lines(); len(got) != 1 || !strings.Contains(got[0], "writes are refused") {
		t.Errorf("at the last line: %q", got)
	}
	p.collected(74 * mb) // just below the line
	p.refuses(t, Queries, 50*mb)
	p.collected(50 * mb)
	if got := lines(); got[0] != "" {
		t.Errorf("over too early: %q", got)
	}
	p.pass(calmAfter)
	if got := lines(); len(got) != 1 || !strings.Contains(got[0], "level=INFO") || !strings.Contains(got[0], "no longer short") {
		t.Errorf("at the end: %q", got)
	}
}

func TestGarbageIsCollectedForThoseWhoAreRefused(t *testing.T) {
	p := newProcess(t)
	p.collected(90 * mb)
	p.usage.live = 10 * mb // let go, and not collected
	p.refuses(t, Queries, 1)
	p.pass(time.Second)
	p.refuses(t, Queries, 1)
	p.pass(collectAfter)
	p.reserve(t, Queries, 1)
}

func TestLoansTouchTheAccountInSteps(t *testing.T) {
	p := newProcess(t)
	a := p.Account(Queries)
	l := a.Loan()
	for range 1000 {
		if err := l.Use(100); err != nil {
			t.Fatal(err)
		}
	}
	if a.Held() != loanStep {
		t.Errorf("%d bytes held for 100 kB", a.Held())
	}
	if err := l.Use(3 * mb); err != nil || a.Held() < 3*mb+100_000 {
		t.Errorf("%d bytes held: %v", a.Held(), err)
	}
	if err := l.Use(100 * mb); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("more than there is: %v", err)
	}
	l.Return()
	if a.Held() != 0 || p.inUse() != 0 {
		t.Errorf("%d bytes kept", a.Held())
	}
	var free Loan
	if err := free.Use(1 << 50); err != nil {
		t.Error("a loan of nobody is bounded:", err)
	}
	free.Return()
}

func TestANilLedgerBoundsNothing(t *testing.T) {
	var l *Ledger
	a := l.Account(Series)
	if err := a.Reserve(1 << 50); err != nil || a.Held() != 0 || a.Short() || a.Room() != nil {
		t.Error(err)
	}
	a.Release(1 << 50)
	l.OnPressure(nil)
	if l.Part(0.25) != 2<<30 {
		t.Errorf("a quarter is %d", l.Part(0.25))
	}
}

func TestConcurrentReservationsAddUp(t *testing.T) {
	p := newProcess(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10_000 {
				if p.Account(Bodies).Reserve(mb) == nil {
					if p.inUse() > 95*mb+8*mb {
						t.Error("more in use than there is")
					}
					p.Account(Bodies).Release(mb)
				}
			}
		})
	}
	wg.Wait()
	if p.inUse() != 0 || p.Account(Bodies).Held() != 0 {
		t.Errorf("%d bytes kept", p.inUse())
	}
}

func TestMetricsTellOfEachAccount(t *testing.T) {
	p := newProcess(t)
	p.reserve(t, Series, 70*mb)
	p.refuses(t, Series, 70*mb)
	p.pass(time.Second)
	want := `
# HELP amphora_memory_pressure How short the process is of memory. 0: not, 1: caches shrink, 2: new series are refused, 3: reads too, 4: writes too.
# TYPE amphora_memory_pressure gauge
amphora_memory_pressure 1
# HELP amphora_memory_limit_bytes Memory this process may use.
# TYPE amphora_memory_limit_bytes gauge
amphora_memory_limit_bytes 1.16391936e+08
`
	if err := testutil.GatherAndCompare(p.reg, strings.NewReader(want), "amphora_memory_pressure", "amphora_memory_limit_bytes"); err != nil {
		t.Error(err)
	}
	if n, err := testutil.GatherAndCount(p.reg, "amphora_memory_reserved_bytes", "amphora_memory_refused_total"); err != nil || n != 2*int(numUses) {
		t.Errorf("%d series, %v", n, err)
	}
}

// The real runtime: what is held is seen after a collection, and a collection is noticed.
func TestTheRuntimeIsWatched(t *testing.T) {
	runtime.GC() // what earlier tests left would be counted before, and not after
	l := New(Limits{Process: 1 << 40, Go: 1 << 40}, Deps{})
	if err := services.StartAndAwaitRunning(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	before := l.beside.Load()
	held := make([]byte, 200*mb)
	for i := range held {
		held[i] = 1
	}
	runtime.GC()
	deadline := time.Now().Add(30 * time.Second)
	for l.beside.Load()-before < 150*mb {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes are in use beside what is reserved, %d before", l.beside.Load(), before)
		}
		runtime.Gosched()
	}
	runtime.KeepAlive(held)
	if err := services.StopAndAwaitTerminated(context.Background(), l); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkReserve(b *testing.B) {
	l := New(Limits{Process: 1 << 40, Go: 1 << 40}, Deps{})
	a := l.Account(Bodies)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if a.Reserve(100) == nil {
				a.Release(100)
			}
		}
	})
}
