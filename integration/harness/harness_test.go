package harness

import (
	"context"
	"errors"
	"flag"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test binary play the product: a server that is ready until SIGTERM.
func TestMain(m *testing.M) {
	switch os.Getenv("HARNESS_TEST_PLAYS") {
	case "":
		os.Exit(m.Run())
	case "amphora":
		play()
	case "crash":
		_, _ = os.Stderr.WriteString("no space left on device\n")
		os.Exit(3)
	}
}

func play() {
	fs := flag.NewFlagSet("amphora", flag.ExitOnError)
	var port string
	for _, a := range os.Args[1:] {
		name, value, _ := strings.Cut(strings.TrimLeft(a, "-"), "=")
		if fs.Lookup(name) == nil {
			fs.String(name, value, "")
		}
		if name == "server.http-listen-port" {
			port = value
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() {
		err := http.ListenAndServe(loopback+":"+port, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(strings.Join(os.Args[1:], "\n")))
		}))
		_, _ = os.Stderr.WriteString(err.Error())
		os.Exit(1)
	}()
	<-ctx.Done()
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func playedCluster(t *testing.T) *Cluster {
	t.Setenv("HARNESS_TEST_PLAYS", "amphora")
	return Start(within(t, 30*time.Second), t, Options{Binary: os.Args[0], Files: true, Flags: []string{"-x=all"}})
}

func TestAClusterStartsEveryNodeWithItsOwnPortsAndThoseOfTheOthers(t *testing.T) {
	c := playedCluster(t)
	nodes := c.Nodes()
	if len(nodes) != 7 || len(c.Of("ingester")) != 3 || len(c.Of("querier")) != 2 {
		t.Fatalf("%d nodes, %d ingesters, %d queriers; want 7, 3, 2", len(nodes), len(c.Of("ingester")), len(c.Of("querier")))
	}
	seen := map[int]string{}
	for _, n := range nodes {
		for _, port := range []int{n.HTTP, n.GRPC, n.Gossip} {
			if seen[port] != "" {
				t.Errorf("port %d given to %s and %s", port, seen[port], n.Spec.Name)
			}
			seen[port] = n.Spec.Name
		}
	}
	a := c.Node("ingester-a")
	body, err := Get(within(t, 5*time.Second), a.URL("/"))
	if err != nil {
		t.Fatal(err)
	}
	args := strings.Split(string(body), "\n")
	for _, want := range []string{"-target=ingester", "-ingester.ring.instance-availability-zone=a", "-ingester.ring.replication-factor=3",
		"-ingester.ring.zone-awareness-enabled=true", "-x=all"} {
		if !slices.Contains(args, want) {
			t.Errorf("ingester-a was not given %s: %q", want, args)
		}
	}
	i := slices.IndexFunc(args, func(s string) bool { return strings.HasPrefix(s, "-memberlist.join=") })
	if i < 0 || strings.Count(args[i], ",") != 5 || strings.Contains(args[i], address(a.Gossip)) {
		t.Errorf("ingester-a joins %q, want the six others", args)
	}
}

func TestAKilledNodeIsNotReadyUntilStartedAgain(t *testing.T) {
	c := playedCluster(t)
	n := c.Node("ingester-b")
	old := n.PID()
	if err := n.Kill(); err != nil {
		t.Fatal(err)
	}
	ctx := within(t, 20*time.Second)
	if n.PID() != 0 || n.Ready(ctx) == nil {
		t.Fatalf("killed, but pid %d, ready %v", n.PID(), n.Ready(ctx))
	}
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	if err := n.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	if n.PID() == old || n.Starts() != 2 {
		t.Errorf("pid %d (was %d), %d starts; want a new one and 2", n.PID(), old, n.Starts())
	}
	if err := errors.Join(n.Restart(), n.WaitReady(ctx)); err != nil {
		t.Fatal(err)
	}
}

func TestAFrozenNodeStillStops(t *testing.T) {
	c := playedCluster(t)
	n := c.Node("querier-1")
	if err := n.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if n.PID() == 0 {
		t.Fatal("a frozen process counts as ended")
	}
	if err := errors.Join(n.Signal(syscall.SIGCONT), n.Process.Stop()); err != nil {
		t.Fatal(err)
	}
}

func TestANodeThatDiesIsReportedWithTheEndOfItsLog(t *testing.T) {
	t.Setenv("HARNESS_TEST_PLAYS", "crash")
	c, err := NewCluster(t.Context(), Options{Dir: t.TempDir(), Binary: os.Args[0], Files: true, Nodes: OneProcess(), Replicas: 1})
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	err = c.WaitReady(within(t, 30*time.Second))
	if n := c.Nodes()[0]; n.PID() == 0 && err == nil { // it was gone before the first look
		err = n.WaitReady(within(t, 30*time.Second))
	}
	if err == nil || !strings.Contains(err.Error(), "no space left on device") {
		t.Errorf("got %v, want the log's last line in it", err)
	}
	if waited := time.Since(begin); waited > 20*time.Second {
		t.Errorf("noticed after %v", waited)
	}
	if err := c.Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func TestTheS3ServerRefusesStrangers(t *testing.T) {
	s, err := StartS3(within(t, 20*time.Second), TestLog(t), t.TempDir(), 0, "blocks")
	Need(t, err)
	defer func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := os.Stat(filepath.Join(s.Dir, "blocks")); err != nil {
		t.Error(err)
	}
	if _, err := Get(t.Context(), "http://"+s.Endpoint+"/blocks?list-type=2"); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("anonymous list: %v, want status 403", err)
	}
}

func TestPollNeedsADeadlineAndReportsTheLastError(t *testing.T) {
	if err := Poll(context.Background(), func(context.Context) error { return nil }); err == nil {
		t.Error("polled without a deadline")
	}
	last := errors.New("not yet")
	err := Poll(within(t, 200*time.Millisecond), func(context.Context) error { return last })
	if !errors.Is(err, last) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the deadline and %v", err, last)
	}
	tries := 0
	err = Poll(within(t, 20*time.Second), func(context.Context) error { tries++; return Giveup(last) })
	if !errors.Is(err, last) || tries != 1 {
		t.Errorf("got %v after %d tries, want to give up after 1", err, tries)
	}
}
