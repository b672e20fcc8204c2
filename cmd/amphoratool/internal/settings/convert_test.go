package settings

import (
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/app"
	"github.com/amphora-metrics/amphora/pkg/config"
)

func TestAConfigurationOfMimirBecomesOursWithAReport(t *testing.T) {
	c := newConversion()
	err := c.ConvertYAML([]byte(`
multitenancy_enabled: true
usage_stats: {enabled: false}
common:
  storage:
    backend: s3
    s3: {endpoint: "s3.example:9000", bucket_name: blocks, insecure: true}
blocks_storage:
  tsdb: {dir: /data/tsdb, stripe_size: 1}
ingester:
  ring: {replication_factor: 3, kvstore: {store: memberlist}}
limits:
  ingestion_rate: 1000
  no_such_limit: 1
`))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := c.Document()
	if err != nil {
		t.Fatal(err)
	}
	data, err := yaml.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	var conf app.Config
	set := config.NewSet()
	set.Mount("", &conf)
	if err := set.LoadYAML("converted", data); err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
	if conf.Bucket.Backend != "s3" || conf.Bucket.S3.BucketName != "blocks" || !conf.Bucket.S3.Insecure {
		t.Errorf("%+v", conf.Bucket)
	}
	dropped := strings.Join(c.Dropped, "\n")
	for _, want := range []string{"usage_stats.enabled: nothing calls home", "blocks_storage.tsdb.stripe_size", "limits.no_such_limit: there is no such setting", "ingester.ring.kvstore.store"} {
		if !strings.Contains(dropped, want) {
			t.Errorf("%q is not said to be left out:\n%s", want, dropped)
		}
	}
	if !slices.Contains(c.Moved, "blocks_storage.tsdb.dir -> ingester.data_dir") {
		t.Errorf("%q", c.Moved)
	}
}

func TestOverridesOfTenantsAreTrimmedToWhatThereIs(t *testing.T) {
	c := newConversion()
	out, err := c.ConvertOverrides([]byte("overrides:\n  a: {ingestion_rate: 5, no_such_limit: 1}\n  b: {max_series_per_user: 1}\nmulti_kv_config: {primary: etcd}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if text := string(out); !strings.Contains(text, "ingestion_rate: 5") || strings.Contains(text, "no_such") || strings.Contains(text, "multi_kv") {
		t.Errorf("%s", text)
	}
	if len(c.Dropped) != 3 || !strings.Contains(c.Dropped[1], "max_global_series_per_user") {
		t.Errorf("%q", c.Dropped)
	}
}

// Every place that something moves to must exist.
func TestSettingsMoveOnlyToSettingsThatExist(t *testing.T) {
	c := newConversion()
	for _, row := range moves() {
		if row[1] == "" {
			continue
		}
		found := false
		for path := range c.fields {
			found = found || path == row[1] || strings.HasPrefix(path, row[1]+".")
		}
		if !found {
			t.Errorf("%s moves to %s, which does not exist", row[0], row[1])
		}
	}
}
