// Package eviction owns the admission webhook that decides on pod evictions.
package eviction

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/amphora-metrics/amphora/operations/operator/internal/zones"
)

// Guard refuses an eviction that would leave two zones of a component short at once.
type Guard struct {
	Zones  *zones.Keeper
	Asked  *prometheus.CounterVec // label: answer
	Reader client.Reader
}

// NewCounter is what a Guard counts its answers with.
func NewCounter(reg prometheus.Registerer) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "amphora_operator_evictions_total",
		Help: "Evictions of pods with a zone that were allowed or refused. A rise of refused while nothing drains says that a zone stays short.",
	}, []string{"answer"})
	reg.MustRegister(c)
	return c
}

// Handle answers one request for an eviction.
func (g *Guard) Handle(ctx context.Context, req admission.Request) admission.Response {
	pod := &core.Pod{}
	err := g.Reader.Get(ctx, client.ObjectKey{Namespace: req.Namespace, Name: req.Name}, pod)
	if apierrors.IsNotFound(err) {
		return admission.Allowed("there is no such pod")
	}
	if err != nil {
		return admission.Errored(http.StatusInternalServerError, err)
	}
	component, zone := zones.Of(pod.Namespace, pod.Labels)
	if zone == "" || finished(pod) {
		return admission.Allowed("")
	}
	why, err := g.Zones.Claim(ctx, component, zone, req.DryRun != nil && *req.DryRun)
	if err != nil {
		return admission.Errored(http.StatusInternalServerError, err)
	}
	if why != "" {
		return g.refuse(fmt.Sprintf("%s of %s may lose one zone at a time: %s; try again later", component.Name, component.Instance, why))
	}
	g.Asked.WithLabelValues("allowed").Inc()
	return admission.Allowed("")
}

// finished pods serve nobody.
func finished(pod *core.Pod) bool {
	return slices.Contains([]core.PodPhase{core.PodSucceeded, core.PodFailed}, pod.Status.Phase)
}

// refuse answers as a disruption budget does, so that whoever drains tries again.
func (g *Guard) refuse(message string) admission.Response {
	g.Asked.WithLabelValues("refused").Inc()
	r := admission.Denied(message)
	r.Result = &meta.Status{Status: meta.StatusFailure, Code: http.StatusTooManyRequests, Reason: meta.StatusReasonTooManyRequests, Message: message}
	return r
}
