package api

import (
	"net/http"
	"slices"
	"strings"

	"github.com/felixge/fgprof"

	"github.com/amphora-metrics/amphora/pkg/api/admin"
	"github.com/amphora-metrics/amphora/pkg/api/prom"
	"github.com/amphora-metrics/amphora/pkg/limits"
)

// Action is what a caller must be allowed to do to use a route. Those of the data plane have
// the names that policies for Amazon's service use.
type Action string

// The actions.
const (
	RemoteWrite       Action = "aps:RemoteWrite"
	QueryMetrics      Action = "aps:QueryMetrics"
	GetLabels         Action = "aps:GetLabels"
	GetSeries         Action = "aps:GetSeries"
	GetMetricMetadata Action = "aps:GetMetricMetadata"
	UploadBlocks      Action = "amphora:UploadBlocks"
	DeleteTenant      Action = "amphora:DeleteTenant"   // all blocks of one's own tenant
	DeleteSeries      Action = "amphora:DeleteSeries"   // samples of one's own tenant
	DescribeTenant    Action = "amphora:DescribeTenant" // usage and limits of one's own tenant

	ListAlerts         Action = "aps:ListAlertManagerAlerts"
	CreateAlerts       Action = "aps:CreateAlertManagerAlerts"
	ListAlertGroups    Action = "aps:ListAlertManagerAlertGroups"
	ListReceivers      Action = "aps:ListAlertManagerReceivers"
	ListSilences       Action = "aps:ListAlertManagerSilences"
	PutSilences        Action = "aps:PutAlertManagerSilences"
	GetSilence         Action = "aps:GetAlertManagerSilence"
	DeleteSilence      Action = "aps:DeleteAlertManagerSilence"
	GetAlertStatus     Action = "aps:GetAlertManagerStatus"
	PutDefinition      Action = "aps:PutAlertManagerDefinition"
	DescribeDefinition Action = "aps:DescribeAlertManagerDefinition"
	DeleteDefinition   Action = "aps:DeleteAlertManagerDefinition"

	Scrape Action = "amphora:Scrape" // the metrics of the process
	Admin  Action = "amphora:Admin"  // everything of the process and all tenants
	Open   Action = "amphora:Open"   // anybody
)

// Service names the part of Amphora that must run in the process for a route to exist.
type Service string

// The services.
const (
	Any          Service = "any"
	Distributor  Service = "distributor"
	Ingester     Service = "ingester"
	Querier      Service = "querier"
	StoreGateway Service = "store-gateway"
	Compactor    Service = "compactor"
	Ruler        Service = "ruler"
	Alertmanager Service = "alertmanager"
	Control      Service = "control"
)

// everyService is in the order in which pages list them.
func everyService() []Service {
	return []Service{Any, Distributor, Querier, Ingester, StoreGateway, Compactor, Ruler, Alertmanager, Control}
}

// Tenancy says for whom a route acts.
type Tenancy uint8

// The tenancies.
const (
	NoTenant  Tenancy = iota // the process
	OneTenant                // exactly one tenant
	Tenants                  // one or, with federation, several
)

// Style says how a route answers errors.
type Style uint8

// The styles.
const (
	Plain Style = iota // text
	JSON               // Prometheus's JSON
	Write              // text, with Retry-After
	OTLP               // a status in the encoding of the request
	GRPC               // a status in trailers
	AWS                // JSON with the headers of AWS
)

// Handler answers a request or returns why it cannot, and leaves it to the mount to render that.
type Handler = admin.Handler

// Route is one row of the table.
type Route struct {
	Methods string // separated by commas
	Path    string // the default; /prometheus at its beginning stands for the configured prefix
	Action  Action
	// Other has the actions of the methods for which it is not Action.
	Other   map[string]Action
	Service Service
	Tenancy Tenancy
	Style   Style
	Link    string // text on the index page; empty: not there
	Metric  string // value of the label route; empty: made of the path
	Doc     string

	reads reads // as mounted

	// bind returns the handler, nil if the process has nothing to serve it with.
	bind func(*API) Handler
}

// defaultPrefix stands for the configured prefix in the table.
const defaultPrefix = "/prometheus"

// costsPath stands for the configured path in the table.
const costsPath = "/cost-attribution"

// alertmanagerPrefix stands for the configured prefix in the table.
const alertmanagerPrefix = "/alertmanager"

// Label returns the value of the metric label route, the same whatever the prefix is.
func (rt *Route) Label() string {
	if rt.Metric != "" {
		return rt.Metric
	}
	label := strings.Map(func(c rune) rune {
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
			return c
		case c == '{' || c == '}':
			return -1
		}
		return '_'
	}, strings.Trim(strings.TrimSuffix(rt.Path, "{$}"), "/"))
	switch {
	case label == "":
		return "root"
	case strings.HasPrefix(label, "debug_pprof"):
		return "debug_pprof" // one value, which dashboards leave out
	}
	return label
}

// Routes is every route of every target.
var Routes = append([]Route{
	{Methods: "GET", Path: "/{$}", Action: Admin, Service: Any, Doc: "Links to the pages of this process.",
		bind: func(a *API) Handler { return admin.Index(a.index()) }},
	{Methods: "GET", Path: "/ready", Action: Open, Service: Any, Link: "Readiness", Doc: "200 and `ready` when the process can serve, else 503 and the reason.",
		bind: (*API).ready},
	{Methods: "GET", Path: "/-/ready", Action: Open, Service: Any, Doc: "The same as /ready, where Prometheus has it.",
		bind: (*API).ready},
	{Methods: "GET", Path: "/-/healthy", Action: Open, Service: Any, Doc: "200 for as long as the process runs.",
		bind: func(*API) Handler { return admin.Healthy() }},
	{Methods: "GET", Path: "/metrics", Action: Scrape, Service: Any, Link: "Metrics", Doc: "Metrics of the process, in the text format, OpenMetrics or protobuf.",
		bind: (*API).scrape},
	{Methods: "GET", Path: costsPath, Action: Scrape, Service: Any, Link: "Usage by labels", Doc: "Usage by the values of tenants' `cost_attribution_labels`, as metrics. The path is `cost_attribution_registry_path`; without that setting there is none.",
		bind: (*API).costs},
	{Methods: "GET", Path: "/config", Action: Admin, Service: Any, Link: "Configuration", Doc: "Settings as YAML, secrets masked. `mode=diff`: those that differ from the defaults; `mode=defaults`: the defaults.",
		bind: (*API).config},
	{Methods: "GET", Path: "/runtime_config", Action: Admin, Service: Any, Link: "Runtime configuration", Doc: "Overrides file as loaded, with defaults. `mode=diff`: what differs from the defaults.",
		bind: (*API).runtimeConfig},
	{Methods: "GET", Path: "/services", Action: Admin, Service: Any, Link: "Services", Doc: "Parts of the process and their states. JSON with `Accept: application/json`.",
		bind: (*API).services},
	{Methods: "GET,POST", Path: "/memberlist", Action: Admin, Service: Any, Link: "Memberlist", Doc: "Members of the gossip cluster and its keys.",
		bind: func(a *API) Handler { return admin.Page(a.deps.Memberlist) }},
	{Methods: "GET,POST", Path: "/ingester/ring", Action: Admin, Service: Any, Link: "Ingester ring", Doc: "Ingesters of the ring and their shares of the series. JSON with `Accept: application/json`. POST of `forget` gives the series of a silent one to others, and the second time removes it.",
		bind: func(a *API) Handler { return admin.Ring("ingester_ring", "Ring of ingesters", a.deps.IngesterRing) }},
	{Methods: "GET", Path: "/ingester/partition-ring", Action: Admin, Service: Any, Doc: "There is no partition ring: an empty one as JSON with `Accept: application/json`, else a page that says so.",
		bind: func(*API) Handler { return admin.PartitionRing() }},
	{Methods: "GET,POST", Path: "/distributor/ring", Action: Admin, Service: Any, Link: "Distributor ring", Doc: "Distributors of the ring. JSON with `Accept: application/json`. POST of `forget` removes one.",
		bind: func(a *API) Handler {
			return admin.Ring("distributor_ring", "Ring of distributors", a.deps.DistributorRing)
		}},
	{Methods: "GET,POST", Path: "/query-scheduler/ring", Action: Admin, Service: Any, Link: "Query-scheduler ring", Doc: "Query-schedulers of the ring, where they are found by one. JSON with `Accept: application/json`. POST of `forget` removes one.",
		bind: func(a *API) Handler {
			return admin.Ring("query_scheduler_ring", "Ring of query-schedulers", a.deps.SchedulerRing)
		}},
	{Methods: "GET", Path: "/querier/ring", Action: Admin, Service: Querier, Doc: "There is no ring of queriers, who come to query-schedulers for work: an empty one as JSON with `Accept: application/json`, else a page that says so.",
		bind: func(*API) Handler { return admin.QuerierRing() }},
	{Methods: "GET", Path: "/debug/fgprof", Action: Admin, Service: Any, Doc: "Profile of all goroutines by wall time, waiting included: `seconds`, `format=pprof` or `folded`.",
		bind: func(*API) Handler { return admin.Page(fgprof.Handler()) }},
	{Methods: "GET", Path: "/debug/pprof/{$}", Action: Admin, Service: Any, Link: "Profiles", Doc: "List of Go profiles.",
		bind: func(*API) Handler { return admin.Profile() }},
	{Methods: "GET,POST", Path: "/debug/pprof/{profile}", Action: Admin, Service: Any, Doc: "One Go profile: heap, allocs, goroutine, mutex, block, threadcreate, profile, trace or symbol.",
		bind: func(*API) Handler { return admin.Profile() }},
	{Methods: "GET", Path: "/api/v1/status/config", Action: Open, Service: Any, Doc: "An empty configuration, for clients of Prometheus.",
		bind: func(*API) Handler { return admin.Empty(map[string]string{"yaml": ""}) }},
	{Methods: "GET", Path: "/api/v1/status/flags", Action: Open, Service: Any, Doc: "No flags, for clients of Prometheus.",
		bind: func(*API) Handler { return admin.Empty(struct{}{}) }},
	{Methods: "GET", Path: "/api/v1/status/buildinfo", Action: Open, Service: Any, Link: "Build information", Doc: "Version and features.",
		bind: (*API).build},
	{Methods: "GET", Path: "/api/v1/user_limits", Action: DescribeTenant, Service: Any, Tenancy: OneTenant, Doc: "Limits of the calling tenant.",
		bind: (*API).userLimits},
	{Methods: "GET", Path: "/api/v1/iam/accounts", Action: ManageIdentities, Service: Any, Doc: "Ids of the stored accounts.",
		bind: (*API).identities},
	{Methods: "GET,PUT", Path: "/api/v1/iam/accounts/{account}", Action: ManageIdentities, Service: Any, Doc: "The stored part of an account, without secrets. PUT makes it, or gives it another root key, which is told once.",
		bind: (*API).identities},
	{Methods: "PUT,DELETE", Path: "/api/v1/iam/accounts/{account}/{kind}/{name}", Action: ManageIdentities, Service: Any, Doc: "Make, change or delete one of the `users`, `groups`, `roles`, `policies` or `providers` of an account.",
		bind: (*API).identities},
	{Methods: "POST", Path: "/api/v1/iam/accounts/{account}/{kind}/{name}/{of}", Action: ManageIdentities, Service: Any, Doc: "A new key, token or MFA device of a user (`of`: `keys`, `tokens`, `mfa`), of which the secret is told once.",
		bind: (*API).identities},
	{Methods: "PUT,DELETE", Path: "/api/v1/iam/accounts/{account}/{kind}/{name}/{of}/{id}", Action: ManageIdentities, Service: Any, Doc: "Switch a key or token off and on with `{\"inactive\":true}`, enable an MFA device with `{\"codes\":[\"123456\",\"654321\"]}`, two that follow each other, or delete one of them.",
		bind: (*API).identities},
	{Methods: "GET", Path: "/api/v1/audit", Action: ReadAudit, Service: Any, Doc: "Records of who did what, the newest first: `from`, `to`, `account`, `event`, `caller`, `errors`, `limit`, `next_token`.",
		bind: (*API).audit},

	{Methods: "POST", Path: "/api/v1/push", Action: RemoteWrite, Service: Distributor, Tenancy: OneTenant, Style: Write, Doc: "Remote write 1.0 and 2.0.",
		bind: func(a *API) Handler { return a.ingest.Push }},
	{Methods: "POST", Path: "/api/v1/write", Metric: "api_v1_push", Action: RemoteWrite, Service: Distributor, Tenancy: OneTenant, Style: Write, Doc: "The same, where Prometheus takes it, and `promtool push metrics` sends it.",
		bind: func(a *API) Handler { return a.ingest.Push }},
	{Methods: "POST", Path: "/otlp/v1/metrics", Action: RemoteWrite, Service: Distributor, Tenancy: OneTenant, Style: OTLP, Doc: "Metrics of the OpenTelemetry protocol, in protobuf or JSON.",
		bind: func(a *API) Handler { return a.ingest.OTLP }},
	{Methods: "POST", Path: "/api/v1/otlp/v1/metrics", Metric: "otlp_v1_metrics", Action: RemoteWrite, Service: Distributor, Tenancy: OneTenant, Style: OTLP, Doc: "The same as /otlp/v1/metrics, where Cortex has it.",
		bind: func(a *API) Handler { return a.ingest.OTLP }},
	{Methods: "POST", Path: "/opentelemetry/v1/metrics", Metric: "otlp_v1_metrics", Action: RemoteWrite, Service: Distributor, Tenancy: OneTenant, Style: OTLP, Doc: "The same as /otlp/v1/metrics, where VictoriaMetrics has it.",
		bind: func(a *API) Handler { return a.ingest.OTLP }},
	{Methods: "POST", Path: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", Metric: "otlp_v1_metrics", Action: RemoteWrite, Service: Distributor, Tenancy: OneTenant, Style: GRPC,
		Doc:  "OTLP over gRPC, also on the listener `server.otlp_grpc_listen_address`. The tenant stands in the metadata `x-scope-orgid`.",
		bind: func(a *API) Handler { return a.ingest.ExportGRPC }},
	{Methods: "POST", Path: "/api/v1/push/influx/write", Action: RemoteWrite, Service: Distributor, Tenancy: OneTenant, Style: Write, Doc: "Influx line protocol; `precision`: ns (default), us, ms, s, m or h.",
		bind: (*API).influx},
	{Methods: "POST", Path: "/api/v1/push/influx/api/v2/write", Metric: "api_v1_push_influx_write", Action: RemoteWrite, Service: Distributor, Tenancy: OneTenant, Style: Write, Doc: "The same, for clients of InfluxDB 2 that are given `/api/v1/push/influx` as the address.",
		bind: (*API).influx},
	{Methods: "POST", Path: "/api/v1/import/prometheus", Action: RemoteWrite, Service: Distributor, Tenancy: OneTenant, Style: Write, Doc: "Samples as the text that Prometheus scrapes, or OpenMetrics; `timestamp` of those without, in milliseconds, `extra_label` (name=value, may repeat).",
		bind: func(a *API) Handler { return a.ingest.ImportText }},
	{Methods: "POST", Path: "/api/v1/import", Action: RemoteWrite, Service: Distributor, Tenancy: OneTenant, Style: Write, Doc: "Series as JSON objects, one on each line: `metric`, `values` or `histograms`, `timestamps` in milliseconds; `extra_label` (name=value, may repeat).",
		bind: func(a *API) Handler { return a.ingest.ImportLines }},
	{Methods: "POST", Path: "/api/v1/import/native", Action: RemoteWrite, Service: Distributor, Tenancy: OneTenant, Style: Write, Doc: "Chunks in the frames of remote read, as `/prometheus/api/v1/export/native` has them; `extra_label` (name=value, may repeat).",
		bind: func(a *API) Handler { return a.ingest.ImportNative }},
	{Methods: "GET", Path: "/distributor/all_user_stats", Action: Admin, Service: Distributor, Link: "Tenants", Doc: "Series and rates of all tenants. JSON with `Accept: application/json`.",
		bind: (*API).allUserStats},
	{Methods: "GET", Path: "/distributor/ha_tracker", Action: Admin, Service: Distributor, Link: "Elected replicas", Doc: "Elected replica of each cluster of each tenant. JSON with `Accept: application/json`.",
		bind: (*API).electedReplicas},

	{Methods: "GET,POST", Path: "/prometheus/api/v1/query", Action: QueryMetrics, Service: Querier, Tenancy: Tenants, Style: JSON, Doc: "Instant query: `query`, `time`, `timeout`, `limit`, `lookback_delta`, `stats`.",
		bind: func(a *API) Handler { return a.prom.Query }},
	{Methods: "GET,POST", Path: "/prometheus/api/v1/query_range", Action: QueryMetrics, Service: Querier, Tenancy: Tenants, Style: JSON, Doc: "Range query: `query`, `start`, `end`, `step`, `timeout`, `limit`, `lookback_delta`, `stats`.",
		bind: func(a *API) Handler { return a.prom.QueryRange }},
	{Methods: "GET,POST", Path: "/prometheus/api/v1/query_exemplars", Action: QueryMetrics, Service: Querier, Tenancy: Tenants, Style: JSON, Doc: "Exemplars of the series a query selects: `query`, `start`, `end`.",
		bind: func(a *API) Handler { return a.forwarded(a.prom.Exemplars) }},
	{Methods: "GET,POST", Path: "/prometheus/api/v1/series", Action: GetSeries, Service: Querier, Tenancy: Tenants, Style: JSON, Doc: "Series that match: `match[]`, `start`, `end`, `limit`.",
		bind: func(a *API) Handler { return a.forwarded(a.prom.Series) }},
	{Methods: "GET,POST", Path: "/prometheus/api/v1/labels", Action: GetLabels, Service: Querier, Tenancy: Tenants, Style: JSON, Doc: "Label names: `match[]`, `start`, `end`, `limit`.",
		bind: func(a *API) Handler { return a.forwarded(a.prom.Labels) }},
	{Methods: "GET,POST", Path: "/prometheus/api/v1/label/{name}/values", Action: GetLabels, Service: Querier, Tenancy: Tenants, Style: JSON, Doc: "Values of a label: `match[]`, `start`, `end`, `limit`.",
		bind: func(a *API) Handler { return a.forwarded(a.prom.LabelValues) }},
	{Methods: "GET", Path: "/prometheus/api/v1/metadata", Action: GetMetricMetadata, Service: Querier, Tenancy: Tenants, Style: JSON, Doc: "Type, help and unit of metrics: `metric`, `limit`, `limit_per_metric`.",
		bind: func(a *API) Handler { return a.forwarded(a.prom.Metadata) }},
	{Methods: "POST", Path: "/prometheus/api/v1/read", Action: QueryMetrics, Service: Querier, Tenancy: Tenants, Doc: "Remote read, as samples or as a stream of chunks.",
		bind: func(a *API) Handler { return a.forwarded(a.prom.RemoteRead) }},
	{Methods: "GET", Path: "/prometheus/federate", Action: QueryMetrics, Service: Querier, Tenancy: Tenants, Doc: "Newest samples, not older than 5 minutes, of the series that match: `match[]` (may repeat), in the formats that Prometheus scrapes, by `Accept`.",
		bind: func(a *API) Handler { return a.forwarded(a.prom.Federate) }},
	{Methods: "GET,POST", Path: "/prometheus/api/v1/export", Action: QueryMetrics, Service: Querier, Tenancy: OneTenant, Style: JSON, Doc: "Samples as JSON objects, one on each line, as `/api/v1/import` takes them: `match[]` (may repeat), `start`, `end`, `max_rows_per_line`, `after` (the `metric` of the last series that was received, to go on behind it), `histograms` (fail or omit; else native histograms are lines, too).",
		bind: func(a *API) Handler { return a.forwarded(a.prom.Export) }},
	{Methods: "GET,POST", Path: "/prometheus/api/v1/export/csv", Action: QueryMetrics, Service: Querier, Tenancy: OneTenant, Style: JSON, Doc: "Samples as lines of CSV: `match[]`, `start`, `end`, `after`, `histograms`, and `format`, the columns: labels, `__value__`, `__timestamp__` with `:unix_s`, `:unix_ms`, `:unix_ns` or `:rfc3339`.",
		bind: func(a *API) Handler { return a.forwarded(a.prom.ExportCSV) }},
	{Methods: "GET,POST", Path: "/prometheus/api/v1/export/native", Action: QueryMetrics, Service: Querier, Tenancy: OneTenant, Style: JSON, Doc: "Chunks as they are stored, native histograms too, in the frames of remote read, as `/api/v1/import/native` takes them: `match[]`, `start`, `end`, `after`.",
		bind: func(a *API) Handler { return a.forwarded(a.prom.ExportNative) }},
	{Methods: "GET,POST", Path: "/prometheus/api/v1/format_query", Action: QueryMetrics, Service: Querier, Tenancy: Tenants, Style: JSON, Doc: "The `query`, well laid out.",
		bind: func(a *API) Handler { return a.prom.FormatQuery }},
	{Methods: "GET,POST", Path: "/prometheus/api/v1/parse_query", Action: QueryMetrics, Service: Querier, Tenancy: Tenants, Style: JSON, Doc: "Syntax tree of the `query`.",
		bind: func(a *API) Handler { return a.prom.ParseQuery }},
	{Methods: "GET", Path: "/prometheus/api/v1/status/tsdb", Action: QueryMetrics, Service: Querier, Tenancy: OneTenant, Style: JSON, Doc: "Cardinality over all blocks of the tenant, as Prometheus shows it of its head: `limit`.",
		bind: func(a *API) Handler { return serviceCall(a.deps.Blocks.History, handlerOf(prom.StatusTSDB)) }},
	{Methods: "GET,POST", Path: "/prometheus/api/v1/usage/metrics", Action: GetLabels, Service: Querier, Tenancy: OneTenant, Style: JSON, Doc: "When queries, rules and lookups last asked for each metric and label in the ingesters, never or longest ago first: `days` (30), `unused=true`, `limit` (100). Values of labels are counted with `cardinality_analysis_enabled`.",
		bind: func(a *API) Handler { return a.insightful((*prom.API).MetricsUsage) }},
	{Methods: "GET,POST", Path: "/prometheus/api/v1/usage/drop", Action: GetLabels, Service: Querier, Tenancy: OneTenant, Style: JSON, Doc: "YAML that drops the metrics `metric[]` before they are stored; `format`: prometheus (`write_relabel_configs`, the default), otelcol, or overrides (the operator's `metric_relabel_configs`). Nothing is changed.",
		bind: func(a *API) Handler { return a.insightful((*prom.API).DropRules) }},
	{Methods: "GET,POST", Path: "/prometheus/api/v1/cardinality/label_names", Action: GetLabels, Service: Querier, Tenancy: OneTenant, Style: JSON, Doc: "Labels with the most values in the ingesters: `selector`, `count_method` (inmemory or active), `limit`. Needs `cardinality_analysis_enabled`.",
		bind: func(a *API) Handler { return a.counted((*prom.API).LabelNamesCardinality) }},
	{Methods: "GET,POST", Path: "/prometheus/api/v1/cardinality/label_values", Action: GetLabels, Service: Querier, Tenancy: OneTenant, Style: JSON, Doc: "Values with the most series of the labels `label_names[]`: `selector`, `count_method`, `limit`.",
		bind: func(a *API) Handler { return a.counted((*prom.API).LabelValuesCardinality) }},
	{Methods: "GET,POST", Path: "/prometheus/api/v1/cardinality/active_series", Action: GetSeries, Service: Querier, Tenancy: OneTenant, Style: JSON, Doc: "Labels of the active series that match `selector`. With `X-Amphora-Response-Query-Stats: true` (or `X-Mimir-…`) the header `Server-Timing` says what it took, as of queries. `Sharding-Control` is ignored, as for queries: limits of the tenant say into how many parts they fall.",
		bind: func(a *API) Handler { return a.counted((*prom.API).ActiveSeries) }},
	{Methods: "GET,POST", Path: "/prometheus/api/v1/cardinality/active_native_histogram_metrics", Action: GetSeries, Service: Querier, Tenancy: OneTenant, Style: JSON, Doc: "Metrics of the active native histograms that match `selector`, with their series and buckets; `Server-Timing` as for `active_series`.",
		bind: func(a *API) Handler { return a.counted((*prom.API).ActiveHistograms) }},
	{Methods: "GET", Path: "/prometheus/api/v1/status/active_queries", Action: QueryMetrics, Service: Querier, Tenancy: Tenants, Style: JSON, Doc: "Queries and other reads of the calling tenants that are under way, in every query-frontend: `id`, `frontend`, `tenants`, `class`, `query` (of other reads method, path and parameters), `since`, and of the parts that are done `parts_done`, `samples` and `fetched_bytes`. The 1000 oldest of each query-frontend; `warnings` names those that did not answer.",
		bind: func(a *API) Handler { return a.overseen(a.prom.Running(false)) }},
	{Methods: "DELETE", Path: "/prometheus/api/v1/status/active_queries/{id}", Action: QueryMetrics, Service: Querier, Tenancy: Tenants, Style: JSON, Doc: "Stop a query of the calling tenants, whichever query-frontend has it. Who asked gets 422.",
		bind: func(a *API) Handler { return a.overseen(a.prom.StopRunning(false)) }},
	{Methods: "GET", Path: "/query-frontend/active_queries", Action: Admin, Service: Querier, Style: JSON, Doc: "Queries of all tenants that are under way, as `/prometheus/api/v1/status/active_queries` lists those of one.",
		bind: func(a *API) Handler { return a.overseen(a.prom.Running(true)) }},
	{Methods: "DELETE", Path: "/query-frontend/active_queries/{id}", Action: Admin, Service: Querier, Style: JSON, Doc: "Stop a query, whosever it is.",
		bind: func(a *API) Handler { return a.overseen(a.prom.StopRunning(true)) }},
	{Methods: "GET,POST", Path: "/query-frontend/ring", Action: Admin, Service: Querier, Link: "Query-frontend ring", Doc: "Query-frontends, which ask each other for the queries under way. JSON with `Accept: application/json`. POST of `forget` removes one.",
		bind: func(a *API) Handler {
			return admin.Ring("query_frontend_ring", "Ring of query-frontends", a.deps.FrontendRing)
		}},
	{Methods: "GET,POST", Path: "/prometheus/api/v1/analyze", Action: QueryMetrics, Service: Querier, Tenancy: Tenants, Style: JSON, Doc: "How a query is laid out: `query`, and `time` or `start`, `end`, `step`; with `analyze=true` it is run, and the answer says what that took: in `evaluated` for each piece that a querier evaluated (a range, all series or a shard) its seconds with the wait for a querier, tries, samples, series and the bytes of chunks that it fetched from ingesters and store-gateways, which `parts` and the whole have as sums, in `cache` for each range what the results cache had of it (hit, partial or miss, and bytes read and written), the slowest 1000 of each.",
		bind: func(a *API) Handler { return a.overseen(a.prom.Explain) }},
	{Methods: "GET", Path: "/prometheus/api/v1/status/config", Action: Open, Service: Querier, Style: JSON, Doc: "An empty configuration, for clients of Prometheus.",
		bind: func(*API) Handler { return admin.Empty(map[string]string{"yaml": ""}) }},
	{Methods: "GET", Path: "/prometheus/api/v1/status/flags", Action: Open, Service: Querier, Style: JSON, Doc: "No flags, for clients of Prometheus.",
		bind: func(*API) Handler { return admin.Empty(struct{}{}) }},
	{Methods: "GET", Path: "/prometheus/api/v1/status/buildinfo", Action: Open, Service: Querier, Style: JSON, Doc: "Version and features; Grafana reads it.",
		bind: (*API).build},
	{Methods: "GET", Path: "/api/v1/user_lag", Action: DescribeTenant, Service: Querier, Tenancy: OneTenant, Doc: "How far ingestion of the calling tenant is behind: the newest sample stored, and the pushes under way.",
		bind: (*API).userLag},
	{Methods: "GET", Path: "/api/v1/user_stats", Action: DescribeTenant, Service: Querier, Tenancy: OneTenant, Doc: "Series and rates of the calling tenant.",
		bind: (*API).userStats},

	{Methods: "GET", Path: "/prometheus/api/v1/rules", Action: ListRules, Service: Ruler, Tenancy: OneTenant, Style: JSON, bind: listRules,
		Doc: "Rule groups and what became of them: `type`, `rule_name[]`, `rule_group[]`, `file[]`, `match[]`, `exclude_alerts`, `group_limit`, `group_next_token`."},
	{Methods: "GET", Path: "/prometheus/api/v1/alerts", Action: ReadAlerts, Service: Ruler, Tenancy: OneTenant, Style: JSON, bind: listAlerts, Doc: "Alerts that are pending or firing."},
	{Methods: "POST", Path: "/prometheus/api/v1/rules/preview", Action: QueryMetrics, Service: Ruler, Tenancy: OneTenant, Style: JSON, bind: previewRules,
		Doc: "What the rules of a rule file would have done between `start` and `end` (a time, or how long ago, as `7d`; the last day): series they record, alerts that fire. Nothing is stored."},
	{Methods: "POST", Path: "/prometheus/api/v1/rules/test", Action: ReadRules, Service: Ruler, Tenancy: OneTenant, Style: JSON, bind: testRules,
		Doc: "Run a file of unit tests in the form of promtool's over the tenant's namespaces that `rule_files` names, or over the rule files under `rules` in the body, and tell what differs. Nothing is stored."},
	{Methods: "GET,PUT", Path: "/prometheus/config/v1/rules", Action: WriteRules, Other: onRules(), Service: Ruler, Tenancy: OneTenant, bind: rulesConfig,
		Doc: "Rules of all namespaces, as YAML. PUT of the same shape replaces all of them, with `If-Match` and `dry_run=true` as for one namespace."},
	{Methods: "GET,POST,PUT,DELETE", Path: "/prometheus/config/v1/rules/{namespace}", Action: WriteRules, Other: onRules(), Service: Ruler, Tenancy: OneTenant, bind: rulesConfig,
		Doc: "Rules of one namespace, as YAML. POST puts one group; PUT all of the namespace at once, if it has the version that `If-Match` names, with `dry_run=true` only to see what would change."},
	{Methods: "GET,DELETE", Path: "/prometheus/config/v1/rules/{namespace}/{group}", Action: WriteRules, Other: onRules(), Service: Ruler, Tenancy: OneTenant, bind: rulesConfig, Doc: "One rule group, as YAML."},
	{Methods: "GET", Path: "/api/v1/rules", Metric: "prometheus_config_v1_rules", Action: ReadRules, Service: Ruler, Tenancy: OneTenant, bind: rulesConfig, Doc: "The same as /prometheus/config/v1/rules, where Cortex has it."},
	{Methods: "GET,POST,PUT,DELETE", Path: "/api/v1/rules/{namespace}", Metric: "prometheus_config_v1_rules_namespace", Action: WriteRules, Other: onRules(), Service: Ruler, Tenancy: OneTenant, bind: rulesConfig,
		Doc: "The same as /prometheus/config/v1/rules/{namespace}, where Cortex has it."},
	{Methods: "GET,DELETE", Path: "/api/v1/rules/{namespace}/{group}", Metric: "prometheus_config_v1_rules_namespace_group", Action: WriteRules, Other: onRules(), Service: Ruler, Tenancy: OneTenant, bind: rulesConfig,
		Doc: "The same as /prometheus/config/v1/rules/{namespace}/{group}, where Cortex has it."},
	{Methods: "POST", Path: "/ruler/delete_tenant_config", Action: DeleteRules, Service: Ruler, Tenancy: OneTenant, bind: deleteAllRules, Doc: "Delete all rules of the calling tenant."},
	{Methods: "GET,POST", Path: "/ruler/ring", Action: Admin, Service: Ruler, Link: "Ruler ring", bind: rulersRing, Doc: "Rulers of the ring. JSON with `Accept: application/json`. POST of `forget` removes one."},
	{Methods: "GET", Path: "/ruler/tenants", Action: Admin, Service: Ruler, Link: "Tenants with rules", bind: ruleTenants, Doc: "Tenants that have rules, as YAML."},
	{Methods: "GET", Path: "/ruler/rule_groups", Action: Admin, Service: Ruler, Link: "Rules of all tenants", bind: rulesOfAll, Doc: "Rules of all tenants, as YAML."},
	{Methods: "GET", Path: "/ruler/tenant/{tenant}/rule_groups", Action: Admin, Service: Ruler, bind: rulesOfTenant, Doc: "Rules of one tenant, as YAML."},

	{Methods: "GET,POST", Path: "/ingester/flush", Action: Admin, Service: Ingester, Doc: "Ship the samples in memory; `tenant` (may repeat), `wait=true` to wait for the result. Answers a job in JSON; `job` asks for its result later.",
		bind: func(a *API) Handler { return serviceCall(a.deps.Ingester.Flusher, admin.Flush) }},
	{Methods: "POST", Path: "/ingester/shutdown", Action: Admin, Service: Ingester, Doc: "Ship everything, leave the ring and stop serving; the process stays.",
		bind: func(a *API) Handler { return serviceCall(a.deps.Ingester.Flusher, admin.Shutdown) }},
	{Methods: "GET,POST,DELETE", Path: "/ingester/prepare-shutdown", Action: Admin, Service: Ingester, Doc: "Whether the next stop ships everything and leaves the ring: `set` or `unset`. POST sets, DELETE takes it back.",
		bind: func(a *API) Handler { return serviceCall(a.deps.Ingester.PrepareShutdown, admin.PrepareShutdown) }},
	{Methods: "GET,POST,DELETE", Path: "/ingester/prepare-instance-ring-downscale", Action: Admin, Service: Ingester, Doc: "Since when the ingester takes no new series, as Unix seconds or 0. POST begins, DELETE ends.",
		bind: func(a *API) Handler { return serviceCall(a.deps.Ingester.PrepareDownscale, admin.PrepareDownscale) }},
	{Methods: "GET,POST,DELETE", Path: "/ingester/prepare-partition-downscale", Action: Admin, Service: Ingester, Doc: "There are no partitions: 405.",
		bind: func(a *API) Handler { return admin.NoPartitions() }},
	{Methods: "GET,PUT,DELETE", Path: "/ingester/unregister-on-shutdown", Action: Admin, Service: Ingester, Doc: "Whether the ingester leaves the ring when it stops: `{\"unregister\":true}`. PUT sets, DELETE goes back to the configured state.",
		bind: func(a *API) Handler {
			return serviceCall(a.deps.Ingester.UnregisterOnShutdown, admin.UnregisterOnShutdown)
		}},
	{Methods: "GET", Path: "/ingester/tenants", Action: Admin, Service: Ingester, Link: "Tenants of this ingester", Doc: "Tenants with samples in memory.",
		bind: func(a *API) Handler { return serviceCall(a.deps.Ingester.Tenants, admin.Tenants) }},
	{Methods: "GET", Path: "/ingester/tsdb_metrics", Action: Admin, Service: Ingester, Link: "Heads of this ingester", Doc: "Figures of every tenant's recent data as metrics, under the names they have in a Prometheus.",
		bind: func(a *API) Handler { return serviceCall(a.deps.Ingester.HeadMetrics, admin.Page) }},
	{Methods: "GET", Path: "/ingester/tsdb/{tenant}", Action: Admin, Service: Ingester, Doc: "One tenant of this ingester.",
		bind: func(a *API) Handler { return serviceCall(a.deps.Ingester.Tenants, admin.Tenant) }},

	{Methods: "GET,POST", Path: "/store-gateway/ring", Action: Admin, Service: StoreGateway, Link: "Ring of store-gateways", Doc: "Store-gateways and their share of the blocks; POST forgets one.",
		bind: func(a *API) Handler {
			return admin.Ring("store_gateway_ring", "Ring of store-gateways", a.deps.StoreGatewayRing)
		}},
	{Methods: "GET", Path: "/store-gateway/tenants", Action: Admin, Service: StoreGateway, Link: "Tenants with blocks", Doc: "Tenants of the bucket.",
		bind: func(a *API) Handler { return serviceCall(a.deps.Blocks.Stored, admin.StoredTenants) }},
	{Methods: "GET", Path: "/store-gateway/tenant/{tenant}/blocks", Action: Admin, Service: StoreGateway, Doc: "Blocks of one tenant with their marks, as its bucket index has them.",
		bind: func(a *API) Handler { return serviceCall(a.deps.Blocks.Stored, admin.StoredBlocks) }},
	{Methods: "GET,POST,DELETE", Path: "/store-gateway/prepare-shutdown", Action: Admin, Service: StoreGateway, Doc: "Whether the store-gateway leaves the ring at its next stop although it is configured to keep its place: `set` or `unset`. POST sets, DELETE takes it back.",
		bind: func(a *API) Handler { return serviceCall(a.deps.Blocks.StoreShutdown, admin.PrepareShutdown) }},

	{Methods: "GET,POST", Path: "/compactor/ring", Action: Admin, Service: Compactor, Link: "Ring of compactors", Doc: "Compactors and their share of the work; POST forgets one.",
		bind: func(a *API) Handler { return admin.Ring("compactor_ring", "Ring of compactors", a.deps.CompactorRing) }},
	{Methods: "GET", Path: "/compactor/tenants", Action: Admin, Service: Compactor, Link: "Tenants and their jobs", Doc: "Tenants of the bucket.",
		bind: func(a *API) Handler { return serviceCall(a.deps.Blocks.Planner, admin.CompactorTenants) }},
	{Methods: "GET", Path: "/compactor/tenant/{tenant}/planned_jobs", Action: Admin, Service: Compactor, Doc: "Compaction jobs of one tenant that are due, with their blocks and bytes.",
		bind: func(a *API) Handler { return serviceCall(a.deps.Blocks.Planner, admin.PlannedJobs) }},
	{Methods: "GET", Path: "/compactor/tenant/{tenant}/blocks", Action: Admin, Service: Compactor, Doc: "Blocks of one tenant with their marks, and buttons to set and remove these.",
		bind: func(a *API) Handler {
			if a.deps.Blocks.Marks == nil || a.deps.Blocks.Stored == nil {
				return nil
			}
			return admin.MarkedBlocks(a.deps.Blocks.Stored)
		}},
	{Methods: "POST,DELETE", Path: "/compactor/tenant/{tenant}/block/{block}/no-compact-mark", Action: Admin, Service: Compactor, Doc: "Set a block aside from compaction, with `details`; DELETE, or `undo=true`, lets it be compacted again.",
		bind: func(a *API) Handler { return serviceCall(a.deps.Blocks.Marks, admin.NoCompactMark) }},
	{Methods: "POST,DELETE", Path: "/compactor/tenant/{tenant}/block/{block}/deletion-mark", Action: Admin, Service: Compactor, Doc: "Mark a block for deletion, with `details`; DELETE, or `undo=true`, takes that back while the block is there.",
		bind: func(a *API) Handler { return serviceCall(a.deps.Blocks.Marks, admin.DeletionMark) }},
	{Methods: "POST", Path: "/compactor/delete_tenant", Action: DeleteTenant, Service: Compactor, Tenancy: OneTenant, Doc: "Mark all blocks of the calling tenant for deletion.",
		bind: func(a *API) Handler { return serviceCall(a.deps.Blocks.Deletions, admin.DeleteTenant) }},
	{Methods: "GET", Path: "/compactor/delete_tenant_status", Action: DeleteTenant, Service: Compactor, Tenancy: OneTenant, Doc: "Whether all blocks of the calling tenant are gone: `{\"tenant_id\":\"...\",\"blocks_deleted\":true}`.",
		bind: func(a *API) Handler { return serviceCall(a.deps.Blocks.Deletions, admin.DeleteTenantStatus) }},
	{Methods: "GET,POST,PUT", Path: "/prometheus/api/v1/admin/tsdb/delete_series", Action: DeleteSeries, Service: Compactor, Tenancy: OneTenant, Style: JSON, Doc: "Delete samples: `match[]` (may repeat), `start`, `end`. They are hidden from queries within a minute and leave object storage later. GET lists the requests.",
		bind: func(a *API) Handler { return serviceCall(a.deps.Blocks.SeriesDeletions, handlerOf(prom.DeleteSeries)) }},
	{Methods: "POST,PUT", Path: "/prometheus/api/v1/admin/tsdb/cancel_delete_request", Action: DeleteSeries, Service: Compactor, Tenancy: OneTenant, Style: JSON, Doc: "Take back the request `request_id` to delete series, for as long as it is pending.",
		bind: func(a *API) Handler {
			return serviceCall(a.deps.Blocks.SeriesDeletions, handlerOf(prom.CancelSeriesDeletion))
		}},
	{Methods: "POST", Path: "/api/v1/upload/block/{block}/start", Action: UploadBlocks, Service: Compactor, Tenancy: OneTenant, Doc: "Begin to upload a block; the body is its meta.json with `thanos.files`.",
		bind: func(a *API) Handler { return serviceCall(a.deps.Blocks.Uploads, admin.StartBlockUpload) }},
	{Methods: "POST", Path: "/api/v1/upload/block/{block}/files", Action: UploadBlocks, Service: Compactor, Tenancy: OneTenant, Doc: "Upload the file `path` of a block: index or chunks/000001.",
		bind: func(a *API) Handler { return serviceCall(a.deps.Blocks.Uploads, admin.UploadBlockFile) }},
	{Methods: "POST", Path: "/api/v1/upload/block/{block}/finish", Action: UploadBlocks, Service: Compactor, Tenancy: OneTenant, Doc: "End the upload of a block, which is then checked and published.",
		bind: func(a *API) Handler { return serviceCall(a.deps.Blocks.Uploads, admin.FinishBlockUpload) }},
	{Methods: "GET", Path: "/api/v1/upload/block/{block}/check", Action: UploadBlocks, Service: Compactor, Tenancy: OneTenant, Doc: "Where the upload of a block stands: `complete`, `uploading`, `validating` or `failed` with an `error`.",
		bind: func(a *API) Handler { return serviceCall(a.deps.Blocks.Uploads, admin.CheckBlockUpload) }},

	{Methods: "GET", Path: "/alertmanager/api/v2/alerts", Action: ListAlerts, Service: Alertmanager, Tenancy: OneTenant, Doc: "Alerts: `filter` (may repeat), `receiver`, `receiver_matchers`, `active`, `silenced`, `inhibited`.",
		bind: func(a *API) Handler { return a.alertmanager("/api/v2/alerts") }},
	{Methods: "POST", Path: "/alertmanager/api/v2/alerts", Action: CreateAlerts, Service: Alertmanager, Tenancy: OneTenant, Doc: "Take alerts: a JSON list.",
		bind: func(a *API) Handler { return a.alertmanager("/api/v2/alerts") }},
	{Methods: "GET", Path: "/alertmanager/api/v2/alerts/groups", Action: ListAlertGroups, Service: Alertmanager, Tenancy: OneTenant, Doc: "Alerts as they are grouped for receivers: parameters as of /alerts, and `muted`.",
		bind: func(a *API) Handler { return a.alertmanager("/api/v2/alerts/groups") }},
	{Methods: "GET", Path: "/alertmanager/api/v2/receivers", Action: ListReceivers, Service: Alertmanager, Tenancy: OneTenant, Doc: "Names of the receivers.",
		bind: func(a *API) Handler { return a.alertmanager("/api/v2/receivers") }},
	{Methods: "GET", Path: "/alertmanager/api/v2/status", Action: GetAlertStatus, Service: Alertmanager, Tenancy: OneTenant, Doc: "The configuration, secrets masked, and the replicas of the tenant.",
		bind: func(a *API) Handler { return a.alertmanager("/api/v2/status") }},
	{Methods: "GET", Path: "/alertmanager/api/v2/silences", Action: ListSilences, Service: Alertmanager, Tenancy: OneTenant, Doc: "Silences: `filter` (may repeat), `active`, `pending`, `expired`.",
		bind: func(a *API) Handler { return a.alertmanager("/api/v2/silences") }},
	{Methods: "POST", Path: "/alertmanager/api/v2/silences", Action: PutSilences, Service: Alertmanager, Tenancy: OneTenant, Doc: "Create a silence, or change the one whose `id` is given.",
		bind: func(a *API) Handler { return a.alertmanager("/api/v2/silences") }},
	{Methods: "GET", Path: "/alertmanager/api/v2/silence/{silence}", Action: GetSilence, Service: Alertmanager, Tenancy: OneTenant, Doc: "One silence.",
		bind: func(a *API) Handler { return a.alertmanager("/api/v2/silence/") }},
	{Methods: "DELETE", Path: "/alertmanager/api/v2/silence/{silence}", Action: DeleteSilence, Service: Alertmanager, Tenancy: OneTenant, Doc: "Let a silence expire.",
		bind: func(a *API) Handler { return a.alertmanager("/api/v2/silence/") }},
	{Methods: "GET", Path: "/alertmanager/api/v1/decisions", Action: ListAlerts, Service: Alertmanager, Tenancy: OneTenant, Doc: "Why receivers were or were not notified of each alert, the last decisions of every replica: `filter` (may repeat), a matcher.",
		bind: func(a *API) Handler { return a.alertmanager("/api/v1/decisions") }},
	{Methods: "GET", Path: "/api/v1/alerts", Action: DescribeDefinition, Service: Alertmanager, Tenancy: OneTenant, Doc: "The configuration of the calling tenant's alertmanager, as it was put: YAML with `template_files` and `alertmanager_config`.",
		bind: func(a *API) Handler { return a.definition() }},
	{Methods: "POST", Path: "/api/v1/alerts", Action: PutDefinition, Service: Alertmanager, Tenancy: OneTenant, Doc: "Put the configuration of the calling tenant's alertmanager: 201, or 400 with line and reason, and then nothing changes.",
		bind: func(a *API) Handler { return a.definition() }},
	{Methods: "DELETE", Path: "/api/v1/alerts", Action: DeleteDefinition, Service: Alertmanager, Tenancy: OneTenant, Doc: "Delete the configuration of the calling tenant's alertmanager.",
		bind: func(a *API) Handler { return a.definition() }},
	{Methods: "GET,POST", Path: "/multitenant_alertmanager/ring", Action: Admin, Service: Alertmanager, Link: "Ring of alertmanagers", Doc: "Alertmanagers and their share of the tenants; POST forgets one.",
		bind: func(a *API) Handler {
			return a.alertPage(func(d *AlertmanagerDeps) Handler {
				return admin.Ring("alertmanager_ring", "Ring of alertmanagers", d.Ring)
			})
		}},
	{Methods: "GET", Path: "/multitenant_alertmanager/status", Action: Admin, Service: Alertmanager, Link: "Tenants of this alertmanager", Doc: "Tenants of this alertmanager, whether they are ready, and their places among their replicas. JSON with `Accept: application/json`.",
		bind: func(a *API) Handler {
			return a.alertPage(func(d *AlertmanagerDeps) Handler { return admin.AlertTenants(d.Tenants) })
		}},
	{Methods: "GET", Path: "/multitenant_alertmanager/configs", Action: Admin, Service: Alertmanager, Link: "Configurations of alertmanagers", Doc: "Configurations of all tenants as YAML, secrets masked.",
		bind: func(a *API) Handler {
			return a.alertPage(func(d *AlertmanagerDeps) Handler { return admin.YAML(d.Configurations) })
		}},
	{Methods: "POST", Path: "/multitenant_alertmanager/delete_tenant_config", Action: DeleteDefinition, Service: Alertmanager, Tenancy: OneTenant, Doc: "Delete the configuration and the state of the calling tenant's alertmanager; 200 also if there is none.",
		bind: func(a *API) Handler { return a.alertPage(deleteAlertTenant) }},
	{Methods: "GET", Path: "/alertmanager", Action: ListAlertGroups, Service: Alertmanager, Tenancy: OneTenant, Link: "Alerts", Doc: "Alerts of the tenant in their groups, and its silences, as a page; `filter`: a matcher.",
		bind: func(a *API) Handler {
			return a.alertPage(func(d *AlertmanagerDeps) Handler { return admin.AlertPage(d.Pages) })
		}},
	{Methods: "POST", Path: "/alertmanager", Action: PutSilences, Service: Alertmanager, Tenancy: OneTenant, Doc: "The page's forms: `expire` names a silence, or `matchers`, `for`, `author` and `comment` make one.",
		bind: func(a *API) Handler {
			return a.alertPage(func(d *AlertmanagerDeps) Handler { return admin.ChangeSilences(d.Pages) })
		}},
}, slices.Concat(grafanaRoutes(), consoleRoutes(), controlRoutes())...)

// serviceCall makes a handler of part, none of a part that the process does not have.
func serviceCall[T comparable](part T, handler func(T) Handler) Handler {
	var none T
	if part == none {
		return nil
	}
	return handler(part)
}

// handlerOf gives a maker of handlers of another package the type of this one's.
func handlerOf[T any](maker func(T) func(http.ResponseWriter, *http.Request) error) func(T) Handler {
	return func(part T) Handler { return maker(part) }
}

func (a *API) influx() Handler {
	if !a.cfg.Ingest.Protocols.Influx {
		return nil
	}
	return a.ingest.Influx
}

func (a *API) ready() Handler {
	if a.deps.Ready == nil {
		return nil
	}
	return admin.Ready(a.deps.Ready)
}

func (a *API) scrape() Handler {
	if a.deps.Metrics == nil {
		return nil
	}
	return admin.Page(a.deps.Metrics)
}

func (a *API) costs() Handler {
	if a.deps.Costs == nil {
		return nil
	}
	return admin.Page(a.deps.Costs)
}

func (a *API) config() Handler {
	if a.deps.Config == nil {
		return nil
	}
	return admin.Config(a.deps.Config, "diff", "defaults")
}

func (a *API) runtimeConfig() Handler {
	if a.deps.RuntimeConfig == nil {
		return nil
	}
	return admin.Config(a.deps.RuntimeConfig, "diff")
}

func (a *API) services() Handler {
	if a.deps.Services == nil {
		return nil
	}
	return admin.Services(a.deps.Services)
}

func (a *API) build() Handler { return admin.Build(a.deps.Build) }

func (a *API) userLimits() Handler {
	if a.deps.Limits == nil {
		return nil
	}
	return admin.UserLimits[limits.View](a.deps.Limits)
}

func (a *API) userStats() Handler {
	if a.deps.Usage == nil {
		return nil
	}
	return admin.UserStats(a.deps.Usage)
}

func (a *API) userLag() Handler {
	if a.deps.Usage == nil {
		return nil
	}
	return admin.UserLag(a.deps.Usage)
}

func (a *API) allUserStats() Handler {
	if a.deps.Usage == nil {
		return nil
	}
	return admin.AllUserStats(a.deps.Usage)
}

func (a *API) electedReplicas() Handler {
	if a.deps.Elected == nil {
		return nil
	}
	return admin.ElectedReplicas(a.deps.Elected)
}

// index groups the links of the mounted routes by service.
func (a *API) index() []admin.Group {
	var groups []admin.Group
	for _, service := range everyService() {
		g := admin.Group{Name: strings.ToUpper(string(service[:1])) + string(service[1:])}
		if service == Any {
			g.Name = "This process"
		}
		for _, rt := range a.mounted {
			if rt.Service == service && rt.Link != "" && rt.allows(http.MethodGet) {
				g.Links = append(g.Links, admin.Link{Path: strings.TrimSuffix(rt.Path, "{$}"), Text: rt.Link, Doc: strings.ReplaceAll(rt.Doc, "`", "")})
			}
		}
		if len(g.Links) > 0 {
			groups = append(groups, g)
		}
	}
	return groups
}
