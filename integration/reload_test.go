package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// logOf is the whole log of a process.
func logOf(t *testing.T, n *harness.Node) string {
	t.Helper()
	b, err := os.ReadFile(n.LogFile)
	must(t, err)
	return string(b)
}

// TestLimitsAreReloadedUnderLoad replaces the file of overrides, by good ones and by all kinds of bad ones,
// while others write and read. What a bad file says is never in force, not even in part, and the limits
// from before are; who has nothing to do with it does not notice.
func TestLimitsAreReloadedUnderLoad(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 3*time.Minute)
	file := filepath.Join(t.TempDir(), "overrides.yaml")
	replace := func(text string) {
		must(t, os.RemoveAll(file+".new"))
		must(t, os.WriteFile(file+".new", []byte(text), 0o600))
		must(t, os.Rename(file+".new", file))
	}
	good := func(labels int) string {
		return fmt.Sprintf("overrides:\n  team-b: {max_label_names_per_series: %d}\n", labels)
	}
	replace(good(1))
	n := everything(ctx, t, "-runtime-config.file="+file, "-runtime-config.reload-period=1s", "-distributor.ingestion-rate-limit=0")
	one := func() []string { return []string{n.URL("")} }
	j, end := busy(ctx, one, one)

	// The limit is of team-b, which may have one label for each of the good files so far.
	taken := func(labels int) (is bool) {
		kv := []string{"__name__", "good"}
		for i := 1; i < labels; i++ {
			kv = append(kv, fmt.Sprint("l", i), "x")
		}
		eventually(ctx, t, "a push to be taken or refused for good", func() error {
			r := pushV1(ctx, t, n.URL(""), "team-b", floats(time.Now(), 1, kv...))
			if is = r.status == 200; !is && r.status != 400 {
				return errors.New(r.String())
			}
			return nil
		})
		return is
	}
	inForce := func(labels int) error {
		if !taken(labels) || taken(labels+1) {
			return fmt.Errorf("%d labels are not what is allowed", labels)
		}
		return nil
	}
	reloaded := func(want float64) func() error {
		return func() error {
			return between(scrape(ctx, t, n.URL("/metrics"), "amphora_runtime_config_last_reload_successful"), want, want)
		}
	}
	labels := 1
	for what, bad := range map[string]struct {
		text string // empty: the file is gone
		log  string
	}{
		"no YAML":              {"overrides: {team-b: {max_label_names_per_series: 9\n", "overrides.yaml"},
		"an unknown limit":     {good(9) + "  team-c: {max_label_names: 3}\n", "max_label_names"},
		"a value of no number": {good(9) + "  team-c: {max_label_names_per_series: many}\n", "many"},
		"binary":               {strings.Repeat("\x00\xff", 1000), "overrides.yaml"},
		"gone":                 {"", "overrides.yaml"},
	} {
		eventually(ctx, t, "the good file before "+what, func() error { return errors.Join(reloaded(1)(), inForce(labels)) })
		before := logOf(t, n)
		if bad.text == "" {
			must(t, os.Remove(file))
		} else {
			replace(bad.text)
		}
		eventually(ctx, t, what+" to be seen", reloaded(0))
		if err := inForce(labels); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if log := logOf(t, n)[len(before):]; !strings.Contains(log, bad.log) {
			t.Errorf("%s: %q is not in the log:\n%s", what, bad.log, log)
		}
		labels++
		replace(good(labels))
	}
	eventually(ctx, t, "the last good file", func() error { return inForce(labels) })
	end().good(t)
	acked, given := j.count()
	t.Logf("%d samples acknowledged, %d given up, pushes %s", acked, given, &j.took)
	if given > 0 || acked == 0 {
		t.Errorf("%d samples acknowledged, %d given up", acked, given)
	}
	j.verify(ctx, t, n.URL(""))
}
