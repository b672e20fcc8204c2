package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/amphora-metrics/amphora/operations/operator/api/v1alpha1"
	"github.com/amphora-metrics/amphora/operations/operator/internal/remote"
)

// tenants makes workspaces of Tenants.
type tenants struct{ *Base }

func (t *tenants) setup(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("Tenant").
		For(&v1alpha1.Tenant{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WithOptions(t.options()).Complete(t)
}

// Reconcile makes, renames or deletes one workspace.
func (t *tenants) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	obj := &v1alpha1.Tenant{}
	if err := t.Get(ctx, req.NamespacedName, obj); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !obj.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, t.finish(ctx, obj)
	}
	if controllerutil.AddFinalizer(obj, Finalizer) {
		if err := t.Update(ctx, obj); err != nil {
			return ctrl.Result{}, client.IgnoreNotFound(err)
		}
	}
	err := t.sync(ctx, obj)
	setStatus(&obj.Status.Status, obj.Generation, condition(err, obj.Generation, "in force"))
	if uerr := t.Status().Update(ctx, obj); uerr != nil {
		return ctrl.Result{}, client.IgnoreNotFound(uerr)
	}
	if passing(err) {
		return ctrl.Result{}, err
	}
	return ctrl.Result{RequeueAfter: t.Resync}, nil
}

type workspace struct {
	Alias  string `json:"alias"`
	Status struct {
		Code string `json:"statusCode"`
	} `json:"status"`
}

func (t *tenants) sync(ctx context.Context, obj *v1alpha1.Tenant) error {
	cluster, err := t.cluster(ctx, obj.Namespace, obj.Spec.Cluster)
	if err != nil {
		return err
	}
	obj.Status.Cluster = cluster.Name
	if obj.Spec.ID != "" {
		obj.Status.TenantID = obj.Spec.ID // it is there when somebody writes
		return nil
	}
	gateway, err := t.gateway(ctx, cluster)
	if err != nil {
		return err
	}
	alias := obj.Spec.Alias
	if alias == "" {
		alias = obj.Name
	}
	if obj.Status.TenantID == "" {
		// The token makes a second try find the workspace that the first made.
		var made struct {
			WorkspaceID string `json:"workspaceId"`
		}
		err := t.json(ctx, gateway, http.MethodPost, "/workspaces", map[string]any{"alias": alias, "tags": obj.Spec.Tags, "clientToken": string(obj.UID)}, &made)
		if err == nil && made.WorkspaceID == "" {
			err = errors.New("the cluster made a workspace without an id")
		}
		obj.Status.TenantID = made.WorkspaceID
		return err
	}
	var have struct{ Workspace workspace }
	err = t.json(ctx, gateway, http.MethodGet, "/workspaces/"+obj.Status.TenantID, nil, &have)
	if remote.Status(err) == http.StatusNotFound || err == nil && have.Workspace.Status.Code == "DELETING" {
		return faultf(reasonNoTenant, "somebody deleted the workspace %q; restore it, or delete this resource", obj.Status.TenantID)
	}
	if err != nil || have.Workspace.Alias == alias {
		return err
	}
	return t.json(ctx, gateway, http.MethodPost, "/workspaces/"+obj.Status.TenantID+"/alias", map[string]any{"alias": alias}, nil)
}

func (t *tenants) finish(ctx context.Context, obj *v1alpha1.Tenant) error {
	if !controllerutil.ContainsFinalizer(obj, Finalizer) {
		return nil
	}
	if obj.Spec.DeletionPolicy == "Delete" && obj.Spec.ID == "" && obj.Status.TenantID != "" {
		err := t.delete(ctx, obj)
		if err != nil {
			setStatus(&obj.Status.Status, obj.Generation, condition(fmt.Errorf("delete the workspace: %w", err), obj.Generation, ""))
			return errors.Join(err, client.IgnoreNotFound(t.Status().Update(ctx, obj)))
		}
	}
	controllerutil.RemoveFinalizer(obj, Finalizer)
	return client.IgnoreNotFound(t.Update(ctx, obj))
}

func (t *tenants) delete(ctx context.Context, obj *v1alpha1.Tenant) error {
	cluster, err := t.cluster(ctx, obj.Namespace, obj.Spec.Cluster)
	if f, ok := errors.AsType[*fault](err); ok && f.reason == reasonNoCluster {
		return nil // it went with its cluster
	}
	if err != nil {
		return err
	}
	gateway, err := t.gateway(ctx, cluster)
	if err != nil {
		return err
	}
	err = t.json(ctx, gateway, http.MethodDelete, "/workspaces/"+obj.Status.TenantID, nil, nil)
	if remote.Status(err) == http.StatusNotFound {
		return nil
	}
	return err
}

// json calls the control plane; in and out may be nil.
func (t *tenants) json(ctx context.Context, g *remote.Gateway, method, path string, in, out any) error {
	r := remote.Request{Method: method, Path: path}
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("write request: %w", err)
		}
		r.Body, r.ContentType = text, "application/json"
	}
	answer, err := g.Do(ctx, r)
	if err != nil || out == nil {
		return err
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("%s %s: read answer: %w", method, path, err)
	}
	return nil
}
