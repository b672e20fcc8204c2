package zones

import (
	"context"
	"strings"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	coordination "k8s.io/api/coordination/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

func labels(zone string) map[string]string {
	return map[string]string{NameLabel: Product, InstanceLabel: "prod", ComponentLabel: "ingester", ZoneLabel: zone}
}

func part() Component { return Component{"metrics", "prod", "ingester"} }

// world is a component of two zones with two pods each.
func world(t *testing.T) (*Keeper, client.Client, *time.Time) {
	t.Helper()
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{apps.AddToScheme, core.AddToScheme, coordination.AddToScheme} {
		if err := add(s); err != nil {
			t.Fatal(err)
		}
	}
	b := fake.NewClientBuilder().WithScheme(s)
	for _, zone := range []string{"a", "b"} {
		two := int32(2)
		set := &apps.StatefulSet{ObjectMeta: meta.ObjectMeta{Namespace: "metrics", Name: "prod-ingester-" + zone, Labels: labels("")}}
		set.Spec.Replicas, set.Spec.Template.Labels = &two, labels(zone)
		set.Status = apps.StatefulSetStatus{Replicas: 2, ReadyReplicas: 2, UpdatedReplicas: 2}
		b.WithObjects(set)
		for _, n := range []string{"0", "1"} {
			pod := &core.Pod{ObjectMeta: meta.ObjectMeta{Namespace: "metrics", Name: set.Name + "-" + n, Labels: labels(zone)}}
			pod.Status.Conditions = []core.PodCondition{{Type: core.PodReady, Status: core.ConditionTrue}}
			b.WithObjects(pod)
		}
	}
	c := b.Build()
	now := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	return &Keeper{Reader: c, Writer: c, Now: func() time.Time { return now }}, c, &now
}

func claim(t *testing.T, k *Keeper, zone string, trial bool) string {
	t.Helper()
	why, err := k.Claim(context.Background(), part(), zone, trial)
	if err != nil {
		t.Fatal(err)
	}
	return why
}

func TestOneZoneHasTheTurnUntilItEnds(t *testing.T) {
	k, _, now := world(t)
	if why := claim(t, k, "a", false); why != "" {
		t.Fatalf("the first zone that asks: %s", why)
	}
	if why := claim(t, k, "b", false); !strings.Contains(why, "turn of a") {
		t.Errorf("another zone in the turn of a: %q", why)
	}
	*now = now.Add(Turn - time.Second)
	if why := claim(t, k, "a", false); why != "" {
		t.Errorf("the same zone again: %s", why)
	}
	*now = now.Add(Turn - time.Second)
	if why := claim(t, k, "b", false); why == "" {
		t.Error("the turn ended although a had asked again")
	}
	*now = now.Add(2 * time.Second)
	if why := claim(t, k, "b", false); why != "" {
		t.Errorf("after the turn of a: %s", why)
	}
}

func TestATrialTakesNoTurn(t *testing.T) {
	k, _, _ := world(t)
	if why := claim(t, k, "a", true); why != "" {
		t.Fatal(why)
	}
	if why := claim(t, k, "b", false); why != "" {
		t.Errorf("a trial took the turn: %s", why)
	}
}

func TestAZoneWaitsWhileAnotherIsShort(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *testing.T, c client.Client)
		says   string
	}{
		"a pod is not ready": {func(t *testing.T, c client.Client) {
			pod := get(t, c, &core.Pod{}, "prod-ingester-b-1")
			pod.Status.Conditions[0].Status = core.ConditionFalse
			must(t, c.Status().Update(context.Background(), pod))
		}, "1 of 2 pods of prod-ingester-b"},
		"a pod is not there": {func(t *testing.T, c client.Client) {
			must(t, c.Delete(context.Background(), get(t, c, &core.Pod{}, "prod-ingester-b-0")))
		}, "1 of 2 pods of prod-ingester-b"},
		"more pods are wanted": {func(t *testing.T, c client.Client) {
			set, three := get(t, c, &apps.StatefulSet{}, "prod-ingester-b"), int32(3)
			set.Spec.Replicas = &three
			must(t, c.Update(context.Background(), set))
		}, "2 of 3 pods of prod-ingester-b"},
		"a rollout is between two pods": {func(t *testing.T, c client.Client) {
			set := get(t, c, &apps.StatefulSet{}, "prod-ingester-b")
			set.Status.CurrentRevision, set.Status.UpdateRevision, set.Status.UpdatedReplicas = "1", "2", 1
			must(t, c.Status().Update(context.Background(), set))
		}, "being changed"},
	} {
		t.Run(name, func(t *testing.T) {
			k, cl, _ := world(t)
			c.change(t, cl)
			if why := claim(t, k, "a", false); !strings.Contains(why, c.says) {
				t.Errorf("zone a: %q, want %q", why, c.says)
			}
			if why := claim(t, k, "b", false); why != "" {
				t.Errorf("the short zone itself must get its turn: %s", why)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func get[T client.Object](t *testing.T, c client.Client, o T, name string) T {
	t.Helper()
	must(t, c.Get(context.Background(), client.ObjectKey{Namespace: "metrics", Name: name}, o))
	return o
}
