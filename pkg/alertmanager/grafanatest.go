package alertmanager

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/alertmanager/alert"
	"github.com/prometheus/alertmanager/notify"
	"github.com/prometheus/common/model"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

const (
	// testsAtOnce bounds the tests of receivers that this process runs.
	testsAtOnce = 8
	// testMost ends a test of receivers.
	testMost = 15 * time.Second
	// maxTestBytes and maxTested bound what one test may be about.
	maxTestBytes = 4 << 20
	maxTested    = 50
)

// grafanaTestAlert is what a test says of its alert.
type grafanaTestAlert struct {
	Annotations model.LabelSet `json:"annotations"`
	Labels      model.LabelSet `json:"labels"`
}

// tested is how the test of one integration ended.
type tested struct {
	Name   string `json:"name"`
	UID    string `json:"uid"`
	Status string `json:"status"`
	Error  string `json:"error,omitempty"`

	kind failure
}

// failure is why a test failed.
type failure int

const (
	none failure = iota
	wrongSettings
	tookTooLong
	notSent
)

type testedReceiver struct {
	Name         string    `json:"name"`
	Integrations []*tested `json:"grafana_managed_receiver_configs"`
}

// testReceivers sends one alert to receivers that are in the request, and answers with how that ended.
// Errors: Invalid; RateLimited.
func (m *Alertmanager) testReceivers(w http.ResponseWriter, r *http.Request, id tenant.ID) error {
	var in struct {
		Alert     *grafanaTestAlert `json:"alert"`
		Receivers []grafanaReceiver `json:"receivers"`
	}
	if err := readTest(w, r, &in); err != nil {
		return err
	}
	n := 0
	for _, rcv := range in.Receivers {
		n += len(rcv.Integrations)
	}
	if n == 0 || n > maxTested {
		return errs.New(errs.Invalid, "the test is about %d integrations; it must be 1 to %d", n, maxTested)
	}
	a, err := testAlert(in.Alert)
	if err != nil {
		return err
	}
	kept, err := m.grafanaKept(r.Context(), id)
	if err != nil {
		return err
	}
	select {
	case m.tests <- struct{}{}:
		defer func() { <-m.tests }()
	default:
		return errs.New(errs.RateLimited, "%d tests of receivers are under way, which is as many as there may be", testsAtOnce)
	}
	ctx, cancel := context.WithTimeout(r.Context(), testMost)
	defer cancel()
	out := make([]testedReceiver, len(in.Receivers))
	var wg sync.WaitGroup
	for i, rcv := range in.Receivers {
		out[i] = testedReceiver{Name: rcv.Name, Integrations: make([]*tested, len(rcv.Integrations))}
		for j, g := range rcv.Integrations {
			wg.Go(func() { out[i].Integrations[j] = m.testOne(ctx, id, kept, rcv.Name, g, a) })
		}
	}
	wg.Wait()
	return writeJSON(w, statusOfTest(out), struct {
		Alert     grafanaTestAlert `json:"alert"`
		Receivers []testedReceiver `json:"receivers"`
		At        time.Time        `json:"notified_at"`
	}{grafanaTestAlert{a.Annotations, a.Labels}, out, a.StartsAt})
}

// readTest reads the body of a test. Errors: Invalid.
func readTest(w http.ResponseWriter, r *http.Request, into any) error {
	data, err := readBody(w, r, maxTestBytes)
	if _, big := errors.AsType[*http.MaxBytesError](err); big {
		return errs.New(errs.Invalid, "the test has over %d bytes", maxTestBytes)
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return errs.New(errs.Invalid, "read the test: %w", err)
	}
	return nil
}

// testAlert is an alert that fires, with what the test says of it. Errors: Invalid.
func testAlert(with *grafanaTestAlert) (*alert.Alert, error) {
	now := time.Now()
	a := &alert.Alert{UpdatedAt: now, Alert: model.Alert{Labels: model.LabelSet{"alertname": "TestAlert", "instance": "Grafana"},
		Annotations: model.LabelSet{"summary": "Notification test"}, StartsAt: now}}
	if with != nil {
		for k, v := range with.Labels {
			a.Labels[k] = v
		}
		for k, v := range with.Annotations {
			a.Annotations[k] = v
		}
	}
	if err := a.Validate(); err != nil {
		return nil, errs.New(errs.Invalid, "alert: %w", err)
	}
	return a, nil
}

// grafanaKept is the configuration that a Grafana keeps here, whose templates, address and way of sending
// mails tests use; an empty one if there is none or it is not understood.
func (m *Alertmanager) grafanaKept(ctx context.Context, id tenant.ID) (*grafanaDocument, error) {
	data, err := m.deps.Grafana.Read(ctx, id, grafanaConfigDoc)
	if errs.KindOf(err) == errs.NotFound {
		return &grafanaDocument{}, nil
	}
	if err != nil {
		return nil, err
	}
	d, err := readGrafana(data)
	if err != nil {
		return &grafanaDocument{}, nil // it was kept when it was not promoted
	}
	return d, nil
}

// testOne sends an alert to one integration.
func (m *Alertmanager) testOne(ctx context.Context, id tenant.ID, kept *grafanaDocument, receiver string, g grafanaIntegration, a *alert.Alert) *tested {
	out := &tested{Name: g.Name, UID: g.UID, Status: "failed"}
	secrets := append(g.secrets(), kept.SMTP.Password)
	targets, err := m.testTargets(id, kept, grafanaReceiver{Name: receiver, Integrations: []grafanaIntegration{g}})
	if err != nil {
		out.kind, out.Error = wrongSettings, unlined(err, secrets).Error()
		return out
	}
	ctx = notify.WithReceiverName(ctx, receiver)
	ctx = notify.WithGroupKey(ctx, fmt.Sprintf("test/%s/%d", g.UID, a.StartsAt.UnixNano()))
	ctx = notify.WithGroupLabels(ctx, a.Labels)
	ctx = notify.WithNow(ctx, a.StartsAt)
	ctx = notify.WithRepeatInterval(ctx, time.Hour)
	ctx = notify.WithFiringAlerts(ctx, []uint64{uint64(a.Fingerprint())})
	ctx = notify.WithNotificationReason(ctx, notify.ReasonFirstNotification)
	for i := range targets {
		if _, err = targets[i].Notify(ctx, a); err != nil {
			break
		}
	}
	switch {
	case err == nil:
		out.Status = "ok"
	case ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded):
		out.kind, out.Error = tookTooLong, fmt.Sprintf("it took too long; a test ends after %s", testMost)
	default:
		out.kind, out.Error = notSent, hidden(err.Error(), secrets)
	}
	return out
}

// testTargets builds what sends to a receiver, as it is built for a promoted configuration. Errors: Invalid.
func (m *Alertmanager) testTargets(id tenant.ID, kept *grafanaDocument, r grafanaReceiver) ([]notify.Integration, error) {
	files, err := kept.files()
	if err != nil {
		return nil, err
	}
	texts := kept.texts()
	templates, err := texts.files(files)
	if err != nil {
		return nil, err
	}
	if r.Name == "" {
		r.Name = "test"
	}
	conf, err := r.upstream(texts)
	if err != nil {
		return nil, err
	}
	b, err := m.buildTest(id, node{"route": node{"receiver": r.Name}, "receivers": []node{conf}}, templates)
	if err != nil {
		return nil, err
	}
	return b.receivers[r.Name], nil
}

// buildTest builds a configuration that nothing runs with. The operator's base is no part of it.
func (m *Alertmanager) buildTest(id tenant.ID, conf node, templates map[string]string) (*built, error) {
	def, err := define(conf, templates)
	if err != nil {
		return nil, err
	}
	data, err := encodeDefinition(def)
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	d, err := parse(data, rules{receivers: m.rules.receivers}, translatedView(m.deps.Limits(id)))
	if err != nil {
		return nil, err
	}
	return build(d, id, m.external, m.quiet(id))
}

// statusOfTest is 200 if all was sent, 400 if no settings were right, 408 if all took too long, and 207
// otherwise.
func statusOfTest(all []testedReceiver) int {
	count := map[failure]int{}
	n := 0
	for _, r := range all {
		for _, t := range r.Integrations {
			count[t.kind]++
			n++
		}
	}
	switch n {
	case count[none]:
		return http.StatusOK
	case count[wrongSettings]:
		return http.StatusBadRequest
	case count[tookTooLong]:
		return http.StatusRequestTimeout
	}
	return http.StatusMultiStatus
}

// testedTemplate is what a template makes of the alerts of a test.
type testedTemplate struct {
	Name  string `json:"name"`
	Text  string `json:"text"`
	Scope string `json:"scope"`
}

type wrongTemplate struct {
	Name    string `json:"name"`
	Kind    string `json:"kind"`
	Message string `json:"message"`
}

// The kinds of what is wrong with a template.
const (
	kindInvalid   = "invalid_template"
	kindExecution = "execution_error"
)

// grafanaTemplateTest is a template and alerts that it shall be tested with.
type grafanaTemplateTest struct {
	Alerts []struct {
		grafanaTestAlert
		StartsAt     time.Time `json:"startsAt"`
		EndsAt       time.Time `json:"endsAt"`
		GeneratorURL string    `json:"generatorURL"`
	} `json:"alerts"`
	Template string `json:"template"`
	Name     string `json:"name"`
}

// testTemplates answers with what a template makes of alerts. Errors: Invalid.
func (m *Alertmanager) testTemplates(w http.ResponseWriter, r *http.Request, id tenant.ID) error {
	var in grafanaTemplateTest
	if err := readTest(w, r, &in); err != nil {
		return err
	}
	alerts, err := in.alerts()
	if err != nil {
		return err
	}
	kept, err := m.grafanaKept(r.Context(), id)
	if err != nil {
		return err
	}
	results, wrong, err := m.expand(id, kept, &in, alerts)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, struct {
		Results []testedTemplate `json:"results,omitempty"`
		Errors  []wrongTemplate  `json:"errors,omitempty"`
	}{results, wrong})
}

// alerts are those that the test has. Errors: Invalid.
func (t *grafanaTemplateTest) alerts() ([]*alert.Alert, error) {
	if len(t.Alerts) == 0 || len(t.Alerts) > maxTested {
		return nil, errs.New(errs.Invalid, "the test has %d alerts; it must have 1 to %d", len(t.Alerts), maxTested)
	}
	if t.Name == "" {
		return nil, errs.New(errs.Invalid, "the template has no name")
	}
	var out []*alert.Alert
	for _, x := range t.Alerts {
		a, err := testAlert(&x.grafanaTestAlert)
		if err != nil {
			return nil, err
		}
		if !x.StartsAt.IsZero() {
			a.StartsAt = x.StartsAt
		}
		a.EndsAt = x.EndsAt
		if _, err := url.Parse(x.GeneratorURL); err == nil {
			a.GeneratorURL = x.GeneratorURL
		}
		out = append(out, a)
	}
	return out, nil
}

// expand executes the templates of a test within those that the tenant keeps.
func (m *Alertmanager) expand(id tenant.ID, kept *grafanaDocument, in *grafanaTemplateTest, alerts []*alert.Alert) ([]testedTemplate, []wrongTemplate, error) {
	files, err := kept.files()
	if err != nil {
		return nil, nil, err
	}
	invalid := func(err error) ([]testedTemplate, []wrongTemplate, error) {
		return nil, []wrongTemplate{{in.Name, kindInvalid, unlined(err, nil).Error()}}, nil
	}
	parsed, err := parseGrafana(in.Template)
	if err != nil {
		return invalid(err)
	}
	text := in.Template
	if !strings.Contains(text, "define") {
		text = fmt.Sprintf("{{define %q}}%s{{end}}", in.Name, text)
		if parsed, err = parseGrafana(text); err != nil {
			return invalid(err)
		}
	}
	files[in.Name] = text
	templates, err := kept.texts().files(files)
	if err != nil {
		return invalid(err)
	}
	b, err := m.buildTest(id, node{"route": node{"receiver": "test"}, "receivers": []node{{"name": "test"}}}, templates)
	if err != nil {
		return invalid(err)
	}
	data := b.tmpl.Data("test", alerts[0].Labels, nil, "", alerts...)
	var results []testedTemplate
	var wrong []wrongTemplate
	for _, one := range parsed.Templates() {
		if one.Name() == "" {
			continue
		}
		call := fmt.Sprintf("{{template %q .}}", one.Name())
		var first error
		done := false
		for _, scope := range []struct {
			name string
			data any
		}{{".", data}, {".Alerts", data.Alerts}, {".Alert", data.Alerts[0]}} {
			text, err := b.tmpl.ExecuteTextString(call, scope.data)
			if err == nil {
				results, done = append(results, testedTemplate{one.Name(), text, scope.name}), true
				break
			}
			if first == nil {
				first = err
			}
		}
		if !done {
			wrong = append(wrong, wrongTemplate{one.Name(), kindExecution, hidden(first.Error(), nil)})
		}
	}
	return results, wrong, nil
}
