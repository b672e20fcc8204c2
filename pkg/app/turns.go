package app

import (
	"context"
	"runtime"

	"github.com/grafana/dskit/user"

	"github.com/amphora-metrics/amphora/pkg/turns"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// turns is who computes next in this process, of the queries of all tenants.
func (a *App) turns() *turns.Gate {
	g, _ := a.reads.turns.get(func() (*turns.Gate, error) {
		return turns.New(runtime.GOMAXPROCS(0), asker, a.reg), nil
	})
	return g
}

// asker is for whom a context acts, and how much its work matters.
func asker(ctx context.Context) (string, turns.Class) {
	org, err := user.ExtractOrgID(ctx)
	if err != nil {
		return "", 0 // the process itself
	}
	return org, turns.Class(work.ClassOf(ctx))
}
