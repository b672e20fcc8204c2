package eviction

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/amphora-metrics/amphora/operations/operator/internal/zones"
)

// guard watches over an ingester in each of two zones, and a pod without a zone.
func guard(t *testing.T, readyB bool) *Guard {
	t.Helper()
	b := fake.NewClientBuilder().WithScheme(scheme.Scheme)
	for zone, ready := range map[string]bool{"a": true, "b": readyB} {
		labels := map[string]string{zones.NameLabel: zones.Product, zones.InstanceLabel: "prod", zones.ComponentLabel: "ingester", zones.ZoneLabel: zone}
		set := &apps.StatefulSet{ObjectMeta: meta.ObjectMeta{Namespace: "m", Name: "ingester-" + zone, Labels: labels}}
		set.Spec.Template.Labels, set.Status = labels, apps.StatefulSetStatus{Replicas: 1, UpdatedReplicas: 1}
		pod := &core.Pod{ObjectMeta: meta.ObjectMeta{Namespace: "m", Name: "ingester-" + zone + "-0", Labels: labels}}
		if ready {
			pod.Status.Conditions = []core.PodCondition{{Type: core.PodReady, Status: core.ConditionTrue}}
		}
		b.WithObjects(set, pod)
	}
	c := b.WithObjects(&core.Pod{ObjectMeta: meta.ObjectMeta{Namespace: "m", Name: "querier", Labels: map[string]string{zones.NameLabel: zones.Product}}}).Build()
	return &Guard{Reader: c, Asked: NewCounter(prometheus.NewRegistry()), Zones: &zones.Keeper{Reader: c, Writer: c, Now: time.Now}}
}

func (g *Guard) ask(pod string, dry bool) admission.Response {
	return g.Handle(context.Background(), admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{Namespace: "m", Name: pod, DryRun: &dry}})
}

func TestASecondZoneIsNotEvictedFrom(t *testing.T) {
	g := guard(t, true)
	if r := g.ask("ingester-a-0", false); !r.Allowed {
		t.Fatalf("the first: %v", r.Result)
	}
	// Kubernetes does not show yet that the pod goes: the turn alone holds the other zone.
	if r := g.ask("ingester-b-0", false); r.Allowed || r.Result.Code != http.StatusTooManyRequests {
		t.Errorf("a pod of the second zone at once: allowed %v, %v; a drain tries again after 429 only", r.Allowed, r.Result)
	}
	if r := g.ask("querier", false); !r.Allowed {
		t.Errorf("a pod without a zone: %v", r.Result)
	}
	if r := g.ask("nobody", false); !r.Allowed {
		t.Errorf("a pod that is gone: %v", r.Result)
	}
}

func TestNoEvictionWhileAnotherZoneIsShort(t *testing.T) {
	g := guard(t, false)
	if r := g.ask("ingester-a-0", false); r.Allowed {
		t.Error("a pod of zone a was let go while zone b is short")
	}
	if r := g.ask("ingester-b-0", false); !r.Allowed {
		t.Errorf("a pod of the short zone: %v", r.Result)
	}
}

func TestADryRunOfAnEvictionHoldsNobody(t *testing.T) {
	g := guard(t, true)
	if r := g.ask("ingester-a-0", true); !r.Allowed {
		t.Fatal(r.Result)
	}
	if r := g.ask("ingester-b-0", false); !r.Allowed {
		t.Errorf("after a dry run: %v", r.Result)
	}
}
