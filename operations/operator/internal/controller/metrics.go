package controller

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/amphora-metrics/amphora/operations/operator/api/v1alpha1"
)

// gauges count resources when somebody scrapes; they are read from the cache.
type gauges struct {
	b    *Base
	desc *prometheus.Desc
}

func newGauges(b *Base) *gauges {
	return &gauges{b, prometheus.NewDesc("amphora_operator_resources",
		"Resources of a kind by whether they are in force. A rise of those that are not needs a look at their conditions.", []string{"kind", "ready"}, nil)}
}

// Describe is prometheus.Collector's.
func (g *gauges) Describe(out chan<- *prometheus.Desc) { out <- g.desc }

// Collect is prometheus.Collector's.
func (g *gauges) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	count := func(kind string, list client.ObjectList) {
		if g.b.List(ctx, list) != nil {
			return // another replica leads, or the cache is not there yet
		}
		ready := map[metav1.ConditionStatus]int{metav1.ConditionTrue: 0, metav1.ConditionFalse: 0}
		_ = meta.EachListItem(list, func(o runtime.Object) error {
			status := metav1.ConditionFalse
			if meta.IsStatusConditionTrue(conditions(o), v1alpha1.Ready) {
				status = metav1.ConditionTrue
			}
			ready[status]++
			return nil
		})
		for status, n := range ready {
			out <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, float64(n), kind, string(status))
		}
	}
	count("Cluster", &v1alpha1.ClusterList{})
	count("Tenant", &v1alpha1.TenantList{})
	count("TenantLimits", &v1alpha1.TenantLimitsList{})
	count("RuleNamespace", &v1alpha1.RuleNamespaceList{})
	count("AlertmanagerConfig", &v1alpha1.AlertmanagerConfigList{})
}

func conditions(o runtime.Object) []metav1.Condition {
	switch o := o.(type) {
	case *v1alpha1.Cluster:
		return o.Status.Conditions
	case *v1alpha1.Tenant:
		return o.Status.Conditions
	case *v1alpha1.TenantLimits:
		return o.Status.Conditions
	case *v1alpha1.RuleNamespace:
		return o.Status.Conditions
	case *v1alpha1.AlertmanagerConfig:
		return o.Status.Conditions
	}
	return nil
}
