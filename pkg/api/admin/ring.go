package admin

import (
	"context"
	"net/http"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// RingMember is one line of a ring's page. Its JSON has the names that clients of such pages know.
type RingMember struct {
	ID              string    `json:"id"`
	State           string    `json:"state"`
	Address         string    `json:"address"`
	Heartbeat       time.Time `json:"timestamp"`
	Registered      time.Time `json:"registered_timestamp"`
	ReadOnly        bool      `json:"read_only"`
	ReadOnlyUpdated time.Time `json:"read_only_updated_timestamp"`
	Zone            string    `json:"zone"`
	Tokens          []uint32  `json:"tokens"`
	Ownership       float64   `json:"ownership"` // percent of the ring, or of the zone
	Note            string    `json:"note,omitempty"`
}

// RingView knows the members of a ring.
type RingView interface {
	Members(ctx context.Context) ([]RingMember, error)
	// Forget takes a member out. Errors: NotFound, Conflict.
	Forget(ctx context.Context, id string) error
}

// Ring shows the members of a ring, as a page or as JSON; POST with forget=<id> forgets one. The
// page lists tokens with tokens=true. A nil view has no page.
func Ring(name, title string, view RingView) Handler {
	if view == nil {
		return nil
	}
	page := newPage(name, title, `<p>Now: {{rfc3339 .Now}}. Ownership is of the zone, if replicas go to different zones, else of the ring.</p>
<form method="post"><table><tr><th>Instance</th><th>Zone</th><th>State</th><th>Address</th><th>Registered</th><th>Read-only</th><th>Last heartbeat</th><th class="n">Tokens</th><th class="n">Ownership</th><th></th></tr>{{range .Shards}}
<tr><td>{{.ID}}{{with .Note}}<br><span class="doc">{{.}}</span>{{end}}</td><td>{{.Zone}}</td><td{{if eq .State "UNHEALTHY"}} class="bad"{{end}}>{{.State}}</td><td>{{.Address}}</td>
<td>{{with .Registered}}{{if not .IsZero}}{{rfc3339 .}}{{end}}{{end}}</td><td>{{if .ReadOnly}}since {{rfc3339 .ReadOnlyUpdated}}{{end}}</td><td>{{rfc3339 .Heartbeat}}</td>
<td class="n">{{len .Tokens}}</td><td class="n">{{printf "%.2f" .Ownership}} %</td><td><button name="forget" value="{{.ID}}">Forget</button></td></tr>{{end}}</table></form>
{{if .Tokens}}<p><a href="?">Hide tokens</a></p>{{range .Shards}}<h2>{{.ID}}</h2><p>{{range .Tokens}}{{.}} {{end}}</p>{{end}}{{else}}<p><a href="?tokens=true">Show tokens</a></p>{{end}}`)
	return func(w http.ResponseWriter, r *http.Request) error {
		if r.Method == http.MethodPost {
			return forget(w, r, view)
		}
		all, err := view.Members(r.Context())
		if err != nil {
			return err
		}
		data := struct {
			Shards []RingMember `json:"shards"`
			Now    time.Time    `json:"now"`
			Tokens bool         `json:"-"`
		}{all, time.Now(), r.URL.Query().Get("tokens") == "true"}
		if data.Shards == nil {
			data.Shards = []RingMember{}
		}
		if wantsJSON(r) {
			return sendJSON(w, data)
		}
		return sendPage(w, page, data)
	}
}

// maxFormBytes bounds the form of a ring's page.
const maxFormBytes = 4 << 10

// forget answers by sending the browser back to the page, which a reload then does not repeat.
func forget(w http.ResponseWriter, r *http.Request, view RingView) error {
	r.Body = http.MaxBytesReader(w, r.Body, maxFormBytes)
	if err := r.ParseForm(); err != nil {
		return errs.New(errs.Invalid, "read the form: %w", err)
	}
	id := r.Form.Get("forget")
	if id == "" {
		return errs.New(errs.Invalid, "forget= names the member to forget")
	}
	if err := view.Forget(r.Context(), id); err != nil {
		return err
	}
	secure(w.Header())
	w.Header().Set("Location", "#")
	w.WriteHeader(http.StatusFound)
	return nil
}

// QuerierRing answers for a ring that this product does not have: queriers come to query-schedulers for work,
// and nobody looks for them.
func QuerierRing() Handler {
	page := newPage("querier_ring", "Querier ring", `<p>There is no ring of queriers. They fetch their work from <a href="../query-scheduler/ring">query-schedulers</a>.</p>`)
	return func(w http.ResponseWriter, r *http.Request) error {
		if wantsJSON(r) {
			return sendJSON(w, map[string][]struct{}{"shards": {}})
		}
		return sendPage(w, page, nil)
	}
}

// PartitionRing answers for a ring that this product does not have: writes go to ingesters by the
// ingesters' ring, and no partitions of a queue stand between.
func PartitionRing() Handler {
	page := newPage("partition_ring", "Partition ring", `<p>There are no partitions. Series are spread over ingesters by the <a href="ring">ring of ingesters</a>.</p>`)
	return func(w http.ResponseWriter, r *http.Request) error {
		if wantsJSON(r) {
			return sendJSON(w, map[string][]struct{}{"partitions": {}})
		}
		return sendPage(w, page, nil)
	}
}
