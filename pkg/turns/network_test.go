package turns

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// pingTo is where another process of this test binary asks for answers.
const pingTo = "TURNS_TEST_PING"

// TestMain is that other process if it is told where to ask: it prints how long each of some answers took.
func TestMain(m *testing.M) {
	addr := os.Getenv(pingTo)
	if addr == "" {
		os.Exit(m.Run())
	}
	if err := ping(addr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func ping(addr string) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	tick := time.NewTicker(7 * time.Millisecond)
	defer tick.Stop()
	for range 40 {
		<-tick.C
		begin := time.Now()
		if _, err := c.Write([]byte{1}); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			return err
		}
		fmt.Println(time.Since(begin))
	}
	return nil
}

// answers returns the median of what another process waits for an answer over the network, while as many
// goroutines compute here as there are processors.
func answers(t *testing.T) time.Duration {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	defer l.Close()
	wg.Go(func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.Copy(c, c)
	})
	g := gate(runtime.GOMAXPROCS(0))
	g.company.Store(int64(time.Hour))
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			_, turn, end := g.Begin(by(ctx, "loud", 0))
			defer end()
			for ctx.Err() == nil {
				for begin := time.Now(); time.Since(begin) < unit; { // it computes
				}
				turn.Yield()
			}
		})
	}
	other := exec.CommandContext(ctx, os.Args[0])
	other.Env = append(os.Environ(), pingTo+"="+l.Addr().String())
	out, err := other.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var took []time.Duration
	for line := range strings.Lines(string(out)) {
		d, err := time.ParseDuration(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		took = append(took, d)
	}
	if len(took) == 0 {
		t.Fatalf("no answers:\n%s", out)
	}
	slices.Sort(took)
	return took[len(took)/2]
}

// TestTheNetworkIsLookedAtBesideLongWork asks a process whose processors all compute. A machine that does much else
// takes its time, too, so one good round of many will do: of a process that does not look there is none, since its
// answers take half of the 10 ms in which Go looks by itself.
func TestTheNetworkIsLookedAtBesideLongWork(t *testing.T) {
	if !pollable {
		t.Skip("the runtime does not wait for pipes here")
	}
	var medians []time.Duration
	for range 50 {
		medians = append(medians, answers(t))
		if medians[len(medians)-1] < 2*time.Millisecond {
			return
		}
	}
	t.Errorf("answers of the network take %s", medians)
}

func BenchmarkLookAtTheNetwork(b *testing.B) {
	var n network
	b.ReportAllocs()
	for b.Loop() {
		n.next.Store(0)
		n.look(1)
	}
}
