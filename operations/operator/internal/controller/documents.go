package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"

	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/yaml"

	"github.com/amphora-metrics/amphora/operations/operator/api/v1alpha1"
	"github.com/amphora-metrics/amphora/operations/operator/internal/remote"
)

const yamlType = "application/yaml"

// kind is how one kind of resource becomes a document of a tenant.
type kind[T client.Object] struct {
	name   string
	empty  func() T
	list   func(ctx context.Context, b *Base, namespace string) ([]T, error)
	tenant func(T) *v1alpha1.TenantReference
	place  func(T) string // what two resources of one tenant must not share
	status func(T) *v1alpha1.TenantStatus
	put    func(ctx context.Context, b *Base, g *remote.Gateway, id string, obj T) error
	remove func(ctx context.Context, g *remote.Gateway, id string, obj T) error
}

// documents makes resources of one kind true.
type documents[T client.Object] struct {
	*Base
	kind kind[T]
}

func (d *documents[T]) setup(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named(d.kind.name).
		For(d.kind.empty(), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WithOptions(d.options()).Complete(d)
}

// Reconcile puts, compares or removes one document.
func (d *documents[T]) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	obj := d.kind.empty()
	if err := d.Get(ctx, req.NamespacedName, obj); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !obj.GetDeletionTimestamp().IsZero() {
		return ctrl.Result{}, d.finish(ctx, obj)
	}
	if controllerutil.AddFinalizer(obj, Finalizer) {
		if err := d.Update(ctx, obj); err != nil {
			return ctrl.Result{}, client.IgnoreNotFound(err)
		}
	}
	status := d.kind.status(obj)
	err := d.sync(ctx, obj, status)
	setStatus(&status.Status, obj.GetGeneration(), condition(err, obj.GetGeneration(), "in force"))
	if uerr := d.Status().Update(ctx, obj); uerr != nil {
		return ctrl.Result{}, client.IgnoreNotFound(uerr)
	}
	if passing(err) {
		return ctrl.Result{}, err
	}
	return ctrl.Result{RequeueAfter: d.Resync}, nil
}

func (d *documents[T]) sync(ctx context.Context, obj T, status *v1alpha1.TenantStatus) error {
	cluster, id, err := d.tenant(ctx, obj.GetNamespace(), *d.kind.tenant(obj))
	if err != nil {
		return err
	}
	status.Cluster, status.TenantID = cluster.Name, id
	older, err := d.older(ctx, obj, cluster.Name, id)
	if err != nil {
		return err
	}
	if older != "" {
		return faultf(reasonConflict, "%s %q is about the same of tenant %q of Cluster %q, and older", d.kind.name, older, id, cluster.Name)
	}
	gateway, err := d.gateway(ctx, cluster)
	if err != nil {
		return err
	}
	return d.kind.put(ctx, d.Base, gateway, id, obj)
}

// older names a resource that was there before and is about the same document.
func (d *documents[T]) older(ctx context.Context, obj T, cluster, id string) (string, error) {
	all, err := d.kind.list(ctx, d.Base, obj.GetNamespace())
	if err != nil {
		return "", err
	}
	for _, other := range all {
		if other.GetUID() == obj.GetUID() || d.kind.place(other) != d.kind.place(obj) || !before(other, obj) || !controllerutil.ContainsFinalizer(other, Finalizer) {
			continue
		}
		c, otherID, err := d.tenant(ctx, other.GetNamespace(), *d.kind.tenant(other))
		if passing(err) {
			return "", err
		}
		if err == nil && c.Name == cluster && otherID == id {
			return other.GetName(), nil
		}
	}
	return "", nil
}

func before(a, b client.Object) bool {
	x, y := a.GetCreationTimestamp(), b.GetCreationTimestamp()
	if x.Equal(&y) {
		return a.GetName() < b.GetName()
	}
	return x.Before(&y)
}

// finish removes the document of a resource that goes. With the cluster it has gone already.
func (d *documents[T]) finish(ctx context.Context, obj T) error {
	if !controllerutil.ContainsFinalizer(obj, Finalizer) {
		return nil
	}
	status := d.kind.status(obj)
	ref := v1alpha1.TenantReference{Cluster: status.Cluster, ID: status.TenantID} // a Tenant may be gone
	if ref.ID == "" {
		ref = *d.kind.tenant(obj)
	}
	cluster, id, err := d.tenant(ctx, obj.GetNamespace(), ref)
	if err != nil && passing(err) {
		return err
	}
	if err == nil {
		if err := d.take(ctx, obj, cluster, id); err != nil {
			setStatus(&status.Status, obj.GetGeneration(), condition(fmt.Errorf("remove it from the cluster: %w", err), obj.GetGeneration(), ""))
			return errors.Join(err, client.IgnoreNotFound(d.Status().Update(ctx, obj)))
		}
	}
	controllerutil.RemoveFinalizer(obj, Finalizer)
	return client.IgnoreNotFound(d.Update(ctx, obj))
}

// take removes the document, unless it is that of another resource.
func (d *documents[T]) take(ctx context.Context, obj T, cluster *v1alpha1.Cluster, id string) error {
	older, err := d.older(ctx, obj, cluster.Name, id)
	if err != nil || older != "" {
		return err
	}
	gateway, err := d.gateway(ctx, cluster)
	if err != nil {
		return err
	}
	if err := d.kind.remove(ctx, gateway, id, obj); err != nil && remote.Status(err) != http.StatusNotFound {
		return err
	}
	return nil
}

func ruleNamespaces() kind[*v1alpha1.RuleNamespace] {
	type T = *v1alpha1.RuleNamespace
	name := func(o T) string {
		if o.Spec.Namespace != "" {
			return o.Spec.Namespace
		}
		return o.Name
	}
	path := func(o T) string { return "/prometheus/config/v1/rules/" + url.PathEscape(name(o)) }
	return kind[T]{
		name:  "RuleNamespace",
		empty: func() T { return &v1alpha1.RuleNamespace{} },
		list: func(ctx context.Context, b *Base, namespace string) ([]T, error) {
			var l v1alpha1.RuleNamespaceList
			err := b.List(ctx, &l, client.InNamespace(namespace))
			return pointers(l.Items), err
		},
		tenant: func(o T) *v1alpha1.TenantReference { return &o.Spec.Tenant },
		place:  name,
		status: func(o T) *v1alpha1.TenantStatus { return &o.Status },
		put: func(ctx context.Context, _ *Base, g *remote.Gateway, id string, o T) error {
			file, err := yaml.Marshal(map[string]any{"groups": o.Spec.Groups})
			if err != nil {
				return fmt.Errorf("write rules: %w", err)
			}
			request := remote.Request{Method: http.MethodPut, Path: path(o) + "?dry_run=true", Tenant: id, ContentType: yamlType, Body: file}
			answer, err := g.Do(ctx, request)
			if err != nil {
				return err
			}
			var would struct {
				Data struct{ Added, Changed, Removed []string }
			}
			if err := json.Unmarshal(answer, &would); err != nil {
				return fmt.Errorf("read what would change: %w", err)
			}
			if len(would.Data.Added)+len(would.Data.Changed)+len(would.Data.Removed) == 0 {
				return nil
			}
			request.Path = path(o)
			_, err = g.Do(ctx, request)
			return err
		},
		remove: func(ctx context.Context, g *remote.Gateway, id string, o T) error {
			_, err := g.Do(ctx, remote.Request{Method: http.MethodDelete, Path: path(o), Tenant: id})
			return err
		},
	}
}

func alertmanagerConfigs() kind[*v1alpha1.AlertmanagerConfig] {
	type T = *v1alpha1.AlertmanagerConfig
	const path = "/api/v1/alerts"
	return kind[T]{
		name:  "AlertmanagerConfig",
		empty: func() T { return &v1alpha1.AlertmanagerConfig{} },
		list: func(ctx context.Context, b *Base, namespace string) ([]T, error) {
			var l v1alpha1.AlertmanagerConfigList
			err := b.List(ctx, &l, client.InNamespace(namespace))
			return pointers(l.Items), err
		},
		tenant: func(o T) *v1alpha1.TenantReference { return &o.Spec.Tenant },
		place:  func(T) string { return "" },
		status: func(o T) *v1alpha1.TenantStatus { return &o.Status },
		put: func(ctx context.Context, b *Base, g *remote.Gateway, id string, o T) error {
			config, err := b.config(ctx, o)
			if err != nil {
				return err
			}
			type document struct {
				Templates map[string]string `json:"template_files,omitempty"`
				Config    string            `json:"alertmanager_config"`
			}
			want := document{o.Spec.Templates, config}
			text, err := yaml.Marshal(want)
			if err != nil {
				return fmt.Errorf("write configuration: %w", err)
			}
			answer, err := g.Do(ctx, remote.Request{Method: http.MethodGet, Path: path, Tenant: id})
			if err != nil && remote.Status(err) != http.StatusNotFound {
				return err
			}
			var have document
			if err == nil && yaml.Unmarshal(answer, &have) == nil && maps.Equal(want.Templates, have.Templates) && want.Config == have.Config {
				return nil
			}
			_, err = g.Do(ctx, remote.Request{Method: http.MethodPost, Path: path, Tenant: id, ContentType: yamlType, Body: text})
			return err
		},
		remove: func(ctx context.Context, g *remote.Gateway, id string, _ T) error {
			_, err := g.Do(ctx, remote.Request{Method: http.MethodDelete, Path: path, Tenant: id})
			return err
		},
	}
}

// config is the configuration itself, or what its secret holds.
func (b *Base) config(ctx context.Context, o *v1alpha1.AlertmanagerConfig) (string, error) {
	from := o.Spec.ConfigSecret
	if from == nil {
		return o.Spec.Config, nil
	}
	secret := &core.Secret{}
	err := b.Reader.Get(ctx, client.ObjectKey{Namespace: o.Namespace, Name: from.Name}, secret)
	if apierrors.IsNotFound(err) {
		return "", faultf(reasonUnreadable, "there is no Secret %q", from.Name)
	}
	if err != nil {
		return "", fmt.Errorf("read configuration: %w", err)
	}
	text, ok := secret.Data[from.Key]
	if !ok {
		return "", faultf(reasonUnreadable, "the Secret %q has no entry %q", from.Name, from.Key)
	}
	return string(text), nil
}

func pointers[T any](items []T) []*T {
	out := make([]*T, len(items))
	for i := range items {
		out[i] = &items[i]
	}
	return out
}
