package tombstone

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// hanging is a storage that answers nothing while it hangs.
type hanging struct {
	hangs atomic.Bool
	reads atomic.Int64
}

func (h *hanging) Read(ctx context.Context, _ string) ([]byte, error) {
	h.reads.Add(1)
	if h.hangs.Load() {
		<-ctx.Done()
		return nil, errs.New(errs.Unavailable, "no answer: %w", context.Cause(ctx))
	}
	return nil, nil
}

func (*hanging) Change(context.Context, string, func([]byte) ([]byte, error)) error { return nil }

func TestAStorageThatHangsDoesNotHoldUpQueries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hanging{}
		p := NewRequests(Deps{Logger: slog.New(slog.DiscardHandler), Documents: h, Limits: func(tenant.ID) limits.View { return limits.View{} },
			Grace: time.Hour, Settle: 24 * time.Hour})
		ask := func(within time.Duration) error {
			t.Helper()
			began := time.Now()
			_, err := p.InForce(t.Context(), "t1")
			if took := time.Since(began); took > within {
				t.Errorf("took %s, want at most %s", took, within)
			}
			return err
		}
		if err := ask(0); err != nil {
			t.Fatal(err)
		}
		h.hangs.Store(true)
		time.Sleep(freshAge)
		for range 200 { // all together, several reads that end without an answer
			if err := ask(patience); err != nil {
				t.Fatalf("what was known is not used: %v", err)
			}
			time.Sleep(time.Second)
		}
		if n := h.reads.Load(); n > 6 {
			t.Errorf("asked %d times in 200 s", n)
		}
		h.hangs.Store(false)
		time.Sleep(readTimeout + restAge)
		if err := ask(0); err != nil {
			t.Error(err)
		}
		h.hangs.Store(true)
		time.Sleep(staleAge)
		if err := ask(readTimeout); errs.KindOf(err) != errs.Unavailable {
			t.Errorf("what is too old: %v, want Unavailable", err)
		}
		synctest.Wait()
	})
}
