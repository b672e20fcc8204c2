package wal

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

const killDirEnv = "AMPHORA_WAL_KILL_TEST_DIR"

// TestMain lets the test binary be the process that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv(killDirEnv); dir != "" {
		if err := appendForEver(dir); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// appendForEver appends numbered records behind those in dir, several at a time, prints every
// number that is acknowledged, and makes checkpoints meanwhile.
func appendForEver(dir string) error {
	l, err := open(dir, Options{Config: Config{Sync: true}}, tuning{osDisk{}, 64 << 10, 4 << 10, queueBytes})
	if err != nil {
		return err
	}
	var all [][]byte
	if _, err = l.Replay(context.Background(), func(_ int, rec []byte) error {
		all = append(all, append([]byte(nil), rec...))
		return nil
	}); err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	for next := uint64(len(all)); ; {
		var tickets []Ticket
		from := next
		for range 1 + rand.IntN(50) {
			rec := append(binary.BigEndian.AppendUint64(nil, next), make([]byte, rand.IntN(200))...)
			all = append(all, rec)
			tickets = append(tickets, l.Append(rec))
			next++
		}
		for i, ticket := range tickets {
			if _, err := ticket.Wait(context.Background()); err != nil {
				return err
			}
			fmt.Fprintln(out, from+uint64(i))
		}
		if err := out.Flush(); err != nil {
			return err
		}
		if rand.IntN(30) == 0 {
			n, err := l.Cut()
			if err != nil {
				return err
			}
			if err := l.Checkpoint(context.Background(), n, func(emit func([]byte) error) error {
				for _, rec := range all {
					if err := emit(rec); err != nil {
						return err
					}
				}
				return nil
			}); err != nil {
				return err
			}
		}
	}
}

func TestAKilledProcessLosesNothingItAcknowledged(t *testing.T) {
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	acked := int64(-1)
	for round := range rounds {
		last := runAndKill(t, exe, dir, time.Duration(20+rand.IntN(300))*time.Millisecond)
		acked = max(acked, last)
		l, err := Open(dir, Options{Config: Config{Sync: true}})
		if err != nil {
			t.Fatal(err)
		}
		want := int64(0)
		stats, err := l.Replay(t.Context(), func(_ int, rec []byte) error {
			if got := int64(binary.BigEndian.Uint64(rec)); got != want {
				t.Fatalf("round %d: record %d, want %d", round, got, want)
			}
			want++
			return nil
		})
		if err != nil || stats.Corruptions != 0 {
			t.Fatalf("round %d: %v, %+v", round, err, stats)
		}
		if want <= acked {
			t.Fatalf("round %d: %d was acknowledged, %d records replayed", round, acked, want)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d records acknowledged over %d kills", acked+1, rounds)
}

// runAndKill starts the writer, kills it some time after its first acknowledgement, and returns
// the last number it acknowledged.
func runAndKill(t *testing.T, exe, dir string, after time.Duration) int64 {
	t.Helper()
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), killDirEnv+"="+dir)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	last := int64(-1)
	lines := bufio.NewScanner(pipe)
	var timer *time.Timer
	for lines.Scan() {
		if timer == nil {
			timer = time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		}
		if strings.HasPrefix(lines.Text(), "error") {
			t.Fatal(lines.Text())
		}
		if n, err := strconv.ParseInt(lines.Text(), 10, 64); err == nil {
			last = n
		}
	}
	if err := cmd.Wait(); err == nil || timer == nil {
		t.Fatal("the writer ended by itself")
	}
	return last
}
