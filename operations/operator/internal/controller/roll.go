package controller

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/amphora-metrics/amphora/operations/operator/api/v1alpha1"
	"github.com/amphora-metrics/amphora/operations/operator/internal/zones"
)

// ingesters are the components whose pods have samples that are nowhere else in their zone.
func ingesters() []string { return []string{"ingester", "write"} }

// roll applies the StatefulSets of zones: new ones at once, changes one zone of a component at a time, when all
// pods of its other zones are ready.
func (r *clusters) roll(ctx context.Context, c *v1alpha1.Cluster, zoned map[string][]*unstructured.Unstructured) (waits []string, err error) {
	var status []v1alpha1.ZoneStatus
	for _, component := range slices.Sorted(maps.Keys(zoned)) {
		moved := false
		for _, want := range zoned[component] {
			z, wait, err := r.rollZone(ctx, c, want, !moved)
			if err != nil {
				return nil, err
			}
			moved = moved || wait == changing
			if wait != "" {
				waits = append(waits, want.GetName()+" "+wait)
			}
			status = append(status, z)
		}
	}
	c.Status.Zones = status
	return waits, nil
}

const changing = "is being changed"

// rollZone brings one StatefulSet further. It may begin a change if may, and then returns changing.
func (r *clusters) rollZone(ctx context.Context, c *v1alpha1.Cluster, want *unstructured.Unstructured, may bool) (z v1alpha1.ZoneStatus, wait string, err error) {
	component, zone := zoneOf(want)
	z = v1alpha1.ZoneStatus{Name: want.GetName(), Component: component, Zone: zone}
	live := &apps.StatefulSet{}
	err = r.Reader.Get(ctx, client.ObjectKeyFromObject(want), live)
	if apierrors.IsNotFound(err) {
		err = r.apply(ctx, c, want)
		z.Generation = want.GetGeneration()
		return z, changing, err
	}
	if err != nil {
		return z, "", fmt.Errorf("read StatefulSet: %w", err)
	}
	for _, known := range c.Status.Zones {
		if known.Name == z.Name {
			z.Generation = known.Generation
		}
	}
	hash := mark(want)
	if live.Annotations[appliedMark] == hash && live.Generation == z.Generation {
		wait, err = r.zones.Lack(ctx, live)
		z.Current = wait == "" && err == nil
		if wait != "" {
			wait = "is as asked for, but " + wait
		}
		return z, wait, err
	}
	if !may {
		return z, "waits for its turn", nil
	}
	why, err := r.zones.Claim(ctx, zones.Component{Namespace: c.Namespace, Instance: c.Name, Name: component}, zone, false)
	if err != nil || why != "" {
		return z, "waits for its turn: " + why, err
	}
	replicas, _, _ := unstructured.NestedInt64(want.Object, "spec", "replicas")
	back, wait, err := r.shrink(ctx, live, component, int(replicas))
	if err != nil || wait != "" {
		return z, wait, err
	}
	if err := r.apply(ctx, c, want); err != nil {
		back()
		return z, "", err
	}
	z.Generation = want.GetGeneration()
	return z, changing, nil
}

// retire empties a StatefulSet that no longer belongs to its cluster, in its turn, and says what is waited for.
func (r *clusters) retire(ctx context.Context, o *unstructured.Unstructured) (wait string, err error) {
	live := &apps.StatefulSet{}
	if err := r.Reader.Get(ctx, client.ObjectKeyFromObject(o), live); err != nil {
		return "", client.IgnoreNotFound(err)
	}
	if live.Spec.Replicas != nil && *live.Spec.Replicas == 0 {
		if live.Status.ObservedGeneration < live.Generation || live.Status.Replicas > 0 {
			return live.Name + " ships what its pods have", nil
		}
		return "", nil
	}
	component, zone := zones.Of(live.Namespace, live.Spec.Template.Labels)
	why, err := r.zones.Claim(ctx, component, zone, false)
	if err != nil || why != "" {
		return live.Name + " waits for its turn to go: " + why, err
	}
	back, wait, err := r.shrink(ctx, live, component.Name, 0)
	if err != nil || wait != "" {
		return live.Name + " " + wait, err
	}
	patch := client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"replicas":0}}`))
	if err := r.Patch(ctx, live, patch, client.FieldOwner(manager)); err != nil {
		back()
		return "", fmt.Errorf("empty StatefulSet: %w", err)
	}
	return live.Name + " ships what its pods have", nil
}

// shrink tells those ingesters that go with fewer replicas to ship what they have and leave the ring when they stop. What it
// returns takes that back.
func (r *clusters) shrink(ctx context.Context, live *apps.StatefulSet, component string, replicas int) (back func(), wait string, err error) {
	back = func() {}
	if !slices.Contains(ingesters(), component) || live.Spec.Replicas == nil || replicas >= int(*live.Spec.Replicas) {
		return back, "", nil
	}
	var told []string
	back = func() {
		for _, ip := range told {
			_ = r.prepare(ctx, http.MethodDelete, ip) // one that stays prepared ships at its next stop, and loses nothing
		}
	}
	for i := replicas; i < int(*live.Spec.Replicas); i++ {
		pod := &core.Pod{}
		err := r.Reader.Get(ctx, client.ObjectKey{Namespace: live.Namespace, Name: live.Name + "-" + strconv.Itoa(i)}, pod)
		if err == nil && pod.Status.PodIP == "" {
			err = errors.New("it has no address")
		}
		if err == nil {
			told = append(told, pod.Status.PodIP)
			err = r.prepare(ctx, http.MethodPost, pod.Status.PodIP)
		}
		if err != nil {
			back()
			return back, fmt.Sprintf("cannot shrink: %s-%d cannot be told to ship what it has: %v", live.Name, i, err), nil
		}
	}
	return back, "", nil
}

// prepare sets or takes back that an ingester ships everything and leaves the ring when it stops.
func (r *clusters) prepare(ctx context.Context, method, ip string) error {
	url := "http://" + net.JoinHostPort(ip, strconv.Itoa(r.innerPort)) + "/ingester/prepare-shutdown"
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return err
	}
	res, err := r.HTTP.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }() // it was read
	text, err := io.ReadAll(io.LimitReader(res.Body, 512))
	if err == nil && res.StatusCode >= 300 {
		err = fmt.Errorf("%d %s", res.StatusCode, strings.TrimSpace(string(text)))
	}
	return err
}
