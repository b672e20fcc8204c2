package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	admission "k8s.io/api/admissionregistration/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	kyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/amphora-metrics/amphora/operations/operator/api/v1alpha1"
)

const space = "metrics"

// world is an API server with the operator, which has no more rights than its ServiceAccount, and a cluster that runs.
type world struct {
	client.Client
	t   *testing.T
	url string
}

func ctx() context.Context { return context.Background() }

func newWorld(t *testing.T) *world {
	t.Helper()
	config := apiServer(t)
	s := runtime.NewScheme()
	must(t, errors.Join(scheme.AddToScheme(s), v1alpha1.AddToScheme(s), apiextensions.AddToScheme(s)))
	c, err := client.New(config, client.Options{Scheme: s, FieldValidation: "Strict"})
	must(t, err)
	w := &world{Client: c, t: t, url: amphora(t)}
	crds, err := fs.Glob(os.DirFS("deploy/crds"), "*.yaml")
	must(t, err)
	for _, name := range crds {
		w.create(filepath.Join("deploy/crds", name))
	}
	w.create("deploy/operator.yaml")
	must(t, c.Create(ctx(), &core.Namespace{ObjectMeta: metav1.ObjectMeta{Name: space, Labels: map[string]string{"amphora.dev/evictions": "guarded"}}}))
	eventually(t, "the resources can be made", func() error { return c.List(ctx(), &v1alpha1.AlertmanagerConfigList{}) })
	eventually(t, "the resources can be made", func() error { return c.List(ctx(), &v1alpha1.ClusterList{}) })
	w.operator(config)
	return w
}

// operator runs as its ServiceAccount, so that a right that it lacks shows.
func (w *world) operator(config *rest.Config) {
	w.t.Helper()
	as := rest.CopyConfig(config)
	as.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:amphora-operator:amphora-operator"}
	port, certs := freePorts(w.t, 1)[0], w.t.TempDir()
	key, cert := certificate(w.t)
	write(w.t, certs, "tls.key", key)
	write(w.t, certs, "tls.crt", cert)
	mgr, err := newManager(&settings{metrics: "0", health: "0", certs: certs, webhookPort: port, resync: time.Second, timeout: 10 * time.Second}, as)
	must(w.t, err)
	until, stop := context.WithCancel(ctx())
	done := make(chan error, 1)
	go func() { done <- mgr.Start(until) }()
	w.t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			w.t.Errorf("the operator ended: %v", err)
		}
	})
	hook := &admission.ValidatingWebhookConfiguration{}
	for _, doc := range w.documents("deploy/evictions.yaml") {
		if doc.GetKind() == "ValidatingWebhookConfiguration" {
			must(w.t, runtime.DefaultUnstructuredConverter.FromUnstructured(doc.Object, hook))
		}
	}
	url := fmt.Sprintf("https://127.0.0.1:%d%s", port, *hook.Webhooks[0].ClientConfig.Service.Path)
	hook.Webhooks[0].ClientConfig = admission.WebhookClientConfig{URL: &url, CABundle: cert}
	must(w.t, w.Create(ctx(), hook))
}

func (w *world) documents(path string) (out []*unstructured.Unstructured) {
	w.t.Helper()
	data, err := os.ReadFile(path)
	must(w.t, err)
	docs := kyaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(data)))
	buffer := make([]byte, 1<<20)
	for {
		n, err := docs.Read(buffer)
		if errors.Is(err, io.EOF) {
			return out
		}
		must(w.t, err)
		o := &unstructured.Unstructured{}
		text, err := yaml.YAMLToJSON(buffer[:n])
		must(w.t, err)
		if err := o.UnmarshalJSON(text); err == nil {
			out = append(out, o)
		}
	}
}

func (w *world) create(path string) {
	w.t.Helper()
	for _, o := range w.documents(path) {
		if err := w.Create(ctx(), o); err != nil {
			w.t.Fatalf("%s: %s %s: %v", path, o.GetKind(), o.GetName(), err)
		}
	}
}

// make creates a resource of the text of its spec.
func (w *world) make(kind, name, spec string) error {
	o := &unstructured.Unstructured{Object: map[string]any{}}
	if err := yaml.Unmarshal([]byte(spec), &o.Object); err != nil {
		return err
	}
	o.Object = map[string]any{"spec": o.Object}
	o.SetGroupVersionKind(v1alpha1.Version().WithKind(kind))
	o.SetNamespace(space)
	o.SetName(name)
	return w.Create(ctx(), o)
}

// ready waits until a resource has a condition Ready of this reason.
func (w *world) ready(o client.Object, name, reason string) {
	w.t.Helper()
	eventually(w.t, name+" is "+reason, func() error {
		if err := w.Get(ctx(), client.ObjectKey{Namespace: space, Name: name}, o); err != nil {
			return err
		}
		var got []metav1.Condition
		switch o := o.(type) {
		case *v1alpha1.Cluster:
			got = o.Status.Conditions
		case *v1alpha1.Tenant:
			got = o.Status.Conditions
		case *v1alpha1.TenantLimits:
			got = o.Status.Conditions
		case *v1alpha1.RuleNamespace:
			got = o.Status.Conditions
		case *v1alpha1.AlertmanagerConfig:
			got = o.Status.Conditions
		}
		if c := meta.FindStatusCondition(got, v1alpha1.Ready); c == nil || c.Reason != reason || c.ObservedGeneration != o.GetGeneration() {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
}

// ask calls the cluster.
func (w *world) ask(method, path, tenant, want string) error {
	req, err := http.NewRequest(method, w.url+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("X-Scope-OrgID", tenant)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }() // it was read
	text, err := io.ReadAll(res.Body)
	if got := fmt.Sprintf("%d %s", res.StatusCode, text); err == nil && !strings.Contains(got, want) {
		return fmt.Errorf("%s %s: %s, want %q", method, path, got, want)
	}
	return err
}

func TestWithAnAPIServer(t *testing.T) {
	w := newWorld(t)
	t.Run("what cannot be is refused at once", w.refuses)
	must(t, w.make("Cluster", "there", "{endpoint: '"+w.url+"'}"))
	w.ready(&v1alpha1.Cluster{}, "there", "Ready")
	t.Run("rules", w.rules)
	t.Run("alertmanager", w.alertmanager)
	t.Run("workspace", w.workspace)
	t.Run("cluster", w.cluster)
}

func (w *world) refuses(t *testing.T) {
	for _, c := range []struct{ kind, spec, says string }{
		{"Cluster", "{preset: huge}", "Unsupported value"},
		{"Cluster", "{preset: small, endpoint: 'http://a'}", "installed by somebody else"},
		{"Tenant", "{cluster: a, id: b, deletionPolicy: Delete}", "are for workspaces"},
		{"TenantLimits", "{tenant: {cluster: a}, limits: {}}", "either name, of a Tenant"},
		{"RuleNamespace", "{tenant: {name: a}, groups: [{name: g, rules: [{expr: a}]}]}", "either record or alert"},
		{"AlertmanagerConfig", "{tenant: {name: a}}", "either config or configSecret"},
	} {
		if err := w.make(c.kind, "wrong", c.spec); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s %s: %v, want %q", c.kind, c.spec, err, c.says)
		}
	}
}

func (w *world) rules(t *testing.T) {
	const path = "/prometheus/config/v1/rules/sales"
	must(t, w.make("Tenant", "shop", "{cluster: there, id: shop}"))
	must(t, w.make("RuleNamespace", "sales", "{tenant: {name: shop}, groups: [{name: g, interval: 60s, rules: [{record: 'a:b', expr: sum(a)}]}]}"))
	obj := &v1alpha1.RuleNamespace{}
	w.ready(obj, "sales", "Ready")
	must(t, w.ask(http.MethodGet, path, "shop", "record: a:b"))
	must(t, w.ask(http.MethodDelete, path, "shop", "202"))
	eventually(t, "rules that somebody deleted are back", func() error { return w.ask(http.MethodGet, path, "shop", "record: a:b") })

	obj.Spec.Groups[0].Rules[0].Expr = "sum("
	eventually(t, "the rules are changed", func() error { return w.Update(ctx(), obj) })
	w.ready(obj, "sales", "Refused")
	must(t, w.ask(http.MethodGet, path, "shop", "sum(a)"))
	must(t, w.Delete(ctx(), obj))
	eventually(t, "the rules are gone", func() error { return w.ask(http.MethodGet, path, "shop", "200 {}") })
	w.gone(obj)
}

func (w *world) gone(o client.Object) {
	w.t.Helper()
	eventually(w.t, o.GetName()+" is gone", func() error {
		if err := w.Get(ctx(), client.ObjectKeyFromObject(o), o); !apierrors.IsNotFound(err) {
			return fmt.Errorf("still there: %v", err)
		}
		return nil
	})
}

func (w *world) alertmanager(t *testing.T) {
	const path = "/api/v1/alerts"
	secret := &core.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: space, Name: "am"}, StringData: map[string]string{"alertmanager.yaml": "route: {receiver: a}\nreceivers: [{name: a}]\n"}}
	must(t, w.Create(ctx(), secret))
	must(t, w.make("AlertmanagerConfig", "shop", "{tenant: {cluster: there, id: shop}, configSecret: {name: am}}"))
	obj := &v1alpha1.AlertmanagerConfig{}
	w.ready(obj, "shop", "Ready")
	must(t, w.ask(http.MethodGet, path, "shop", "receiver: a"))
	secret.StringData = map[string]string{"alertmanager.yaml": "route: {receiver: nobody}\nreceivers: [{name: a}]\n"}
	must(t, w.Update(ctx(), secret))
	w.ready(obj, "shop", "Refused")
	must(t, w.ask(http.MethodGet, path, "shop", "receiver: a"))
	must(t, w.Delete(ctx(), obj))
	eventually(t, "the configuration is gone", func() error { return w.ask(http.MethodGet, path, "shop", "404") })
	w.gone(obj)
}

func (w *world) workspace(t *testing.T) {
	must(t, w.make("Tenant", "team", "{cluster: there, deletionPolicy: Delete}"))
	obj := &v1alpha1.Tenant{}
	w.ready(obj, "team", "Ready")
	must(t, w.ask(http.MethodGet, "/workspaces/"+obj.Status.TenantID, "", `"team"`))
	must(t, w.Delete(ctx(), obj))
	w.gone(obj)
	eventually(t, "the workspace is gone", func() error {
		if w.ask(http.MethodGet, "/workspaces/"+obj.Status.TenantID, "", "404") == nil {
			return nil
		}
		return w.ask(http.MethodGet, "/workspaces/"+obj.Status.TenantID, "", "DELETING")
	})
}

// settle does what Kubernetes's controllers and kubelets would: pods of StatefulSets, and everything ready.
func (w *world) settle() error {
	var sets apps.StatefulSetList
	var deployments apps.DeploymentList
	if err := errors.Join(w.List(ctx(), &sets, client.InNamespace(space)), w.List(ctx(), &deployments, client.InNamespace(space))); err != nil {
		return err
	}
	for i := range sets.Items {
		s := &sets.Items[i]
		for n := range int(*s.Spec.Replicas) {
			if err := w.runs(s, n); err != nil {
				return err
			}
		}
		n := *s.Spec.Replicas
		s.Status = apps.StatefulSetStatus{ObservedGeneration: s.Generation, Replicas: n, ReadyReplicas: n, UpdatedReplicas: n}
		if err := w.Status().Update(ctx(), s); err != nil {
			return err
		}
	}
	var budgets policy.PodDisruptionBudgetList
	if err := w.List(ctx(), &budgets, client.InNamespace(space)); err != nil {
		return err
	}
	for i := range budgets.Items {
		b := &budgets.Items[i]
		b.Status.ObservedGeneration, b.Status.DisruptionsAllowed = b.Generation, 1
		if err := w.Status().Update(ctx(), b); err != nil {
			return err
		}
	}
	for i := range deployments.Items {
		d := &deployments.Items[i]
		n := int32(1)
		if d.Spec.Replicas != nil {
			n = *d.Spec.Replicas
		}
		d.Status = apps.DeploymentStatus{ObservedGeneration: d.Generation, Replicas: n, ReadyReplicas: n, UpdatedReplicas: n}
		if err := w.Status().Update(ctx(), d); err != nil {
			return err
		}
	}
	return nil
}

// runs has a pod of a StatefulSet run and be ready.
func (w *world) runs(s *apps.StatefulSet, n int) error {
	pod := &core.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: space, Name: s.Name + "-" + strconv.Itoa(n), Labels: s.Spec.Template.Labels}, Spec: s.Spec.Template.Spec}
	pod.Spec.Volumes = append(pod.Spec.Volumes, core.Volume{Name: "data", VolumeSource: core.VolumeSource{EmptyDir: &core.EmptyDirVolumeSource{}}})
	if err := client.IgnoreAlreadyExists(w.Create(ctx(), pod)); err != nil {
		return err
	}
	if err := w.Get(ctx(), client.ObjectKeyFromObject(pod), pod); err != nil {
		return err
	}
	pod.Status.Phase, pod.Status.Conditions = core.PodRunning, []core.PodCondition{{Type: core.PodReady, Status: core.ConditionTrue}}
	return w.Status().Update(ctx(), pod)
}

func (w *world) cluster(t *testing.T) {
	must(t, w.make("Cluster", "prod", "{preset: small, values: {storage: {s3: {bucketName: b}}}}"))
	must(t, w.make("TenantLimits", "shop", "{tenant: {cluster: prod, id: shop}, limits: {ingestion_rate: 1000000}}"))
	must(t, w.make("TenantLimits", "wrong", "{tenant: {cluster: prod, id: shop}, limits: {ingestion_rat: 1}}"))
	c := &v1alpha1.Cluster{}
	w.ready(c, "prod", "Waiting")
	w.ready(&v1alpha1.TenantLimits{}, "shop", "Ready")
	w.ready(&v1alpha1.TenantLimits{}, "wrong", "Invalid")
	w.settled(c)

	eventually(t, "the image is changed", func() error {
		must(t, w.Get(ctx(), client.ObjectKeyFromObject(c), c))
		c.Spec.Image = "registry.example/amphora:v2"
		return w.Update(ctx(), c)
	})
	images := func() string {
		var out []string
		for _, zone := range []string{"a", "b", "c"} {
			s := &apps.StatefulSet{}
			must(t, w.Get(ctx(), client.ObjectKey{Namespace: space, Name: "prod-amphora-write-zone-" + zone}, s))
			_, tag, _ := strings.Cut(s.Spec.Template.Spec.Containers[0].Image, ":")
			out = append(out, tag)
		}
		return strings.Join(out, " ")
	}
	eventually(t, "the first zone changes", func() error {
		if got := images(); got != "v2 dev dev" {
			return errors.New(got)
		}
		return nil
	})
	// Nobody has restarted its pods, so that the zone is short: the others wait, and are not evicted from.
	err := w.evict("prod-amphora-write-zone-b-0")
	if !apierrors.IsTooManyRequests(err) || !strings.Contains(err.Error(), "one zone at a time") {
		t.Errorf("an eviction from a second zone: %v", err)
	}
	if err := w.evict("prod-amphora-write-zone-a-0"); err != nil {
		t.Errorf("an eviction from the zone that is short anyway: %v", err)
	}
	if got := images(); got != "v2 dev dev" {
		t.Errorf("images %s", got)
	}
	w.settled(c)
	if got := images(); got != "v2 v2 v2" {
		t.Errorf("images %s", got)
	}
}

// settled lets Kubernetes do its work until the cluster is ready.
func (w *world) settled(c *v1alpha1.Cluster) {
	w.t.Helper()
	eventually(w.t, "the cluster is ready", func() error {
		if err := w.settle(); err != nil {
			return err
		}
		if err := w.Get(ctx(), client.ObjectKeyFromObject(c), c); err != nil {
			return err
		}
		if r := meta.FindStatusCondition(c.Status.Conditions, v1alpha1.Ready); r == nil || r.Status != metav1.ConditionTrue || r.ObservedGeneration != c.Generation {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
}

func (w *world) evict(pod string) error {
	return w.SubResource("eviction").Create(ctx(), &core.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: space, Name: pod}},
		&policy.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: space, Name: pod}})
}
