// Program operator reconciles Amphora clusters and their tenants from Kubernetes resources, and restricts evictions to
// one zone at a time.
package main

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/go-logr/logr"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/amphora-metrics/amphora/operations/operator/api/v1alpha1"
	"github.com/amphora-metrics/amphora/operations/operator/internal/controller"
	"github.com/amphora-metrics/amphora/operations/operator/internal/eviction"
	"github.com/amphora-metrics/amphora/operations/operator/internal/zones"
)

type settings struct {
	metrics, health, certs, namespaces string
	webhookPort                        int
	elect                              bool
	resync, timeout                    time.Duration
}

func (s *settings) declare(f *flag.FlagSet) {
	f.StringVar(&s.metrics, "metrics-address", ":8080", "Where /metrics is; 0 for nowhere.")
	f.StringVar(&s.health, "health-address", ":8081", "Where /healthz and /readyz are.")
	f.StringVar(&s.certs, "webhook-certs", "", "Directory with tls.crt and tls.key of the webhook that guards evictions. Empty: there is none.")
	f.IntVar(&s.webhookPort, "webhook-port", 9443, "Port of the webhook.")
	f.StringVar(&s.namespaces, "namespaces", "", "Namespaces whose resources count, by comma. Empty: all.")
	f.BoolVar(&s.elect, "leader-election", true, "Whether one of several replicas leads, by a Lease in the namespace of the pod.")
	f.DurationVar(&s.resync, "resync", time.Minute, "How often what is in force is compared with what is asked for.")
	f.DurationVar(&s.timeout, "timeout", 30*time.Second, "How long a call of a cluster may take.")
}

func main() {
	var s settings
	s.declare(flag.CommandLine)
	flag.Parse()
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	ctrl.SetLogger(logr.FromSlogHandler(log.Handler()))
	if err := run(&s); err != nil {
		log.Error("the operator ends", "err", err)
		os.Exit(1)
	}
}

func run(s *settings) error {
	if flag.NArg() > 0 {
		return fmt.Errorf("unknown argument %q: everything is said by flags", flag.Arg(0))
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("find the API server: %w", err)
	}
	mgr, err := newManager(s, config)
	if err != nil {
		return err
	}
	return mgr.Start(ctrl.SetupSignalHandler())
}

func newManager(s *settings, config *rest.Config) (ctrl.Manager, error) {
	all := runtime.NewScheme()
	if err := errors.Join(scheme.AddToScheme(all), v1alpha1.AddToScheme(all)); err != nil {
		return nil, err
	}
	ours := cache.ByObject{Label: labels.SelectorFromSet(labels.Set{"app.kubernetes.io/managed-by": "amphora-operator"})}
	options := ctrl.Options{
		Scheme: all, HealthProbeBindAddress: s.health, Metrics: server.Options{BindAddress: s.metrics},
		LeaderElection: s.elect, LeaderElectionID: "amphora-operator", LeaderElectionReleaseOnCancel: true,
		Cache: cache.Options{ByObject: map[client.Object]cache.ByObject{&core.ConfigMap{}: ours, &apps.StatefulSet{}: ours, &apps.Deployment{}: ours}},
	}
	if s.namespaces != "" {
		options.Cache.DefaultNamespaces = map[string]cache.Config{}
		for name := range strings.SplitSeq(s.namespaces, ",") {
			options.Cache.DefaultNamespaces[name] = cache.Config{}
		}
	}
	if s.certs != "" {
		options.WebhookServer = webhook.NewServer(webhook.Options{Port: s.webhookPort, CertDir: s.certs})
	}
	mgr, err := ctrl.NewManager(config, options)
	if err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	installer, err := controller.NewInstaller()
	if err != nil {
		return nil, err
	}
	if own := os.Getenv("POD_NAMESPACE"); own != "" {
		installer.Peer = map[string]any{
			"namespaceSelector": map[string]any{"matchLabels": map[string]any{"kubernetes.io/metadata.name": own}},
			"podSelector":       map[string]any{"matchLabels": map[string]any{"app.kubernetes.io/name": "amphora-operator"}},
		}
	}
	base := &controller.Base{Client: mgr.GetClient(), Reader: mgr.GetAPIReader(), HTTP: caller(s.timeout), Resync: s.resync}
	if err := controller.Setup(mgr, base, installer, metrics.Registry); err != nil {
		return nil, err
	}
	ready := healthz.Ping
	if s.certs != "" {
		mgr.GetWebhookServer().Register("/evictions", &webhook.Admission{Handler: &eviction.Guard{
			Reader: base.Reader, Asked: eviction.NewCounter(metrics.Registry),
			Zones: &zones.Keeper{Reader: base.Reader, Writer: base.Client, Now: time.Now},
		}})
		ready = mgr.GetWebhookServer().StartedChecker()
	}
	return mgr, errors.Join(mgr.AddHealthzCheck("alive", healthz.Ping), mgr.AddReadyzCheck("ready", ready))
}

// caller follows no redirections, as it shows credentials.
func caller(timeout time.Duration) *http.Client {
	return &http.Client{Timeout: timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}
