package api

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/amphora-metrics/amphora/pkg/api/prom"
	"github.com/amphora-metrics/amphora/pkg/engine"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// waitingStore has label names for who waits for ever.
type waitingStore struct {
	storage.SampleAndChunkQueryable
	asked func()
}

func (s waitingStore) Querier(int64, int64) (storage.Querier, error) {
	return waitingQuerier{storage.NoopQuerier(), s.asked}, nil
}

type waitingQuerier struct {
	storage.Querier
	asked func()
}

func (q waitingQuerier) LabelNames(ctx context.Context, _ *storage.LabelHints, _ ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	q.asked()
	<-ctx.Done()
	return nil, nil, ctx.Err()
}

func TestAReadThatIsStoppedIsToldSo(t *testing.T) {
	eng, err := engine.New(engine.Config{Timeout: time.Minute, MaxSamples: 1000, LookbackDelta: time.Minute, MaxConcurrent: 1}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = eng.Close() })
	for _, c := range []struct {
		cause  error
		status int
		want   string
	}{
		{errs.New(errs.Unprocessable, "the query was stopped on request"), 422, "stopped on request"},
		{context.Canceled, 499, "context canceled"},
	} {
		ctx, stop := context.WithCancelCause(tenant.Inject(t.Context(), "t"))
		h := Reader(prom.Config{}, prom.Backends{Engine: eng, Storage: waitingStore{asked: func() { stop(c.cause) }}, Limits: func(tenant.ID) limits.View { return limits.View{} },
			Timeout: time.Minute, Now: time.Now}, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest("GET", "/prometheus/api/v1/labels", nil).WithContext(ctx))
		if rec.Code != c.status || !strings.Contains(rec.Body.String(), c.want) {
			t.Errorf("%v: got %d %s", c.cause, rec.Code, rec.Body)
		}
	}
}
