package prom

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// SeriesDeletion is one request to delete series.
type SeriesDeletion struct {
	ID        string    `json:"request_id"`
	Status    string    `json:"status"` // pending, erasing, erased, processed or cancelled
	Selectors []string  `json:"selectors"`
	Start     time.Time `json:"start_time,omitzero"` // zero: the beginning
	End       time.Time `json:"end_time"`
	Created   time.Time `json:"created_at"`
	// ErasingFrom is until when the request can be cancelled.
	ErasingFrom time.Time `json:"erasing_from"`
	Erased      time.Time `json:"erased_at,omitzero"`
	Ended       time.Time `json:"ended_at,omitzero"` // processed or cancelled
}

// SeriesDeletions takes requests to delete series. Errors have the kinds of package errs.
type SeriesDeletions interface {
	DeleteSeries(ctx context.Context, id tenant.ID, selectors []string, start, end time.Time) error
	CancelSeriesDeletion(ctx context.Context, id tenant.ID, request string) error
	SeriesDeletions(ctx context.Context, id tenant.ID) ([]SeriesDeletion, error)
}

// DeleteSeries asks for the series of match[] from start to end to be deleted, as Prometheus does;
// GET lists what was asked for.
func DeleteSeries(d SeriesDeletions) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		id, err := tenant.FromContext(r.Context())
		if err != nil {
			return err
		}
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			return listDeletions(w, r, d, id)
		}
		if err := parseForm(w, r); err != nil {
			return err
		}
		start, end, err := rangeParams(r)
		if err != nil {
			return err
		}
		if err := d.DeleteSeries(r.Context(), id, r.Form["match[]"], start, end); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
}

func listDeletions(w http.ResponseWriter, r *http.Request, d SeriesDeletions, id tenant.ID) error {
	list, err := d.SeriesDeletions(r.Context(), id)
	if err != nil {
		return err
	}
	out := struct {
		Status string           `json:"status"`
		Data   []SeriesDeletion `json:"data"`
	}{"success", append([]SeriesDeletion{}, list...)}
	b, err := json.Marshal(out)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b) // of an error of the connection there is nobody left to tell
	return nil
}

// CancelSeriesDeletion takes back the request request_id.
func CancelSeriesDeletion(d SeriesDeletions) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		id, err := tenant.FromContext(r.Context())
		if err != nil {
			return err
		}
		if err := parseForm(w, r); err != nil {
			return err
		}
		request := r.Form.Get("request_id")
		if request == "" {
			return badParam("request_id", errs.New(errs.Invalid, "it is missing"))
		}
		if err := d.CancelSeriesDeletion(r.Context(), id, request); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
}
