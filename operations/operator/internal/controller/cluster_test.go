package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/amphora-metrics/amphora/operations/operator/api/v1alpha1"
	"github.com/amphora-metrics/amphora/operations/operator/internal/zones"
)

func cluster(preset string) *v1alpha1.Cluster {
	return &v1alpha1.Cluster{ObjectMeta: named("prod"), Spec: v1alpha1.ClusterSpec{Preset: preset, Values: &apiextensions.JSON{Raw: []byte(`{"storage": {"s3": {"bucketName": "b"}}}`)}}}
}

func (w *world) clusters(t *testing.T) *clusters {
	t.Helper()
	in, err := NewInstaller()
	must(t, err)
	return &clusters{Base: w.Base, installer: in, zones: &zones.Keeper{Reader: w.Client, Writer: w.Client, Now: time.Now}, innerPort: 1}
}

// settle does what Kubernetes's controllers and kubelets would: every workload has its pods, current and ready.
func (w *world) settle() {
	w.t.Helper()
	ctx := context.Background()
	var sets apps.StatefulSetList
	var deployments apps.DeploymentList
	must(w.t, w.List(ctx, &sets, client.InNamespace(space)))
	must(w.t, w.List(ctx, &deployments, client.InNamespace(space)))
	for i := range sets.Items {
		w.settleSet(&sets.Items[i])
	}
	for i := range deployments.Items {
		d := &deployments.Items[i]
		n := int32(1)
		if d.Spec.Replicas != nil {
			n = *d.Spec.Replicas
		}
		d.Status = apps.DeploymentStatus{ObservedGeneration: d.Generation, Replicas: n, ReadyReplicas: n, UpdatedReplicas: n}
		must(w.t, w.Status().Update(ctx, d))
	}
}

func (w *world) settleSet(s *apps.StatefulSet) {
	w.t.Helper()
	ctx := context.Background()
	for i := range 4 {
		pod := &core.Pod{ObjectMeta: named(s.Name + "-" + strconv.Itoa(i))}
		pod.Labels = s.Spec.Template.Labels
		must(w.t, client.IgnoreNotFound(w.Delete(ctx, &core.Pod{ObjectMeta: named(pod.Name)})))
		if i < int(*s.Spec.Replicas) {
			must(w.t, w.Create(ctx, pod))
			pod.Status.PodIP, pod.Status.Conditions = "127.0.0.1", []core.PodCondition{{Type: core.PodReady, Status: core.ConditionTrue}}
			must(w.t, w.Status().Update(ctx, pod))
		}
	}
	n := *s.Spec.Replicas
	s.Status = apps.StatefulSetStatus{ObservedGeneration: s.Generation, Replicas: n, ReadyReplicas: n, UpdatedReplicas: n}
	must(w.t, w.Status().Update(ctx, s))
}

// images are those of the zones of writers.
func (w *world) images() string {
	w.t.Helper()
	var out []string
	for _, zone := range []string{"a", "b", "c"} {
		s := read(w, &apps.StatefulSet{}, "prod-amphora-write-zone-"+zone)
		_, tag, _ := strings.Cut(s.Spec.Template.Spec.Containers[0].Image, ":")
		out = append(out, fmt.Sprint(tag, "x", *s.Spec.Replicas))
	}
	return strings.Join(out, " ")
}

func (w *world) change(do func(*v1alpha1.Cluster)) {
	w.t.Helper()
	c := read(w, &v1alpha1.Cluster{}, "prod")
	do(c)
	must(w.t, w.Update(context.Background(), c))
}

// installed is a cluster that is ready, and its loop, whose clock each step moves on.
func installed(t *testing.T, objects ...client.Object) (*world, func()) {
	t.Helper()
	w := newWorld(t, append(objects, cluster("small"))...)
	loop := w.clusters(t)
	ingester, err := url.Parse(read(w, &v1alpha1.Cluster{}, "remote").Spec.Endpoint)
	must(t, err)
	loop.innerPort, err = strconv.Atoi(ingester.Port()) // every pod is the gateway of the test
	must(t, err)
	now := time.Now()
	loop.zones.Now = func() time.Time { return now }
	step := func() {
		t.Helper()
		now = now.Add(time.Hour)
		must(t, w.run(loop, "prod"))
	}
	step()
	w.says(read(w, &v1alpha1.Cluster{}, "prod").Status.Conditions, reasonWaiting, "prod-amphora-write-zone-a")
	w.settle()
	step()
	w.says(read(w, &v1alpha1.Cluster{}, "prod").Status.Conditions, reasonReady, "")
	return w, step
}

func (w *world) unready(pod string) {
	w.t.Helper()
	p := read(w, &core.Pod{}, pod)
	p.Status.Conditions[0].Status = core.ConditionFalse
	must(w.t, w.Status().Update(context.Background(), p))
}

func TestAChangeGoesZoneByZone(t *testing.T) {
	w, step := installed(t)
	c := read(w, &v1alpha1.Cluster{}, "prod")
	if c.Status.Endpoint != "http://prod-amphora.metrics.svc.cluster.local" || c.Status.Workloads != "6/6" || len(c.Status.Zones) != 3 {
		t.Errorf("%+v", c.Status)
	}
	key := string(read(w, &core.Secret{}, "prod-amphora-auth").Data["operator.key"])
	w.change(func(c *v1alpha1.Cluster) { c.Spec.Image = "registry.example/amphora:v2" })
	zones := []string{"a", "b", "c"}
	for i, want := range []string{"v2x1 devx1 devx1", "v2x1 v2x1 devx1", "v2x1 v2x1 v2x1"} {
		step()
		w.unready("prod-amphora-write-zone-" + zones[i] + "-0")
		step()
		if got := w.images(); got != want {
			t.Fatalf("while zone %s is short, images of zones are %s, want %s", zones[i], got, want)
		}
		w.settle()
	}
	step()
	w.says(read(w, &v1alpha1.Cluster{}, "prod").Status.Conditions, reasonReady, "")
	if key == "" || string(read(w, &core.Secret{}, "prod-amphora-auth").Data["operator.key"]) != key {
		t.Error("the operator's key changed")
	}
}

func TestIngestersAreToldBeforeTheyGo(t *testing.T) {
	w, step := installed(t)
	replicas := func(n int) {
		w.change(func(c *v1alpha1.Cluster) {
			c.Spec.Values.Raw = fmt.Appendf(nil, `{"storage": {"s3": {"bucketName": "b"}}, "components": {"write": {"replicas": %d}}}`, n)
		})
	}
	replicas(3)
	for range 3 {
		step()
		w.settle()
	}
	if got := w.images(); got != "devx3 devx3 devx3" {
		t.Fatal(got)
	}
	w.asked()
	replicas(1)
	const tell, takeBack = "POST /ingester/prepare-shutdown", "DELETE /ingester/prepare-shutdown"
	w.answers[tell] = "503"
	step()
	w.does(tell, takeBack) // it keeps the turn, and the other zones wait
	if got := w.images(); got != "devx3 devx3 devx3" {
		t.Fatalf("ingesters that could not be told were stopped: %s", got)
	}
	delete(w.answers, tell)
	step()
	w.does(tell, tell)
	if got := w.images(); got != "devx1 devx3 devx3" {
		t.Fatalf("one zone at a time: %s", got)
	}
}

func TestAZoneThatIsTakenAwayShipsFirst(t *testing.T) {
	w, step := installed(t)
	w.asked()
	w.change(func(c *v1alpha1.Cluster) {
		c.Spec.Values.Raw = []byte(`{"storage": {"s3": {"bucketName": "b"}}, "zones": [{"name": "zone-a"}, {"name": "zone-b"}]}`)
	})
	step()
	w.does("POST /ingester/prepare-shutdown")
	gone := read(w, &apps.StatefulSet{}, "prod-amphora-write-zone-c")
	if *gone.Spec.Replicas != 0 {
		t.Fatalf("%d replicas", *gone.Spec.Replicas)
	}
	step()
	read(w, gone, gone.Name) // its pod is still shipping
	w.settleSet(gone)
	step()
	if err := w.Get(context.Background(), client.ObjectKeyFromObject(gone), gone); err == nil {
		t.Error("the empty StatefulSet is still there")
	}
}

func TestWhatIsNoLongerAskedForGoes(t *testing.T) {
	w, step := installed(t)
	values := func(text string) {
		w.change(func(c *v1alpha1.Cluster) { c.Spec.Values.Raw = []byte(text) })
		step()
	}
	values(`{"storage": {"s3": {"bucketName": "b"}}, "components": {"overrides-exporter": {"enabled": true}}}`)
	read(w, &apps.Deployment{}, "prod-amphora-overrides-exporter")
	values(`{"storage": {"s3": {"bucketName": "b"}}}`)
	if err := w.Get(context.Background(), types.NamespacedName{Namespace: space, Name: "prod-amphora-overrides-exporter"}, &apps.Deployment{}); err == nil {
		t.Error("the exporter is still there")
	}
}

func TestAClusterThatCannotBeIsRefusedWhole(t *testing.T) {
	for name, c := range map[string]struct{ spec, reason, says string }{
		"a value that does not exist": {`{"values": {"storag": {}}}`, reasonInvalid, "storag"},
		"a value of another kind":     {`{"values": {"components": {"write": {"replicas": "many"}}}}`, reasonInvalid, "replicas"},
		"a value that is needed":      {`{"preset": "medium"}`, reasonInvalid, "bucketName is the bucket for blocks"},
		"a workload of somebody else": {`{"preset": "single"}`, reasonConflict, `"prod-amphora-config"`},
	} {
		t.Run(name, func(t *testing.T) {
			obj := &v1alpha1.Cluster{ObjectMeta: named("prod")}
			must(t, json.Unmarshal([]byte(c.spec), &obj.Spec))
			w := newWorld(t, obj, &core.ConfigMap{ObjectMeta: named("prod-amphora-config"), Data: map[string]string{"a": "b"}})
			must(t, w.run(w.clusters(t), "prod"))
			w.says(read(w, obj, "prod").Status.Conditions, c.reason, c.says)
			var sets apps.StatefulSetList
			must(t, w.List(context.Background(), &sets))
			if len(sets.Items) > 0 || read(w, &core.ConfigMap{}, "prod-amphora-config").Data["a"] != "b" {
				t.Error("some of it was applied")
			}
		})
	}
}

func TestAModeIsKept(t *testing.T) {
	w, step := installed(t)
	w.change(func(c *v1alpha1.Cluster) { c.Spec.Preset = "medium" })
	step()
	w.says(read(w, &v1alpha1.Cluster{}, "prod").Status.Conditions, reasonInvalid, "roles cannot become microservices")
}

func TestBudgetsLetAZoneGoWhereEvictionsAreGuarded(t *testing.T) {
	c := cluster("large")
	in, err := NewInstaller()
	must(t, err)
	for guarded, want := range map[bool]int32{false: 1, true: 6} {
		r, err := in.render(c, nil, guarded)
		must(t, err)
		budgets := map[string]int32{}
		for _, o := range r.Objects {
			if o.GetKind() != "PodDisruptionBudget" {
				continue
			}
			b := &policy.PodDisruptionBudget{}
			must(t, runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, b))
			budgets[b.Name] = b.Spec.MaxUnavailable.IntVal
		}
		if budgets["prod-amphora-ingester"] != want || budgets["prod-amphora-compactor"] != 1 {
			t.Errorf("guarded %v: %v", guarded, budgets)
		}
	}
}

func TestThePeerIsLetThroughBesideTheScrapers(t *testing.T) {
	in, err := NewInstaller()
	must(t, err)
	in.Peer = map[string]any{"podSelector": map[string]any{"matchLabels": map[string]any{"of": "operator"}}}
	r, err := in.render(cluster("small"), nil, false)
	must(t, err)
	for _, o := range r.Objects {
		if o.GetKind() == "NetworkPolicy" && o.GetName() == "prod-amphora" {
			text, err := json.Marshal(o.Object)
			must(t, err)
			if !strings.Contains(string(text), `"of":"operator"`) || !strings.Contains(string(text), `"app.kubernetes.io/name":"prometheus"`) {
				t.Errorf("%s", text)
			}
			return
		}
	}
	t.Error("no network policy")
}

func TestAClusterOfSomebodyElseIsAskedWhetherItIsReady(t *testing.T) {
	w := newWorld(t)
	loop := w.clusters(t)
	w.answers["GET /ready"] = "503starting"
	must(t, w.run(loop, "remote"))
	w.says(read(w, &v1alpha1.Cluster{}, "remote").Status.Conditions, reasonWaiting, "starting")
	delete(w.answers, "GET /ready")
	must(t, w.run(loop, "remote"))
	w.says(read(w, &v1alpha1.Cluster{}, "remote").Status.Conditions, reasonReady, "")
}
