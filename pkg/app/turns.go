package app

import (
	"context"
	"os"
	"runtime"

	"github.com/grafana/dskit/user"

	"github.com/amphora-metrics/amphora/pkg/turns"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// turns is who computes next in this process, of the queries of all tenants.
func (a *App) turns() *turns.Gate {
	g, _ := a.reads.turns.get(func() (*turns.Gate, error) {
		return turns.New(processors(), asker, a.reg), nil
	})
	return g
}

// processors is how many goroutines can compute at a time. Go looks at the network when it has nothing to
// run, else every 10 ms: on a single processor requests would wait so long beside whoever computes. So it
// gets a second thread there, which waits for the network and which the kernel wakes at once.
func processors() int {
	n := runtime.GOMAXPROCS(0)
	if n == 1 && os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(2)
	}
	return n
}

// asker is for whom a context acts, and how much its work matters.
func asker(ctx context.Context) (string, turns.Class) {
	org, err := user.ExtractOrgID(ctx)
	if err != nil {
		return "", 0 // the process itself
	}
	return org, turns.Class(work.ClassOf(ctx))
}
