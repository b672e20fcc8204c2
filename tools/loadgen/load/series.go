package load

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// seriesPerTarget is how many series one scrape target brings.
const seriesPerTarget = 110

type label struct{ name, value string }

// kinds of series by what their values do.
type kind uint8

const (
	constant  kind = iota // 35 %
	counter               // 30 %
	stepping              // 20 %: a gauge that moves now and then in whole steps
	noisy                 // 15 %: a float that always moves
	histogram             // as many as asked for
)

// metricNames are the names that targets share.
func metricNames() []string {
	words := strings.Fields("http request duration seconds container memory usage bytes cpu go gc grpc server handled msg " +
		"kube state node network receive transmit errors cache hits queue latency process open")
	r := rand.New(rand.NewPCG(1, 1))
	names := make([]string, 60)
	for i := range names {
		parts := make([]string, 3+r.IntN(4))
		for j := range parts {
			parts[j] = words[r.IntN(len(words))]
		}
		names[i] = strings.Join(parts, "_") + fmt.Sprintf("_%d", i)
	}
	return names
}

// Namespaces is how many namespaces the targets of a tenant are spread over.
const Namespaces = 47

// Namespace is the value of the label namespace of some targets.
func Namespace(i int) string { return fmt.Sprintf("team-%02d-prod", i%Namespaces) }

// target is one scraped process in one of its lives.
type target struct {
	tenant, number, life int
}

// common returns the labels that all series of the target have.
func (t target) common() []label {
	r := rand.New(rand.NewPCG(uint64(t.tenant)<<32|uint64(t.number), uint64(t.life)))
	apps := strings.Fields("frontend checkout ledger search gateway billing catalog session mailer indexer")
	ns := Namespace(t.number)
	service := fmt.Sprintf("service-%s-%d", apps[t.number%len(apps)], t.number%311)
	return []label{
		{"cluster", "prod-eu-west-1"}, {"container", "app"}, {"endpoint", "http-metrics"},
		{"instance", fmt.Sprintf("10.%d.%d.%d:8080", r.IntN(32), r.IntN(256), r.IntN(256))},
		{"job", ns + "/" + service}, {"namespace", ns},
		{"node", fmt.Sprintf("ip-10-%d-%d-%d.eu-west-1.compute.internal", t.number%32, t.number/32%256, t.number%7)},
		{"pod", fmt.Sprintf("%s-%010x-%05x%03x", service, r.Uint32(), t.number, t.life%4096)},
		{"prometheus", "monitoring/k8s"}, {"service", service},
	}
}

// bucketSeries says whether series k of a target is a bucket of a classic histogram.
func bucketSeries(k int) bool { return k >= 54 && k < 102 }

// own returns the labels that tell series k of a target from its others.
func own(k int, names []string) []label {
	codes := []string{"200", "204", "400", "404", "500", "503"}
	bounds := []string{"0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"}
	handlers := []string{"/api/v1/query", "/api/v1/query_range", "/api/v1/push", "/metrics"}
	const name = "__name__"
	switch {
	case k < 30:
		return []label{{name, names[k]}}
	case k < 54:
		return []label{{name, names[30+(k-30)/6] + "_total"}, {"code", codes[k%6]}, {"method", "GET"}}
	case bucketSeries(k):
		return []label{{name, names[40] + "_bucket"}, {"le", bounds[k%12]}, {"handler", handlers[(k-54)/12]}}
	}
	return []label{{name, names[50+(k-102)/2]}, {"device", fmt.Sprintf("eth%d", k%2)}}
}

// labelsOf returns the labels of series k of a target, sorted.
func labelsOf(common []label, k int, names []string) []label {
	ls := append(own(k, names), common...)
	slices.SortFunc(ls, func(a, b label) int { return strings.Compare(a.name, b.name) })
	return ls
}

// kindOf draws what the values of a series do; it depends on the series alone.
func kindOf(r *rand.Rand, histograms float64) kind {
	if histograms > 0 && r.Float64() < histograms {
		return histogram
	}
	switch p := r.Float64(); {
	case p < 0.35:
		return constant
	case p < 0.65:
		return counter
	case p < 0.85:
		return stepping
	}
	return noisy
}

// first returns the value a series begins with.
func (k kind) first(r *rand.Rand) float64 {
	switch k {
	case constant:
		return float64(r.IntN(10))
	case counter:
		return float64(r.IntN(100_000))
	case stepping:
		return float64(r.IntN(5000)) * 1024
	case histogram:
		return 1
	}
	return r.Float64() * 100
}

// next returns the value that follows v.
func (k kind) next(r *rand.Rand, v float64) float64 {
	switch k {
	case counter:
		return v + float64(r.IntN(60))
	case stepping:
		if r.IntN(3) == 0 {
			return v + float64(r.IntN(41)-20)*1024
		}
	case noisy:
		return v + r.NormFloat64()*0.3
	case histogram:
		return v + 1
	}
	return v
}
