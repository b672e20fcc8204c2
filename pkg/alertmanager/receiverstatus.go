package alertmanager

import (
	"encoding/json"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/alertmanager/dispatch"

	pb "github.com/amphora-metrics/amphora/pkg/wire/alertmanagerpb"
)

// receiverStatus is a receiver and how its last notifications ended, as Grafana reads it.
type receiverStatus struct {
	Active       bool                `json:"active"` // a route leads to it
	Integrations []integrationStatus `json:"integrations"`
	Name         string              `json:"name"`
}

type integrationStatus struct {
	Last         time.Time `json:"lastNotifyAttempt"`
	Took         string    `json:"lastNotifyAttemptDuration"`
	Error        string    `json:"lastNotifyAttemptError,omitempty"`
	Name         string    `json:"name"`
	SendResolved bool      `json:"sendResolved"`
}

// attempt is one try to notify.
type attempt struct {
	at   time.Time
	took time.Duration
	err  error
}

// attempts remembers the last try.
type attempts struct{ last atomic.Pointer[attempt] }

func (a *attempts) note(began time.Time, err error) {
	a.last.Store(&attempt{began, time.Since(began), err})
}

// receiverStatuses answers with the receivers of the configuration in force and what this replica sent.
func (in *instance) receiverStatuses() (*pb.Response, error) {
	b := in.built.Load()
	used := map[string]bool{}
	dispatch.NewRoute(b.def.conf.Route, nil).Walk(func(r *dispatch.Route) { used[r.RouteOpts.Receiver] = true })
	out := []receiverStatus{}
	for _, r := range b.def.conf.Receivers {
		one := receiverStatus{Active: used[r.Name], Integrations: []integrationStatus{}, Name: r.Name}
		for _, s := range b.senders[r.Name] {
			status := integrationStatus{Took: time.Duration(0).String(), Name: s.to.Name(), SendResolved: s.to.SendResolved()}
			if last := s.tried.last.Load(); last != nil {
				status.Last, status.Took = last.at.UTC(), last.took.String()
				if last.err != nil {
					status.Error = last.err.Error()
				}
			}
			one.Integrations = append(one.Integrations, status)
		}
		out = append(out, one)
	}
	return answer(out)
}

// mergeReceivers is the receivers with the newest try of any replica.
func mergeReceivers(in []*pb.Response) (*pb.Response, error) {
	var out []receiverStatus
	for _, r := range in {
		if r.GetStatus() != http.StatusOK {
			continue
		}
		var list []receiverStatus
		if err := json.Unmarshal(r.GetBody(), &list); err != nil {
			return nil, errors.Join(errors.New("answer of a replica"), err)
		}
		if out == nil {
			out = list
			continue
		}
		for i := range min(len(out), len(list)) {
			mergeAttempts(&out[i], &list[i])
		}
	}
	return answer(out)
}

// mergeAttempts takes what is newer in b over to a, if both are the same receiver: a replica may be a
// configuration behind.
func mergeAttempts(a, b *receiverStatus) {
	if a.Name != b.Name || len(a.Integrations) != len(b.Integrations) {
		return
	}
	for i, x := range b.Integrations {
		if x.Name == a.Integrations[i].Name && x.Last.After(a.Integrations[i].Last) {
			a.Integrations[i] = x
		}
	}
}
