package controller

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

	core "k8s.io/api/core/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/amphora-metrics/amphora/operations/operator/api/v1alpha1"
)

const space = "metrics"

// world is an API server with a namespace, and a gateway that notes what it is asked.
type world struct {
	*Base
	t       *testing.T
	mu      sync.Mutex
	calls   []call
	answers map[string]string // by method and path: a status and a body
}

type call struct{ what, tenant, auth, body string }

func newWorld(t *testing.T, objects ...client.Object) *world {
	t.Helper()
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{scheme.AddToScheme, v1alpha1.AddToScheme} {
		must(t, add(s))
	}
	w := &world{t: t, answers: map[string]string{}}
	gateway := httptest.NewServer(w)
	t.Cleanup(gateway.Close)
	c := fake.NewClientBuilder().WithScheme(s).WithTypeConverters(managedfields.NewDeducedTypeConverter()).
		WithStatusSubresource(&v1alpha1.Cluster{}, &v1alpha1.Tenant{}, &v1alpha1.TenantLimits{}, &v1alpha1.RuleNamespace{}, &v1alpha1.AlertmanagerConfig{}).
		WithObjects(&core.Namespace{ObjectMeta: metav1.ObjectMeta{Name: space}}).
		WithObjects(&v1alpha1.Cluster{ObjectMeta: named("remote"), Spec: v1alpha1.ClusterSpec{Endpoint: gateway.URL, CredentialsSecret: &v1alpha1.SecretReference{Name: "key"}}}).
		WithObjects(&core.Secret{ObjectMeta: named("key"), Data: map[string][]byte{"accessKeyId": []byte("AKID"), "secretAccessKey": []byte("secret")}}).
		WithObjects(objects...).Build()
	w.Base = &Base{Client: c, Reader: c, HTTP: gateway.Client(), Resync: time.Minute}
	return w
}

func (w *world) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body) // what is cut off fails the comparison
	w.mu.Lock()
	defer w.mu.Unlock()
	what := r.Method + " " + r.URL.RequestURI()
	w.calls = append(w.calls, call{what, r.Header.Get("X-Scope-OrgID"), r.Header.Get("Authorization"), string(body)})
	status, text := 200, ""
	if answer, ok := w.answers[what]; ok {
		if _, err := fmt.Sscanf(answer, "%d", &status); err != nil {
			w.t.Errorf("answer %q: %v", answer, err)
		}
		text = answer[3:]
	}
	out.WriteHeader(status)
	_, _ = io.WriteString(out, text)
}

// asked returns what was called since it was asked last.
func (w *world) asked() []call {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.calls
	w.calls = nil
	return out
}

func (w *world) does(want ...string) []call {
	w.t.Helper()
	calls := w.asked()
	var got []string
	for _, c := range calls {
		got = append(got, c.what)
	}
	if strings.Join(got, ", ") != strings.Join(want, ", ") {
		w.t.Errorf("calls %q, want %q", got, want)
	}
	return calls
}

func named(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: space, Name: name, UID: types.UID(name)}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) run(r reconcile.Reconciler, name string) error {
	w.t.Helper()
	_, err := r.Reconcile(context.Background(), ctrl.Request{NamespacedName: types.NamespacedName{Namespace: space, Name: name}})
	return err
}

// read returns the object of a name.
func read[T client.Object](w *world, o T, name string) T {
	w.t.Helper()
	must(w.t, w.Get(context.Background(), client.ObjectKey{Namespace: space, Name: name}, o))
	return o
}

// says checks the condition Ready.
func (w *world) says(conditions []metav1.Condition, reason, message string) {
	w.t.Helper()
	c := meta.FindStatusCondition(conditions, v1alpha1.Ready)
	if c == nil || c.Reason != reason || !strings.Contains(c.Message, message) || (c.Status == metav1.ConditionTrue) != (reason == reasonReady) {
		w.t.Errorf("condition %+v, want %s: %s", c, reason, message)
	}
}

func rules(name string) *v1alpha1.RuleNamespace {
	return &v1alpha1.RuleNamespace{ObjectMeta: named(name), Spec: v1alpha1.RuleNamespaceSpec{
		Tenant: v1alpha1.TenantReference{Cluster: "remote", ID: "shop"}, Namespace: "sales",
		Groups: []v1alpha1.RuleGroup{{Name: "totals", Interval: "1m", Rules: []v1alpha1.Rule{{Record: "a:b", Expr: "sum(a)"}}}},
	}}
}

const (
	trial   = "PUT /prometheus/config/v1/rules/sales?dry_run=true"
	putting = "PUT /prometheus/config/v1/rules/sales"
	taking  = "DELETE /prometheus/config/v1/rules/sales"
	differs = `200{"status":"success","data":{"added":["totals"],"changed":[],"removed":[],"unchanged":[]}}`
	equals  = `200{"status":"success","data":{"added":[],"changed":[],"removed":[],"unchanged":["totals"]}}`
)

func TestRulesArePutWhenTheyDifferAndGoWithTheirResource(t *testing.T) {
	w := newWorld(t, rules("sales"))
	loop := &documents[*v1alpha1.RuleNamespace]{w.Base, ruleNamespaces()}
	w.answers[trial] = differs
	must(t, w.run(loop, "sales"))
	calls := w.does(trial, putting)
	if len(calls) == 2 && (calls[1].tenant != "shop" || !strings.Contains(calls[1].auth, "Credential=AKID/") || !strings.Contains(calls[1].body, "record: a:b")) {
		t.Errorf("%+v", calls[1])
	}
	obj := read(w, &v1alpha1.RuleNamespace{}, "sales")
	w.says(obj.Status.Conditions, reasonReady, "")
	w.answers[trial] = equals
	must(t, w.run(loop, "sales"))
	w.does(trial)

	w.answers[taking] = "503"
	must(t, w.Delete(context.Background(), obj))
	if w.run(loop, "sales") == nil {
		t.Error("a cluster that is away must be asked again")
	}
	w.does(taking)
	w.answers[taking] = "404"
	must(t, w.run(loop, "sales"))
	w.does(taking)
	if err := w.Get(context.Background(), client.ObjectKeyFromObject(obj), obj); client.IgnoreNotFound(err) != nil || err == nil {
		t.Errorf("the resource is still there: %v", err)
	}
}

func TestWhatAClusterRefusesIsSaid(t *testing.T) {
	w := newWorld(t, rules("sales"))
	w.answers[trial] = "400" + `group "totals": unknown function`
	must(t, w.run(&documents[*v1alpha1.RuleNamespace]{w.Base, ruleNamespaces()}, "sales"))
	w.says(read(w, &v1alpha1.RuleNamespace{}, "sales").Status.Conditions, reasonRefused, "unknown function")
}

func TestTheOlderOfTwoKeepsANamespace(t *testing.T) {
	younger := rules("younger")
	older := rules("older")
	older.CreationTimestamp = metav1.NewTime(time.Unix(1000, 0))
	younger.CreationTimestamp = metav1.NewTime(time.Unix(2000, 0))
	w := newWorld(t, older, younger)
	w.answers[trial] = equals
	loop := &documents[*v1alpha1.RuleNamespace]{w.Base, ruleNamespaces()}
	must(t, w.run(loop, "older"))
	must(t, w.run(loop, "younger"))
	w.does(trial)
	obj := read(w, &v1alpha1.RuleNamespace{}, "younger")
	w.says(obj.Status.Conditions, reasonConflict, `"older"`)
	must(t, w.Delete(context.Background(), obj))
	must(t, w.run(loop, "younger"))
	w.does() // the rules are the older's
}

func TestAResourceOfAClusterThatIsGoneCanGo(t *testing.T) {
	w := newWorld(t, rules("sales"))
	w.answers[trial] = equals
	loop := &documents[*v1alpha1.RuleNamespace]{w.Base, ruleNamespaces()}
	must(t, w.run(loop, "sales"))
	must(t, w.Delete(context.Background(), read(w, &v1alpha1.Cluster{}, "remote")))
	must(t, w.run(loop, "sales"))
	obj := read(w, &v1alpha1.RuleNamespace{}, "sales")
	w.says(obj.Status.Conditions, reasonNoCluster, `"remote"`)
	must(t, w.Delete(context.Background(), obj))
	must(t, w.run(loop, "sales"))
	if err := w.Get(context.Background(), client.ObjectKeyFromObject(obj), obj); err == nil {
		t.Error("the resource is still there")
	}
}

func TestAnAlertmanagerGetsWhatASecretHolds(t *testing.T) {
	const text = "route: {receiver: a}\nreceivers: [{name: a}]\n"
	w := newWorld(t,
		&core.Secret{ObjectMeta: named("am"), Data: map[string][]byte{"alertmanager.yaml": []byte(text)}},
		&v1alpha1.AlertmanagerConfig{ObjectMeta: named("team"), Spec: v1alpha1.AlertmanagerConfigSpec{
			Tenant: v1alpha1.TenantReference{Cluster: "remote", ID: "shop"}, ConfigSecret: &v1alpha1.SecretKey{Name: "am", Key: "alertmanager.yaml"}, Templates: map[string]string{"t.tmpl": "x"},
		}})
	loop := &documents[*v1alpha1.AlertmanagerConfig]{w.Base, alertmanagerConfigs()}
	const get, post = "GET /api/v1/alerts", "POST /api/v1/alerts"
	w.answers[get] = "404"
	must(t, w.run(loop, "team"))
	calls := w.does(get, post)
	w.answers[get] = "200" + calls[1].body
	must(t, w.run(loop, "team"))
	w.does(get)
	w.answers[get] = "200" + "alertmanager_config: other\n"
	must(t, w.run(loop, "team"))
	w.does(get, post) // somebody changed it

	must(t, w.Delete(context.Background(), read(w, &core.Secret{}, "am")))
	must(t, w.run(loop, "team"))
	w.says(read(w, &v1alpha1.AlertmanagerConfig{}, "team").Status.Conditions, reasonUnreadable, `"am"`)
}

func TestATenantIsAWorkspaceThatItsResourceRemembers(t *testing.T) {
	w := newWorld(t, &v1alpha1.Tenant{ObjectMeta: named("shop"), Spec: v1alpha1.TenantSpec{Cluster: "remote", DeletionPolicy: "Delete"}})
	loop := &tenants{w.Base}
	w.answers["POST /workspaces"] = "202" + `{"workspaceId":"ws-1"}`
	must(t, w.run(loop, "shop"))
	calls := w.does("POST /workspaces")
	var body struct{ Alias, ClientToken string }
	must(t, json.Unmarshal([]byte(calls[0].body), &body))
	if body.Alias != "shop" || body.ClientToken != "shop" {
		t.Errorf("%+v", body)
	}
	if _, id, err := w.tenant(context.Background(), space, v1alpha1.TenantReference{Name: "shop"}); err != nil || id != "ws-1" {
		t.Errorf("the tenant of the resource is %q: %v", id, err)
	}
	w.answers["GET /workspaces/ws-1"] = "200" + `{"workspace":{"alias":"old","status":{"statusCode":"ACTIVE"}}}`
	must(t, w.run(loop, "shop"))
	w.does("GET /workspaces/ws-1", "POST /workspaces/ws-1/alias")
	w.answers["GET /workspaces/ws-1"] = "404"
	must(t, w.run(loop, "shop"))
	obj := read(w, &v1alpha1.Tenant{}, "shop")
	w.says(obj.Status.Conditions, reasonNoTenant, "ws-1")
	w.asked()
	must(t, w.Delete(context.Background(), obj))
	must(t, w.run(loop, "shop"))
	w.does("DELETE /workspaces/ws-1")
}

func limit(name, id, text string) *v1alpha1.TenantLimits {
	return &v1alpha1.TenantLimits{ObjectMeta: named(name), Spec: v1alpha1.TenantLimitsSpec{
		Tenant: v1alpha1.TenantReference{Cluster: "prod", ID: id}, Limits: apiextensions.JSON{Raw: []byte(text)},
	}}
}

func TestLimitsThatAreWrongOrTwiceSetAreSaidAndNotApplied(t *testing.T) {
	w := newWorld(t, cluster("small"), limit("a", "shop", `{"ingestion_rate": 1000000}`), limit("b", "shop", `{"ingestion_rate": 7, "ruler_max_rules_per_rule_group": 3}`),
		limit("c", "club", `{"ingestion_rat": 7}`), limit("d", "bar", `{"ingestion_rate": "many"}`))
	_, out, err := w.overrides(context.Background(), read(w, &v1alpha1.Cluster{}, "prod"))
	must(t, err)
	if text := fmt.Sprint(out); text != "map[shop:map[ingestion_rate:1000000]]" {
		t.Errorf("limits in force: %s", text)
	}
	loop := &tenantLimits{w.Base}
	for name, says := range map[string][2]string{
		"a": {reasonWaiting, "does not have it yet"}, "b": {reasonConflict, `"a" sets ingestion_rate`},
		"c": {reasonInvalid, "ingestion_rat"}, "d": {reasonInvalid, "ingestion_rate"},
	} {
		must(t, w.run(loop, name))
		w.says(read(w, &v1alpha1.TenantLimits{}, name).Status.Conditions, says[0], says[1])
	}
	must(t, w.run(w.clusters(t), "prod"))
	if text := read(w, &core.ConfigMap{}, "prod-amphora-runtime").Data[limitsFile]; !strings.Contains(text, "ingestion_rate: 1000000\n") || strings.Contains(text, "club") {
		t.Errorf("runtime configuration:\n%s", text)
	}
	must(t, w.run(loop, "a"))
	w.says(read(w, &v1alpha1.TenantLimits{}, "a").Status.Conditions, reasonReady, "")
}
