package controller

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/amphora-metrics/amphora/operations/operator/api/v1alpha1"
	"github.com/amphora-metrics/amphora/operations/operator/internal/remote"
	"github.com/amphora-metrics/amphora/operations/operator/internal/zones"
)

const (
	// appliedMark is what an object was when it was applied last.
	appliedMark = "amphora.dev/applied"
	// GuardLabel on a namespace says that its evictions are asked for, and so that budgets may let a zone go.
	GuardLabel = "amphora.dev/evictions"
	// keepPolicy marks what outlives a cluster: the operator's key.
	keepPolicy = "helm.sh/resource-policy"
	// soon is when a cluster that changes is looked at again.
	soon = 10 * time.Second
)

// clusters installs Clusters.
type clusters struct {
	*Base
	installer *Installer
	zones     *zones.Keeper
	innerPort int // of ingesters
}

func (r *clusters) setup(mgr ctrl.Manager) error {
	about := handler.EnqueueRequestsFromMapFunc(r.clustersOf)
	return ctrl.NewControllerManagedBy(mgr).Named("Cluster").
		For(&v1alpha1.Cluster{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Owns(&apps.StatefulSet{}).Owns(&apps.Deployment{}).Owns(&core.ConfigMap{}).
		Watches(&v1alpha1.TenantLimits{}, about, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&v1alpha1.Tenant{}, about).WithOptions(r.options()).Complete(r)
}

// Reconcile applies what a cluster consists of.
func (r *clusters) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	c := &v1alpha1.Cluster{}
	if err := r.Get(ctx, req.NamespacedName, c); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !c.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, nil // what it owns goes with it
	}
	var waits []string
	var err error
	switch {
	case c.Spec.Paused:
		err = faultf(reasonPaused, "spec.paused leaves everything as it is")
	case c.Spec.Endpoint != "":
		err = r.probe(ctx, c)
	default:
		waits, err = r.install(ctx, c)
	}
	setStatus(&c.Status.Status, c.Generation, condition(err, c.Generation, "all workloads are as asked for, and ready"))
	progress := metav1.Condition{Type: v1alpha1.Progressing, Status: metav1.ConditionFalse, Reason: reasonReady, ObservedGeneration: c.Generation}
	if len(waits) > 0 {
		progress.Status, progress.Reason, progress.Message = metav1.ConditionTrue, reasonWaiting, strings.Join(waits, "; ")
	}
	meta.SetStatusCondition(&c.Status.Conditions, progress)
	if uerr := r.Status().Update(ctx, c); uerr != nil {
		return ctrl.Result{}, client.IgnoreNotFound(uerr)
	}
	if passing(err) {
		return ctrl.Result{}, err
	}
	if len(waits) > 0 || err != nil && !c.Spec.Paused {
		return ctrl.Result{RequeueAfter: soon}, nil
	}
	return ctrl.Result{RequeueAfter: r.Resync}, nil
}

// probe asks the gateway of somebody else's cluster whether it is ready.
func (r *clusters) probe(ctx context.Context, c *v1alpha1.Cluster) error {
	c.Status.Endpoint = strings.TrimSuffix(c.Spec.Endpoint, "/")
	g, err := r.gateway(ctx, c)
	if err != nil {
		return err
	}
	if _, err = g.Do(ctx, remote.Request{Method: http.MethodGet, Path: "/ready"}); err != nil {
		return faultf(reasonWaiting, "the gateway is not ready: %v", err)
	}
	return nil
}

// install applies everything, zones in turns, and says what is waited for.
func (r *clusters) install(ctx context.Context, c *v1alpha1.Cluster) ([]string, error) {
	_, overrides, err := r.overrides(ctx, c)
	if err != nil {
		return nil, err
	}
	namespace := &core.Namespace{}
	if err := r.Reader.Get(ctx, client.ObjectKey{Name: c.Namespace}, namespace); err != nil {
		return nil, fmt.Errorf("read namespace: %w", err)
	}
	rendered, err := r.installer.render(c, overrides, namespace.Labels[GuardLabel] == "guarded")
	if err != nil {
		return nil, err
	}
	if c.Status.Mode != "" && c.Status.Mode != rendered.Mode {
		return nil, faultf(reasonInvalid, "values: mode %s cannot become %s, as pods of both would own the same samples; make a second Cluster and move over", c.Status.Mode, rendered.Mode)
	}
	c.Status.Mode, c.Status.Endpoint = rendered.Mode, endpoint(c)
	zoned := map[string][]*unstructured.Unstructured{}
	for _, o := range rendered.Objects {
		if component, _ := zoneOf(o); component != "" {
			zoned[component] = append(zoned[component], o)
			continue
		}
		if err := r.apply(ctx, c, o); err != nil {
			return nil, err
		}
	}
	waits, err := r.prune(ctx, c, rendered.Objects)
	if err != nil {
		return nil, err
	}
	more, err := r.roll(ctx, c, zoned)
	if err != nil {
		return nil, err
	}
	unready, err := r.unready(ctx, c)
	if err != nil {
		return nil, err
	}
	waits = append(waits, more...)
	if len(unready) > 0 {
		return append(waits, unready...), faultf(reasonWaiting, "%s", strings.Join(unready, "; "))
	}
	if len(waits) > 0 {
		return waits, faultf(reasonWaiting, "%s", strings.Join(waits, "; "))
	}
	return nil, nil
}

// apply makes an object as it was rendered, whoever changed it. What is kept for good is only made.
func (r *clusters) apply(ctx context.Context, c *v1alpha1.Cluster, o *unstructured.Unstructured) error {
	if o.GetAnnotations()[keepPolicy] == "keep" {
		err := r.Create(ctx, o)
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
		return described(o, err)
	}
	if err := claim(ctx, r.Reader, c, o); err != nil {
		return err
	}
	mark(o)
	o.SetOwnerReferences([]metav1.OwnerReference{*metav1.NewControllerRef(c, v1alpha1.Version().WithKind("Cluster"))})
	return described(o, r.Apply(ctx, client.ApplyConfigurationFromUnstructured(o), client.FieldOwner(manager), client.ForceOwnership))
}

// claim refuses to take over what somebody else made.
func claim(ctx context.Context, reader client.Reader, c *v1alpha1.Cluster, o *unstructured.Unstructured) error {
	live := &unstructured.Unstructured{}
	live.SetGroupVersionKind(o.GroupVersionKind())
	err := reader.Get(ctx, client.ObjectKeyFromObject(o), live)
	if apierrors.IsNotFound(err) || err == nil && metav1.IsControlledBy(live, c) {
		return nil
	}
	if err != nil {
		return described(o, err)
	}
	return faultf(reasonConflict, "there is a %s %q that this Cluster did not make", o.GetKind(), o.GetName())
}

// described says which object an error is about; what the API server refuses for good is a fault.
func described(o *unstructured.Unstructured, err error) error {
	switch {
	case err == nil:
		return nil
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsForbidden(err), meta.IsNoMatchError(err):
		return faultf(reasonRefused, "%s %q: %v", o.GetKind(), o.GetName(), err)
	}
	return fmt.Errorf("%s %q: %w", o.GetKind(), o.GetName(), err)
}

// mark notes on an object what it is, once.
func mark(o *unstructured.Unstructured) string {
	if hash := o.GetAnnotations()[appliedMark]; hash != "" {
		return hash
	}
	text, err := json.Marshal(o.Object)
	if err != nil {
		text = []byte(err.Error()) // it was read from JSON
	}
	sum := sha256.Sum256(text)
	hash := hex.EncodeToString(sum[:8])
	annotations := o.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[appliedMark] = hash
	o.SetAnnotations(annotations)
	return hash
}

// kinds are those that a cluster consists of, but secrets, which are kept.
func kinds() []schema.GroupVersionKind {
	return []schema.GroupVersionKind{
		{Version: "v1", Kind: "ConfigMap"}, {Version: "v1", Kind: "Service"}, {Version: "v1", Kind: "ServiceAccount"},
		{Group: "apps", Version: "v1", Kind: "Deployment"}, {Group: "apps", Version: "v1", Kind: "StatefulSet"},
		{Group: "policy", Version: "v1", Kind: "PodDisruptionBudget"}, {Group: "autoscaling", Version: "v2", Kind: "HorizontalPodAutoscaler"},
		{Group: "networking.k8s.io", Version: "v1", Kind: "NetworkPolicy"}, {Group: "networking.k8s.io", Version: "v1", Kind: "Ingress"},
		{Group: "monitoring.coreos.com", Version: "v1", Kind: "ServiceMonitor"},
	}
}

// prune deletes what a cluster owns and no longer consists of. Ingesters ship what they have before.
func (r *clusters) prune(ctx context.Context, c *v1alpha1.Cluster, want []*unstructured.Unstructured) (waits []string, err error) {
	for _, gvk := range kinds() {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
		err := r.Reader.List(ctx, list, client.InNamespace(c.Namespace), client.MatchingLabels{managedBy: manager, zones.InstanceLabel: c.Name})
		if meta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
			continue // no ServiceMonitors here
		}
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", gvk.Kind, err)
		}
		for i := range list.Items {
			o := &list.Items[i]
			if !metav1.IsControlledBy(o, c) || !o.GetDeletionTimestamp().IsZero() || slices.ContainsFunc(want, func(w *unstructured.Unstructured) bool {
				return w.GetKind() == gvk.Kind && w.GetName() == o.GetName()
			}) {
				continue
			}
			if component, _ := zoneOf(o); component != "" {
				wait, err := r.retire(ctx, o)
				if err != nil {
					return nil, err
				}
				if wait != "" {
					waits = append(waits, wait)
					continue
				}
			}
			if err := client.IgnoreNotFound(r.Delete(ctx, o, client.PropagationPolicy(metav1.DeletePropagationBackground))); err != nil {
				return nil, described(o, err)
			}
		}
	}
	return waits, nil
}

// unready lists workloads that are not as they should be, and counts them.
func (r *clusters) unready(ctx context.Context, c *v1alpha1.Cluster) (out []string, err error) {
	of := []client.ListOption{client.InNamespace(c.Namespace), client.MatchingLabels{managedBy: manager, zones.InstanceLabel: c.Name}}
	var sets apps.StatefulSetList
	var deployments apps.DeploymentList
	if err := errors.Join(r.Reader.List(ctx, &sets, of...), r.Reader.List(ctx, &deployments, of...)); err != nil {
		return nil, fmt.Errorf("list workloads: %w", err)
	}
	note := func(name string, want *int32, observed bool, ready, updated int32) {
		n := int32(1)
		if want != nil {
			n = *want
		}
		if !observed || ready < n || updated < n {
			out = append(out, fmt.Sprintf("%s has %d of %d pods ready", name, min(ready, updated), n))
		}
	}
	for _, s := range sets.Items {
		note(s.Name, s.Spec.Replicas, s.Status.ObservedGeneration >= s.Generation, s.Status.ReadyReplicas, s.Status.UpdatedReplicas)
	}
	for _, d := range deployments.Items {
		note(d.Name, d.Spec.Replicas, d.Status.ObservedGeneration >= d.Generation, d.Status.ReadyReplicas, d.Status.UpdatedReplicas)
	}
	all := len(sets.Items) + len(deployments.Items)
	c.Status.Workloads = fmt.Sprintf("%d/%d", all-len(out), all)
	return out, nil
}
