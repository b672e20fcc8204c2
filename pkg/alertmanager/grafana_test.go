package alertmanager

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/alertmanager/cluster/clusterpb"
	"google.golang.org/protobuf/proto"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// grafanaDocs keeps documents in memory.
type grafanaDocs struct {
	mu   sync.Mutex // guards kept
	kept map[string][]byte
}

func (d *grafanaDocs) Read(_ context.Context, id tenant.ID, name string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if data := d.kept[string(id)+"/"+name]; data != nil {
		return data, nil
	}
	return nil, errs.New(errs.NotFound, "no document")
}

func (d *grafanaDocs) Write(_ context.Context, id tenant.ID, name string, data []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.kept == nil {
		d.kept = map[string][]byte{}
	}
	d.kept[string(id)+"/"+name] = data
	return nil
}

func (d *grafanaDocs) Remove(_ context.Context, id tenant.ID, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.kept, string(id)+"/"+name)
	return nil
}

// grafana calls as a Grafana does.
func (c *fleet) grafana(t *testing.T, id tenant.ID, method, path, body string) (int, string) {
	t.Helper()
	r := httptest.NewRequestWithContext(tenant.Inject(t.Context(), id), method, path, strings.NewReader(body))
	w := httptest.NewRecorder()
	if err := c.nodes[c.order[0]].ServeGrafana(w, r, path); err != nil {
		return errs.HTTPStatus(err), err.Error()
	}
	if got := w.Header().Get("Content-Type"); got != "application/json" {
		t.Errorf("%s %s: content type %q", method, path, got)
	}
	return w.Code, w.Body.String()
}

// grafanasConfig is what a Grafana sends: its own kinds of receivers, and things that nobody here knows.
const grafanasConfig = `{"configuration":{"template_files":{"a":"{{ define \"a\" }}x{{ end }}"},"alertmanager_config":{
"route":{"receiver":"team","group_by":["grafana_folder"],"routes":[{"receiver":"team","object_matchers":[["a","=","b"]]},{"continue":true}]},
"receivers":[{"name":"team","grafana_managed_receiver_configs":[{"uid":"u","name":"team","type":"telegram","settings":{"chatid":"1"},"secureSettings":{"bottoken":"c2VjcmV0"}}]}]}},
"configuration_hash":"0f3a","created":1700000000,"default":false,"promoted":false,"external_url":"http://grafana/","smtp_config":{"host":"mail:25"},"of_tomorrow":[1]}`

func TestGrafanaGetsBackWhatItKeepsHere(t *testing.T) {
	c := newFleet(t, 1)
	full, err := proto.Marshal(&clusterpb.FullState{Parts: []*clusterpb.Part{{Key: "silences", Data: []byte("s")}, {Key: "notifications", Data: []byte("n")}}})
	if err != nil {
		t.Fatal(err)
	}
	for path, sent := range map[string]string{GrafanaConfigPath: grafanasConfig, GrafanaStatePath: `{"state":"` + base64.StdEncoding.EncodeToString(full) + `"}`} {
		if status, body := c.grafana(t, "t", "GET", path, ""); status != http.StatusNotFound || !strings.HasPrefix(body, "alertmanager storage object not found") {
			t.Errorf("%s before: %d %s", path, status, body)
		}
		if status, body := c.grafana(t, "t", "POST", path, sent); status != http.StatusCreated || body != `{"status":"success"}` {
			t.Errorf("put %s: %d %s", path, status, body)
		}
		status, body := c.grafana(t, "t", "GET", path, "")
		var got struct {
			Status string
			Data   any
		}
		var want any
		if err := json.Unmarshal([]byte(sent), &want); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil || status != http.StatusOK || got.Status != "success" || !equalJSON(t, got.Data, want) {
			t.Errorf("%s: %d %s", path, status, body)
		}
		if status, _ := c.grafana(t, "other", "GET", path, ""); status != http.StatusNotFound {
			t.Errorf("%s of another tenant: %d", path, status)
		}
	}
	if status, body := c.grafana(t, "t", "GET", GrafanaConfigStatusPath, ""); status != http.StatusOK ||
		body != `{"status":"success","data":{"configuration_hash":"0f3a","created":1700000000,"promoted":false}}` {
		t.Errorf("status of the configuration: %d %s", status, body)
	}
	for range 2 {
		if status, body := c.grafana(t, "t", "DELETE", GrafanaStatePath, ""); status != http.StatusOK || body != `{"status":"success"}` {
			t.Errorf("delete: %d %s", status, body)
		}
	}
	if status, _ := c.grafana(t, "t", "GET", GrafanaStatePath, ""); status != http.StatusNotFound {
		t.Errorf("deleted state: %d", status)
	}
	if err := c.nodes["am-0"].DeleteTenant(t.Context(), "t"); err != nil {
		t.Fatal(err)
	}
	if status, _ := c.grafana(t, "t", "GET", GrafanaConfigPath, ""); status != http.StatusNotFound {
		t.Errorf("configuration of a deleted tenant: %d", status)
	}
}

func equalJSON(t *testing.T, a, b any) bool {
	t.Helper()
	x, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(x) == string(y)
}

func TestWhatGrafanaMayNotKeepHereIsRefusedAndChangesNothing(t *testing.T) {
	c := newFleet(t, 1)
	c.limits = func(id tenant.ID) limits.View {
		if id != "small" {
			return limits.View{}
		}
		return limits.AlertmanagerMaxTemplateSize.With(limits.AlertmanagerMaxGrafanaStateSize.With(limits.AlertmanagerMaxGrafanaConfigSize.With(limits.View{}, 1000), 20), 10)
	}
	with := func(old, new string) string { return strings.Replace(grafanasConfig, old, new, 1) }
	for name, x := range map[string]struct {
		path, body string
		status     int
		want       string
	}{
		"no JSON":           {GrafanaConfigPath, "{", 400, "read the configuration"},
		"no hash":           {GrafanaConfigPath, with("0f3a", ""), 400, "configuration_hash"},
		"no time":           {GrafanaConfigPath, with("1700000000", "0"), 400, "created"},
		"no route":          {GrafanaConfigPath, with(`"route"`, `"rute"`), 400, "no route"},
		"unknown receiver":  {GrafanaConfigPath, with(`{"receiver":"team","object_matchers"`, `{"receiver":"nobody","object_matchers"`), 400, `"nobody"`},
		"empty route":       {GrafanaConfigPath, with(`{"continue":true}`, "null"), 400, "is empty"},
		"promoted":          {GrafanaConfigPath, strings.Replace(with(`"promoted":false`, `"promoted":true`), "telegram", "threema", 1), 400, "threema"},
		"no state":          {GrafanaStatePath, `{}`, 400, "no state"},
		"state of no bytes": {GrafanaStatePath, `{"state":"%"}`, 400, "base64"},
		"foreign state":     {GrafanaStatePath, `{"state":"` + base64.StdEncoding.EncodeToString([]byte("x")) + `"}`, 400, "not one of an alertmanager"},
		"test of nothing":   {GrafanaTestReceiversPath, `{}`, 400, "0 integrations"},
		"no alerts":         {GrafanaTestTemplatesPath, `{"name":"x"}`, 400, "0 alerts"},
	} {
		if status, body := c.grafana(t, "t", "POST", x.path, x.body); status != x.status || !strings.Contains(body, x.want) {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
	for _, path := range []string{GrafanaConfigPath, GrafanaStatePath} {
		if status, _ := c.grafana(t, "t", "GET", path, ""); status != http.StatusNotFound {
			t.Errorf("%s: %d", path, status)
		}
	}
	long := with(`"configuration"`, strings.Repeat(" ", 1000)+`"configuration"`)
	for path, x := range map[string]struct{ body, want string }{
		GrafanaConfigPath: {long, "err-amphora-alertmanager-max-grafana-config-size"},
		GrafanaStatePath:  {`{"state":"` + strings.Repeat("A", 20) + `"}`, "err-amphora-alertmanager-max-grafana-state-size"},
	} {
		if status, body := c.grafana(t, "small", "POST", path, x.body); status != 400 || !strings.Contains(body, x.want) {
			t.Errorf("too large for %s: %d %s", path, status, body)
		}
	}
	if status, body := c.grafana(t, "small", "POST", GrafanaConfigPath, grafanasConfig); status != 400 || !strings.Contains(body, "over the limit of 10") {
		t.Errorf("large template: %d %s", status, body)
	}
}

// TestGrafanaSeesWhatTheReplicasKnow: silences and notifications that any of them has, and the newest attempt to
// notify of each receiver.
func TestGrafanaSeesWhatTheReplicasKnow(t *testing.T) {
	c := newFleet(t, 3)
	h := newHook(t, nil)
	c.put(t, "t", h.url)
	c.silence(t, "t", "quiet")
	type integration struct {
		LastNotifyAttempt                                       time.Time
		LastNotifyAttemptDuration, LastNotifyAttemptError, Name string
		SendResolved                                            bool
	}
	type receiver struct {
		Active       bool
		Integrations []integration
		Name         string
	}
	receivers := func() integration {
		t.Helper()
		status, body := c.grafana(t, "t", "GET", GrafanaReceiversPath, "")
		var got []receiver
		if err := json.Unmarshal([]byte(body), &got); err != nil || status != 200 || len(got) != 1 || len(got[0].Integrations) != 1 || !got[0].Active || got[0].Name != "r" {
			t.Fatalf("receivers: %d %s", status, body)
		}
		return got[0].Integrations[0]
	}
	if got := receivers(); !got.LastNotifyAttempt.IsZero() || got.LastNotifyAttemptDuration != "0s" || got.Name != "webhook" || !got.SendResolved {
		t.Errorf("before a notification: %+v", got)
	}
	c.alert(t, "t", "loud")
	eventually(t, "the attempt is shown", func() bool { return !receivers().LastNotifyAttempt.IsZero() })
	if got := receivers(); got.LastNotifyAttemptError != "" {
		t.Errorf("after it: %+v", got)
	}
	eventually(t, "the silence and the notification are in the whole state", func() bool {
		status, body := c.grafana(t, "t", "GET", GrafanaFullStatePath, "")
		var got struct {
			Data struct{ State []byte }
		}
		var full clusterpb.FullState
		if err := json.Unmarshal([]byte(body), &got); err != nil || status != 200 {
			return false // a replica is starting
		}
		if err := proto.Unmarshal(got.Data.State, &full); err != nil || len(full.GetParts()) != 2 {
			t.Fatalf("whole state: %d %s", status, body)
		}
		return full.Parts[0].GetKey() == "nfl:t" && strings.Contains(string(full.Parts[0].GetData()), "webhook") &&
			full.Parts[1].GetKey() == "sil:t" && strings.Contains(string(full.Parts[1].GetData()), "quiet")
	})
}
