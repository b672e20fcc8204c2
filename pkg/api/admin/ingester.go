package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// Flusher moves what an ingester holds to object storage.
type Flusher interface {
	// Flush ships the samples of tenants, of all if there are none. With wait it returns when that
	// is done, otherwise when it has begun.
	Flush(ctx context.Context, tenants []tenant.ID, wait bool) (FlushJob, error)
	// FlushJob tells of an earlier flush. Errors: NotFound.
	FlushJob(ctx context.Context, id string) (FlushJob, error)
	// Shutdown flushes everything, leaves the ring and stops the service, not the process.
	Shutdown(ctx context.Context) error
}

// FlushJob is one flush.
type FlushJob struct {
	ID      string      `json:"job"`
	State   string      `json:"state"`             // running, done or failed
	Tenants []tenant.ID `json:"tenants,omitempty"` // none: all
	Started time.Time   `json:"started"`
	Ended   *time.Time  `json:"ended,omitempty"`
	Blocks  int         `json:"blocks"` // cut
	Error   string      `json:"error,omitempty"`
}

// FlushRunning is the state of a flush that has not ended.
const FlushRunning = "running"

// Switch is a state that an operator sets and takes back.
type Switch interface {
	On() bool
	// Set changes the state before it returns.
	Set(ctx context.Context, on bool) error
}

// ResettableSwitch is a Switch with a configured state to go back to.
type ResettableSwitch interface {
	Switch
	Reset(ctx context.Context) error
}

// ReadOnly is the mode in which an ingester takes no new series and waits to be removed.
type ReadOnly interface {
	// Since returns when the mode began; the zero time is off.
	Since() time.Time
	Set(ctx context.Context, on bool) error
}

// TenantInfo is one tenant of an ingester.
type TenantInfo struct {
	Tenant  tenant.ID `json:"tenant"`
	Series  uint64    `json:"series"`
	Active  uint64    `json:"activeSeries"`      // of them, those with a sample within the idle timeout
	Owned   uint64    `json:"ownedSeries"`       // of them, those the ring places on this ingester
	MinTime time.Time `json:"minTime"`           // of the oldest sample in memory
	MaxTime time.Time `json:"maxTime"`           // of the newest
	Details []Detail  `json:"details,omitempty"` // more facts, for the tenant's own page
}

// Detail is one named fact.
type Detail struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// TenantList knows the tenants of an ingester.
type TenantList interface {
	Tenants(ctx context.Context) ([]TenantInfo, error)
	// Tenant returns one with its details. Errors: NotFound.
	Tenant(ctx context.Context, id tenant.ID) (TenantInfo, error)
}

// Flush answers the flush call: tenant= names tenants, wait=true waits for the result, job= asks for
// that of an earlier call.
func Flush(f Flusher) Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := r.ParseForm(); err != nil {
			return errs.New(errs.Invalid, "error parsing form values: %w", err)
		}
		var ids []tenant.ID
		for _, s := range r.Form["tenant"] {
			id, err := tenant.Parse(s)
			if err != nil {
				return err
			}
			ids = append(ids, id)
		}
		wait := false
		if s := r.Form.Get("wait"); s != "" {
			var err error
			if wait, err = strconv.ParseBool(s); err != nil {
				return errs.New(errs.Invalid, "wait=%q is neither true nor false", s)
			}
		}
		if id := r.Form.Get("job"); id != "" {
			job, err := f.FlushJob(r.Context(), id)
			if err != nil {
				return err
			}
			return sendJSON(w, job)
		}
		job, err := f.Flush(r.Context(), ids, wait)
		switch {
		case err != nil && job.ID != "":
			return fmt.Errorf("flush %s: %w", job.ID, err)
		case err != nil:
			return err
		case job.State == FlushRunning:
			return sendJSONStatus(w, http.StatusAccepted, job)
		}
		return sendJSON(w, job)
	}
}

// Shutdown answers the shutdown call when everything is shipped.
func Shutdown(f Flusher) Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := f.Shutdown(r.Context()); err != nil {
			return err
		}
		return noContent(w)
	}
}

func noContent(w http.ResponseWriter) error {
	secure(w.Header())
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// PrepareShutdown shows s as set or unset; POST sets it, DELETE takes it back.
func PrepareShutdown(s Switch) Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		switch r.Method {
		case http.MethodPost, http.MethodDelete:
			if err := s.Set(r.Context(), r.Method == http.MethodPost); err != nil {
				return err
			}
			return noContent(w)
		}
		text := "unset\n"
		if s.On() {
			text = "set\n"
		}
		sendText(w, "text/plain; charset=utf-8", text)
		return nil
	}
}

// PrepareDownscale shows since when the ingester is read-only, as Unix seconds or 0; POST begins
// the mode, DELETE ends it.
func PrepareDownscale(m ReadOnly) Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if r.Method == http.MethodPost || r.Method == http.MethodDelete {
			if err := m.Set(r.Context(), r.Method == http.MethodPost); err != nil {
				return err
			}
		}
		var unix int64
		if since := m.Since(); !since.IsZero() {
			unix = since.Unix()
		}
		return sendJSON(w, map[string]int64{"timestamp": unix})
	}
}

// NoPartitions answers calls about the partition of an ingester, of which there is none: writes do
// not go through a log of partitions here.
func NoPartitions() Handler {
	return func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Allow", "")
		sendTextStatus(w, http.StatusMethodNotAllowed, "text/plain; charset=utf-8", "this ingester owns no partition\n")
		return nil
	}
}

// maxSwitchBytes bounds the body {"unregister":true}.
const maxSwitchBytes = 1 << 10

// UnregisterOnShutdown shows whether the ingester leaves the ring when it stops; PUT sets it,
// DELETE goes back to the configured state.
func UnregisterOnShutdown(s ResettableSwitch) Handler {
	type state struct {
		Unregister *bool `json:"unregister"`
	}
	return func(w http.ResponseWriter, r *http.Request) error {
		switch r.Method {
		case http.MethodPut:
			var want state
			dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxSwitchBytes))
			dec.DisallowUnknownFields()
			if err := dec.Decode(&want); err != nil {
				if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
					return errs.New(errs.BodyTooLarge, "the body is larger than %d bytes", maxSwitchBytes)
				}
				return errs.New(errs.Invalid, "decode the body: %w", err)
			}
			if _, err := dec.Token(); !errors.Is(err, io.EOF) || want.Unregister == nil {
				return errs.New(errs.Invalid, `the body must be {"unregister":true} or {"unregister":false}`)
			}
			if err := s.Set(r.Context(), *want.Unregister); err != nil {
				return err
			}
		case http.MethodDelete:
			if err := s.Reset(r.Context()); err != nil {
				return err
			}
		}
		on := s.On()
		return sendJSON(w, state{&on})
	}
}

// Tenants lists the tenants of the ingester.
func Tenants(l TenantList) Handler {
	page := newPage("tenants", "Tenants of this ingester", `<table><tr><th>Tenant</th><th class="n">Series</th><th class="n">Active</th><th class="n">Owned</th><th>Oldest sample</th><th>Newest sample</th></tr>{{range .}}
<tr><td><a href="tsdb/{{.Tenant}}">{{.Tenant}}</a></td><td class="n">{{.Series}}</td><td class="n">{{.Active}}</td><td class="n">{{.Owned}}</td><td>{{rfc3339 .MinTime}}</td><td>{{rfc3339 .MaxTime}}</td></tr>{{end}}</table>`)
	return func(w http.ResponseWriter, r *http.Request) error {
		all, err := l.Tenants(r.Context())
		if err != nil {
			return err
		}
		if wantsJSON(r) {
			return sendJSON(w, all)
		}
		return sendPage(w, page, all)
	}
}

// Tenant shows the tenant in the path.
func Tenant(l TenantList) Handler {
	page := newPage("tenant", "Tenant {{.Tenant}}", `<table><tr><th>Series</th><td>{{.Series}}</td></tr><tr><th>Active series</th><td>{{.Active}}</td></tr><tr><th>Owned series</th><td>{{.Owned}}</td></tr>
<tr><th>Oldest sample</th><td>{{rfc3339 .MinTime}}</td></tr><tr><th>Newest sample</th><td>{{rfc3339 .MaxTime}}</td></tr>{{range .Details}}
<tr><th>{{.Name}}</th><td>{{.Value}}</td></tr>{{end}}</table>`)
	return func(w http.ResponseWriter, r *http.Request) error {
		id, err := tenant.Parse(r.PathValue("tenant"))
		if err != nil {
			return err
		}
		info, err := l.Tenant(r.Context(), id)
		if err != nil {
			return err
		}
		if wantsJSON(r) {
			return sendJSON(w, info)
		}
		return sendPage(w, page, info)
	}
}
