package alertmanager

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// promotions keeps definitions in memory.
type promotions struct {
	mu   sync.Mutex // guards docs
	docs map[tenant.ID][]byte
}

func (p *promotions) Read(_ context.Context, id tenant.ID) ([]byte, string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.docs[id] == nil {
		return nil, "", errs.New(errs.NotFound, "no document")
	}
	return p.docs[id], fmt.Sprintf("%q", p.docs[id]), nil
}

func (p *promotions) has(id tenant.ID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.docs[id] != nil
}

func (p *promotions) Write(_ context.Context, id tenant.ID, data []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.docs == nil {
		p.docs = map[tenant.ID][]byte{}
	}
	p.docs[id] = data
	return nil
}

func (p *promotions) Remove(_ context.Context, id tenant.ID) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.docs, id)
	return nil
}

func (p *promotions) Versions(context.Context) (map[tenant.ID]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[tenant.ID]string{}
	for id, data := range p.docs {
		out[id] = fmt.Sprintf("%q", data)
	}
	return out, nil
}

// mailbox keeps the bodies that it is sent.
type mailbox struct {
	url  string
	mu   sync.Mutex // guards got
	got  []string
	auth string
}

func newMailbox(t *testing.T, answer func(http.ResponseWriter, *http.Request)) *mailbox {
	b := &mailbox{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		b.mu.Lock()
		b.got = append(b.got, string(body))
		b.auth = r.Header.Get("Authorization")
		b.mu.Unlock()
		if answer != nil {
			answer(w, r)
		}
	}))
	t.Cleanup(s.Close)
	b.url = s.URL
	return b
}

// has says whether a body has all texts.
func (b *mailbox) has(texts ...string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, body := range b.got {
		all := true
		for _, text := range texts {
			all = all && strings.Contains(body, text)
		}
		if all {
			return true
		}
	}
	return false
}

// seen returns the last credentials and the number of bodies.
func (b *mailbox) seen() (auth string, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.auth, len(b.got)
}

// sent is a promoted configuration with the parts of alertmanager_config and templates.
func sent(promoted bool, alertmanager, templates string) string {
	return fmt.Sprintf(`{"configuration":{"template_files":%s,"alertmanager_config":%s},"configuration_hash":"h","created":1700000000,"default":false,"promoted":%t,
"external_url":"http://grafana.example/","smtp_config":{"host":"mail.example:25","from_address":"g@example.com","password":"mailsecret"}}`, templates, alertmanager, promoted)
}

// contact is one receiver with one integration.
func contact(name, kind, settings, secure string) string {
	return fmt.Sprintf(`{"name":%q,"grafana_managed_receiver_configs":[{"uid":"u-%s","name":%q,"type":%q,"disableResolveMessage":false,"settings":%s,"secureSettings":%s}]}`,
		name, name, name, kind, settings, secure)
}

const timings = `"group_wait":"50ms","group_interval":"500ms","repeat_interval":"4h"`

// TestAPromotedConfigurationNotifies: a webhook and a Slack, by the routes of Grafana, with its templates, and
// only as long as it is promoted and the tenant has none of its own.
func TestAPromotedConfigurationNotifies(t *testing.T) {
	c := newFleet(t, 2)
	hook, slack, own := newMailbox(t, nil), newMailbox(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }), newHook(t, nil)
	config := `{"route":{"receiver":"hook","group_by":["grafana_folder","alertname"],` + timings + `,"routes":[
{"receiver":"slack","object_matchers":[["team","=~","d.b|web"],["spaced name","!=","x\"y"]]}]},
"mute_time_intervals":[{"name":"night","time_intervals":[{"times":[{"start_time":"01:00","end_time":"02:00"}],"weekdays":["monday:friday"]}]}],
"receivers":[` + contact("hook", "webhook", `{"url":"`+hook.url+`","maxAlerts":"3","authorization_scheme":"Bearer"}`, `{"authorization_credentials":"hooksecret"}`) + `,` +
		contact("slack", "slack", `{"recipient":"#ops","text":"{{ template \"mine\" . }}","mentionChannel":"here"}`, `{"url":"`+slack.url+`/services/slacksecret"}`) + `]}`
	templates := `{"mine/1":"{{ define \"mine\" }}{{ range .Alerts }}{ {{- .Values.B }} {{ .SilenceURL }} {{ .PanelURL }}{{ end }}{{ end }}"}`
	promote := func(promoted bool) {
		t.Helper()
		if status, body := c.grafana(t, "t", "POST", GrafanaConfigPath, sent(promoted, config, templates)); status != http.StatusCreated {
			t.Fatalf("%d %s", status, body)
		}
	}
	inForce := func() string {
		t.Helper()
		status, body := c.grafana(t, "t", "GET", GrafanaConfigStatusPath, "")
		if status != http.StatusOK {
			t.Fatalf("%d %s", status, body)
		}
		_, after, _ := strings.Cut(body, `"promoted":`)
		return strings.TrimRight(after, "}")
	}
	promote(true)
	if got := inForce(); got != `true,"in_force":true` {
		t.Errorf("promoted: %s", got)
	}
	c.alert(t, "t", "plain")
	c.done(t, "t", "POST", "/api/v2/alerts", `[{"labels":{"alertname":"db","team":"dxb"},"annotations":{"__values__":"{\"B\":7.5}","__orgId__":"3","__dashboardUid__":"dash","__panelId__":"9"}}]`)
	eventually(t, "the webhook is notified", func() bool { return hook.has(`"alertname":"plain"`, `"version":"4"`) })
	eventually(t, "Slack is notified", func() bool {
		return slack.has("#ops", "{7.5 http://grafana.example/alerting/silence/new?", "http://grafana.example/d/dash?orgId=3", "\\u003c!here\\u003e")
	})
	if auth, n := hook.seen(); auth != "Bearer hooksecret" || hook.has("dxb") {
		t.Errorf("the webhook had %q, and %d notifications, also of what is Slack's", auth, n)
	}
	for _, path := range []string{"/api/v2/status", GrafanaReceiversPath} {
		if status, body := c.request(t, "t", "GET", path, ""); status != http.StatusOK || strings.Contains(body, "secret\"") || strings.Contains(body, "hooksecret") || strings.Contains(body, "slacksecret") {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	// A wrong one changes nothing.
	wrong := strings.Replace(config, `"slack","disable`, `"dingding","disable`, 1)
	if status, body := c.grafana(t, "t", "POST", GrafanaConfigPath, sent(true, wrong, templates)); status != http.StatusBadRequest || !strings.Contains(body, `receiver "slack": type dingding`) {
		t.Errorf("wrong: %d %s", status, body)
	}
	c.alert(t, "t", "after")
	eventually(t, "the one before goes on", func() bool { return hook.has(`"alertname":"after"`) })
	// The tenant's own comes first.
	c.put(t, "t", own.url)
	if got := inForce(); got != `true,"in_force":false` {
		t.Errorf("with an own configuration: %s", got)
	}
	c.alert(t, "t", "owned")
	eventually(t, "its own receiver is notified", func() bool { return own.count("owned") == 1 })
	if err := c.nodes["am-0"].Delete(t.Context(), "t"); err != nil {
		t.Fatal(err)
	}
	if got := inForce(); got != `true,"in_force":true` {
		t.Errorf("without it again: %s", got)
	}
	c.alert(t, "t", "back")
	eventually(t, "the promoted one is back", func() bool { return hook.has(`"alertname":"back"`) })
	promote(false)
	if got := inForce(); got != "false" || c.moved.has("t") {
		t.Errorf("not promoted any more: %s", got)
	}
	promote(true)
	if status, _ := c.grafana(t, "t", "DELETE", GrafanaConfigPath, ""); status != http.StatusOK || c.moved.has("t") {
		t.Errorf("a deleted configuration: %d", status)
	}
}

// TestWhatWasPromotedIsOutOfForceWhenGrafanasAreTurnedOff, and comes back with them.
func TestWhatWasPromotedIsOutOfForceWhenGrafanasAreTurnedOff(t *testing.T) {
	c := newFleet(t, 1)
	if err := c.moved.Write(t.Context(), "t", []byte("promoted")); err != nil {
		t.Fatal(err)
	}
	for name, off := range map[string]bool{"am-1": true, "am-2": false} {
		c.alone = off
		defs := c.start(t, name).defs
		_, _, err := defs.Read(t.Context(), "t")
		versions, failed := defs.Versions(t.Context())
		if failed != nil || (errs.KindOf(err) == errs.NotFound) != off || (len(versions) == 0) != off {
			t.Errorf("turned off: %t; read: %v, versions: %v, %v", off, err, versions, failed)
		}
	}
}

func TestAPromotedConfigurationThatCannotBeHonouredIsRefusedWhole(t *testing.T) {
	c := newFleet(t, 1)
	c.limits = func(id tenant.ID) limits.View {
		if id == "few" {
			return limits.AlertmanagerMaxRoutes.With(limits.View{}, 1)
		}
		return limits.View{}
	}
	const hook = `{"url":"http://h.example/secretpath"}`
	one := func(kind, settings, secure string) string {
		return `{"route":{"receiver":"r"},"receivers":[` + contact("r", kind, settings, secure) + `]}`
	}
	for name, x := range map[string]struct{ alertmanager, templates, want string }{
		"type":              {one("threema", `{}`, `{}`), `{}`, `receiver "r": type threema cannot be honoured`},
		"setting":           {one("webhook", `{"url":"http://h.example","colour":"red"}`, `{}`), `{}`, `receiver "r": type webhook: setting colour is not known`},
		"method":            {one("webhook", `{"url":"http://h.example","httpMethod":"PUT"}`, `{}`), `{}`, "setting httpMethod cannot be honoured"},
		"signature":         {one("webhook", `{"url":"http://h.example","hmacConfig":{"secret":"s"}}`, `{}`), `{}`, "setting hmacConfig"},
		"missing":           {one("pagerduty", `{}`, `{}`), `{}`, "setting integrationKey is missing"},
		"below":             {one("webhook", `{"url":"http://h.example","tlsConfig":{"serverName":"x"}}`, `{}`), `{}`, "setting tlsConfig.serverName is not known"},
		"profile":           {one("sns", `{"topic_arn":"a","sigv4":{"region":"r","profile":"p"}}`, `{}`), `{}`, "profile is not allowed"},
		"scheme":            {one("webhook", `{"url":"ftp://h.example/secretpath"}`, `{}`), `{}`, "unsupported scheme"},
		"chat":              {one("telegram", `{"chatid":"@me"}`, `{"bottoken":"botsecret"}`), `{}`, "setting chatid is no whole number"},
		"image":             {one("webhook", hook, `{}`), `{"a":"{{ define \"a\" }}{{ range .Alerts }}{{ .ImageURL }}{{ end }}{{ end }}"}`, ".ImageURL cannot be honoured"},
		"function":          {one("webhook", hook, `{}`), `{"a":"{{ define \"a\" }}{{ coll.Dict }}{{ end }}"}`, `function "coll" not defined`},
		"endless":           {one("webhook", hook, `{}`), `{"a":"{{ define \"a\" }}{{ template \"a\" . }}{{ end }}"}`, "calls itself"},
		"template":          {one("slack", `{"text":"{{ .Nope"}`, `{"url":"http://h.example/secretpath"}`), `{}`, "setting text is a template"},
		"matcher":           {`{"route":{"receiver":"r","routes":[{"object_matchers":[["a","~","b"]]}]},"receivers":[` + contact("r", "webhook", hook, `{}`) + `]}`, `{}`, "operator"},
		"expression":        {`{"route":{"receiver":"r","routes":[{"object_matchers":[["a","=~","("]]}]},"receivers":[` + contact("r", "webhook", hook, `{}`) + `]}`, `{}`, "object_matchers"},
		"part of a route":   {`{"route":{"receiver":"r","snooze":true},"receivers":[` + contact("r", "webhook", hook, `{}`) + `]}`, `{}`, `"snooze"`},
		"part of receivers": {`{"route":{"receiver":"r"},"receivers":[{"name":"r","webhook_configs":[{"url":"http://x"}]}]}`, `{}`, `"webhook_configs"`},
		"global":            {`{"global":{"smtp_from":"x"},"route":{"receiver":"r"},"receivers":[{"name":"r"}]}`, `{}`, "global"},
		"times":             {`{"route":{"receiver":"r"},"receivers":[{"name":"r"}],"mute_time_intervals":[{"name":"n","time_intervals":[{"sometimes":1}]}]}`, `{}`, "sometimes"},
	} {
		status, body := c.grafana(t, "t", "POST", GrafanaConfigPath, sent(true, x.alertmanager, x.templates))
		if status != http.StatusBadRequest || !strings.Contains(body, x.want) || strings.Contains(body, "secretpath") || strings.Contains(body, "botsecret") {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
	if c.moved.has("t") {
		t.Error("a refused configuration is kept")
	}
	routes := `{"route":{"receiver":"r","routes":[{"receiver":"r"}]},"receivers":[` + contact("r", "webhook", hook, `{}`) + `]}`
	if status, body := c.grafana(t, "few", "POST", GrafanaConfigPath, sent(true, routes, `{}`)); status != http.StatusBadRequest || !strings.Contains(body, "2 routes, over the limit of 1") {
		t.Errorf("routes: %d %s", status, body)
	}
}

func TestAPromotedConfigurationHasReceiversOfSNSOnlyWhereThoseAreAllowed(t *testing.T) {
	for kind, x := range map[string][3]string{
		"webhook": {`{"url":"http://h.example"}`, `{}`, "sns_configs only"},
		"sns":     {`{"topic_arn":"arn:aws:sns:eu-west-1:1:x","sigv4":{"region":"eu-west-1"}}`, `{"sigv4.access_key":"ak","sigv4.secret_key":"sk"}`, ""},
	} {
		d, err := readGrafana([]byte(sent(true, `{"route":{"receiver":"r"},"receivers":[`+contact("r", kind, x[0], x[1])+`]}`, `{}`)))
		if err != nil {
			t.Fatal(err)
		}
		def, err := translateGrafana(d)
		if err != nil {
			t.Fatal(err)
		}
		data, err := encodeDefinition(def)
		if err != nil {
			t.Fatal(err)
		}
		switch err := checked(data, ReceiversSNS, limits.View{}); {
		case x[2] == "" && err != nil:
			t.Errorf("%s: %v", kind, err)
		case x[2] != "" && (err == nil || !strings.Contains(err.Error(), x[2])):
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// TestEveryTypeOfReceiverIsTranslated builds each with the settings that Grafana's page of contact points has.
func TestEveryTypeOfReceiverIsTranslated(t *testing.T) {
	c := newFleet(t, 1)
	for _, x := range [][4]string{
		{"webhook", `{"url":"http://h.example","httpMethod":"POST","username":"u","headers":{"X-A":"b"},"tlsConfig":{"insecureSkipVerify":true}}`, `{"password":"p"}`, "basic_auth:"},
		{"slack", `{"recipient":"C1","username":"g","icon_emoji":":x:","mentionUsers":"U1,U2","mentionGroups":"G1","title":"{{ template \"default.title\" . }}"}`, `{"token":"xoxb"}`, "pretext: <!subteam^G1> <@U1> <@U2>"},
		{"email", `{"addresses":"a@example.com;b@example.com","singleEmail":false,"subject":"{{ template \"default.title\" . }}","message":"m"}`, `{}`, "to: b@example.com"},
		{"email", `{"addresses":"a@example.com;b@example.com","singleEmail":true}`, `{}`, "to: a@example.com, b@example.com"},
		{"pagerduty", `{"severity":"critical","class":"c","component":"g","group":"p","summary":"s","details":{"k":"{{ .Status }}"}}`, `{"integrationKey":"k"}`, "routing_key: <secret>"},
		{"opsgenie", `{"apiUrl":"https://api.opsgenie.com/v2/alerts","message":"m","description":"d","autoClose":false,"overridePriority":true,"sendTagsAs":"both","responders":[{"type":"team","name":"n"}]}`, `{"apiKey":"k"}`, "api_url: https://api.opsgenie.com/"},
		{"discord", `{"url":"https://discord.example/w","avatar_url":"https://a.example","use_discord_username":false,"title":"t","message":"m"}`, `{}`, "username: Grafana"},
		{"telegram", `{"chatid":"-100123","message_thread_id":"4","parse_mode":"None","disable_web_page_preview":false,"protect_content":false,"disable_notifications":true}`, `{"bottoken":"b"}`, "chat_id: -100123"},
		{"pushover", `{"priority":"2","okPriority":"0","retry":"30","expire":"120","device":"d","sound":"siren","okSound":"magic","title":"t","message":"m","uploadImage":true}`, `{"apiToken":"a","userKey":"u"}`, "retry: 30s"},
		{"victorops", `{"url":"https://alert.example/integrations/generic/20131114/alert/key/route","messageType":"WARNING"}`, `{}`, "routing_key: route"},
		{"webex", `{"room_id":"r","message":"m"}`, `{"bot_token":"b"}`, "room_id: r"},
		{"teams", `{"url":"https://teams.example/w","title":"t","sectiontitle":"","message":"{{ template \"teams.default.message\" . }}"}`, `{}`, "msteamsv2_configs:"},
		{"sns", `{"topic_arn":"arn:aws:sns:eu-west-1:1:x","sigv4":{"region":"eu-west-1"},"attributes":{"a":"b"}}`, `{"sigv4.access_key":"ak","sigv4.secret_key":"sk"}`, "region: eu-west-1"},
		{"jira", `{"api_url":"https://jira.example","project":"P","issue_type":"Bug","labels":["l"],"fields":{"f":"v"}}`, `{"user":"u","password":"p"}`, "project: P"},
	} {
		kind, settings, secure, want := x[0], x[1], x[2], x[3]
		config := `{"route":{"receiver":"r"},"receivers":[` + contact("r", kind, settings, secure) + `]}`
		if status, body := c.grafana(t, "t", "POST", GrafanaConfigPath, sent(true, config, `{}`)); status != http.StatusCreated {
			t.Errorf("%s: %d %s", kind, status, body)
			continue
		}
		shown, err := c.nodes["am-0"].Configurations(t.Context())
		if err != nil || !strings.Contains(string(shown), want) || strings.Contains(string(shown), "mailsecret") {
			t.Errorf("%s: %s, %v; want %s", kind, shown, err, want)
		}
	}
}

// results is what a test of receivers answers.
type results struct {
	Alert     struct{ Labels, Annotations map[string]string }
	Receivers []struct {
		Name         string
		Integrations []struct{ Name, UID, Status, Error string } `json:"grafana_managed_receiver_configs"`
	}
	At string `json:"notified_at"`
}

func (c *fleet) testReceivers(t *testing.T, id tenant.ID, receivers ...string) (int, results, string) {
	t.Helper()
	status, body := c.grafana(t, id, "POST", GrafanaTestReceiversPath, `{"alert":{"labels":{"alertname":"mine"},"annotations":{"summary":"s"}},"receivers":[`+strings.Join(receivers, ",")+`]}`)
	var out results
	if err := json.Unmarshal([]byte(body), &out); err != nil {
		t.Fatalf("%d %s: %v", status, body, err)
	}
	return status, out, body
}

func TestReceiversAreTestedWithoutAConfiguration(t *testing.T) {
	c := newFleet(t, 1)
	c.limits = func(id tenant.ID) limits.View {
		return limits.AlertmanagerBlockPrivate.With(limits.View{}, id == "walled")
	}
	good := newMailbox(t, nil)
	bad := newMailbox(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) })
	hook := func(name, url string) string {
		return contact(name, "webhook", `{"url":"`+url+`/token-of-mine"}`, `{}`)
	}
	status, out, body := c.testReceivers(t, "t", hook("good", good.url))
	if status != http.StatusOK || out.Receivers[0].Integrations[0].Status != "ok" || out.Receivers[0].Integrations[0].UID != "u-good" || out.Alert.Labels["alertname"] != "mine" || out.At == "" {
		t.Errorf("good: %d %s", status, body)
	}
	if !good.has(`"alertname":"mine"`, `"status":"firing"`, `"summary":"s"`) {
		t.Error("the receiver did not get the alert of the test")
	}
	status, out, body = c.testReceivers(t, "t", hook("good", good.url), hook("bad", bad.url), contact("odd", "threema", `{}`, `{}`))
	if status != http.StatusMultiStatus || out.Receivers[0].Integrations[0].Status != "ok" || !strings.Contains(out.Receivers[1].Integrations[0].Error, "400") ||
		!strings.Contains(out.Receivers[2].Integrations[0].Error, "type threema") || strings.Contains(body, "token-of-mine") {
		t.Errorf("mixed: %d %s", status, body)
	}
	if status, _, body = c.testReceivers(t, "t", contact("odd", "webhook", `{"url":"ftp://token-of-mine"}`, `{}`)); status != http.StatusBadRequest || strings.Contains(body, "token-of-mine") {
		t.Errorf("wrong settings: %d %s", status, body)
	}
	_, before := good.seen()
	status, out, body = c.testReceivers(t, "walled", hook("good", good.url))
	if status != http.StatusMultiStatus || !strings.Contains(out.Receivers[0].Integrations[0].Error, "firewall") || strings.Contains(body, "token-of-mine") {
		t.Errorf("behind the firewall: %d %s", status, body)
	}
	if _, after := good.seen(); after != before {
		t.Error("the private address was reached")
	}
}

func TestTemplatesAreTestedWithAlerts(t *testing.T) {
	c := newFleet(t, 1)
	config := `{"route":{"receiver":"r"},"receivers":[{"name":"r"}]}`
	if status, body := c.grafana(t, "t", "POST", GrafanaConfigPath, sent(false, config, `{"kept":"{{ define \"kept\" }}kept {{ .Status }}{{ end }}"}`)); status != http.StatusCreated {
		t.Fatalf("%d %s", status, body)
	}
	for name, x := range map[string]struct{ template, want string }{
		"all":       {`{{ define \"a\" }}{{ template \"kept\" . }} {{ len .Alerts }}{{ end }}`, `{"results":[{"name":"a","text":"kept firing 2","scope":"."}]}`},
		"bare":      {`{{ (index .Alerts 0).Labels.x }}`, `{"results":[{"name":"new","text":"1","scope":"."}]}`},
		"one alert": {`{{ define \"a\" }}{{ .Values.C }} {{ .Labels.x }}{{ end }}`, `{"results":[{"name":"a","text":"2 1","scope":".Alert"}]}`},
		"wrong":     {`{{ define \"a\" }}{{ .Nothing }}{{ end }}`, `"kind":"execution_error"`},
		"no text":   {`{{ define \"a\" }}`, `"kind":"invalid_template"`},
		"circle":    {`{{ define \"a\" }}{{ template \"a\" . }}{{ end }}`, "calls itself"},
		"image":     {`{{ define \"a\" }}{{ range .Alerts }}{{ .ImageURL }}{{ end }}{{ end }}`, ".ImageURL cannot be honoured"},
	} {
		status, body := c.grafana(t, "t", "POST", GrafanaTestTemplatesPath, `{"name":"new","template":"`+x.template+`","alerts":[{"labels":{"x":"1"},"annotations":{"__values__":"{\"C\":2}"}},{"labels":{"x":"2"}}]}`)
		if status != http.StatusOK || !strings.Contains(body, x.want) {
			t.Errorf("%s: %d %s, want %s", name, status, body, x.want)
		}
	}
}

// TestATestOfReceiversEnds when whoever asked for it gives up, at the latest.
func TestATestOfReceiversEnds(t *testing.T) {
	c := newFleet(t, 1)
	release := make(chan struct{})
	hanging := newMailbox(t, func(http.ResponseWriter, *http.Request) { <-release })
	t.Cleanup(func() { close(release) })
	ctx, cancel := context.WithTimeout(tenant.Inject(t.Context(), "t"), time.Second)
	defer cancel()
	body := `{"receivers":[` + contact("hanging", "webhook", `{"url":"`+hanging.url+`/token-of-mine"}`, `{}`) + `]}`
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(ctx, "POST", GrafanaTestReceiversPath, strings.NewReader(body))
	if err := c.nodes["am-0"].ServeGrafana(w, r, GrafanaTestReceiversPath); err != nil {
		t.Fatal(err)
	}
	if w.Code != http.StatusRequestTimeout || !strings.Contains(w.Body.String(), "took too long") || strings.Contains(w.Body.String(), "token-of-mine") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// FuzzGrafanasConfiguration: whatever is promoted is refused or can be run, and a template that was rewritten
// is one.
func FuzzGrafanasConfiguration(f *testing.F) {
	f.Add([]byte(grafanasConfig))
	f.Add([]byte(sent(true, `{"route":{"receiver":"r","group_by":["..."],"routes":[{"object_matchers":[["a","!~","b"]]}]},"receivers":[`+
		contact("r", "slack", `{"text":"{{ range $a := .Alerts }}{{ $a.SilenceURL }}{{ end }}"}`, `{"url":"http://h.example"}`)+`]}`,
		`{"x":"{{ define \"x\" }}{ {{- (index .Alerts 0).Values.B | printf \"%v\" -}} }{{ end }}"}`)))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := readGrafana(data)
		if err != nil {
			if errs.KindOf(err) != errs.Invalid {
				t.Fatal(err)
			}
			return
		}
		files, err := d.files()
		if err != nil {
			return
		}
		for _, text := range files {
			if out, err := d.texts().rewrite(text); err == nil {
				if _, err := parseGrafana(out); err != nil {
					t.Fatalf("%q became %q: %v", text, out, err)
				}
			}
		}
		def, err := translateGrafana(d)
		if err != nil {
			if errs.KindOf(err) != errs.Invalid {
				t.Fatal(err)
			}
			return
		}
		out, err := encodeDefinition(def)
		if err != nil {
			t.Fatal(err)
		}
		if err := checked(out, ReceiversAll, limits.View{}); err != nil && errs.KindOf(err) != errs.Invalid {
			t.Fatal(err)
		}
	})
}
