package admin

import (
	"net/http"
	"time"

	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// Elected is the elected replicas of all clusters.
type Elected struct {
	Enabled  bool             `json:"enabled"`
	Clusters []ElectedReplica `json:"elected"`
}

// ElectedReplica is the replica of a cluster whose samples are stored.
type ElectedReplica struct {
	Tenant      tenant.ID `json:"userID"`
	Cluster     string    `json:"cluster"`
	Replica     string    `json:"replica"`
	ElectedAt   time.Time `json:"electedAt"`
	LastSeen    time.Time `json:"electedLastSeenTime"`
	Elections   uint64    `json:"electedChanges"`
	FailoverDue time.Time `json:"failoverTime,omitzero"` // when another can be elected, zero if this process cannot say
}

// ElectedReplicas lists the elected replicas, as a page or as JSON.
func ElectedReplicas(list func() Elected) Handler {
	page := newPage("ha_tracker", "Elected replicas", `{{if not .Enabled}}<p>Nothing is deduplicated: set distributor.ha_tracker.enable_ha_tracker, and accept_ha_samples for tenants.</p>{{end}}
<table><tr><th>Tenant</th><th>Cluster</th><th>Elected replica</th><th>Elected at</th><th>Last seen</th><th>Failover from</th><th class="n">Elections</th></tr>{{range .Clusters}}
<tr><td>{{.Tenant}}</td><td>{{.Cluster}}</td><td>{{.Replica}}</td><td>{{rfc3339 .ElectedAt}}</td><td>{{rfc3339 .LastSeen}}</td><td>{{if not .FailoverDue.IsZero}}{{rfc3339 .FailoverDue}}{{end}}</td><td class="n">{{.Elections}}</td></tr>{{end}}</table>`)
	return func(w http.ResponseWriter, r *http.Request) error {
		e := list()
		if wantsJSON(r) {
			if e.Clusters == nil {
				e.Clusters = []ElectedReplica{}
			}
			return sendJSON(w, e)
		}
		return sendPage(w, page, e)
	}
}
