package telemetry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
)

// ownNamespace begins the name of every metric in our code.
const ownNamespace = "amphora"

// cortexNamespace is the one existing dashboards are made for.
const cortexNamespace = "cortex"

// Registry holds the metrics of the process. In the code all of ours are named amphora_...; the
// setting metrics.namespace changes that word when they are gathered, so that nobody else has to
// know it. Names of libraries (go_, process_, grpc_, ...) stay.
type Registry struct {
	*prometheus.Registry

	namespace string

	mu    sync.Mutex // guards names
	names map[string]*string
}

// NewRegistry returns a registry with the metrics of the Go runtime, the process and the build.
func NewRegistry(cfg Config) *Registry {
	r := &Registry{Registry: prometheus.NewRegistry(), namespace: cfg.Namespace, names: map[string]*string{}}
	if r.namespace == "" {
		r.namespace = ownNamespace
	}
	b := BuildInfo()
	r.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "amphora_build_info",
			Help:        "Always 1; its labels say what this process was built from.",
			ConstLabels: prometheus.Labels{"version": b.Version, "revision": b.Revision, "branch": b.Branch, "goversion": b.GoVersion},
		}, func() float64 { return 1 }),
	)
	return r
}

// Beside returns an empty registry whose metrics get the same namespace, for a page of its own.
func (r *Registry) Beside() *Registry {
	return &Registry{Registry: prometheus.NewRegistry(), namespace: r.namespace, names: map[string]*string{}}
}

// Prefixed returns a registerer for libraries whose metrics have no prefix of their own, such as
// dskit's: they become ours.
func (r *Registry) Prefixed() prometheus.Registerer {
	return prometheus.WrapRegistererWithPrefix(ownNamespace+"_", r.Registry)
}

// Gather returns all metrics under the names the outside sees, sorted by name. Like that of
// prometheus.Registry it may return both families and an error.
func (r *Registry) Gather() ([]*dto.MetricFamily, error) {
	families, err := r.Registry.Gather()
	if r.namespace == ownNamespace {
		return families, err
	}
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), ownNamespace+"_") {
			f.Name = r.renamed(f.GetName())
		}
	}
	if r.namespace == cortexNamespace {
		families = append(families, mimirBuildInfo(families)...)
	}
	byName := func(a, b *dto.MetricFamily) int { return cmp.Compare(a.GetName(), b.GetName()) }
	slices.SortStableFunc(families, byName)
	unique := slices.CompactFunc(families, func(a, b *dto.MetricFamily) bool {
		if a.GetName() != b.GetName() {
			return false
		}
		err = errors.Join(err, fmt.Errorf("metric %s exists twice once our metrics are named %s_", a.GetName(), r.namespace))
		return true
	})
	return unique, err
}

// renamed returns name with our namespace replaced. Each name is built once: a large process has
// thousands of scrapes of hundreds of names.
func (r *Registry) renamed(name string) *string {
	r.mu.Lock()
	defer r.mu.Unlock()
	to, ok := r.names[name]
	if !ok {
		s := r.namespace + strings.TrimPrefix(name, ownNamespace)
		to = &s
		r.names[name] = to
	}
	return to
}

// mimirBuildInfo returns the build information under the second name by which existing alerts
// know it.
func mimirBuildInfo(families []*dto.MetricFamily) []*dto.MetricFamily {
	for _, f := range families {
		if f.GetName() == cortexNamespace+"_build_info" {
			name := "mimir_build_info"
			return []*dto.MetricFamily{{Name: &name, Help: f.Help, Type: f.Type, Metric: f.Metric}}
		}
	}
	return nil
}

// scrapesAtOnce bounds concurrent scrapes: each copies every metric.
const scrapesAtOnce = 8

// scrapeLog implements promhttp.Logger. A client that goes away during a scrape is told of for every family of metrics
// that follows, and is nobody's error here.
type scrapeLog struct{ log *slog.Logger }

// Println implements promhttp.Logger.
func (l scrapeLog) Println(v ...any) {
	level := slog.LevelError
	for _, x := range v {
		if err, ok := x.(error); ok {
			if _, gone := errors.AsType[*net.OpError](err); gone {
				level = slog.LevelDebug
			}
		}
	}
	l.log.Log(context.Background(), level, "scrape of the own metrics failed", "err", strings.TrimSpace(fmt.Sprintln(v...)))
}

// Handler serves the metrics as text, OpenMetrics or, with native histograms, protobuf.
func (r *Registry) Handler(log *slog.Logger) http.Handler {
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{
		ErrorLog:            scrapeLog{log.With("in", "metrics handler")},
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: scrapesAtOnce,
		EnableOpenMetrics:   true,
	})
}
