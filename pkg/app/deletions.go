package app

import (
	"context"
	"time"

	"github.com/amphora-metrics/amphora/pkg/api/prom"
	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/tombstone"
)

// memoryMargin is how much longer than their blocks samples may be in the memory of ingesters.
const memoryMargin = 24 * time.Hour

// deletions are the requests to delete series.
func (a *App) deletions() (*tombstone.Requests, error) {
	return a.p.deletions.get(func() (*tombstone.Requests, error) {
		docs, err := a.documents()
		if err != nil {
			return nil, err
		}
		return tombstone.NewRequests(tombstone.Deps{
			Logger: a.log, Reg: a.reg, Documents: deletionDocuments{docs}, Limits: a.limits.For,
			Grace: a.cfg.Compactor.SeriesDeletionWait, Settle: a.cfg.Ingester.BlockRetention + memoryMargin,
			Hold: a.cfg.Compactor.SeriesDeletionHold,
		}), nil
	})
}

// deletionDocuments keeps the requests of each tenant in one document.
type deletionDocuments struct{ docs *docstore.Store }

func deletionKey(id string) string { return "deletions/" + id }

// Read is part of tombstone.Documents.
func (d deletionDocuments) Read(ctx context.Context, id string) ([]byte, error) {
	doc, err := d.docs.Get(ctx, deletionKey(id))
	if err != nil && errs.KindOf(err) == errs.NotFound {
		return nil, nil
	}
	return doc.Data, err
}

// Change is part of tombstone.Documents.
func (d deletionDocuments) Change(ctx context.Context, id string, change func([]byte) ([]byte, error)) error {
	_, err := d.docs.Update(ctx, deletionKey(id), func(old docstore.Doc) ([]byte, error) { return change(old.Data) })
	return err
}

// seriesDeletions gives the requests the shape that the API asks for.
type seriesDeletions struct {
	*tombstone.Requests
	grace time.Duration
}

// DeleteSeries is part of prom.SeriesDeletions.
func (s seriesDeletions) DeleteSeries(ctx context.Context, id tenant.ID, selectors []string, start, end time.Time) error {
	_, err := s.Add(ctx, id, selectors, start.UnixMilli(), end.UnixMilli())
	return err
}

// CancelSeriesDeletion is part of prom.SeriesDeletions.
func (s seriesDeletions) CancelSeriesDeletion(ctx context.Context, id tenant.ID, request string) error {
	return s.Cancel(ctx, id, request)
}

// SeriesDeletions is part of prom.SeriesDeletions.
func (s seriesDeletions) SeriesDeletions(ctx context.Context, id tenant.ID) ([]prom.SeriesDeletion, error) {
	list, err := s.List(ctx, id)
	if err != nil {
		return nil, err
	}
	out := make([]prom.SeriesDeletion, len(list))
	for i := range list {
		r := &list[i]
		out[i] = prom.SeriesDeletion{ID: r.ID, Status: string(s.State(r)), Selectors: r.Selectors,
			End: time.UnixMilli(r.End).UTC(), Created: time.UnixMilli(r.Created).UTC(),
			ErasingFrom: time.UnixMilli(r.Created).Add(s.grace).UTC()}
		if start := time.UnixMilli(r.Start).UTC(); start.Year() > 0 { // JSON knows no earlier ones
			out[i].Start = start
		}
		if r.Erased > 0 {
			out[i].Erased = time.UnixMilli(r.Erased).UTC()
		}
		if at := max(r.Processed, r.Cancelled); at > 0 {
			out[i].Ended = time.UnixMilli(at).UTC()
		}
	}
	return out, nil
}
