package limits

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/amphora-metrics/amphora/pkg/config"
)

func TestLimitsOfTenantsWithOverridesAreMetrics(t *testing.T) {
	file := filepath.Join(t.TempDir(), "limits.yaml")
	if err := os.WriteFile(file, []byte("overrides: {team: {ingestion_rate: 7}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var defaults Defaults
	var runtime RuntimeConfig
	set := config.NewSet()
	set.Mount("limits", &defaults)
	set.Mount("runtime", &runtime)
	runtime.Files = []string{file}
	reg := prometheus.NewRegistry()
	o := NewOverrides(&defaults, runtime, Deps{Reg: prometheus.NewRegistry()})
	if err := o.starting(t.Context()); err != nil {
		t.Fatal(err)
	}
	reg.MustRegister(o.Exporter(ExportConfig{Names: []string{"ingestion_rate", "max_global_series_per_user", "ingestion_rate"}}))
	want := `
# HELP amphora_limits_defaults A limit of tenants that have no other.
# TYPE amphora_limits_defaults gauge
amphora_limits_defaults{limit_name="ingestion_rate"} 10000
amphora_limits_defaults{limit_name="max_global_series_per_user"} 150000
# HELP amphora_limits_overrides A limit of a tenant that has overrides.
# TYPE amphora_limits_overrides gauge
amphora_limits_overrides{limit_name="ingestion_rate",user="team"} 7
amphora_limits_overrides{limit_name="max_global_series_per_user",user="team"} 150000
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}

func TestOnlyNumbersCanBeExported(t *testing.T) {
	for names, ok := range map[string]bool{"ingestion_rate": true, "nothing": false, "drop_labels": false} {
		c := ExportConfig{Names: strings.Split(names, ",")}
		if err := c.Validate(); (err == nil) != ok {
			t.Errorf("%s: %v", names, err)
		}
	}
	c := ExportConfig{Names: exported()}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}
