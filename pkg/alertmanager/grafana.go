package alertmanager

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/prometheus/alertmanager/cluster/clusterpb"
	"github.com/prometheus/alertmanager/eventrecorder"
	"github.com/prometheus/alertmanager/silence"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	pb "github.com/amphora-metrics/amphora/pkg/wire/alertmanagerpb"
)

// The calls by which a Grafana uses this alertmanager as its remote one.
const (
	GrafanaConfigPath        = "/api/v1/grafana/config"
	GrafanaConfigStatusPath  = "/api/v1/grafana/config/status"
	GrafanaStatePath         = "/api/v1/grafana/state"
	GrafanaFullStatePath     = "/api/v1/grafana/full_state"
	GrafanaReceiversPath     = "/api/v1/grafana/receivers"
	GrafanaTestReceiversPath = "/api/v1/grafana/receivers/test"
	GrafanaTestTemplatesPath = "/api/v1/grafana/templates/test"
)

// The documents that Grafana keeps here of a tenant.
const (
	grafanaConfigDoc = "config"
	grafanaStateDoc  = "state"
)

// GrafanaDocuments keeps what a Grafana stores of tenants, by name, as it was sent.
type GrafanaDocuments interface {
	// Read returns a document. Errors: NotFound.
	Read(ctx context.Context, id tenant.ID, name string) ([]byte, error)
	Write(ctx context.Context, id tenant.ID, name string, data []byte) error
	// Remove deletes a document; one that does not exist is no error.
	Remove(ctx context.Context, id tenant.ID, name string) error
}

// grafanaConfig is what is looked at of a configuration of Grafana. What else it has is kept and not
// understood.
type grafanaConfig struct {
	Configuration struct {
		TemplateFiles map[string]string `json:"template_files"`
		Templates     []struct {
			Name    string `json:"name"`
			Content string `json:"content"`
		} `json:"templates"`
		Alertmanager struct {
			Route     *grafanaRoute `json:"route"`
			Receivers []struct {
				Name string `json:"name"`
			} `json:"receivers"`
		} `json:"alertmanager_config"`
	} `json:"configuration"`
	Hash     string `json:"configuration_hash"`
	Created  int64  `json:"created"` // seconds
	Default  bool   `json:"default"`
	Promoted bool   `json:"promoted"`
}

type grafanaRoute struct {
	Receiver string          `json:"receiver"`
	Routes   []*grafanaRoute `json:"routes"`
}

// grafanaState is the state of a Grafana's own alertmanager.
type grafanaState struct {
	State string `json:"state"` // a clusterpb.FullState in base64
}

// grafanaStatus is what is said of a configuration without showing it.
type grafanaStatus struct {
	Hash     string `json:"configuration_hash"`
	Created  int64  `json:"created"`
	Promoted bool   `json:"promoted"`
	InForce  *bool  `json:"in_force,omitempty"` // whether alerts are sent by it; nil: it is not promoted
}

// grafanaAnswer is the frame of answers.
type grafanaAnswer struct {
	Status string `json:"status"`
	Data   any    `json:"data,omitempty"`
}

// ServeGrafana answers one of Grafana's calls for the tenant in the context.
func (m *Alertmanager) ServeGrafana(w http.ResponseWriter, r *http.Request, path string) error {
	id, err := tenant.FromContext(r.Context())
	if err != nil {
		return err
	}
	switch path {
	case GrafanaFullStatePath, GrafanaReceiversPath:
		return m.Serve(w, r, path) // by the replicas
	case GrafanaTestReceiversPath:
		return m.testReceivers(w, r, id)
	case GrafanaTestTemplatesPath:
		return m.testTemplates(w, r, id)
	}
	status, data := http.StatusOK, any(nil)
	switch r.Method {
	case http.MethodPost:
		status = http.StatusCreated
		err = m.keepForGrafana(w, r, id, path)
	case http.MethodDelete:
		err = m.forgetForGrafana(r.Context(), id, path)
	default:
		data, err = m.keptForGrafana(r.Context(), id, path)
	}
	if err != nil {
		return err
	}
	return writeJSON(w, status, grafanaAnswer{"success", data})
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return errs.New(errs.Internal, "encode the answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client is gone if this fails
	return nil
}

// grafanaDoc is the document that a path is about.
func grafanaDoc(path string) string {
	if path == GrafanaStatePath {
		return grafanaStateDoc
	}
	return grafanaConfigDoc
}

// keptForGrafana returns what a path shows of a document. Errors: NotFound.
func (m *Alertmanager) keptForGrafana(ctx context.Context, id tenant.ID, path string) (any, error) {
	data, err := m.deps.Grafana.Read(ctx, id, grafanaDoc(path))
	if errs.KindOf(err) == errs.NotFound {
		return nil, errs.New(errs.NotFound, absent)
	}
	if err != nil || path != GrafanaConfigStatusPath {
		return json.RawMessage(data), err
	}
	var c grafanaConfig
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, errs.New(errs.Internal, "stored configuration of Grafana: %w", err)
	}
	out := grafanaStatus{Hash: c.Hash, Created: c.Created, Promoted: c.Promoted}
	if c.Promoted {
		out.InForce, err = m.promotedInForce(ctx, id)
	}
	return out, err
}

// keepForGrafana checks and stores the document in a request. Errors: Invalid.
func (m *Alertmanager) keepForGrafana(w http.ResponseWriter, r *http.Request, id tenant.ID, path string) error {
	v := m.deps.Limits(id)
	name, check, refuse := grafanaDoc(path), func(data []byte) error { return checkGrafanaConfig(data, v) }, tooLargeConfig
	most := limits.AlertmanagerMaxGrafanaConfigSize.Of(v)
	if name == grafanaStateDoc {
		check, refuse = checkGrafanaState, tooLargeState
		most = limits.AlertmanagerMaxGrafanaStateSize.Of(v)
	}
	bound := m.cfg.MaxRecvMsgBytes
	if most > 0 && most < bound {
		bound = most
	}
	data, err := readBody(w, r, bound)
	if _, big := errors.AsType[*http.MaxBytesError](err); big && bound == most {
		return refuse(most)
	}
	if err != nil {
		return err
	}
	if err := check(data); err != nil {
		return err
	}
	if name == grafanaStateDoc {
		return m.deps.Grafana.Write(r.Context(), id, name, data)
	}
	// What alerts are sent by changes first: a Grafana that is not told of a success sends it all again.
	if err := m.promote(r.Context(), id, data); err != nil {
		return err
	}
	return m.deps.Grafana.Write(r.Context(), id, name, data)
}

func tooLargeConfig(most int) error {
	return errs.Limit(errs.Invalid, "alertmanager-max-grafana-config-size", "alertmanager.max-grafana-config-size-bytes", "alertmanager_max_grafana_config_size_bytes",
		"the configuration of Grafana has over %d bytes", most)
}

func tooLargeState(most int) error {
	return errs.Limit(errs.Invalid, "alertmanager-max-grafana-state-size", "alertmanager.max-grafana-state-size-bytes", "alertmanager_max_grafana_state_size_bytes",
		"the state of Grafana has over %d bytes", most)
}

// checkGrafanaConfig says what is wrong with a configuration of Grafana, as far as it is understood here.
// Errors: Invalid.
func checkGrafanaConfig(data []byte, v limits.View) error {
	var c grafanaConfig
	if err := json.Unmarshal(data, &c); err != nil {
		return errs.New(errs.Invalid, "read the configuration of Grafana: %w", err)
	}
	am := c.Configuration.Alertmanager
	switch {
	case c.Hash == "":
		return errs.New(errs.Invalid, "the configuration of Grafana has no configuration_hash")
	case c.Created == 0:
		return errs.New(errs.Invalid, "the configuration of Grafana does not say when it was created")
	case am.Route == nil:
		return errs.New(errs.Invalid, "the configuration of Grafana has no route")
	case am.Route.Receiver == "":
		return errs.New(errs.Invalid, "the first route of the configuration of Grafana has no receiver")
	}
	known := map[string]bool{"": true} // of the route above
	for _, r := range am.Receivers {
		known[r.Name] = true
	}
	if err := am.Route.check(known); err != nil {
		return err
	}
	files := c.Configuration.TemplateFiles
	if n, most := len(files)+len(c.Configuration.Templates), limits.AlertmanagerMaxTemplates.Of(v); most > 0 && n > most {
		return errs.New(errs.Invalid, "the configuration of Grafana has %d templates, over the limit of %d", n, most)
	}
	most := limits.AlertmanagerMaxTemplateSize.Of(v)
	for _, t := range c.Configuration.Templates {
		if most > 0 && len(t.Content) > most {
			return errs.New(errs.Invalid, "template %q of Grafana has %d bytes, over the limit of %d", t.Name, len(t.Content), most)
		}
	}
	for name, text := range files {
		if most > 0 && len(text) > most {
			return errs.New(errs.Invalid, "template %q of Grafana has %d bytes, over the limit of %d", name, len(text), most)
		}
	}
	return nil
}

func (r *grafanaRoute) check(known map[string]bool) error {
	if r == nil {
		return errs.New(errs.Invalid, "a route of the configuration of Grafana is empty")
	}
	if !known[r.Receiver] {
		return errs.New(errs.Invalid, "a route of the configuration of Grafana has the receiver %q, which it does not define", r.Receiver)
	}
	for _, below := range r.Routes {
		if err := below.check(known); err != nil {
			return err
		}
	}
	return nil
}

// checkGrafanaState says whether data is a state. Errors: Invalid.
func checkGrafanaState(data []byte) error {
	var s grafanaState
	if err := json.Unmarshal(data, &s); err != nil {
		return errs.New(errs.Invalid, "read the state of Grafana: %w", err)
	}
	if s.State == "" {
		return errs.New(errs.Invalid, "there is no state in the request")
	}
	full, err := base64.StdEncoding.DecodeString(s.State)
	if err != nil {
		return errs.New(errs.Invalid, "the state of Grafana is not base64: %w", err)
	}
	if err := proto.Unmarshal(full, &clusterpb.FullState{}); err != nil {
		return errs.New(errs.Invalid, "the state of Grafana is not one of an alertmanager: %w", err)
	}
	return nil
}

// fullState answers with what this replica knows of silences and notifications. Errors: Unavailable until
// that is all.
func (in *instance) fullState() (*pb.Response, error) {
	if !in.isSettled() {
		return nil, errs.New(errs.Unavailable, "the replica is still asking the others for their state")
	}
	s, err := in.durable()
	if err != nil {
		return nil, err
	}
	body, err := s.MarshalVT()
	if err != nil {
		return nil, err
	}
	return &pb.Response{Status: http.StatusOK, Body: body}, nil
}

// mergeFullStates is what any replica knows, in the form in which alertmanagers exchange it.
func (m *Alertmanager) mergeFullStates(id tenant.ID, in []*pb.Response) (*pb.Response, error) {
	all, err := newState(id, silence.Options{Retention: m.cfg.Retention, Logger: m.log, Metrics: prometheus.NewRegistry(), EventRecorder: eventrecorder.NopRecorder()})
	if err != nil {
		return nil, err
	}
	for _, r := range in {
		var s pb.State
		if err := s.UnmarshalVT(r.GetBody()); err != nil {
			return nil, errs.New(errs.Internal, "answer of a replica: %w", err)
		}
		if err := errors.Join(all.mergePart(s.GetSilences(), all.silences.Merge), all.mergePart(s.GetNotifications(), all.notified.Merge)); err != nil {
			return nil, errs.New(errs.Internal, "answer of a replica: %w", err)
		}
	}
	s, err := all.durable()
	if err != nil {
		return nil, err
	}
	full, err := proto.Marshal(&clusterpb.FullState{Parts: []*clusterpb.Part{
		{Key: partNotifications + string(id), Data: s.GetNotifications()},
		{Key: partSilences + string(id), Data: s.GetSilences()},
	}})
	if err != nil {
		return nil, err
	}
	return answer(grafanaAnswer{"success", grafanaState{base64.StdEncoding.EncodeToString(full)}})
}
