package frontend

import (
	"context"
	"log/slog"

	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// QueryLog says for which queries of a tenant a line is logged: those that process at least as many samples,
// with the place the tenant named. ok is false if it wants none.
type QueryLog func(id tenant.ID) (group string, samples int64, ok bool)

// tell logs q for those of its tenants that asked for that.
func (q *query) tell(ctx context.Context, outcome string) {
	if q.f.deps.QueryLog == nil {
		return
	}
	for _, id := range q.tenants {
		group, least, ok := q.f.deps.QueryLog(id)
		if !ok || q.run.samples.TotalSamples < least {
			continue
		}
		q.f.deps.Logger.Log(context.WithoutCancel(ctx), slog.LevelInfo, "workspace query", "workspace", string(id), "log_group", group,
			"query", q.asked.Text, "start", q.asked.Start, "end", q.asked.End, "step", q.asked.Step, "status", outcome,
			"response_time", q.took, "samples_processed", q.run.samples.TotalSamples)
	}
}
