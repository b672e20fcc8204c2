package alertmanager

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grafana/dskit/services"
	"github.com/prometheus/alertmanager/api/v2/models"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/notifier"
	"github.com/thanos-io/objstore"
	"google.golang.org/grpc"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	pb "github.com/amphora-metrics/amphora/pkg/wire/alertmanagerpb"
)

// fleet is replicas that call each other without sockets.
type fleet struct {
	bucket *objstore.InMemBucket
	dirs   map[string]string // of journals, by replica
	limits func(tenant.ID) limits.View
	stored grafanaDocs
	moved  promotions
	alone  bool // replicas that start have nothing to do with Grafana

	mu    sync.Mutex // guards what follows
	nodes map[string]*Alertmanager
	order []string // of all that shall be alive
	docs  map[tenant.ID][]byte
	deaf  bool // nobody takes what others tell
}

func newFleet(t *testing.T, n int) *fleet {
	t.Helper()
	c := &fleet{bucket: objstore.NewInMemBucket(), dirs: map[string]string{}, limits: func(tenant.ID) limits.View { return limits.View{} },
		nodes: map[string]*Alertmanager{}, docs: map[tenant.ID][]byte{}}
	for i := range n {
		c.start(t, fmt.Sprintf("am-%d", i))
	}
	return c
}

// start adds a replica.
func (c *fleet) start(t *testing.T, name string) *Alertmanager {
	t.Helper()
	var cfg Config
	set := config.NewSet()
	set.Mount("alertmanager", &cfg)
	cfg.Grafana = !c.alone
	cfg.PeerTimeout, cfg.PollInterval = 300*time.Millisecond, 200*time.Millisecond
	c.mu.Lock()
	if c.dirs[name] == "" {
		c.dirs[name] = t.TempDir()
	}
	cfg.DataDir = c.dirs[name]
	if !slices.Contains(c.order, name) {
		c.order = append(c.order, name)
	}
	c.mu.Unlock()
	m, err := New(cfg, Deps{Logger: slog.New(slog.DiscardHandler), Reg: prometheus.NewRegistry(), Limits: func(id tenant.ID) limits.View { return c.limits(id) },
		Definitions: c, Bucket: c.bucket, Self: name, Replicas: c.replicas, Client: c.client, Grafana: &c.stored, Promoted: &c.moved})
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	c.nodes[name] = m
	c.mu.Unlock()
	if err := services.StartAndAwaitRunning(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = services.StopAndAwaitTerminated(context.Background(), m) })
	return m
}

func (c *fleet) stop(t *testing.T, name string) {
	t.Helper()
	if err := services.StopAndAwaitTerminated(t.Context(), c.nodes[name]); err != nil {
		t.Fatal(err)
	}
	c.cut(name)
}

// cut makes a replica unreachable and seen as dead.
func (c *fleet) cut(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.order = slices.DeleteFunc(c.order, func(n string) bool { return n == name })
}

func (c *fleet) replicas(tenant.ID) (Replicas, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Replicas{Addrs: slices.Clone(c.order), Quorum: len(c.nodes)/2 + 1}, nil
}

func (c *fleet) client(addr string) (pb.AlertmanagerClient, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Contains(c.order, addr) || c.nodes[addr] == nil {
		return nil, errs.New(errs.Unavailable, "%s is dead", addr)
	}
	return direct{c.nodes[addr], c.deaf}, nil
}

// Read implements Definitions.
func (c *fleet) Read(_ context.Context, id tenant.ID) ([]byte, string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.docs[id] == nil {
		return nil, "", errs.New(errs.NotFound, "no document")
	}
	return c.docs[id], fmt.Sprintf("%q", c.docs[id]), nil
}

// Write implements Definitions.
func (c *fleet) Write(_ context.Context, id tenant.ID, data []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.docs[id] = data
	return nil
}

// Remove implements Definitions.
func (c *fleet) Remove(_ context.Context, id tenant.ID) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.docs, id)
	return nil
}

// Versions implements Definitions.
func (c *fleet) Versions(context.Context) (map[tenant.ID]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[tenant.ID]string{}
	for id, data := range c.docs {
		out[id] = fmt.Sprintf("%q", data)
	}
	return out, nil
}

// direct calls a replica by its methods.
type direct struct {
	m    *Alertmanager
	deaf bool
}

func (d direct) HandleRequest(ctx context.Context, in *pb.Request, _ ...grpc.CallOption) (*pb.Response, error) {
	return d.m.HandleRequest(ctx, in)
}
func (d direct) UpdateState(ctx context.Context, in *pb.State, _ ...grpc.CallOption) (*pb.UpdateStateResponse, error) {
	if d.deaf {
		return nil, errs.New(errs.Unavailable, "deaf")
	}
	return d.m.UpdateState(ctx, in)
}
func (d direct) ReadState(ctx context.Context, in *pb.ReadStateRequest, _ ...grpc.CallOption) (*pb.State, error) {
	return d.m.ReadState(ctx, in)
}
func (d direct) Claim(ctx context.Context, in *pb.ClaimRequest, _ ...grpc.CallOption) (*pb.ClaimResponse, error) {
	return d.m.Claim(ctx, in)
}
func (d direct) Reload(ctx context.Context, in *pb.ReloadRequest, _ ...grpc.CallOption) (*pb.ReloadResponse, error) {
	return d.m.Reload(ctx, in)
}

// request sends one to the API of a tenant at any replica.
func (c *fleet) request(t *testing.T, id tenant.ID, method, path, body string) (int, string) {
	t.Helper()
	c.mu.Lock()
	m := c.nodes[c.order[0]]
	c.mu.Unlock()
	target, query, _ := strings.Cut(path, "?")
	r := httptest.NewRequestWithContext(tenant.Inject(t.Context(), id), method, "/x?"+query, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	if err := m.Serve(w, r, target); err != nil {
		return errs.HTTPStatus(err), err.Error()
	}
	return w.Code, w.Body.String()
}

// put stores a configuration that notifies the webhook at url of every alert by itself.
func (c *fleet) put(t *testing.T, id tenant.ID, url string) {
	t.Helper()
	data := defined(t, nil, "route:", "  receiver: r", "  group_by: [alertname]", "  group_wait: 50ms", "  group_interval: 500ms", "receivers:", "- name: r",
		"  webhook_configs:", "  - url: "+url)
	if err := c.nodes["am-0"].Put(t.Context(), id, data); err != nil {
		t.Fatal(err)
	}
}

func (c *fleet) alert(t *testing.T, id tenant.ID, name string) {
	t.Helper()
	c.done(t, id, "POST", "/api/v2/alerts", `[{"labels":{"alertname":"`+name+`"},"startsAt":"2020-01-01T00:00:00Z"}]`)
}

// done sends a request until it is answered with a success, as clients do: a busy machine takes longer to
// start the alertmanagers of a tenant than a call waits. It returns the answer.
func (c *fleet) done(t *testing.T, id tenant.ID, method, path, body string) (answer string) {
	t.Helper()
	var status int
	eventually(t, method+" "+path+" succeeds", func() bool {
		if status, answer = c.request(t, id, method, path, body); status != 200 && status != 503 {
			t.Fatalf("%s %s: %d %s", method, path, status, answer)
		}
		return status == 200
	})
	return answer
}

// hook counts notifications by the name of their first alert.
type hook struct {
	url  string
	mu   sync.Mutex // guards told
	told map[string]int
}

func newHook(t *testing.T, answer func(http.ResponseWriter, *http.Request)) *hook {
	h := &hook{told: map[string]int{}}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct{ CommonLabels map[string]string }
		body, _ := io.ReadAll(r.Body)
		_ = json.Unmarshal(body, &in)
		h.mu.Lock()
		h.told[in.CommonLabels["alertname"]]++
		h.mu.Unlock()
		if answer != nil {
			answer(w, r)
		}
	}))
	t.Cleanup(s.Close)
	h.url = s.URL
	return h
}

func (h *hook) count(name string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.told[name]
}

// eventually polls until ok, for a time that a busy machine needs.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		if ok() {
			return
		}
		<-time.After(20 * time.Millisecond)
	}
	t.Fatalf("not within a minute: %s", what)
}

func TestReplicasThatAreOutOfStepNotifyOnce(t *testing.T) {
	c := newFleet(t, 3)
	h := newHook(t, func(http.ResponseWriter, *http.Request) { <-time.After(50 * time.Millisecond) })
	c.put(t, "t", h.url)
	var names []string
	for i := range 30 {
		names = append(names, fmt.Sprintf("a%d", i))
		c.alert(t, "t", names[i])
	}
	for _, name := range names {
		eventually(t, name+" is notified", func() bool { return h.count(name) > 0 })
	}
	// A replica that comes anew knows what was notified and what fires, and sends first.
	c.mu.Lock()
	c.order = append([]string{"am-9"}, c.order...)
	c.mu.Unlock()
	m := c.start(t, "am-9")
	c.alert(t, "t", "late")
	eventually(t, "the new replica is ready", func() bool {
		s := m.Status(t.Context())
		return len(s) == 1 && s[0].Settled && s[0].Alerts == 31 && s[0].Position == 0
	})
	eventually(t, "late is notified", func() bool { return h.count("late") > 0 })
	<-time.After(3 * time.Second) // every replica's groups flush several times
	for _, name := range append(names, "late") {
		if n := h.count(name); n != 1 {
			t.Errorf("%s was notified %d times", name, n)
		}
	}
}

// TestTheClaimTellsWhatWasNotified: right after a replica returned, others may not reach it while it
// reaches them.
func TestTheClaimTellsWhatWasNotified(t *testing.T) {
	c := newFleet(t, 3)
	h := newHook(t, nil)
	c.put(t, "t", h.url)
	c.mu.Lock()
	c.deaf = true
	c.mu.Unlock()
	for i := range 5 {
		c.alert(t, "t", fmt.Sprint(i))
	}
	for i := range 5 {
		eventually(t, "it is notified", func() bool { return h.count(fmt.Sprint(i)) > 0 })
	}
	<-time.After(3 * time.Second) // longer than the last replica waits
	for i := range 5 {
		if n := h.count(fmt.Sprint(i)); n != 1 {
			t.Errorf("%d was notified %d times", i, n)
		}
	}
}

func TestAReceiverThatHangsOrFailsDelaysNobodyElse(t *testing.T) {
	c := newFleet(t, 1)
	release := make(chan struct{})
	hanging := newHook(t, func(http.ResponseWriter, *http.Request) { <-release })
	t.Cleanup(func() { close(release) })
	failing := newHook(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	good := newHook(t, nil)
	c.put(t, "hanging", hanging.url)
	c.put(t, "failing", failing.url)
	c.put(t, "good", good.url)
	for i := range 20 {
		c.alert(t, "hanging", fmt.Sprint(i))
		c.alert(t, "failing", fmt.Sprint(i))
	}
	eventually(t, "the others are stuck", func() bool { return hanging.count("19") > 0 && failing.count("19") > 0 })
	begin := time.Now()
	c.alert(t, "good", "a")
	eventually(t, "the good one is notified", func() bool { return good.count("a") == 1 })
	if took := time.Since(begin); took > 25*time.Second {
		t.Errorf("it took %s", took)
	}
	eventually(t, "the failing one is tried again", func() bool { return failing.count("0") > 1 })
}

func TestStateOutlivesAllReplicas(t *testing.T) {
	c := newFleet(t, 2)
	h := newHook(t, nil)
	c.put(t, "t", h.url)
	c.alert(t, "t", "a")
	eventually(t, "a is notified", func() bool { return h.count("a") == 1 })
	c.silence(t, "t", "quiet")
	c.stop(t, "am-0")
	c.stop(t, "am-1")
	c.mu.Lock()
	delete(c.nodes, "am-1") // it is forgotten, and one is a quorum
	c.mu.Unlock()
	c.start(t, "am-0")
	c.alert(t, "t", "a")
	c.alert(t, "t", "quiet")
	c.alert(t, "t", "b")
	eventually(t, "b is notified", func() bool { return h.count("b") == 1 })
	<-time.After(2 * time.Second)
	if h.count("a") != 1 || h.count("quiet") != 0 {
		t.Errorf("a notified %d times, the silenced one %d times", h.count("a"), h.count("quiet"))
	}
}

func TestAMinorityTakesNoWritesAndAnswersNoReads(t *testing.T) {
	c := newFleet(t, 3)
	c.put(t, "t", "http://127.0.0.1:1")
	c.cut("am-1")
	c.alert(t, "t", "a")
	c.cut("am-2")
	for _, x := range [][2]string{{"POST", "/api/v2/alerts"}, {"GET", "/api/v2/alerts"}, {"GET", "/api/v2/silences"}, {"GET", "/api/v2/alerts/groups"}} {
		if status, body := c.request(t, "t", x[0], x[1], `[]`); status != 503 {
			t.Errorf("%s %s: %d %s", x[0], x[1], status, body)
		}
	}
}

func TestLimitsOfATenantHold(t *testing.T) {
	c := newFleet(t, 1)
	v := limits.AlertmanagerMaxAlerts.With(limits.View{}, 2)
	v = limits.AlertmanagerMaxSilences.With(v, 1)
	v = limits.AlertmanagerMaxSilenceSize.With(v, 300)
	v = limits.AlertmanagerNotificationRate.With(v, -1)
	c.limits = func(id tenant.ID) limits.View {
		if id == "small" {
			return v
		}
		return limits.View{}
	}
	h := newHook(t, nil)
	c.put(t, "small", h.url)
	c.put(t, "large", h.url)
	for _, name := range []string{"a", "b", "c"} {
		c.alert(t, "small", name)
	}
	_, body := c.request(t, "small", "GET", "/api/v2/alerts", "")
	var list models.GettableAlerts
	if err := json.Unmarshal([]byte(body), &list); err != nil || len(list) != 2 {
		t.Errorf("%d alerts are kept of 3, limit 2: %v", len(list), err)
	}
	silence := func(comment string) int {
		status, _ := c.request(t, "small", "POST", "/api/v2/silences", `{"matchers":[{"name":"a","value":"b","isRegex":false}],"startsAt":"2020-01-01T00:00:00Z","endsAt":"2099-01-01T00:00:00Z","createdBy":"x","comment":"`+comment+`"}`)
		return status
	}
	if got := []int{silence(strings.Repeat("x", 400)), silence("y"), silence("z")}; !slices.Equal(got, []int{400, 200, 400}) {
		t.Errorf("a large silence, one and another one: %v", got)
	}
	c.alert(t, "large", "other")
	eventually(t, "another tenant is notified", func() bool { return h.count("other") == 1 })
	if h.count("a") != 0 {
		t.Error("a tenant that may not send was heard")
	}
}

func TestAReceiverBehindTheFirewallIsNotReached(t *testing.T) {
	c := newFleet(t, 1)
	c.limits = func(tenant.ID) limits.View { return limits.AlertmanagerBlockPrivate.With(limits.View{}, true) }
	h := newHook(t, nil)
	c.put(t, "t", h.url)
	c.alert(t, "t", "a")
	in, err := c.nodes["am-0"].instance(t.Context(), "t")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "an attempt fails", func() bool {
		all, err := in.reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range all {
			if f.GetName() == "alertmanager_notification_requests_failed_total" {
				for _, m := range f.GetMetric() {
					if m.GetCounter().GetValue() > 0 {
						return true
					}
				}
			}
		}
		return false
	})
	if h.count("a") != 0 {
		t.Error("the private address was reached")
	}
}

func TestARulerInTheSameProcessNotifies(t *testing.T) {
	c := newFleet(t, 1)
	h := newHook(t, nil)
	c.put(t, "t", h.url)
	err := c.nodes["am-0"].Notify(t.Context(), "t", &notifier.Alert{Labels: labels.FromStrings("alertname", "a"), StartsAt: time.Now(), EndsAt: time.Now().Add(time.Hour),
		Annotations: labels.FromStrings("summary", "s"), GeneratorURL: "http://prometheus.example/graph"})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is notified", func() bool { return h.count("a") == 1 })
	if err := c.nodes["am-0"].Notify(t.Context(), "t", &notifier.Alert{StartsAt: time.Now()}); errs.KindOf(err) != errs.Invalid {
		t.Errorf("an alert without labels: %v", err)
	}
}

func TestATenantLearnsWhyItWasNotNotified(t *testing.T) {
	c := newFleet(t, 3)
	h := newHook(t, nil)
	c.put(t, "t", h.url)
	if _, err := c.nodes["am-0"].Silence(t.Context(), "t", `{alertname="quiet"}`, time.Hour, "me", "why"); err != nil {
		t.Fatal(err)
	}
	c.alert(t, "t", "quiet")
	c.alert(t, "t", "loud")
	for name, want := range map[string]string{"quiet": `"outcome":"held back","reason":"silenced by `, "loud": `"receiver":"r/webhook[0]","outcome":"sent","reason":"first notification"`} {
		eventually(t, name+" is explained", func() bool {
			status, body := c.request(t, "t", "GET", "/api/v1/decisions?filter=alertname%3D"+name, "")
			return status == 200 && strings.Contains(body, want) && strings.Contains(body, `"alertname":"`+name+`"`) && strings.Count(body, "fingerprint") == 1
		})
	}
	eventually(t, "other replicas' decisions are shown", func() bool {
		_, body := c.request(t, "t", "GET", "/api/v1/decisions?filter=alertname%3Dloud", "")
		return strings.Contains(body, outcomeUnchanged) && strings.Contains(body, "am-2")
	})
	if body := c.done(t, "other", "GET", "/api/v1/decisions", ""); body != "[]\n" {
		t.Errorf("another tenant learns %s", body)
	}
	if status, body := c.request(t, "t", "GET", "/api/v1/decisions?filter=%7B", ""); status != 400 {
		t.Errorf("a wrong filter: %d %s", status, body)
	}
}

func TestSilencesAreMadeAndEndedFromThePage(t *testing.T) {
	c := newFleet(t, 1)
	c.put(t, "t", "http://127.0.0.1:1")
	m := c.nodes["am-0"]
	c.alert(t, "t", "a")
	id, err := m.Silence(t.Context(), "t", `{alertname=~"a|b", job!="x"}`, time.Hour, "me", "why")
	if err != nil {
		t.Fatal(err)
	}
	var o Overview
	eventually(t, "the alert is in a group", func() bool {
		o, err = m.Overview(t.Context(), "t", []string{`alertname="a"`})
		return err != nil || len(o.Groups) > 0
	})
	if err != nil || len(o.Groups) != 1 || len(o.Silences) != 1 || *o.Groups[0].Alerts[0].Status.State != "suppressed" {
		t.Errorf("%+v, %v", o, err)
	}
	if err := m.Expire(t.Context(), "t", id); err != nil {
		t.Error(err)
	}
	if err := m.Expire(t.Context(), "t", "00000000-0000-0000-0000-000000000000"); errs.KindOf(err) != errs.NotFound {
		t.Errorf("expire what is not there: %v", err)
	}
	if _, err := m.Silence(t.Context(), "t", `{`, time.Hour, "me", "why"); errs.KindOf(err) != errs.Invalid {
		t.Errorf("wrong matchers: %v", err)
	}
	if yaml, err := m.Configurations(t.Context()); err != nil || !strings.Contains(string(yaml), "alertmanager_config") || strings.Contains(string(yaml), "127.0.0.1:1") {
		t.Errorf("configurations, which must not have the webhook's address: %s, %v", yaml, err)
	}
}
