package limits

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/pkg/config"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; run with -update and look at the change. got:\n%s", path, got)
	}
}

// load returns the defaults that a main configuration file and a command line say.
func load(t *testing.T, text string, args ...string) (*Defaults, *config.Set, error) {
	t.Helper()
	d, s := new(Defaults), config.NewSet()
	s.Mount("limits", d)
	name := filepath.Join(t.TempDir(), "amphora.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := config.Load(s, append(args, "-config.file="+name), func(string) string { return "" })
	return d, s, err
}

func TestRowsAreSound(t *testing.T) {
	names, flags := map[string]bool{}, map[string]bool{}
	for _, r := range Table {
		if names[r.Name] || flags[r.Flag] || r.Doc == "" || len(r.By) == 0 || !strings.HasSuffix(r.Doc, ".") {
			t.Errorf("row %s repeats a name or lacks documentation or an enforcing room", r.Name)
		}
		names[r.Name], flags[r.Flag] = true, true
		x, err := r.parse(format(r.Default))
		if err != nil || !same(x, r.Default) {
			t.Errorf("row %s: default %v reads back as %v, %v", r.Name, r.Default, x, err)
		}
	}
	for _, p := range presets() {
		for name, x := range p.values {
			if i := rowIndex(name); i < 0 || Table[i].check(x) != nil {
				t.Errorf("preset %s: %s = %v is not a limit or not allowed", p.name, name, x)
			}
		}
	}
}

func TestTheZeroViewHasTheDefaultsOfTheTable(t *testing.T) {
	v := IngestionRate.With(View{}, 5)
	if IngestionRate.Of(View{}) != 10_000 || IngestionRate.Of(v) != 5 || OutOfOrderTimeWindow.Of(v) != 10*time.Minute ||
		NameValidationScheme.Of(v) != "legacy" || v.Epoch() == (View{}).Epoch() {
		t.Fatalf("v = %v", v)
	}
}

func TestMainConfigurationChangesTheDefaults(t *testing.T) {
	d, _, err := load(t, "limits:\n  ingestion_rate: 5e4\n  max_query_lookback: 30d\n", "-ingester.max-global-series-per-user=7", "-validation.name-validation-scheme=utf8")
	if err != nil {
		t.Fatal(err)
	}
	v := NewOverrides(d, RuntimeConfig{}, Deps{}).For("anybody")
	if IngestionRate.Of(v) != 50_000 || MaxQueryLookback.Of(v) != 30*24*time.Hour || MaxGlobalSeriesPerUser.Of(v) != 7 ||
		NameValidationScheme.Of(v) != "utf8" || IngestionBurstSize.Of(v) != 200_000 {
		t.Fatalf("v = %v", v)
	}
	for text, want := range map[string]string{
		"limits: {ingestion_rte: 5}":             `:1: unknown key "limits.ingestion_rte"; did you mean "ingestion_rate"?`,
		"limits: {ingestion_rate: -5}":           ":1: limits.ingestion_rate: -5 is below zero",
		"limits: {name_validation_scheme: utf9}": `"utf9" is not one of`,
		"limits: {preset: best}":                 `"best" is not one of default, amp-2021, unlimited`,
	} {
		if _, _, err := load(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

func TestAPresetFillsWhatIsNotSet(t *testing.T) {
	d, s, err := load(t, "limits:\n  preset: amp-2021\n  ingestion_rate: 10000\n")
	if err != nil {
		t.Fatal(err)
	}
	v := NewOverrides(d, RuntimeConfig{}, Deps{}).Defaults()
	if MaxGlobalSeriesPerUser.Of(v) != 1_000_000 || MaxTotalQueryLength.Of(v) != 32*24*time.Hour {
		t.Errorf("preset not in force: %v", v)
	}
	if IngestionRate.Of(v) != 10_000 {
		t.Errorf("ingestion_rate = %v; what is set, even to the default, wins over the preset", IngestionRate.Of(v))
	}
	if OutOfOrderTimeWindow.Of(v)+PastGracePeriod.Of(v) != time.Hour {
		t.Errorf("samples are refused after %v, want 1h", OutOfOrderTimeWindow.Of(v)+PastGracePeriod.Of(v))
	}
	var b bytes.Buffer
	if err := s.Print(&b, config.ModeDiff); err != nil || !strings.Contains(b.String(), "max_global_series_per_user: 1000000") {
		t.Errorf("the effective configuration does not show the preset: %v\n%s", err, b.String())
	}
}

func TestJSONHasEveryLimit(t *testing.T) {
	js, err := json.Marshal(MaxQueryLookback.With(View{}, time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(js, &m); err != nil || len(m) != len(Table) {
		t.Fatalf("%d limits of %d, %v", len(m), len(Table), err)
	}
	if m["max_query_lookback"] != "1h" || m["ingestion_rate"] != 10_000.0 || m["native_histograms_ingestion_enabled"] != true {
		t.Errorf("got %s", js)
	}
}

func TestTheReferenceHasEveryLimitAndPreset(t *testing.T) {
	var b bytes.Buffer
	if err := Reference(&b); err != nil {
		t.Fatal(err)
	}
	for _, r := range Table {
		if !strings.Contains(b.String(), "\n| `"+r.Name+"` | `-"+r.Flag+"` |") {
			t.Errorf("no row for %s", r.Name)
		}
	}
	for _, p := range presets() {
		if !strings.Contains(b.String(), "\n## Preset `"+p.name+"`\n") {
			t.Errorf("no preset %s", p.name)
		}
	}
}

var sink int

func BenchmarkOf(b *testing.B) {
	v := NewOverrides(&Defaults{}, RuntimeConfig{}, Deps{}).For("t")
	for name, v := range map[string]View{"table": {}, "view": v} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				sink = MaxGlobalSeriesPerUser.Of(v)
			}
		})
	}
}
