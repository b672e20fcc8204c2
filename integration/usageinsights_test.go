package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// usageReport is what /api/v1/usage/metrics answers.
type usageReport struct {
	Data struct {
		ObservedDays int `json:"observed_days"`
		Metrics      []usedName
		Labels       []usedName
		Notes        []string
	}
}

type usedName struct {
	Name      string
	Series    int
	Unused    bool
	Rule      string `json:"last_rule"`
	Dashboard string `json:"last_dashboard"`
	AdHoc     string `json:"last_ad_hoc"`
}

// String is the name with who asked for it.
func (u usedName) String() string {
	var by []string
	for class, day := range map[string]string{"rule": u.Rule, "dashboard": u.Dashboard, "ad-hoc": u.AdHoc} {
		if day != "" {
			by = append(by, class)
		}
	}
	slices.Sort(by)
	if u.Unused {
		by = append(by, "unused")
	}
	return fmt.Sprintf("%s(%d) %s", u.Name, u.Series, strings.Join(by, "+"))
}

// used is what the report says through a process, in the order of the names.
func used(ctx context.Context, n *harness.Node, tenant string) (metrics, labels string, err error) {
	r, err := try(ctx, http.MethodGet, n.URL("/prometheus/api/v1/usage/metrics?days=7"), nil, "X-Scope-OrgID", tenant)
	if err != nil {
		return "", "", err
	}
	var out usageReport
	if err := json.Unmarshal([]byte(r.body), &out); err != nil || r.status != 200 || len(out.Data.Notes) == 0 {
		return "", "", fmt.Errorf("%s, %w", r, err)
	}
	list := func(names []usedName) string {
		var all []string
		for _, u := range names {
			all = append(all, u.String())
		}
		slices.Sort(all)
		return strings.Join(all, ", ")
	}
	return list(out.Data.Metrics), list(out.Data.Labels), nil
}

// TestWhatNobodyAsksForIsToldAcrossProcesses asks for metrics by rules, and through two frontends by a dashboard, by hand and
// by a list of values.
func TestWhatNobodyAsksForIsToldAcrossProcesses(t *testing.T) {
	t.Parallel()
	buildTool(t)
	ctx := bounded(t, 3*time.Minute)
	dir := t.TempDir()
	overrides := filepath.Join(dir, "overrides.yaml")
	must(t, os.WriteFile(overrides, []byte("overrides:\n  off: {usage_insights_enabled: false}\n"), 0o600))
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Replicas: 1, Files: true, Dir: dir, Nodes: []harness.Spec{
		{Name: "store", Target: "ingester,distributor,store-gateway,compactor,query-scheduler,querier,ruler", Flags: []string{"-usage-insights.write-period=500ms"}},
		{Name: "frontend-1", Target: "query-frontend", Flags: []string{"-usage-insights.write-period=500ms"}},
		{Name: "frontend-2", Target: "query-frontend", Flags: []string{"-usage-insights.write-period=1h"}}, // which writes when it stops
	}, Flags: []string{"-ruler.evaluation-interval=1s", "-ruler.poll-interval=1s", "-runtime-config.file=" + overrides, "-querier.cardinality-analysis-enabled"}})
	store, one, two := c.Node("store"), c.Node("frontend-1"), c.Node("frontend-2")
	now := time.Now()
	eventually(ctx, t, "the distributor to store", func() error {
		for _, name := range []string{"by_rule", "by_dashboard", "by_hand", "by_list", "by_nobody"} {
			if r := pushV1(ctx, t, store.URL(""), "team-a", floats(now, 7, "__name__", name, "room", "a", "shelf", "x"), floats(now, 7, "__name__", name, "room", "b", "shelf", "x")); r.status != 200 {
				return errors.New(r.String())
			}
		}
		return nil
	})
	ask := func(n *harness.Node, path string, form url.Values, header ...string) {
		t.Helper()
		eventually(ctx, t, path+" to be answered", func() error {
			r, err := try(ctx, http.MethodGet, n.URL("/prometheus/api/v1/"+path+"?")+form.Encode(), nil, append(header, "X-Scope-OrgID", "team-a")...)
			if err == nil && r.status != 200 {
				err = errors.New(r.String())
			}
			return err
		})
	}
	rule := "name: g\nrules:\n- {alert: A, expr: by_rule > 100}\n"
	if r := call(ctx, t, http.MethodPost, store.URL("/prometheus/config/v1/rules/ns"), []byte(rule), "X-Scope-OrgID", "team-a"); r.status/100 != 2 {
		t.Fatalf("the rule: %s", r)
	}
	ask(one, "query", url.Values{"query": {`sum by (room) (by_dashboard)`}}, "X-Dashboard-Uid", "d1")
	ask(two, "label/room/values", url.Values{"match[]": {"by_list"}})
	ask(one, "query", url.Values{"query": {`count by (__name__) ({__name__=~".+"})`}})
	eventually(ctx, t, "the report", func() error {
		const want = "by_dashboard(2) dashboard, by_hand(2) unused, by_list(2) ad-hoc, by_nobody(2) unused, by_rule(2) rule"
		const wantLabels = "room(10) ad-hoc+dashboard, shelf(10) unused"
		metrics, labels, err := used(ctx, one, "team-a")
		if err == nil && (metrics != want || labels != wantLabels) {
			err = fmt.Errorf("got %s; %s\nwant %s; %s", metrics, labels, want, wantLabels)
		}
		return err
	})

	// What a process has not written is written when it stops, and what was written outlives all.
	ask(two, "query_range", url.Values{"query": {`by_hand`}, "start": {seconds(now.UnixMilli())}, "end": {seconds(now.UnixMilli())}, "step": {"15"}})
	must(t, two.Restart())
	must(t, one.Restart())
	must(t, store.Restart())
	must(t, c.WaitReady(ctx))
	const want = "by_dashboard(2) dashboard, by_hand(2) ad-hoc, by_list(2) ad-hoc, by_nobody(2) unused, by_rule(2) rule"
	for _, n := range []*harness.Node{two, one} { // each of which has to know the others first
		eventually(ctx, t, "the report of "+n.Spec.Name+" after a restart", func() error {
			metrics, _, err := used(ctx, n, "team-a")
			if err == nil && metrics != want {
				err = fmt.Errorf("got %s\nwant %s", metrics, want)
			}
			return err
		})
	}

	refuses(ctx, t, one)
	a := newTool(one, "team-a")
	a.run(ctx, t, "by_nobody  2       never", "usage")
	a.run(ctx, t, "by_rule", "usage", "--all", "--output=json")
	a.run(ctx, t, `regex: "by_nobody"`, "usage", "--drop=prometheus")
	a.run(ctx, t, `- "name == \"by_rule\""`, "usage", "--drop=otelcol", "--metric=by_rule")
	a.run(ctx, t, "team-a", "usage", "--drop=overrides")

	// It goes with the tenant.
	document := filepath.Join("documents", "usage", "team-a")
	if !written(t, dir, document) {
		t.Fatalf("there is no document %s to begin with", document)
	}
	if r := call(ctx, t, http.MethodPost, store.URL("/compactor/delete_tenant"), nil, "X-Scope-OrgID", "team-b"); r.status != 200 {
		t.Fatalf("delete a tenant that nobody asked for: %s", r)
	}
	if r := call(ctx, t, http.MethodDelete, store.URL("/prometheus/config/v1/rules/ns"), nil, "X-Scope-OrgID", "team-a"); r.status/100 != 2 {
		t.Fatalf("delete the rule: %s", r)
	}
	ask(one, "query", url.Values{"query": {`by_nobody`}})
	ask(two, "query", url.Values{"query": {`by_nobody`}}) // which it has not written
	if r := call(ctx, t, http.MethodPost, store.URL("/compactor/delete_tenant"), nil, "X-Scope-OrgID", "team-a"); r.status != 200 {
		t.Fatalf("delete the tenant: %s", r)
	}
	ask(one, "query", url.Values{"query": {`by_dashboard`}})
	for _, n := range []*harness.Node{one, two, store} {
		must(t, n.Stop()) // and writes
	}
	if written(t, dir, document) {
		t.Error("what is known of a deleted tenant is there")
	}
}

// TestWhatIsKnownOfAWorkspaceGoesWithIt: two frontends note what a workspace asks for, one of them writes it after the
// workspace is purged.
func TestWhatIsKnownOfAWorkspaceGoesWithIt(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	dir := t.TempDir()
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Replicas: 1, Files: true, Dir: dir, Nodes: []harness.Spec{
		{Name: "store", Target: "ingester,distributor,query-scheduler,querier,control", Flags: []string{"-control.purge-after=1ms", "-control.janitor-period=200ms"}},
		{Name: "frontend-1", Target: "query-frontend", Flags: []string{"-usage-insights.write-period=200ms"}},
		{Name: "frontend-2", Target: "query-frontend", Flags: []string{"-usage-insights.write-period=1h"}},
	}})
	store, one, two := c.Node("store"), c.Node("frontend-1"), c.Node("frontend-2")
	var made struct {
		WorkspaceID string `json:"workspaceId"`
	}
	r := call(ctx, t, http.MethodPost, store.URL("/workspaces"), []byte(`{"alias":"a"}`))
	if err := json.Unmarshal([]byte(r.body), &made); err != nil || made.WorkspaceID == "" {
		t.Fatalf("make a workspace: %s, %v", r, err)
	}
	asked := func(n *harness.Node) func() error {
		return func() error {
			r, err := try(ctx, http.MethodGet, n.URL("/prometheus/api/v1/query?query=up"), nil, "X-Scope-OrgID", made.WorkspaceID)
			if err == nil && r.status != 200 {
				err = errors.New(r.String())
			}
			return err
		}
	}
	eventually(ctx, t, "the first frontend to answer", asked(one))
	eventually(ctx, t, "the second frontend to answer", asked(two))
	document := filepath.Join("documents", "usage", made.WorkspaceID)
	there := func(is bool) func() error {
		return func() error {
			if written(t, dir, document) != is {
				return fmt.Errorf("document %s, there: %v", document, !is)
			}
			return nil
		}
	}
	eventually(ctx, t, "the document", there(true))
	if r := call(ctx, t, http.MethodDelete, store.URL("/workspaces/"+made.WorkspaceID), nil); r.status/100 != 2 {
		t.Fatalf("delete the workspace: %s", r)
	}
	eventually(ctx, t, "the document to go", there(false))
	for _, n := range []*harness.Node{one, two} {
		must(t, n.Stop()) // and writes
	}
	must(t, there(false)())
}

// refuses: what is wrong with a request is told, and a tenant sees nothing of another.
func refuses(ctx context.Context, t *testing.T, n *harness.Node) {
	t.Helper()
	for _, row := range []struct {
		path, tenant, want string
		status             int
	}{
		{"metrics?days=0", "team-a", "from 1 to 90", 400},
		{"metrics?days=x", "team-a", "days", 400},
		{"metrics?limit=0", "team-a", "from 1 to 10000", 400},
		{"metrics", "off", "usage_insights_enabled", 400},
		{"metrics", "team-c", `"metrics":[]`, 200},
		{"drop", "team-a", "metric[]", 400},
		{"drop?metric[]=a&format=toml", "team-a", "prometheus, otelcol or overrides", 400},
		{"drop?metric[]=a&metric[]=b.c", "team-a", `regex: "a|b\\.c"`, 200},
		{"drop?metric[]=a&format=overrides", "team-c", `"team-c":`, 200},
	} {
		r := call(ctx, t, http.MethodGet, n.URL("/prometheus/api/v1/usage/"+row.path), nil, "X-Scope-OrgID", row.tenant)
		wants(t, row.path+" of "+row.tenant, r, row.status, row.want)
	}
}

// written says whether a file whose path ends so is below dir.
func written(t *testing.T, dir, end string) bool {
	t.Helper()
	found := false
	must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		found = found || strings.HasSuffix(path, end)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // processes run
		}
		return err
	}))
	return found
}
