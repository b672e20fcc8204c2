package limits

import "time"

// What a frontend makes of a query, and how it waits its turn.
var (
	MaxQueriersPerTenant = define("max_queriers_per_tenant", "query-frontend.max-queriers-per-tenant", 0, "queriers",
		"Queriers that a tenant's queries are spread over. 0: all of them.", "scheduler")
	MaxQueryParallelism = define("max_query_parallelism", "querier.max-query-parallelism", 14, "parts",
		"Parts of one query that are on their way to queriers at once.", "frontend")
	QueryShardingTotalShards = define("query_sharding_total_shards", "query-frontend.query-sharding-total-shards", 16, "shards",
		"Shards that the series of an aggregation are parted into. 0: queries are not sharded.", "frontend")
	QueryShardingMaxShardedQueries = define("query_sharding_max_sharded_queries", "query-frontend.query-sharding-max-sharded-queries", 128, "parts",
		"Most parts that sharding and splitting make of one query. 0: no limit.", "frontend")
	QueryShardingMaxRegexpSize = define("query_sharding_max_regexp_size_bytes", "query-frontend.query-sharding-max-regexp-size-bytes", 4096, "bytes",
		"A query with a longer regular expression is not sharded, as each shard would match it anew. 0: no limit.", "frontend")
	AlignQueriesWithStep = define("align_queries_with_step", "query-frontend.align-queries-with-step", false, "",
		"Whether start and end of a range query are moved to multiples of its step, so that more of it is cached. The answer then has other times than were asked for.", "frontend")
	SplitInstantQueriesByInterval = define("split_instant_queries_by_interval", "query-frontend.split-instant-queries-by-interval", time.Duration(0), "",
		"Functions over longer ranges, such as sum_over_time(x[30d]) in an instant query, are asked for in parts of the range that end at multiples of this, which are kept in the results cache. 0: they are not.", "frontend")
	SubquerySpinOffEnabled = define("subquery_spin_off_enabled", "query-frontend.subquery-spin-off-enabled", false, "",
		"Whether the expressions of subqueries of instant queries are evaluated as range queries, which are split, sharded and kept in the results cache.", "frontend")
	MaxCacheFreshness = define("max_cache_freshness", "query-frontend.max-cache-freshness", 10*time.Minute, "",
		"Answers for times younger than this are not kept in the results cache. Less than 2m counts as 2m.", "frontend")
	ResultsCacheTTL = define("results_cache_ttl", "query-frontend.results-cache-ttl", 7*24*time.Hour, "",
		"How long answers of queries stay in the results cache after they were last found to hold. 0: they are not kept.", "frontend")
	ResultsCacheTTLForOutOfOrder = define("results_cache_ttl_for_out_of_order_time_window", "query-frontend.results-cache-ttl-for-out-of-order-time-window", 10*time.Minute, "",
		"The same for answers of times within out_of_order_time_window. What a late sample changes is never given from the cache whatever this is.", "frontend")
	ResultsCacheTTLForCardinality = define("results_cache_ttl_for_cardinality_query", "query-frontend.results-cache-ttl-for-cardinality-query", time.Duration(0), "",
		"How long answers of /api/v1/cardinality are given again. 0: never.", "frontend")
	ResultsCacheTTLForLabels = define("results_cache_ttl_for_labels_query", "query-frontend.results-cache-ttl-for-labels-query", time.Duration(0), "",
		"How long answers about series, label names and label values are given again. 0: never.", "frontend")
	ResultsCacheTTLForErrors = define("results_cache_ttl_for_errors", "query-frontend.results-cache-ttl-for-errors", 5*time.Minute, "",
		"How long the error of a query that would fail again is given again, where errors are cached. 0: never.", "frontend")
	CacheUnalignedRequests = define("cache_unaligned_requests", "query-frontend.cache-unaligned-requests", false, "",
		"Whether answers of range queries whose start is no multiple of their step are kept in the results cache.", "frontend")
	CardinalityAnalysisEnabled = define("cardinality_analysis_enabled", "querier.cardinality-analysis-enabled", false, "",
		"Whether /api/v1/cardinality answers.", "api")
	CardinalityAnalysisMaxResults = define("cardinality_analysis_max_results", "querier.cardinality-api-max-series-limit", 500, "",
		"Largest limit that a request to /api/v1/cardinality may name.", "api")
	LabelNamesAndValuesResultsMaxSize = define("label_names_and_values_results_max_size_bytes", "querier.label-names-and-values-results-max-size-bytes", 400<<20, "bytes",
		"Label names and values that one request to /api/v1/cardinality may count. 0: no limit.", "api")
	LabelValuesMaxCardinalityLabelNames = define("label_values_max_cardinality_label_names_per_request", "querier.label-values-max-cardinality-label-names-per-request", 100, "names",
		"Label names that one request to /api/v1/cardinality/label_values may name. 0: no limit.", "api")
	ActiveSeriesResultsMaxSize = define("active_series_results_max_size_bytes", "querier.active-series-results-max-size-bytes", 400<<20, "bytes",
		"Largest answer of /api/v1/cardinality/active_series. 0: no limit.", "api")
	BlockedQueries = structured(Row{Name: "blocked_queries", Flag: "query-frontend.blocked-queries", Default: new(QueryRules),
		Doc: "List of {pattern, regex, reason}: queries that are refused with 400 because their text, as it is or as format_query lays it out, is the pattern or matches it as a regular expression.",
		By:  []string{"frontend"}}, readBlockedQueries)
	LimitedQueries = structured(Row{Name: "limited_queries", Flag: "query-frontend.limited-queries", Default: new(QueryRules),
		Doc: "List of {query, allowed_frequency}: queries that are refused with 429 if they were asked less than allowed_frequency ago.",
		By:  []string{"frontend"}}, readLimitedQueries)
)
