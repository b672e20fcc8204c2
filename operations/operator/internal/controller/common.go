package controller

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/amphora-metrics/amphora/operations/operator/api/v1alpha1"
	"github.com/amphora-metrics/amphora/operations/operator/internal/remote"
)

// Finalizer keeps a resource until what it put into a cluster is gone.
const Finalizer = "amphora.dev/cluster"

// Reasons of conditions.
const (
	reasonReady      = "Ready"
	reasonInvalid    = "Invalid"
	reasonRefused    = "Refused"
	reasonConflict   = "Conflict"
	reasonNoCluster  = "NoCluster"
	reasonNoTenant   = "NoTenant"
	reasonWaiting    = "Waiting"
	reasonFailed     = "Failed"
	reasonPaused     = "Paused"
	reasonUnreadable = "Unreadable"
)

// fault is a reason for which a resource is not in force, that somebody has to change something about, or wait.
type fault struct{ reason, message string }

func (f *fault) Error() string { return f.reason + ": " + f.message }

func faultf(reason, format string, args ...any) *fault {
	return &fault{reason, fmt.Sprintf(format, args...)}
}

// Base is what all loops use.
type Base struct {
	client.Client
	Reader client.Reader // without a cache: for secrets, and for what is decided by
	HTTP   *http.Client  // to gateways and ingesters
	Resync time.Duration // how often what is in force is compared
}

// options try again after a second at first, and at last as often as what is in force is compared.
func (b *Base) options() controller.Options {
	return controller.Options{
		MaxConcurrentReconciles: 2,
		RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](time.Second, max(b.Resync, time.Second)),
	}
}

// condition is what err means for the condition Ready.
func condition(err error, generation int64, ready string) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.Ready, Status: metav1.ConditionTrue, Reason: reasonReady, Message: ready, ObservedGeneration: generation}
	if err == nil {
		return c
	}
	c.Status, c.Reason, c.Message = metav1.ConditionFalse, reasonFailed, err.Error()
	if f, ok := errors.AsType[*fault](err); ok {
		c.Reason, c.Message = f.reason, f.message
	}
	if r, ok := errors.AsType[*remote.Refusal](err); ok {
		c.Reason, c.Message = reasonRefused, r.Error()
	}
	c.Message = c.Message[:min(len(c.Message), 8000)]
	return c
}

// passing says that trying again may help before anything else changes.
func passing(err error) bool {
	if _, ok := errors.AsType[*fault](err); ok {
		return false
	}
	_, ok := errors.AsType[*remote.Refusal](err)
	return !ok && err != nil
}

func setStatus(s *v1alpha1.Status, generation int64, c metav1.Condition) {
	s.ObservedGeneration = generation
	meta.SetStatusCondition(&s.Conditions, c)
}

// cluster reads one that is not going.
func (b *Base) cluster(ctx context.Context, namespace, name string) (*v1alpha1.Cluster, error) {
	c := &v1alpha1.Cluster{}
	err := b.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, c)
	if apierrors.IsNotFound(err) || err == nil && !c.DeletionTimestamp.IsZero() {
		return nil, faultf(reasonNoCluster, "there is no Cluster %q in namespace %q", name, namespace)
	}
	if err != nil {
		return nil, fmt.Errorf("read cluster: %w", err)
	}
	return c, nil
}

// tenant finds the cluster and the id of a tenant.
func (b *Base) tenant(ctx context.Context, namespace string, ref v1alpha1.TenantReference) (*v1alpha1.Cluster, string, error) {
	name, id := ref.Cluster, ref.ID
	if ref.Name != "" {
		t := &v1alpha1.Tenant{}
		err := b.Get(ctx, client.ObjectKey{Namespace: namespace, Name: ref.Name}, t)
		if apierrors.IsNotFound(err) {
			return nil, "", faultf(reasonNoTenant, "there is no Tenant %q in namespace %q", ref.Name, namespace)
		}
		if err != nil {
			return nil, "", fmt.Errorf("read tenant: %w", err)
		}
		if t.Status.TenantID == "" {
			return nil, "", faultf(reasonNoTenant, "the Tenant %q has no id yet", ref.Name)
		}
		name, id = t.Spec.Cluster, t.Status.TenantID
	}
	c, err := b.cluster(ctx, namespace, name)
	return c, id, err
}

// gateway is that of a cluster, with the credentials that its Secret holds.
func (b *Base) gateway(ctx context.Context, c *v1alpha1.Cluster) (*remote.Gateway, error) {
	g := &remote.Gateway{Base: strings.TrimSuffix(c.Spec.Endpoint, "/"), HTTP: b.HTTP}
	if g.Base == "" {
		g.Base = c.Status.Endpoint
	}
	if g.Base == "" {
		return nil, faultf(reasonWaiting, "the Cluster %q is not installed yet", c.Name)
	}
	name := ""
	if c.Spec.CredentialsSecret != nil {
		name = c.Spec.CredentialsSecret.Name
	} else if c.Spec.Endpoint == "" {
		name = authSecret(c)
	}
	if name == "" {
		return g, nil
	}
	secret := &core.Secret{}
	err := b.Reader.Get(ctx, client.ObjectKey{Namespace: c.Namespace, Name: name}, secret)
	if apierrors.IsNotFound(err) && c.Spec.CredentialsSecret == nil {
		return g, nil // auth.enabled: false makes none
	}
	if apierrors.IsNotFound(err) {
		return nil, faultf(reasonInvalid, "there is no Secret %q, which the Cluster %q names for credentials", name, c.Name)
	}
	if err != nil {
		return nil, fmt.Errorf("read credentials: %w", err)
	}
	if g.Credentials, err = remote.FromSecret(secret.Data); err != nil {
		return nil, faultf(reasonInvalid, "the Secret %q: %v", name, err)
	}
	if g.Credentials.Region == "" {
		g.Credentials.Region = region(c)
	}
	return g, nil
}
