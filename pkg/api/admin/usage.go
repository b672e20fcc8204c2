package admin

import (
	"context"
	"net/http"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// Usage is what one tenant does right now. Rates are per second.
type Usage struct {
	IngestionRate     float64 `json:"ingestionRate"` // samples of pushes and rules
	NumSeries         uint64  `json:"numSeries"`     // in memory, before replication; see countMethod
	APIIngestionRate  float64 `json:"APIIngestionRate"`
	RuleIngestionRate float64 `json:"RuleIngestionRate"`
	ActiveSeries      uint64  `json:"activeSeries"` // had a sample within the idle timeout, before replication
	// Missing are ingesters that did not answer; then the figures are estimates.
	Missing []string `json:"missing,omitempty"`

	Lag Lag `json:"-"`
}

// Lag is how far ingestion of a tenant is behind, at this moment.
type Lag struct {
	NewestSample   time.Time // that is stored; zero: none
	OldestPending  time.Time // when the oldest push under way arrived; zero: none is
	PendingSamples uint64
	PendingBytes   uint64
}

// countMethod reads which series the caller wants to have counted as numSeries: those in memory,
// or with count_method=active the active ones.
func countMethod(r *http.Request) (active bool, err error) {
	switch m := r.URL.Query().Get("count_method"); m {
	case "", "inmemory":
		return false, nil
	case "active":
		return true, nil
	default:
		return false, errs.New(errs.Invalid, "count_method is %q; it may be inmemory or active", m)
	}
}

// TenantUsage is Usage with its tenant.
type TenantUsage struct {
	Tenant tenant.ID `json:"userID"`
	Usage
}

// AllUsage is the usage of all tenants.
type AllUsage struct {
	Tenants []TenantUsage `json:"tenants"`
	Missing []string      `json:"missing,omitempty"` // ingesters that did not answer; then the figures are too low
	Whole   bool          `json:"whole,omitempty"`   // no tenant that has recent samples is left out, whoever is missing
}

// UsageSource knows what tenants do.
type UsageSource interface {
	Usage(ctx context.Context, id tenant.ID) (Usage, error)
	AllUsage(ctx context.Context) (AllUsage, error)
}

// UserStats answers the usage of the calling tenant.
func UserStats(src UsageSource) Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		id, err := tenant.FromContext(r.Context())
		if err != nil {
			return err
		}
		active, err := countMethod(r)
		if err != nil {
			return err
		}
		u, err := src.Usage(r.Context(), id)
		if err != nil {
			return err
		}
		if active {
			u.NumSeries = u.ActiveSeries
		}
		return sendJSON(w, u)
	}
}

// UserLag answers how far ingestion of the calling tenant is behind.
func UserLag(src UsageSource) Handler {
	type lag struct {
		Newest      *time.Time `json:"newestSampleTime"` // null: there is none in memory
		Lag         float64    `json:"newestSampleAgeSeconds"`
		Oldest      *time.Time `json:"oldestPendingTime"` // null: nothing is under way
		OldestAge   float64    `json:"oldestPendingAgeSeconds"`
		Samples     uint64     `json:"pendingSamples"`
		Bytes       uint64     `json:"pendingBytes"`
		MissingFrom []string   `json:"missing,omitempty"`
	}
	return func(w http.ResponseWriter, r *http.Request) error {
		id, err := tenant.FromContext(r.Context())
		if err != nil {
			return err
		}
		u, err := src.Usage(r.Context(), id)
		if err != nil {
			return err
		}
		now := time.Now()
		out := lag{Samples: u.Lag.PendingSamples, Bytes: u.Lag.PendingBytes, MissingFrom: u.Missing}
		if t := u.Lag.NewestSample; !t.IsZero() {
			out.Newest, out.Lag = &t, now.Sub(t).Seconds()
		}
		if t := u.Lag.OldestPending; !t.IsZero() {
			out.Oldest, out.OldestAge = &t, max(0, now.Sub(t).Seconds())
		}
		return sendJSON(w, out)
	}
}

// AllUserStats answers the usage of all tenants, as a page or as JSON.
func AllUserStats(src UsageSource) Handler {
	page := newPage("all_user_stats", "Tenants", `{{with .Missing}}<p class="bad">These ingesters did not answer, the figures are too low:{{range .}} {{.}}{{end}}</p>{{end}}
<table><tr><th>Tenant</th><th class="n">Series</th><th class="n">Active</th><th class="n">Samples/s</th><th class="n">by push</th><th class="n">by rules</th></tr>{{range .Tenants}}
<tr><td>{{.Tenant}}</td><td class="n">{{.NumSeries}}</td><td class="n">{{.ActiveSeries}}</td><td class="n">{{printf "%.1f" .IngestionRate}}</td><td class="n">{{printf "%.1f" .APIIngestionRate}}</td><td class="n">{{printf "%.1f" .RuleIngestionRate}}</td></tr>{{end}}</table>`)
	return func(w http.ResponseWriter, r *http.Request) error {
		active, err := countMethod(r)
		if err != nil {
			return err
		}
		all, err := src.AllUsage(r.Context())
		if err != nil {
			return err
		}
		if active {
			for k := range all.Tenants {
				all.Tenants[k].NumSeries = all.Tenants[k].ActiveSeries
			}
		}
		if wantsJSON(r) {
			if all.Tenants == nil {
				all.Tenants = []TenantUsage{}
			}
			return sendJSON(w, all)
		}
		return sendPage(w, page, all)
	}
}

// UserLimits answers the limits of the calling tenant; of returns something that encodes itself
// as JSON.
func UserLimits[V any](of func(tenant.ID) V) Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		id, err := tenant.FromContext(r.Context())
		if err != nil {
			return err
		}
		return sendJSON(w, of(id))
	}
}
