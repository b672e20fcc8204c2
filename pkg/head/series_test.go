package head

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

func TestCutSeriesLeaveMemoryAndStayReadable(t *testing.T) {
	h := open(t, Options{OutOfOrderWindow: time.Hour})
	a, b, late := labels.FromStrings("__name__", "a"), labels.FromStrings("__name__", "b"), labels.FromStrings("__name__", "late")
	ref := put(t, h, a, 2*hour-1000, 1)
	put(t, h, a, 2*hour+1000, 2)
	put(t, h, b, 2*hour, 3)
	rl := put(t, h, late, 2*hour, 4)
	put(t, h, late, 2*hour-1000, 5)
	n, err := h.CutSeries(context.Background(), []Ref{rl, ref})
	if err != nil || n != 2 || h.NumSeries() != 1 {
		t.Fatalf("%d series left memory, %v; %d stayed, want 2 and 1", n, err, h.NumSeries())
	}
	app := h.Appender()
	if _, err := app.Append(ref, labels.EmptyLabels(), 2*hour+2000, 3); !errors.Is(err, ErrUnknownRef) {
		t.Errorf("reference to a cut series: %v", err)
	}
	if err := app.Rollback(); err != nil {
		t.Fatal(err)
	}
	put(t, h, a, 2*hour+3000, 6)
	got := read(t, h)
	for ls, want := range map[string]string{
		a.String():    fmt.Sprintf("%d:1 %d:2 %d:6", 2*hour-1000, 2*hour+1000, 2*hour+3000),
		b.String():    fmt.Sprintf("%d:3", 2*hour),
		late.String(): fmt.Sprintf("%d:5 %d:4", 2*hour-1000, 2*hour),
	} {
		if got[ls] != want {
			t.Errorf("%s: %q, want %q", ls, got[ls], want)
		}
	}
	if n, err := h.CutSeries(context.Background(), []Ref{ref, 12345}); n != 0 || err != nil {
		t.Errorf("cut of series that are gone: %d, %v", n, err)
	}
}

// Appends go on while series are cut and while everything is.
func TestCutsLoseNoConcurrentAppend(t *testing.T) {
	h := open(t, Options{OutOfOrderWindow: time.Hour})
	const series, rounds = 40, 300
	var lost sync.Map
	var wg sync.WaitGroup
	for n := range series {
		wg.Go(func() {
			ls := labels.FromStrings("__name__", "m", "n", fmt.Sprint(n))
			for k := range int64(rounds) {
				at := 2*hour + k*1000
				app := h.TryAppender(at, nil)
				for app == nil {
					runtime.Gosched()
					app = h.TryAppender(at, nil)
				}
				if _, err := app.Append(0, ls, at, float64(k)); err != nil {
					lost.Store(ls.String(), err)
				}
				if err := app.Commit(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for round := 0; ; round++ {
		var refs []Ref
		if err := h.ForEachSeries(func(r Ref, _ labels.Labels) error { refs = append(refs, r); return nil }); err != nil {
			t.Fatal(err)
		}
		if _, err := h.CutSeries(context.Background(), refs); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Compact(context.Background(), round%2 == 0); err != nil {
			t.Fatal(err)
		}
		select {
		case <-done:
		default:
			continue
		}
		break
	}
	lost.Range(func(ls, err any) bool { t.Errorf("%s: %v", ls, err); return true })
	for ls, samples := range read(t, h) {
		if got := strings.Count(samples, ":"); got != rounds {
			t.Errorf("%s has %d samples, want %d", ls, got, rounds)
		}
	}
	if got := len(read(t, h)); got != series {
		t.Errorf("%d series, want %d", got, series)
	}
}
