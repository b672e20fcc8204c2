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
	for _, want := range []string{"usage_stats.enabled: nothing calls home", "blocks_storage.tsdb.stripe_size", "limits.no_such_limit: there is no such setting"} {
		if !strings.Contains(dropped, want) {
			t.Errorf("%q is not said to be left out:\n%s", want, dropped)
		}
	}
	if !slices.Contains(c.Moved, "blocks_storage.tsdb.dir -> ingester.data_dir") {
		t.Errorf("%q", c.Moved)
	}
}

// converted reads what a conversion amounts to.
func converted(t *testing.T, c *Conversion) app.Config {
	t.Helper()
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
	return conf
}

func TestStoresOfRingsBecomeTheOneOfAllRings(t *testing.T) {
	c := newConversion()
	err := c.ConvertYAML([]byte(`
distributor:
  ring: {kvstore: {store: etcd}}
  ha_tracker: {enable_ha_tracker: true, kvstore: {store: consul, prefix: ha-tracker/, consul: {host: "localhost:8501", acl_token: confidential}}}
ruler: {ring: {kvstore: {store: inmemory}}}
ingester:
  ring:
    kvstore:
      store: multi
      prefix: collectors/
      consul: {host: "localhost:8500", consistent_reads: true, acl_token: secret-of-consul}
      etcd: {endpoints: ["localhost:2379", "localhost:2380"], tls_enabled: true, tls_insecure_skip_verify: true}
      multi: {primary: consul, secondary: etcd, mirror_enabled: true}
  partition_ring: {kvstore: {store: etcd}}
store_gateway: {sharding_ring: {kvstore: {store: multi, etcd: {endpoints: ["localhost:2379", "localhost:2380"]}}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	conf := converted(t, c)
	k := conf.KVStore
	if k.Store != "multi" || k.Prefix != "amphora/collectors/" || k.Multi.Primary != "consul" || k.Multi.Secondary != "etcd" || !k.Multi.Mirror {
		t.Errorf("%+v", k)
	}
	if k.Consul.Host != "localhost:8500" || !k.Consul.ConsistentReads || k.Consul.Token.Reveal() != "secret-of-consul" || !slices.Equal(k.Etcd.Endpoints, []string{"localhost:2379", "localhost:2380"}) || !k.Etcd.TLS {
		t.Errorf("%+v", k)
	}
	if conf.Distributor.Replicas.Store != "consul" {
		t.Errorf("elected replicas are in %q", conf.Distributor.Replicas.Store)
	}
	dropped := strings.Join(c.Dropped, "\n")
	for _, want := range []string{
		"distributor.ring.kvstore.store: all rings are in one store, and ingester.ring.kvstore.store says multi",
		"distributor.ha_tracker.kvstore.prefix: all rings", "distributor.ha_tracker.kvstore.consul.host: all rings",
		"distributor.ha_tracker.kvstore.consul.acl_token: all rings are in one store, and ingester.ring.kvstore.consul.acl_token says another one",
		"ruler.ring.kvstore.store: a process that runs alone", "ingester.ring.kvstore.etcd.tls_insecure_skip_verify: there is no such setting of kvstore.etcd",
		"ingester.partition_ring.kvstore.store: there is no partition ring",
	} {
		if !strings.Contains(dropped, want) {
			t.Errorf("%q is not said to be left out:\n%s", want, dropped)
		}
	}
	if len(c.Dropped) != 7 || strings.Contains(dropped, "secret-of-consul") || strings.Contains(dropped, "confidential") {
		t.Errorf("left out:\n%s", dropped)
	}
	if moved := strings.Join(c.Moved, "\n"); !strings.Contains(moved, "ingester.ring.kvstore.prefix -> kvstore.prefix (as amphora/collectors/") {
		t.Errorf("moved:\n%s", moved)
	}
}

func TestFlagsOfStoresOfRingsWinOverTheFile(t *testing.T) {
	for name, c := range map[string]struct{ yaml, flags, store, host string }{
		"of Mimir":          {"ingester: {ring: {kvstore: {store: memberlist}}}", "-ingester.ring.store=consul\n-ingester.ring.consul.hostname=localhost:1\n-ruler.ring.store=consul", "consul", "localhost:1"},
		"of Cortex":         {"ingester: {lifecycler: {ring: {kvstore: {store: etcd}}}}", "-ring.store=consul\n-consul.hostname=localhost:1", "consul", "localhost:1"},
		"of a ring of many": {"", "-compactor.ring.store=consul\n-store-gateway.sharding-ring.consul.hostname=localhost:1", "consul", "localhost:1"},
	} {
		t.Run(name, func(t *testing.T) {
			conv := newConversion()
			if err := conv.ConvertYAML([]byte(c.yaml)); err != nil {
				t.Fatal(err)
			}
			conv.ConvertFlags(c.flags + "\n-common.storage.backend=gcs\n-no-such.flag=1")
			conf := converted(t, conv)
			if conf.KVStore.Store != c.store || conf.KVStore.Consul.Host != c.host || conf.Bucket.Backend != "gcs" {
				t.Errorf("%+v, blocks in %s", conf.KVStore, conf.Bucket.Backend)
			}
			if !slices.Equal(conv.Dropped, []string{"-no-such.flag: there is no such flag"}) {
				t.Errorf("%q", conv.Dropped)
			}
		})
	}
}

func TestOverridesOfTenantsAreTrimmedToWhatThereIs(t *testing.T) {
	c := newConversion()
	out, err := c.ConvertOverrides([]byte("overrides:\n  a: {ingestion_rate: 5, no_such_limit: 1}\n  b: {max_series_per_user: 1}\nmulti_kv_config: {primary: etcd}\nno_such_section: {}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if text := string(out); !strings.Contains(text, "ingestion_rate: 5") || strings.Contains(text, "no_such") || !strings.Contains(text, "multi_kv_config: {primary: etcd}") {
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
