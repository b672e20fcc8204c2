package controller

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/yaml"

	"github.com/amphora-metrics/amphora/operations/operator/api/v1alpha1"
	"github.com/amphora-metrics/amphora/pkg/limits"
)

// limitsFile is the entry of the ConfigMap <cluster>-runtime that processes read.
const limitsFile = "limits.yaml"

// tenantLimits says of each TenantLimits whether it is in force. The loop of clusters puts it there.
type tenantLimits struct{ *Base }

func (l *tenantLimits) setup(mgr ctrl.Manager) error {
	every := handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
		var list v1alpha1.TenantLimitsList
		if l.List(ctx, &list, client.InNamespace(o.GetNamespace())) != nil {
			return nil // the next resync finds them
		}
		var out []reconcile.Request
		for i := range list.Items {
			out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
		return out
	})
	return ctrl.NewControllerManagedBy(mgr).Named("TenantLimits").For(&v1alpha1.TenantLimits{}).
		Watches(&core.ConfigMap{}, every).Watches(&v1alpha1.Tenant{}, every).WithOptions(l.options()).Complete(l)
}

// Reconcile says what became of one.
func (l *tenantLimits) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	obj := &v1alpha1.TenantLimits{}
	if err := l.Get(ctx, req.NamespacedName, obj); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !obj.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, nil
	}
	before := obj.Status.DeepCopy()
	err := l.judge(ctx, obj)
	setStatus(&obj.Status, obj.Generation, condition(err, obj.Generation, "in the runtime configuration, which processes read within a minute or two"))
	if !equality.Semantic.DeepEqual(before, &obj.Status) {
		if uerr := l.Status().Update(ctx, obj); uerr != nil {
			return ctrl.Result{}, client.IgnoreNotFound(uerr)
		}
	}
	if passing(err) {
		return ctrl.Result{}, err
	}
	return ctrl.Result{RequeueAfter: l.Resync}, nil
}

func (l *tenantLimits) judge(ctx context.Context, obj *v1alpha1.TenantLimits) error {
	cluster, id, err := l.tenant(ctx, obj.Namespace, obj.Spec.Tenant)
	if err != nil {
		return err
	}
	if cluster.Spec.Endpoint != "" {
		return faultf(reasonRefused, "the Cluster %q was installed by somebody else, who keeps its runtime configuration", cluster.Name)
	}
	verdicts, _, err := l.overrides(ctx, cluster)
	if err != nil {
		return err
	}
	if err := verdicts[obj.Name]; err != nil {
		return err
	}
	want, err := readLimits(obj)
	if err != nil {
		return err
	}
	runtime := &core.ConfigMap{}
	err = l.Reader.Get(ctx, client.ObjectKey{Namespace: cluster.Namespace, Name: fullName(cluster) + "-runtime"}, runtime)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("read runtime configuration: %w", err)
	}
	var file struct {
		Overrides map[string]map[string]any `json:"overrides"`
	}
	if err := yaml.Unmarshal([]byte(runtime.Data[limitsFile]), &file); err != nil {
		return fmt.Errorf("read runtime configuration: %w", err)
	}
	for name, value := range want {
		if got, ok := file.Overrides[id][name]; !ok || !equality.Semantic.DeepEqual(plain(got), plain(value)) {
			return faultf(reasonWaiting, "the runtime configuration of Cluster %q does not have it yet", cluster.Name)
		}
	}
	return nil
}

// plain makes numbers of YAML and JSON the same.
func plain(v any) any {
	text, err := json.Marshal(v)
	if err != nil {
		return v
	}
	var out any
	if json.Unmarshal(text, &out) != nil {
		return v
	}
	return out
}

func readLimits(obj *v1alpha1.TenantLimits) (map[string]any, error) {
	var out map[string]any
	if err := yaml.Unmarshal(obj.Spec.Limits.Raw, &out, numbers); err != nil {
		return nil, faultf(reasonInvalid, "limits are no map: %v", err)
	}
	return out, nil
}

// overrides returns the limits of all tenants of a cluster that hold, and why the other TenantLimits do not.
func (b *Base) overrides(ctx context.Context, cluster *v1alpha1.Cluster) (verdicts map[string]error, out map[string]any, err error) {
	var list v1alpha1.TenantLimitsList
	if err := b.List(ctx, &list, client.InNamespace(cluster.Namespace)); err != nil {
		return nil, nil, fmt.Errorf("list limits: %w", err)
	}
	slices.SortFunc(list.Items, func(x, y v1alpha1.TenantLimits) int {
		return cmp.Or(x.CreationTimestamp.Compare(y.CreationTimestamp.Time), cmp.Compare(x.Name, y.Name))
	})
	verdicts, out = map[string]error{}, map[string]any{}
	from := map[[2]string]string{} // which resource set a limit of a tenant
	for i := range list.Items {
		obj := &list.Items[i]
		c, id, err := b.tenant(ctx, obj.Namespace, obj.Spec.Tenant)
		if passing(err) {
			return nil, nil, err
		}
		if err != nil || c.Name != cluster.Name || !obj.DeletionTimestamp.IsZero() {
			continue // the loop of limits says so
		}
		values, err := checked(obj, id)
		if err != nil {
			verdicts[obj.Name] = err
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(values)) {
			if older, ok := from[[2]string{id, name}]; ok {
				verdicts[obj.Name] = faultf(reasonConflict, "TenantLimits %q sets %s of tenant %q, and is older; nothing of this one is in force", older, name, id)
			}
		}
		if verdicts[obj.Name] != nil {
			continue
		}
		limitsOf, _ := out[id].(map[string]any)
		if limitsOf == nil {
			limitsOf = map[string]any{}
			out[id] = limitsOf
		}
		for name, value := range values {
			limitsOf[name], from[[2]string{id, name}] = value, obj.Name
		}
	}
	return verdicts, out, nil
}

// checked reads limits as strictly as a process does.
func checked(obj *v1alpha1.TenantLimits, id string) (map[string]any, error) {
	values, err := readLimits(obj)
	if err != nil {
		return nil, err
	}
	file, err := yaml.Marshal(map[string]any{"overrides": map[string]any{id: values}})
	if err != nil {
		return nil, faultf(reasonInvalid, "limits: %v", err)
	}
	if err := limits.Check("spec.limits", file); err != nil {
		return nil, faultf(reasonInvalid, "%v", err)
	}
	return values, nil
}

// clustersOf says which clusters a resource is about.
func (b *Base) clustersOf(ctx context.Context, o client.Object) []reconcile.Request {
	ref := v1alpha1.TenantReference{}
	switch o := o.(type) {
	case *v1alpha1.TenantLimits:
		ref = o.Spec.Tenant
	case *v1alpha1.Tenant:
		ref.Cluster = o.Spec.Cluster
	}
	if ref.Name != "" {
		t := &v1alpha1.Tenant{}
		if b.Get(ctx, client.ObjectKey{Namespace: o.GetNamespace(), Name: ref.Name}, t) != nil {
			return nil
		}
		ref.Cluster = t.Spec.Cluster
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: ref.Cluster}}}
}
