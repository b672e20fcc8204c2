package alertmanager

import (
	"fmt"
	"log/slog"
	"testing"

	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// BenchmarkTenantsStart starts a replica that has the configurations of many tenants to run.
func BenchmarkTenantsStart(b *testing.B) {
	const tenants = 200
	b.Run(fmt.Sprintf("tenants=%d", tenants), func(b *testing.B) {
		b.ReportAllocs()
		data, err := encodeDefinition(Definition{Config: "route:\n  receiver: r\nreceivers:\n- name: r\n  webhook_configs:\n  - url: http://127.0.0.1:1\n"})
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			b.StopTimer()
			c := &fleet{bucket: objstore.NewInMemBucket(), dirs: map[string]string{}, nodes: map[string]*Alertmanager{}, order: []string{"am-0"}, docs: map[tenant.ID][]byte{}}
			for i := range tenants {
				c.docs[tenant.ID(fmt.Sprint("t", i))] = data
			}
			var cfg Config
			set := config.NewSet()
			set.Mount("alertmanager", &cfg)
			cfg.DataDir = ""
			m, err := New(cfg, Deps{Logger: slog.New(slog.DiscardHandler), Reg: prometheus.NewRegistry(), Limits: func(tenant.ID) limits.View { return limits.View{} },
				Definitions: c, Bucket: c.bucket, Self: "am-0", Replicas: c.replicas, Client: c.client})
			if err != nil {
				b.Fatal(err)
			}
			c.nodes["am-0"] = m
			b.StartTimer()
			if err := services.StartAndAwaitRunning(b.Context(), m); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			if n := len(m.instances); n != tenants {
				b.Fatalf("%d tenants run", n)
			}
			if err := services.StopAndAwaitTerminated(b.Context(), m); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
		b.ReportMetric(float64(tenants*b.N)/b.Elapsed().Seconds(), "tenants/s")
	})
}
