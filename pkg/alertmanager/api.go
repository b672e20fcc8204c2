package alertmanager

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/alertmanager/alert"
	"github.com/prometheus/alertmanager/api"
	"github.com/prometheus/alertmanager/config"
	"github.com/prometheus/alertmanager/dispatch"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/route"
)

// served is the API of one tenant. It is made for the first request: to make it costs more than all the rest
// of an instance, and most of a replica's tenants are not asked anything while it starts.
type served struct {
	mu      sync.Mutex // guards what follows
	conf    *config.Config
	api     *api.API
	handler http.Handler
}

// schemaExpanded is done by the first API of the process: it expands upstream's schema in place, and those that
// are made after it only read it.
var schemaExpanded sync.Once

// showAPI makes the API show a configuration from now on.
func (in *instance) showAPI(conf *config.Config) {
	in.served.mu.Lock()
	defer in.served.mu.Unlock()
	in.served.conf = conf
	if in.served.api != nil {
		in.updateAPI()
	}
}

// updateAPI is called with served.mu held.
func (in *instance) updateAPI() {
	in.served.api.Update(in.served.conf, func(ctx context.Context, labels model.LabelSet) {
		in.inhibitor.Load().Mutes(ctx, labels)
		in.silencer.Mutes(ctx, labels)
	})
}

// handlerOfAPI returns what answers requests to the API.
func (in *instance) handlerOfAPI() (http.Handler, error) {
	in.served.mu.Lock()
	defer in.served.mu.Unlock()
	if in.served.handler != nil {
		return in.served.handler, nil
	}
	made := false
	var err error
	schemaExpanded.Do(func() {
		made = true
		err = in.makeAPI()
	})
	if !made {
		err = in.makeAPI()
	}
	if err != nil {
		return nil, err
	}
	in.updateAPI()
	in.served.handler = in.served.api.Register(route.New(), "/")
	return in.served.handler, nil
}

// makeAPI is called with served.mu held.
func (in *instance) makeAPI() error {
	var err error
	in.served.api, err = api.New(api.Options{
		Alerts: in.alerts, Silences: in.silences, GroupMutedFunc: in.groups.Muted, Peer: view{in},
		Concurrency: in.m.cfg.MaxConcurrentGets, Logger: in.log, Registry: in.reg,
		RequestDuration: promauto.With(in.reg).NewHistogramVec(prometheus.HistogramOpts{Name: "api_request_duration_seconds", Help: "Time to answer."}, []string{"handler", "method", "code"}),
		GroupFunc: func(ctx context.Context, routes func(*dispatch.Route) bool, alerts func(*alert.Alert, time.Time) bool) (dispatch.AlertGroups, map[model.Fingerprint][]string, error) {
			return in.dispatcher.Load().Groups(ctx, routes, alerts)
		},
	})
	if err != nil {
		return fmt.Errorf("API of tenant %s: %w", in.id, err)
	}
	return nil
}
