package transport

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/memory"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

func TestFramesAreRefusedWhenTheProcessIsShortOfMemory(t *testing.T) {
	noLeaks(t)
	const budget = 1 << 50 // beside which the memory of the test itself does not count
	l := memory.New(memory.Limits{Process: budget, Go: budget}, memory.Deps{})
	ing := startIngester(t, "", &memoryServer{})
	pool, err := NewReplicas(ClientConfig{}, ClientDeps{PushTimeout: 10 * time.Second, Registerer: prometheus.NewRegistry(), Log: quiet(), Memory: l.Account(memory.Frames)})
	if err != nil {
		t.Fatal(err)
	}
	startService(t, pool)
	r := replicaFor(t, pool, ing.addr)
	if res := push(r, scrape(0, 3, true)); res.Outcome != frame.Stored {
		t.Fatalf("%+v", res)
	}
	l.Account(memory.Chunks).Take(budget / 100 * 96)
	if res := push(r, scrape(0, 3, false)); res.Outcome != frame.Failed || res.Kind != errs.Unavailable {
		t.Errorf("short of memory: %+v", res)
	}
	l.Account(memory.Chunks).Release(budget / 100 * 96)
	if res := push(r, scrape(0, 3, false)); res.Outcome != frame.Stored {
		t.Errorf("no longer short: %+v", res)
	}
	ing.kill()
	if res := push(r, scrape(0, 3, false)); res.Outcome == frame.Stored {
		t.Errorf("of a killed ingester: %+v", res)
	}
	if n := l.Account(memory.Frames).Held(); n != 0 {
		t.Errorf("%d bytes of no frame are held", n)
	}
}
