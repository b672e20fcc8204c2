package integration

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/integration/harness"
	"github.com/amphora-metrics/amphora/pkg/api"
	"github.com/amphora-metrics/amphora/pkg/sigv4"
)

// held may do everything, but to series of one team only; nobody may do nothing.
const heldIdentities = gatewayIdentities + `
      - name: nobody
        keys: [{id: AKIDNOBODY01, secret: nobody-secret-nobody}]
      - name: held
        keys: [{id: AKIDHELD0001, secret: held-secret-held}]
        inline:
          all: {Version: "2012-10-17", Statement: {Effect: Allow, Action: "*", Resource: "*", Condition: {StringEquals: {"amphora:LabelSelector": "{team=\"a\"}"}}}}
      - name: free
        keys: [{id: AKIDFREE0001, secret: free-secret-free}]
        policies: [AmazonPrometheusFullAccess]
`

// hidden is in the labels, the name, the metadata and the exemplars of what held may not see.
const hidden = "hiddenfromyou"

// asked is a request to a row of the table.
type asked struct {
	route        *api.Route
	method, path string
	body         string
	header       []string
}

// requests are those to every row that is not open to all, with values for the names in its path, directly
// with a tenant in the header, and below a workspace where there is such a path.
func requests(workspace string) []asked {
	names := regexp.MustCompile(`\{[^}]*\}`)
	var out []asked
	for i := range api.Routes {
		rt := &api.Routes[i]
		if rt.Action == api.Open {
			continue
		}
		path := strings.TrimSuffix(rt.Path, "{$}")
		path = strings.NewReplacer("{workspaceId}", workspace, "{resourceArn...}", url.PathEscape("arn:aws:aps:us-east-1:000000000000:workspace/"+workspace), "/label/{name}/", "/label/secret/").Replace(path)
		path = names.ReplaceAllString(path, "x")
		paths := []string{path}
		if rest, ok := strings.CutPrefix(path, "/prometheus/api/v1/"); ok {
			paths = append(paths, "/workspaces/"+workspace+"/api/v1/"+rest, "/instances/"+workspace+"/api/v1/"+rest)
		}
		for method := range strings.SplitSeq(rt.Methods, ",") {
			for _, p := range paths {
				out = append(out, asked{route: rt, method: method, path: p})
			}
		}
	}
	return out
}

// asks fills in parameters that read whatever there is.
func (a *asked) asks(now time.Time) {
	start, end := seconds(now.Add(-time.Hour).UnixMilli()), seconds(now.Add(time.Minute).UnixMilli())
	params := url.Values{"query": {`{__name__=~".+"}`}, "match[]": {`{__name__=~".+"}`}, "selector": {`{__name__=~".+"}`}, "start": {start}, "end": {end}, "step": {"60"},
		"time": {seconds(now.UnixMilli())}, "label_names[]": {"secret"}, "count_method": {"inmemory"}}
	a.header = []string{"X-Scope-OrgID", ""}
	switch {
	case strings.HasSuffix(a.path, "/api/v1/read"):
		raw, err := (&prompb.ReadRequest{Queries: []*prompb.Query{{StartTimestampMs: now.Add(-time.Hour).UnixMilli(), EndTimestampMs: now.Add(time.Minute).UnixMilli(),
			Matchers: []*prompb.LabelMatcher{{Type: prompb.LabelMatcher_RE, Name: "__name__", Value: ".+"}}}}}).Marshal()
		if err != nil {
			panic("BUG: " + err.Error())
		}
		a.body = string(snappy.Encode(nil, raw))
		a.header = append(a.header, "Content-Type", typeV1, "Content-Encoding", "snappy", "X-Prometheus-Remote-Read-Version", "0.1.0")
	case a.method == http.MethodPost:
		a.body = params.Encode()
		a.header = append(a.header, "Content-Type", "application/x-www-form-urlencoded")
	default:
		a.path += "?" + params.Encode()
	}
}

// shows says whether an answer holds a text, compressed or not.
func (r reply) shows(text string) bool {
	plain, err := snappy.Decode(nil, []byte(r.body))
	return strings.Contains(r.body, text) || err == nil && strings.Contains(string(plain), text)
}

// TestTheTableOfRoutesIsGuarded calls every row of the table, at the running process: without rights, and with
// rights to some series only.
func TestTheTableOfRoutesIsGuarded(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 4*time.Minute)
	n := guarded(ctx, t, heldIdentities, "-cost-attribution.registry-path=/cost-attribution", "-auth.process-api-rate=0", "-auth.alertmanager-api-rate=0", "-ingester.max-global-exemplars-per-user=1000",
		"-querier.cardinality-analysis-enabled=true")
	id := workspaceOf(ctx, t, n, "a")
	now := time.Now()
	mine, other := floats(now, 1, "__name__", "shown", "team", "a"), floats(now, 2, "__name__", hidden, hidden, "1", "secret", hidden, "team", "b")
	other.Exemplars = []prompb.Exemplar{{Labels: pairs("trace_id", hidden), Value: 1, Timestamp: now.UnixMilli()}}
	raw, err := (&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{mine, other}, Metadata: []prompb.MetricMetadata{{MetricFamilyName: hidden, Help: hidden, Type: prompb.MetricMetadata_GAUGE}}}).Marshal()
	must(t, err)
	if r := signedCall(ctx, t, keyOf("WRITER"), "POST", n.URL("/workspaces/"+id+"/api/v1/remote_write"), string(snappy.Encode(nil, raw)), "Content-Encoding", "snappy", "Content-Type", typeV1); r.status != 200 {
		t.Fatalf("push: %s", r)
	}
	t.Run("nobody", func(t *testing.T) {
		for _, a := range requests(id) {
			r := signedCall(ctx, t, keyOf("NOBODY"), a.method, n.URL(a.path), "", "X-Scope-OrgID", id)
			action := string(a.route.ActionOf(a.method))
			if denied := a.route.Style == api.GRPC && r.header.Get("Grpc-Status") == "7" || r.status == 403 && r.header.Get("X-Amzn-Errortype") == "AccessDeniedException"; !denied || a.route.Style != api.GRPC && !strings.Contains(r.body, action) {
				t.Errorf("%s %s (%s): %s", a.method, a.path, action, r)
			}
			if r := call(ctx, t, a.method, n.URL(a.path), nil, "X-Scope-OrgID", id); a.route.Style != api.GRPC && r.status != 401 && r.status != 403 {
				t.Errorf("%s %s without credentials: %s", a.method, a.path, r)
			}
		}
	})
	t.Run("held", func(t *testing.T) { heldReads(ctx, t, n, id, now) })
}

func heldReads(ctx context.Context, t *testing.T, n *harness.Node, id string, now time.Time) {
	shown := map[string]bool{}
	read := func(by sigv4.Signer, a asked) reply {
		a.header[1] = id
		return signedCall(ctx, t, by, a.method, n.URL(a.path), a.body, a.header...)
	}
	for _, a := range requests(id) {
		row := a.route.Path
		a.asks(now)
		if r := read(keyOf("HELD"), a); r.shows(hidden) && a.route.Action != api.RemoteWrite {
			t.Errorf("%s %s shows who may not see it: %s", a.method, a.path, r)
		}
		if a.route.Tenancy == api.NoTenant || a.method == http.MethodDelete || a.route.Service != api.Querier {
			continue
		}
		if r := read(keyOf("FREE"), a); r.shows(hidden) {
			shown[row] = true
		}
	}
	for _, row := range []string{"query", "query_range", "query_exemplars", "series", "labels", "label/{name}/values", "metadata", "read", "cardinality/label_values"} {
		if !shown["/prometheus/api/v1/"+row] {
			t.Errorf("%s shows nothing to who may see it, so that it hides nothing either; shown: %v", row, fmt.Sprint(shown))
		}
	}
}
