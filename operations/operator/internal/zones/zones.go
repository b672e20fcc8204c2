// Package zones owns the rule that no two zones of a component are degraded at once: whether a zone is complete, and
// which zone has the turn. Rollouts and evictions both follow it.
package zones

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	apps "k8s.io/api/apps/v1"
	coordination "k8s.io/api/coordination/v1"
	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Labels of the chart.
const (
	NameLabel      = "app.kubernetes.io/name"
	InstanceLabel  = "app.kubernetes.io/instance"
	ComponentLabel = "app.kubernetes.io/component"
	ZoneLabel      = "amphora/zone"
	Product        = "amphora"
)

// Turn is how long a zone keeps its turn after the last that was allowed in it: by then Kubernetes shows that a pod goes.
const Turn = 30 * time.Second

// Component is a part of a cluster that runs in zones.
type Component struct{ Namespace, Instance, Name string }

// Of returns the component and zone that a pod, or the template of one, belongs to; the zone is empty if it has none.
func Of(namespace string, labels map[string]string) (Component, string) {
	if labels[NameLabel] != Product {
		return Component{}, ""
	}
	return Component{namespace, labels[InstanceLabel], labels[ComponentLabel]}, labels[ZoneLabel]
}

func (c Component) labels() client.MatchingLabels {
	return client.MatchingLabels{NameLabel: Product, InstanceLabel: c.Instance, ComponentLabel: c.Name}
}

// Keeper reads without a cache, as what it decides by must not be of yesterday.
type Keeper struct {
	Reader client.Reader
	Writer client.Writer
	Now    func() time.Time
}

// Sets returns the StatefulSets of a component that have zones, by name.
func (k *Keeper) Sets(ctx context.Context, c Component) ([]apps.StatefulSet, error) {
	var list apps.StatefulSetList
	if err := k.Reader.List(ctx, &list, client.InNamespace(c.Namespace), c.labels()); err != nil {
		return nil, fmt.Errorf("list StatefulSets of %s: %w", c.Name, err)
	}
	sets := slices.DeleteFunc(list.Items, func(s apps.StatefulSet) bool { return s.Spec.Template.Labels[ZoneLabel] == "" })
	slices.SortFunc(sets, func(a, b apps.StatefulSet) int { return strings.Compare(a.Name, b.Name) })
	return sets, nil
}

// Short says why a zone other than zone is not whole, or "" if all are.
func (k *Keeper) Short(ctx context.Context, c Component, zone string) (string, error) {
	sets, err := k.Sets(ctx, c)
	if err != nil {
		return "", err
	}
	var pods core.PodList
	if err := k.Reader.List(ctx, &pods, client.InNamespace(c.Namespace), c.labels()); err != nil {
		return "", fmt.Errorf("list pods of %s: %w", c.Name, err)
	}
	for i := range sets {
		if sets[i].Spec.Template.Labels[ZoneLabel] == zone {
			continue
		}
		if why := lack(&sets[i], pods.Items); why != "" {
			return why, nil
		}
	}
	return "", nil
}

// Lack says what a StatefulSet lacks to be whole, or "".
func (k *Keeper) Lack(ctx context.Context, set *apps.StatefulSet) (string, error) {
	c, zone := Of(set.Namespace, set.Spec.Template.Labels)
	var pods core.PodList
	if err := k.Reader.List(ctx, &pods, client.InNamespace(c.Namespace), c.labels(), client.MatchingLabels{ZoneLabel: zone}); err != nil {
		return "", fmt.Errorf("list pods of %s: %w", set.Name, err)
	}
	return lack(set, pods.Items), nil
}

func lack(set *apps.StatefulSet, pods []core.Pod) string {
	zone, want, ready := set.Spec.Template.Labels[ZoneLabel], replicas(set), 0
	for i := range pods {
		if pods[i].Labels[ZoneLabel] == zone && serves(&pods[i]) {
			ready++
		}
	}
	s := set.Status
	switch {
	case ready < want:
		return fmt.Sprintf("%d of %d pods of %s are ready", ready, want, set.Name)
	case s.ObservedGeneration < set.Generation, int(s.Replicas) != want,
		s.UpdateRevision != s.CurrentRevision && int(s.UpdatedReplicas) < want:
		return set.Name + " is being changed"
	}
	return ""
}

func replicas(set *apps.StatefulSet) int {
	if set.Spec.Replicas == nil {
		return 1
	}
	return int(*set.Spec.Replicas)
}

func serves(pod *core.Pod) bool {
	return pod.DeletionTimestamp.IsZero() && slices.ContainsFunc(pod.Status.Conditions, func(c core.PodCondition) bool {
		return c.Type == core.PodReady && c.Status == core.ConditionTrue
	})
}

// Claim says why zone may not become short now, or "": then the turn is its own, and every other zone is whole. A trial
// takes no turn.
func (k *Keeper) Claim(ctx context.Context, c Component, zone string, trial bool) (string, error) {
	why, err := k.Short(ctx, c, zone)
	if err != nil || why != "" || trial {
		return why, err
	}
	holder, err := k.take(ctx, c, zone)
	if err != nil {
		return "", err
	}
	if holder != zone {
		return fmt.Sprintf("it is the turn of %s for up to %s", holder, Turn), nil
	}
	return k.Short(ctx, c, zone) // again, as somebody may have had the turn in between
}

// take gives a zone the turn of its component, if no other has it. The turn is a Lease, so that all replicas of the
// operator see it and one of two that ask at once gets it. It returns who has it.
func (k *Keeper) take(ctx context.Context, c Component, zone string) (holder string, err error) {
	now := meta.NewMicroTime(k.Now())
	seconds := int32(Turn / time.Second)
	spec := coordination.LeaseSpec{HolderIdentity: &zone, RenewTime: &now, LeaseDurationSeconds: &seconds}
	lease := &coordination.Lease{}
	key := client.ObjectKey{Namespace: c.Namespace, Name: c.Instance + "-" + c.Name + "-zone"}
	err = k.Reader.Get(ctx, key, lease)
	switch {
	case apierrors.IsNotFound(err):
		lease = &coordination.Lease{ObjectMeta: meta.ObjectMeta{Namespace: key.Namespace, Name: key.Name, Labels: c.labels()}, Spec: spec}
		err = k.Writer.Create(ctx, lease)
	case err != nil:
	default:
		if held := lease.Spec.HolderIdentity; held != nil && *held != zone && lease.Spec.RenewTime != nil && now.Sub(lease.Spec.RenewTime.Time) < Turn {
			return *held, nil
		}
		lease.Spec = spec
		err = k.Writer.Update(ctx, lease) // fails if another took it since it was read
	}
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		return "another zone", nil
	}
	if err != nil {
		return "", fmt.Errorf("take the turn of %s: %w", key.Name, err)
	}
	return zone, nil
}
