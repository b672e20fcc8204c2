package bucket

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

func defaults() Config {
	var c Config
	config.NewSet().Mount("blocks_storage", &c)
	return c
}

func TestSettingsHaveTheFieldsNames(t *testing.T) {
	var c Config
	s := config.NewSet()
	s.Mount("blocks_storage", &c)
	paths := map[string]*config.Field{}
	for _, f := range s.Fields() {
		paths[f.Path] = f
	}
	for _, want := range []string{
		"backend", "storage_prefix", "filesystem.dir", "s3.endpoint", "s3.region", "s3.bucket_name", "s3.access_key_id", "s3.secret_access_key",
		"s3.insecure", "gcs.bucket_name", "gcs.service_account", "azure.account_name", "azure.account_key", "azure.container_name",
	} {
		if paths["blocks_storage."+want] == nil {
			t.Errorf("no setting blocks_storage.%s", want)
		}
	}
	for _, secret := range []string{"s3.secret_access_key", "gcs.service_account", "azure.account_key", "azure.connection_string"} {
		if f := paths["blocks_storage."+secret]; f == nil || !f.Secret {
			t.Errorf("%s is not masked", secret)
		}
	}
}

func TestValidateNamesWhatIsMissing(t *testing.T) {
	for backend, want := range map[string]string{S3: "s3.endpoint", GCS: "gcs.bucket_name", Azure: "azure.account_name", "ftp": "ftp"} {
		c := defaults()
		c.Backend = backend
		if err := c.Validate(); errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want Invalid naming %s", backend, err, want)
		}
	}
	c := defaults()
	c.StoragePrefix = "../up"
	if err := c.Validate(); errs.KindOf(err) != errs.Invalid {
		t.Errorf("prefix ../up: %v", err)
	}
}

func TestEveryBackendOpensWithoutItsServer(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	s3 := defaults()
	s3.Backend, s3.S3.Endpoint, s3.S3.BucketName, s3.S3.Region = S3, "127.0.0.1:1", "b", "r"
	s3.S3.AccessKeyID, s3.S3.SecretAccessKey = "id", "secret"
	az := defaults()
	az.Backend, az.Azure.AccountName, az.Azure.ContainerName = Azure, "acc", "c"
	az.Azure.AccountKey = "a2V5"
	for _, c := range []Config{s3, az} {
		b, err := New(t.Context(), c, "test", log, nil)
		if err != nil {
			t.Errorf("%s: %v", c.Backend, err)
			continue
		}
		if err := b.Close(); err != nil {
			t.Errorf("%s: close: %v", c.Backend, err)
		}
	}
}

func TestFilesystemNamesDoNotLeaveTheDirectory(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	b, err := NewFilesystem(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link/secret", "../" + filepath.Base(outside) + "/secret", filepath.Join(outside, "secret"), "a/../../x", "", "."} {
		if _, err := b.Get(t.Context(), name); err == nil {
			t.Errorf("get %q was answered", name)
		}
		if err := b.Upload(t.Context(), name, strings.NewReader("y")); err == nil {
			t.Errorf("upload %q was answered", name)
		}
	}
	if got, err := os.ReadFile(filepath.Join(outside, "secret")); err != nil || string(got) != "x" {
		t.Errorf("the file outside is %q, %v", got, err)
	}
}

func TestFilesystemDropsUploadsOfACrash(t *testing.T) {
	dir := t.TempDir()
	uploads := filepath.Join(dir, uploadsDir)
	if err := os.MkdirAll(uploads, 0o750); err != nil {
		t.Fatal(err)
	}
	for name, age := range map[string]time.Duration{"old": 48 * time.Hour, "running": time.Minute} {
		p := filepath.Join(uploads, name)
		if err := os.WriteFile(p, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-age)
		if err := os.Chtimes(p, at, at); err != nil {
			t.Fatal(err)
		}
	}
	b, err := NewFilesystem(dir)
	if err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(uploads)
	if err != nil || len(left) != 1 || left[0].Name() != "running" {
		t.Errorf("left: %v, %v; want the running upload alone", left, err)
	}
	if err := b.Iter(t.Context(), "", func(n string) error { t.Errorf("listed %s", n); return nil }); err != nil {
		t.Error(err)
	}
}

func TestCallsAreCounted(t *testing.T) {
	reg := prometheus.NewRegistry()
	cfg := defaults()
	cfg.Filesystem.Dir = t.TempDir()
	b, err := New(t.Context(), cfg, "ingester", slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Upload(t.Context(), "o", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "amphora_objstore_bucket_operations_total" {
			for _, l := range f.GetMetric()[0].GetLabel() {
				if l.GetName() == "component" && l.GetValue() == "ingester" {
					return
				}
			}
		}
	}
	t.Error("no amphora_objstore_bucket_operations_total of component ingester")
}
