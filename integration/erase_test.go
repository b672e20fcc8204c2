package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// TestDeletedSeriesVanishFromQueriesAndThenFromBlocks deletes series by selector and range, takes one
// request back, and looks into the bucket after the compactor has been there.
func TestDeletedSeriesVanishFromQueriesAndThenFromBlocks(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	dir := t.TempDir()
	c := oneProcess(ctx, t, harness.Options{Dir: dir, Files: true, Flags: []string{
		"-ingester.out-of-order-time-window=48h", "-compactor.compaction-interval=1s", "-compactor.cleanup-interval=1s",
		"-compactor.first-level-compaction-wait-period=0s", "-compactor.deletion-delay=1s", "-compactor.series-deletion-delay=20s",
		"-log.format=json",
	}})
	n := c.Nodes()[0]
	now := time.Now().Truncate(time.Minute)
	push := func(from, to time.Duration) {
		t.Helper()
		var series []prompb.TimeSeries
		for i := range 4 {
			ts := prompb.TimeSeries{Labels: pairs("__name__", "erasable", "i", fmt.Sprintf("erase-%d", i))}
			for at := now.Add(-from); at.Before(now.Add(-to)); at = at.Add(time.Minute) {
				ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: at.UnixMilli(), Value: float64(at.Unix())})
			}
			series = append(series, ts)
		}
		stored(t, pushV1(ctx, t, n.URL(""), "team-a", series...))
	}
	push(5*time.Hour, 2*time.Hour)
	if r := call(ctx, t, http.MethodPost, n.URL("/ingester/flush?wait=true"), nil); r.status/100 != 2 {
		t.Fatalf("flush answered %s", r)
	}
	push(2*time.Hour, 0) // in memory alone

	// A request is seen at once by the process that took it, and by others within a minute.
	erase(ctx, t, n, "delete_series", url.Values{"match[]": {`{i="erase-1"}`}})
	erase(ctx, t, n, "delete_series", url.Values{"match[]": {`erasable{i="erase-2"}`}, "start": {seconds(now.Add(-3 * time.Hour).UnixMilli())}, "end": {seconds(now.Add(-time.Hour).UnixMilli())}})
	erase(ctx, t, n, "delete_series", url.Values{"match[]": {`{i="erase-3"}`}})
	counts(ctx, t, n, now, "erase-0:300 erase-2:179")
	values := call(ctx, t, http.MethodGet, n.URL("/prometheus/api/v1/label/i/values"), nil, "X-Scope-OrgID", "team-a")
	if !strings.Contains(values.body, `["erase-0","erase-2"]`) {
		t.Errorf("values of a label: %s", values)
	}
	list := erasures(ctx, t, n)
	if len(list) != 3 || list[2].Status != "pending" {
		t.Fatalf("requests: %+v", list)
	}
	erase(ctx, t, n, "cancel_delete_request", url.Values{"request_id": {list[2].ID}})
	counts(ctx, t, n, now, "erase-0:300 erase-2:179 erase-3:300")

	if r := call(ctx, t, http.MethodPost, n.URL("/ingester/flush?wait=true"), nil); r.status/100 != 2 {
		t.Fatalf("flush answered %s", r)
	}
	harness.Need(t, harness.Poll(ctx, func(ctx context.Context) error {
		for _, r := range erasures(ctx, t, n) {
			if r.Status != "erased" && r.Status != "cancelled" {
				return fmt.Errorf("request %s is %s", r.ID, r.Status)
			}
		}
		left := symbolsOf(t, filepath.Join(dir, "blocks", "team-a"))
		if slices.Contains(left, "erase-1") || !slices.Contains(left, "erase-3") {
			return fmt.Errorf("the blocks have the labels %q", left)
		}
		return nil
	}))
	if r := call(ctx, t, http.MethodPost, n.URL("/prometheus/api/v1/admin/tsdb/cancel_delete_request?request_id="+list[0].ID), nil, "X-Scope-OrgID", "team-a"); r.status != http.StatusConflict {
		t.Errorf("cancelling what is erased answered %s", r)
	}
	must(t, n.Process.Stop())
	must(t, os.RemoveAll(n.DataDir))
	must(t, n.Start())
	must(t, n.WaitReady(ctx))
	counts(ctx, t, n, now, "erase-0:300 erase-2:179 erase-3:300") // of blocks alone
	status := call(ctx, t, http.MethodGet, n.URL("/prometheus/api/v1/status/tsdb?limit=3"), nil, "X-Scope-OrgID", "team-a")
	if !strings.Contains(status.body, `"seriesCountByMetricName":[{"name":"erasable","value":3}]`) {
		t.Errorf("status of the stored series: %s", status)
	}
}

// TestDeletedSeriesAreNotCountedInStatus deletes series of blocks that nobody will touch for a day, and has
// a retention end others.
func TestDeletedSeriesAreNotCountedInStatus(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	overrides := filepath.Join(t.TempDir(), "overrides.yaml")
	must(t, os.WriteFile(overrides, []byte("overrides:\n  team-a: {}\n"), 0o600))
	c := oneProcess(ctx, t, harness.Options{Files: true, Flags: []string{"-ingester.out-of-order-time-window=48h", "-compactor.cleanup-interval=1s",
		"-runtime-config.file=" + overrides, "-runtime-config.reload-period=1s"}})
	n := c.Nodes()[0]
	now := time.Now().Truncate(time.Minute)
	var series []prompb.TimeSeries
	for i := range 6 {
		ts := prompb.TimeSeries{Labels: pairs("__name__", "erasable", "i", fmt.Sprintf("erase-%d", i))}
		for at := now.Add(-5 * time.Hour); at.Before(now.Add(-3 * time.Hour)); at = at.Add(time.Minute) {
			ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: at.UnixMilli(), Value: 1})
		}
		series = append(series, ts)
	}
	stored(t, pushV1(ctx, t, n.URL(""), "team-a", series...))
	if r := call(ctx, t, http.MethodPost, n.URL("/ingester/flush?wait=true"), nil); r.status/100 != 2 {
		t.Fatalf("flush answered %s", r)
	}
	says := func(series int) {
		t.Helper()
		harness.Need(t, harness.Poll(ctx, func(ctx context.Context) error {
			r, err := try(ctx, http.MethodGet, n.URL("/prometheus/api/v1/status/tsdb"), nil, "X-Scope-OrgID", "team-a")
			want := fmt.Sprintf(`"seriesCountByMetricName":[{"name":"erasable","value":%d}]`, series)
			if values := fmt.Sprintf(`{"name":"i","value":%d}`, series); err == nil && (!strings.Contains(r.body, want) || !strings.Contains(r.body, values)) {
				err = fmt.Errorf("the status is %s, want %d series", r, series)
			}
			return err
		}))
	}
	says(6)
	erase(ctx, t, n, "delete_series", url.Values{"match[]": {`{i=~"erase-[01]"}`}})
	erase(ctx, t, n, "delete_series", url.Values{"match[]": {`{i="erase-2"}`}, "end": {seconds(now.Add(-5 * time.Hour).UnixMilli())}}) // but for the first sample all stays
	says(4)
	must(t, os.WriteFile(overrides, []byte("overrides:\n  team-a: {compactor_blocks_retention_by_selector: [{selector: '{i=\"erase-3\"}', period: 1h}]}\n"), 0o600))
	says(3)
	if list := erasures(ctx, t, n); list[0].Status != "pending" {
		t.Errorf("requests: %+v", list)
	}
	erase(ctx, t, n, "cancel_delete_request", url.Values{"request_id": {erasures(ctx, t, n)[0].ID}})
	says(5)
}

// erase makes an administrative call of the tenant.
func erase(ctx context.Context, t *testing.T, n *harness.Node, what string, with url.Values) {
	t.Helper()
	r := call(ctx, t, http.MethodPost, n.URL("/prometheus/api/v1/admin/tsdb/"+what+"?"+with.Encode()), nil, "X-Scope-OrgID", "team-a")
	if r.status != http.StatusNoContent {
		t.Fatalf("%s answered %s", what, r)
	}
}

type erasure struct {
	ID     string `json:"request_id"`
	Status string `json:"status"`
}

func erasures(ctx context.Context, t *testing.T, n *harness.Node) []erasure {
	t.Helper()
	r := call(ctx, t, http.MethodGet, n.URL("/prometheus/api/v1/admin/tsdb/delete_series"), nil, "X-Scope-OrgID", "team-a")
	var out struct{ Data []erasure }
	if err := json.Unmarshal([]byte(r.body), &out); err != nil {
		t.Fatalf("list answered %s: %v", r, err)
	}
	return out.Data
}

// counts asserts how many samples each series shows.
func counts(ctx context.Context, t *testing.T, n *harness.Node, at time.Time, want string) {
	t.Helper()
	harness.Need(t, harness.Poll(ctx, func(ctx context.Context) error {
		series, err := matrix(ctx, n.URL(""), "team-a", "erasable[6h]", at.UnixMilli())
		if err != nil {
			return err
		}
		var got []string
		for _, s := range series {
			got = append(got, fmt.Sprintf("%s:%d", s.Metric["i"], len(s.Values)))
		}
		slices.Sort(got)
		if all := strings.Join(got, " "); all != want {
			return fmt.Errorf("series have the samples %q, want %q", all, want)
		}
		return nil
	}))
}

// symbolsOf returns the label values i of the blocks in a tenant's directory that are not marked for
// deletion.
func symbolsOf(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var out []string
	for _, e := range entries {
		block := filepath.Join(dir, e.Name())
		_, marked := os.Stat(filepath.Join(block, "deletion-mark.json"))
		_, complete := os.Stat(filepath.Join(block, "meta.json"))
		if !regexp.MustCompile(`^[0-9A-HJKMNP-TV-Z]{26}$`).MatchString(e.Name()) || marked == nil || complete != nil {
			continue
		}
		b, err := tsdb.OpenBlock(slog.New(slog.DiscardHandler), block, nil, tsdb.DefaultPostingsDecoderFactory)
		if err != nil {
			return nil // deleted meanwhile
		}
		ix, err := b.Index()
		must(t, err)
		for it := ix.Symbols(); it.Next(); {
			out = append(out, strings.Clone(it.At()))
		}
		must(t, ix.Close())
		must(t, b.Close())
	}
	return out
}
