package limits

import "time"

// What a frontend makes of a query, and how it waits its turn.
var (
	MaxQueriersPerTenant = define("max_queriers_per_tenant", "query-frontend.max-queriers-per-tenant", 0, "queriers",
		"Queriers that a tenant's queries are spread over. 0: all of them.", "scheduler")
	MaxQueryParallelism = define("max_query_parallelism", "querier.max-query-parallelism", 14, "parts",
		"Parts of one query that may be with queriers at once.", "frontend")
	QueryShardingTotalShards = define("query_sharding_total_shards", "query-frontend.query-sharding-total-shards", 16, "shards",
		"Shards that the series of an aggregation are split into. 0: queries are not sharded.", "frontend")
	QueryShardingMaxShardedQueries = define("query_sharding_max_sharded_queries", "query-frontend.query-sharding-max-sharded-queries", 128, "parts",
		"Most parts that sharding and splitting make of one query. 0: no limit.", "frontend")
	QueryShardingMaxRegexpSize = define("query_sharding_max_regexp_size_bytes", "query-frontend.query-sharding-max-regexp-size-bytes", 4096, "bytes",
		"A query with a longer regular expression is not sharded, as each shard would match it anew. 0: no limit.", "frontend")
	AlignQueriesWithStep = define("align_queries_with_step", "query-frontend.align-queries-with-step", false, "",
		"Whether start and end of a range query are aligned to its step, so that more of it can be cached. The answer then has other timestamps than were asked for.", "frontend")
	SplitInstantQueriesByInterval = define("split_instant_queries_by_interval", "query-frontend.split-instant-queries-by-interval", time.Duration(0), "",
		"Instant queries with functions over longer ranges, such as sum_over_time(x[30d]), are split at multiples of this into partial ranges that can be cached. 0: they are not split.", "frontend")
	SubquerySpinOffEnabled = define("subquery_spin_off_enabled", "query-frontend.subquery-spin-off-enabled", false, "",
		"Whether subqueries of instant queries are evaluated as range queries, which are split, sharded and cached.", "frontend")
	MaxCacheFreshness = define("max_cache_freshness", "query-frontend.max-cache-freshness", 10*time.Minute, "",
		"Results for times younger than this are not cached. Less than 2m counts as 2m.", "frontend")
	ResultsCacheTTL = define("results_cache_ttl", "query-frontend.results-cache-ttl", 7*24*time.Hour, "",
		"How long query results stay in the cache after they were last found to be valid. 0: they are not cached.", "frontend")
	ResultsCacheTTLForOutOfOrder = define("results_cache_ttl_for_out_of_order_time_window", "query-frontend.results-cache-ttl-for-out-of-order-time-window", 10*time.Minute, "",
		"The same for results within out_of_order_time_window. Results that late samples have changed are never used, whatever this value.", "frontend")
	ResultsCacheTTLForCardinality = define("results_cache_ttl_for_cardinality_query", "query-frontend.results-cache-ttl-for-cardinality-query", time.Duration(0), "",
		"How long answers of /api/v1/cardinality are cached. 0: not at all.", "frontend")
	ResultsCacheTTLForLabels = define("results_cache_ttl_for_labels_query", "query-frontend.results-cache-ttl-for-labels-query", time.Duration(0), "",
		"How long answers about series, label names and label values are cached. 0: not at all.", "frontend")
	ResultsCacheTTLForErrors = define("results_cache_ttl_for_errors", "query-frontend.results-cache-ttl-for-errors", 5*time.Minute, "",
		"How long errors are cached, with frontend.cache_errors. 0: not at all.", "frontend")
	CacheUnalignedRequests = define("cache_unaligned_requests", "query-frontend.cache-unaligned-requests", false, "",
		"Whether results of range queries whose start is not a multiple of their step are cached.", "frontend")
	CardinalityAnalysisEnabled = define("cardinality_analysis_enabled", "querier.cardinality-analysis-enabled", false, "",
		"Whether /api/v1/cardinality is enabled.", "api")
	CardinalityAnalysisMaxResults = define("cardinality_analysis_max_results", "querier.cardinality-api-max-series-limit", 500, "",
		"Largest limit parameter of a request to /api/v1/cardinality.", "api")
	UsageInsightsEnabled = define("usage_insights_enabled", "query-frontend.usage-insights-enabled", true, "",
		"Whether it is noted which metrics and labels queries, rules and lookups name, for /api/v1/usage/metrics.", "usage")
	LabelNamesAndValuesResultsMaxSize = define("label_names_and_values_results_max_size_bytes", "querier.label-names-and-values-results-max-size-bytes", 400<<20, "bytes",
		"Label names and values that one request to /api/v1/cardinality may count. 0: no limit.", "api")
	LabelValuesMaxCardinalityLabelNames = define("label_values_max_cardinality_label_names_per_request", "querier.label-values-max-cardinality-label-names-per-request", 100, "names",
		"Label names that one request to /api/v1/cardinality/label_values may name. 0: no limit.", "api")
	ActiveSeriesResultsMaxSize = define("active_series_results_max_size_bytes", "querier.active-series-results-max-size-bytes", 400<<20, "bytes",
		"Largest answer of /api/v1/cardinality/active_series. 0: no limit.", "api")
	BlockedQueries = structured(Row{Name: "blocked_queries", Flag: "query-frontend.blocked-queries", Default: new(QueryRules),
		Doc: "List of {pattern, regex, reason}: queries refused with 400 because their text, as sent or as formatted by format_query, equals the pattern or, with regex, matches it. For remote read and exports the text is the selector.",
		By:  []string{"frontend", "api"}}, readBlockedQueries)
	BlockedRequests = structured(Row{Name: "blocked_requests", Flag: "query-frontend.blocked-requests", Default: new(RequestRules),
		Doc: "List of {path, method, query_params: {name: {value, is_regexp}}}: requests of the read API refused with 400 because they match everything that the entry names.",
		By:  []string{"api"}}, readBlockedRequests)
	LimitedQueries = structured(Row{Name: "limited_queries", Flag: "query-frontend.limited-queries", Default: new(QueryRules),
		Doc: "List of {query, allowed_frequency}: queries refused with 429 if they were last run less than allowed_frequency ago.",
		By:  []string{"frontend"}}, readLimitedQueries)
)
