package integration

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestTextAndLinesAreImported sends samples as a script does.
func TestTextAndLinesAreImported(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, time.Minute)
	n := everything(ctx, t)
	at := time.Now().Truncate(time.Second)
	text := fmt.Sprintf("# TYPE backups_total counter\nbackups_total{disk=\"a\"} 5 %d\nbackups_total{disk=\"b\"} 7 %d\n", at.UnixMilli(), at.UnixMilli())
	line := fmt.Sprintf(`{"metric":{"__name__":"moved","job":"old"},"values":[1,2],"timestamps":[%d,%d]}`, at.Add(-time.Minute).UnixMilli(), at.UnixMilli())
	for path, body := range map[string]string{"/api/v1/import/prometheus?extra_label=job=backup": text, "/api/v1/import": line} {
		if r := call(ctx, t, http.MethodPost, n.URL(path), []byte(body), "X-Scope-OrgID", "a"); r.status != http.StatusNoContent {
			t.Errorf("%s: %s", path, r)
		}
	}
	for expr, want := range map[string]float64{`sum(backups_total{job="backup"})`: 12, `moved`: 2, `count_over_time(moved{job="old"}[2m])`: 2} {
		if got, err := scalar(ctx, n.URL(""), "a", expr, at); err != nil || got != want {
			t.Errorf("%s is %g, %v; want %g", expr, got, err, want)
		}
	}
	if r := call(ctx, t, http.MethodPost, n.URL("/api/v1/import/prometheus"), []byte("good 1\nbad{\n"), "X-Scope-OrgID", "b"); r.status != http.StatusBadRequest {
		t.Errorf("malformed: %s", r)
	}
	if got, err := matrix(ctx, n.URL(""), "b", "good", time.Now().UnixMilli()); err != nil || len(got) != 0 {
		t.Errorf("a part of a malformed request is stored: %v, %v", got, err)
	}
}

// TestPromtoolPushesMetrics sends what a script wrote down, by the tool that Prometheus comes with.
func TestPromtoolPushesMetrics(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, time.Minute)
	n := everything(ctx, t)
	file := filepath.Join(t.TempDir(), "metrics")
	must(t, os.WriteFile(file, []byte("# TYPE backups gauge\nbackups{disk=\"a\"} 5\n"), 0o600))
	promtool(ctx, t, "push", "metrics", "--header=X-Scope-OrgID=a", "--label=job=script", n.URL(""), file)
	if got, err := scalar(ctx, n.URL(""), "a", `backups{disk="a",job="script"}`, time.Now()); err != nil || got != 5 {
		t.Errorf("what promtool pushed is %g, %v; want 5", got, err)
	}
}
