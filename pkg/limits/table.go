package limits

import (
	"errors"
	"fmt"
	"time"
)

// The write path.
var (
	RequestRate = define("request_rate", "distributor.request-rate-limit", 0.0, "requests/s",
		"Push requests a tenant may make per second, over all distributors. 0: no limit.", "distributor")
	RequestBurstSize = define("request_burst_size", "distributor.request-burst-size", 0, "requests",
		"Push requests a tenant may make at once, per distributor.", "distributor")
	IngestionRate = define("ingestion_rate", "distributor.ingestion-rate-limit", 10_000.0, "samples/s",
		"Samples, exemplars and metadata a tenant may push per second, over all distributors. 0: no limit.", "distributor")
	IngestionBurstSize = define("ingestion_burst_size", "distributor.ingestion-burst-size", 200_000, "samples",
		"Largest burst, and so the largest request, per distributor.", "distributor")
	IngestionBurstFactor = define("ingestion_burst_factor", "distributor.ingestion-burst-factor", 0.0, "",
		"Largest burst as a multiple of ingestion_rate, at least 1; replaces ingestion_burst_size. 0: ingestion_burst_size applies.", "distributor").
		must(zeroOrAtLeastOne)
	IngestionArtificialDelay = define("ingestion_artificial_delay", "distributor.ingestion-artificial-delay", time.Duration(0), "",
		"Minimum duration of a successful push, with 10 % jitter; the answer says how long it was delayed. 0: no delay.", "distributor").
		must(atMostAMinute)
	TenantFromLabelRules = define("tenant_from_label_rules", "distributor.tenant-from-label.rules", []string(nil), "",
		"Rules, tried in order, that assign series to tenants: `label` takes the tenant from the value of that label, `label=value:tenant` "+
			"assigns series with that value to that tenant. Empty: all series belong to the tenant of the request.", "distributor").
		must(validTenantRules)
	TenantFromLabelDefault = define("tenant_from_label_default", "distributor.tenant-from-label.default", "", "",
		"Tenant of series that no rule of tenant_from_label_rules matches. Empty: the tenant of the request.", "distributor").
		must(validTenantOrNone)
	TenantFromLabelAllowed = define("tenant_from_label_allowed", "distributor.tenant-from-label.allowed", []string(nil), "",
		"Tenants that label values may name, beside the tenant of the request. A trailing * matches any suffix.", "distributor").
		must(validTenantList)
	TenantFromLabelRemove = define("tenant_from_label_remove", "distributor.tenant-from-label.remove", false, "",
		"Whether the label that determined the tenant is removed.", "distributor")
	IngestionTenantShardSize = define("ingestion_tenant_shard_size", "distributor.ingestion-tenant-shard-size", 0, "ingesters",
		"Ingesters that a tenant's series are spread over. 0: all of them.", "distributor", "querier")

	MaxLabelNameLength = define("max_label_name_length", "validation.max-length-label-name", 1024, "bytes",
		"Longest label name.", "distributor")
	MaxLabelValueLength = define("max_label_value_length", "validation.max-length-label-value", 2048, "bytes",
		"Longest label value and metric name.", "distributor")
	LabelValueLengthOverLimitStrategy = define("label_value_length_over_limit_strategy", "validation.label-value-length-over-limit-strategy", "error", "",
		"How to handle a label value over max_label_value_length: error refuses the series, truncate replaces the end of the value by a hash, "+
			"drop all of it. Metric names are always refused, and so is every value if the limit is below the 39 bytes of the hash.", "distributor").
		oneOf("error", "truncate", "drop")
	EnableTypeAndUnitLabels = define("enable_type_and_unit_labels", "distributor.enable-type-and-unit-labels", false, "",
		"Whether series get the labels __type__ and __unit__ from the metadata of remote write 2.0 and OTLP.", "distributor")
	MaxLabelNamesPerSeries = define("max_label_names_per_series", "validation.max-label-names-per-series", 30, "labels",
		"Most labels of one series.", "distributor")
	MaxLabelNamesPerInfoSeries = define("max_label_names_per_info_series", "validation.max-label-names-per-info-series", 80, "labels",
		"Most labels of a series whose name ends in _info, if larger than max_label_names_per_series.", "distributor")
	MaxMetadataLength = define("max_metadata_length", "validation.max-metadata-length", 1024, "bytes",
		"Longest metric name and unit of metadata; a longer help text is cut.", "distributor")
	EnforceMetadataMetricName = define("enforce_metadata_metric_name", "validation.enforce-metadata-metric-name", true, "",
		"Whether metadata without a metric name is refused; if not it is ignored.", "distributor")
	MaxExemplarsPerSeriesPerRequest = define("max_exemplars_per_series_per_request", "distributor.max-exemplars-per-series-per-request", 0, "exemplars",
		"Exemplars of one series in one request; further ones are dropped. 0: no limit.", "distributor")
	SeparateMetricsGroupLabel = define("separate_metrics_group_label", "validation.separate-metrics-group-label", "", "",
		"Label whose value in the first series of a push is used as the label group of amphora_discarded_samples_total. Empty: none.", "distributor")
	NameValidationScheme = define("name_validation_scheme", "validation.name-validation-scheme", "legacy", "",
		"Metric and label names a tenant may use: legacy ([a-zA-Z_][a-zA-Z0-9_]*, and : in metric names) or utf8.", "distributor").
		oneOf("legacy", "utf8")
	CreationGracePeriod = define("creation_grace_period", "validation.create-grace-period", 10*time.Minute, "",
		"How far in the future a sample may lie.", "distributor")
	PastGracePeriod = define("past_grace_period", "validation.past-grace-period", time.Duration(0), "",
		"How much older than the out-of-order window a sample may be before the distributor refuses it. 0: not checked.", "distributor")
	NativeHistogramsIngestionEnabled = define("native_histograms_ingestion_enabled", "ingester.native-histograms-ingestion-enabled", true, "",
		"Whether native histograms are stored; if not they are ignored.", "distributor")
	MaxNativeHistogramBuckets = define("max_native_histogram_buckets", "validation.max-native-histogram-buckets", 0, "buckets",
		"Most buckets of one native histogram sample. 0: no limit.", "distributor")
	ReduceNativeHistogramOverMaxBuckets = define("reduce_native_histogram_over_max_buckets", "validation.reduce-native-histogram-over-max-buckets", true, "",
		"Lower the resolution of a native histogram over max_native_histogram_buckets instead of refusing it.", "distributor")
	AcceptHASamples = define("accept_ha_samples", "distributor.ha-tracker.enable-for-all-users", false, "",
		"Store only the samples of the elected replica of each cluster. Requires distributor.ha_tracker.enable_ha_tracker.", "distributor")
	HAClusterLabel = define("ha_cluster_label", "distributor.ha-tracker.cluster", "cluster", "",
		"Label that names the cluster that several replicas scrape.", "distributor")
	HAReplicaLabel = define("ha_replica_label", "distributor.ha-tracker.replica", "__replica__", "",
		"Label that names the replica; it is not stored.", "distributor")
	HAMaxClusters = define("ha_max_clusters", "distributor.ha-tracker.max-clusters", 100, "clusters",
		"Clusters of a tenant whose replicas are deduplicated. 0: 10,000.", "distributor")
	HATrackerUpdateTimeout = define("ha_tracker_update_timeout", "distributor.ha-tracker.update-timeout", 15*time.Second, "",
		"How often distributors tell each other that the elected replica is alive.", "distributor")
	HATrackerUpdateTimeoutJitterMax = define("ha_tracker_update_timeout_jitter_max", "distributor.ha-tracker.update-timeout-jitter-max", 5*time.Second, "",
		"Jitter of that interval, either way.", "distributor")
	HATrackerFailoverTimeout = define("ha_tracker_failover_timeout", "distributor.ha-tracker.failover-timeout", 30*time.Second, "",
		"Silence of the elected replica after which another is elected. Must exceed the sum of update timeout and jitter by at least 1s; add the time between two pushes of a replica, or a live one may be replaced.", "distributor")
	HATrackerSampleFailoverTimeout = define("ha_tracker_sample_failover_timeout", "distributor.ha-tracker.failover-sample-timeout", time.Duration(0), "",
		"How much newer than the last sign of life of the elected replica another's samples must also be for it to be elected. 0: not checked.", "distributor")
	DropLabels = define("drop_labels", "distributor.drop-label", []string(nil), "",
		"Labels that are removed from every series.", "distributor")
	MetricRelabelConfigs = structured(Row{Name: "metric_relabel_configs", Flag: "distributor.metric-relabel-configs", Default: new(Relabeling),
		Doc: "Relabeling rules as in Prometheus's metric_relabel_configs, applied to every series before validation; a series without labels left is dropped. The label __meta_tenant_id holds the tenant.",
		By:  []string{"distributor"}}, readRelabeling)
	CreatedTimestampZeroIngestion = define("created_timestamp_zero_ingestion_enabled", "distributor.created-timestamp-zero-ingestion-enabled", false, "",
		"Write a zero sample at the start or restart of a counter or histogram, if remote write 2.0 carries that time and it is at most an hour before its sample and after all earlier samples.",
		"distributor", "ingester")
)

// Metrics of the OpenTelemetry protocol.
var (
	OTelMetricSuffixes = define("otel_metric_suffixes_enabled", "distributor.otel-metric-suffixes-enabled", false, "",
		"Add unit and type to the names of OTLP metrics, as in _seconds and _total, unless otel_translation_strategy says otherwise.", "otlp")
	OTelTranslationStrategy = define("otel_translation_strategy", "distributor.otel-translation-strategy", "", "",
		"How names of OTLP metrics and attributes are translated. Empty: names are escaped unless name_validation_scheme is utf8, with suffixes if otel_metric_suffixes_enabled.", "otlp").
		oneOf("", "UnderscoreEscapingWithSuffixes", "UnderscoreEscapingWithoutSuffixes", "NoUTF8EscapingWithSuffixes", "NoTranslation")
	OTelLabelNameUnderscoreSanitization = define("otel_label_name_underscore_sanitization", "distributor.otel-label-name-underscore-sanitization", true, "",
		"Prefix label names that would begin with one underscore with key, if names are escaped.", "otlp")
	OTelLabelNamePreserveMultipleUnderscores = define("otel_label_name_preserve_multiple_underscores", "distributor.otel-label-name-preserve-underscores", true, "",
		"Keep consecutive underscores in label names, if names are escaped.", "otlp")
	PromoteOTelResourceAttributes = define("promote_otel_resource_attributes", "distributor.otel-promote-resource-attributes", []string(nil), "",
		"Resource attributes that become labels of every series of the resource. A change makes new series.", "otlp")
	OTelKeepIdentifyingResourceAttributes = define("otel_keep_identifying_resource_attributes", "distributor.otel-keep-identifying-resource-attributes", false, "",
		"Keep service.name, service.namespace and service.instance.id among the labels of target_info.", "otlp")
	OTelPromoteScopeMetadata = define("otel_promote_scope_metadata", "distributor.otel-promote-scope-metadata", false, "",
		"Make name, version, schema and attributes of the instrumentation scope labels, as otel_scope_*.", "otlp")
	OTelConvertHistogramsToNHCB = define("otel_convert_histograms_to_nhcb", "distributor.otel-convert-histograms-to-nhcb", false, "",
		"Store explicit histograms as native histograms with custom buckets.", "otlp")
	OTelCreatedTimestampZeroIngestion = define("otel_created_timestamp_zero_ingestion_enabled", "distributor.otel-created-timestamp-zero-ingestion-enabled", false, "",
		"Write a zero sample at the start time of an OTLP series when that lies before its first sample.", "otlp", "ingester")
	OTelDeltaToCumulative = define("otel_delta_to_cumulative_enabled", "distributor.otel-delta-to-cumulative-enabled", false, "",
		"Add up OTLP points of delta temporality to cumulative ones, each series in one distributor.", "otlp")
	OTelNativeDeltaIngestion = define("otel_native_delta_ingestion", "distributor.otel-native-delta-ingestion", false, "",
		"Store OTLP points of delta temporality as they are; if not, and if they are not added up either, they are refused.", "otlp")
)

// Recent data.
var (
	MaxGlobalSeriesPerUser = define("max_global_series_per_user", "ingester.max-global-series-per-user", 150_000, "series",
		"Series a tenant may have in memory, before replication. 0: no limit.", "ingester")
	MaxActiveSeriesPerUser = define("max_active_series_per_user", "distributor.max-active-series-per-user", 0, "series",
		"Series a tenant may have active, before replication; see ingester.active_series_metrics_idle_timeout. Over it new series are refused before anything of them is stored. 0: no limit.", "ingester")
	EarlyHeadCompactionOwnedSeriesThreshold = define("early_head_compaction_owned_series_threshold", "ingester.early-head-compaction-owned-series-threshold", 0, "series",
		"Series of a tenant on one ingester from which on those that are not active any more are cut into blocks early, to free their memory. 0: never.", "ingester")
	EarlyHeadCompactionMinReduction = define("early_head_compaction_min_estimated_series_reduction_percentage",
		"ingester.early-head-compaction-min-estimated-series-reduction-percentage", 15, "percent",
		"Part of a tenant's series that an early cut by early_head_compaction_owned_series_threshold must save.", "ingester")
	LimitsPerLabelSet = structured(Row{Name: "limits_per_label_set", Flag: "ingester.limits-per-label-set", Default: new(LabelSetLimits),
		Doc: "List of {label_set: {name: value}, limits: {max_series: n}}: how many series with all labels of a set a tenant may have in memory, before replication. A series counts in every set it has the labels of; the empty set is for those in no other. max_series 0: they are only counted.",
		By:  []string{"ingester"}}, readLabelSets)
	ActiveSeriesCustomTrackers = structured(Row{Name: "active_series_custom_trackers", Flag: "ingester.active-series-custom-trackers", Default: new(Trackers),
		Doc: "Names with selectors: amphora_ingester_active_series_custom_tracker counts the active series that each matches. As text also name:selector;name:selector.",
		By:  []string{"ingester"}}, readTrackers)
	ActiveSeriesAdditionalCustomTrackers = structured(Row{Name: "active_series_additional_custom_trackers", Flag: "ingester.active-series-additional-custom-trackers", Default: new(Trackers),
		Doc: "Trackers beside active_series_custom_trackers; of two with one name this one counts.",
		By:  []string{"ingester"}}, readTrackers)
	MaxActiveSeriesAdditionalCustomTrackers = define("max_active_series_additional_custom_trackers", "validation.max-active-series-additional-custom-trackers", 0, "trackers",
		"Most trackers of active_series_additional_custom_trackers, the first by name. 0: no limit.", "ingester")
	CostAttributionLabels = define("cost_attribution_labels", "validation.cost-attribution-labels", []string(nil), "",
		"Labels, at most 4, by whose values a tenant's series and samples are counted at cost_attribution_registry_path.", "ingester", "distributor").
		must(func(names []string) error {
			var list []AttributionLabel
			for _, name := range names {
				list = append(list, AttributionLabel{name, attributionOutput(name)})
			}
			if fault := attributionFault(list); fault != "" {
				return errors.New(fault)
			}
			return nil
		})
	CostAttributionLabelsStructured = structured(Row{Name: "cost_attribution_labels_structured", Flag: "validation.cost-attribution-labels-structured", Default: new(AttributionLabels),
		Doc: "cost_attribution_labels as a list of {input: label of the series, output: name in the metrics}; wins over it.",
		By:  []string{"ingester", "distributor"}}, readAttribution)
	MaxCostAttributionCardinality = define("max_cost_attribution_cardinality", "validation.max-cost-attribution-cardinality", 2000, "",
		"Most combinations of values that a tenant's usage is attributed to; beyond that, all of it is attributed to __overflow__.", "ingester", "distributor")
	CostAttributionCooldown = define("cost_attribution_cooldown", "validation.cost-attribution-cooldown", time.Duration(0), "",
		"How long a tenant's usage stays in __overflow__ before its combinations are counted again.", "ingester", "distributor")
	MaxGlobalSeriesPerMetric = define("max_global_series_per_metric", "ingester.max-global-series-per-metric", 0, "series",
		"Series one metric name may have in memory, before replication. 0: no limit.", "ingester")
	MaxGlobalMetadataPerUser = define("max_global_metadata_per_user", "ingester.max-global-metadata-per-user", 0, "metrics",
		"Metrics with metadata a tenant may have. 0: no limit.", "ingester")
	MaxGlobalMetadataPerMetric = define("max_global_metadata_per_metric", "ingester.max-global-metadata-per-metric", 0, "entries",
		"Different metadata one metric may have. 0: no limit.", "ingester")
	MaxGlobalExemplarsPerUser = define("max_global_exemplars_per_user", "ingester.max-global-exemplars-per-user", 0, "exemplars",
		"Exemplars kept per tenant, the newest, before replication. 0: exemplars are not stored.", "distributor", "ingester")
	OutOfOrderTimeWindow = define("out_of_order_time_window", "ingester.out-of-order-time-window", 10*time.Minute, "",
		"How much older than the newest sample of its tenant a sample may be. 0: samples of a series must arrive in order.", "ingester", "distributor")
	OutOfOrderBlocksExternalLabelEnabled = define("out_of_order_blocks_external_label_enabled", "ingester.out-of-order-blocks-external-label-enabled", false, "",
		"Whether blocks of out-of-order samples carry the external label __out_of_order__=true, so that they are compacted separately.", "ingester")
)

// The read path.
var (
	MaxEstimatedMemoryConsumptionPerQuery = define("max_estimated_memory_consumption_per_query", "querier.max-estimated-memory-consumption-per-query", 0, "bytes",
		"Memory that one query or remote read may use: series and chunks fetched, and values held. Each part of a query that was split or sharded may use as much. 0: no limit but the process's.", "engine", "querier")
	MaxFetchedSeriesPerQuery = define("max_fetched_series_per_query", "querier.max-fetched-series-per-query", 0, "series",
		"Series one query may fetch. Each part of a query that was split or sharded may fetch as many. 0: no limit.", "querier")
	MaxFetchedChunksPerQuery = define("max_fetched_chunks_per_query", "querier.max-fetched-chunks-per-query", 2_000_000, "chunks",
		"Chunks one query may fetch. Each part of a query that was split or sharded may fetch as many. 0: no limit.", "querier")
	MaxFetchedChunkBytesPerQuery = define("max_fetched_chunk_bytes_per_query", "querier.max-fetched-chunk-bytes-per-query", 0, "bytes",
		"Bytes of chunks one query may fetch. Each part of a query that was split or sharded may fetch as many. 0: no limit.", "querier")
	StoreGatewayTenantShardSize = define("store_gateway_tenant_shard_size", "store-gateway.tenant-shard-size", 0, "store-gateways",
		"Store-gateways that a tenant's blocks are spread over. 0: all of them.", "querier")
	MaxObjectStoreGetsPerHour = define("max_object_store_gets_per_hour", "store-gateway.max-object-store-gets-per-hour", 0, "requests",
		"Requests for objects, parts of objects and attributes that a tenant's queries may make to object storage per hour, divided among its store-gateways. Reads from local copies and shared caches do not count. Queries that need more are refused (429) until the allowance has recovered. 0: no limit.", "storegateway")
	MaxObjectStoreListsPerHour = define("max_object_store_lists_per_hour", "querier.max-object-store-lists-per-hour", 0, "requests",
		"List requests that a tenant's queries may make to object storage per hour from each querier and store-gateway. Only tenants without a bucket index need any. Queries that need more are refused (429) until the allowance has recovered. 0: no limit.", "querier", "storegateway")
	MaxQueryLookback = define("max_query_lookback", "querier.max-query-lookback", time.Duration(0), "",
		"How far back a query may look; an earlier start is moved forward. 0: no limit.", "querier")
	MaxPartialQueryLength = define("max_partial_query_length", "querier.max-partial-query-length", time.Duration(0), "",
		"Longest time range of a query as a querier gets it, after splitting. 0: no limit.", "querier")
	MaxTotalQueryLength = define("max_total_query_length", "query-frontend.max-total-query-length", time.Duration(0), "",
		"Longest time range of a query as received, before splitting. 0: no limit.", "api")
	MaxQueryExpressionSize = define("max_query_expression_size_bytes", "query-frontend.max-query-expression-size-bytes", 0, "bytes",
		"Longest query text. 0: no limit.", "api")
	EnabledExperimentalFunctions = define("enabled_promql_experimental_functions", "query-frontend.enabled-promql-experimental-functions", "", "",
		"Experimental PromQL functions a tenant may use, and extended_range_selectors or binop_fill_modifiers: a list separated by commas, or all.", "api")
	MaxSeriesQueryLimit = define("max_series_query_limit", "querier.max-series-query-limit", 0, "series",
		"Most series in one answer of the series API. 0: no limit.", "api")
	MaxLabelNamesLimit = define("max_label_names_limit", "querier.max-label-names-limit", 0, "names",
		"Most names in one answer of the labels API. 0: no limit.", "api")
	MaxLabelValuesLimit = define("max_label_values_limit", "querier.max-label-values-limit", 0, "values",
		"Most values in one answer of the label values API. 0: no limit.", "api")
)

func zeroOrAtLeastOne(x float64) error {
	if x > 0 && x < 1 {
		return fmt.Errorf("%s is below 1", format(x))
	}
	return nil
}

func atMostAMinute(x time.Duration) error {
	if x > time.Minute {
		return fmt.Errorf("%s is over 1m", format(x))
	}
	return nil
}

// Blocks in object storage.
var (
	CompactorBlocksRetentionPeriod = define("compactor_blocks_retention_period", "compactor.blocks-retention-period", time.Duration(0), "",
		"Blocks whose newest sample is older are deleted. 0: they are kept for ever.", "compactor")
	RetentionBySelector = structured(Row{Name: "compactor_blocks_retention_by_selector", Flag: "compactor.blocks-retention-by-selector", Default: new(RetentionRules),
		Doc: "List of {selector, period}: how long the samples of matching series stay. The first rule that matches a series counts; compactor_blocks_retention_period is for the series that no rule matches. Period 0: for ever. Queries do not show older samples, and compaction removes them.",
		By:  []string{"compactor", "querier"}}, readRetentionRules)
	MaxSeriesDeletionRequests = define("max_series_deletion_requests", "compactor.max-series-deletion-requests", 100, "requests",
		"Requests to delete series that may be open at the same time; each series of a query is checked against all of them. 0: a tenant may not delete series.", "compactor")
	CompactorSplitAndMergeShards = define("compactor_split_and_merge_shards", "compactor.split-and-merge-shards", 0, "shards",
		"Blocks that a tenant's series are split into: about one for 8 million active series. 0: blocks are not split.", "compactor")
	CompactorSplitGroups = define("compactor_split_groups", "compactor.split-groups", 1, "groups",
		"Groups of blocks that are split in separate jobs, so that several compactors can share the work.", "compactor")
	CompactorTenantShardSize = define("compactor_tenant_shard_size", "compactor.compactor-tenant-shard-size", 0, "compactors",
		"Compactors that a tenant's jobs are spread over. 0: all of them.", "compactor")
	CompactorPartialBlockDeletionDelay = define("compactor_partial_block_deletion_delay", "compactor.partial-block-deletion-delay", 24*time.Hour, "",
		"Blocks without a meta file are deleted when nothing was added to them for this long; at least 4h. 0: never.", "compactor")
	CompactorMaxLookback = define("compactor_max_lookback", "compactor.max-lookback", time.Duration(0), "",
		"Blocks whose newest sample is older are not compacted. 0: all are.", "compactor")
	CompactorBlockUploadEnabled = define("compactor_block_upload_enabled", "compactor.block-upload-enabled", false, "",
		"Whether a tenant may upload blocks.", "compactor")
	CompactorBlockUploadValidationEnabled = define("compactor_block_upload_validation_enabled", "compactor.block-upload-validation-enabled", true, "",
		"Whether uploaded blocks are checked before they are published. Without the check a damaged block fails the queries and compactions of its tenant.", "compactor")
	CompactorBlockUploadVerifyChunks = define("compactor_block_upload_verify_chunks", "compactor.block-upload-verify-chunks", true, "",
		"Whether the check of an uploaded block reads all of its series and samples.", "compactor")
	CompactorBlockUploadMaxBlockSizeBytes = define("compactor_block_upload_max_block_size_bytes", "compactor.block-upload-max-block-size-bytes", 0, "bytes",
		"Largest block that may be uploaded. 0: no limit.", "compactor")
)

// Rules.
var (
	RulerEvaluationDelay = define("ruler_evaluation_delay_duration", "ruler.evaluation-delay-duration", time.Minute, "",
		"How far in the past rules are evaluated, so that late samples have arrived; query_offset of a group overrides it.", "ruler")
	RulerTenantShardSize = define("ruler_tenant_shard_size", "ruler.tenant-shard-size", 0, "rulers",
		"Rulers that a tenant's groups are spread over. 0: all of them.", "ruler")
	RulerMaxRulesPerRuleGroup = define("ruler_max_rules_per_rule_group", "ruler.max-rules-per-rule-group", 20, "rules",
		"Most rules of one group. 0: no limit.", "ruler")
	RulerMaxRuleGroupsPerTenant = define("ruler_max_rule_groups_per_tenant", "ruler.max-rule-groups-per-tenant", 70, "groups",
		"Most rule groups of a tenant. 0: no limit.", "ruler")
	RulerMaxRulesPerRuleGroupByNamespace = structured(Row{Name: "ruler_max_rules_per_rule_group_by_namespace", Flag: "ruler.max-rules-per-rule-group-by-namespace", Default: new(ByNamespace),
		Doc: "Most rules of one group by namespace, overriding ruler_max_rules_per_rule_group.", By: []string{"ruler"}}, readByNamespace)
	RulerMaxRuleGroupsPerTenantByNamespace = structured(Row{Name: "ruler_max_rule_groups_per_tenant_by_namespace", Flag: "ruler.max-rule-groups-per-tenant-by-namespace", Default: new(ByNamespace),
		Doc: "Most groups by namespace, overriding ruler_max_rule_groups_per_tenant.", By: []string{"ruler"}}, readByNamespace)
	RulerProtectedNamespaces = define("ruler_protected_namespaces", "ruler.protected-namespaces", []string(nil), "",
		"Namespaces that can be changed only with the header X-Amphora-Ruler-Override-Namespace-Protection, or X-Mimir-Ruler-Override-Namespace-Protection, that lists them.", "ruler")
	RulerRecordingRulesEvaluationEnabled = define("ruler_recording_rules_evaluation_enabled", "ruler.recording-rules-evaluation-enabled", true, "",
		"Whether recording rules are evaluated.", "ruler")
	RulerAlertingRulesEvaluationEnabled = define("ruler_alerting_rules_evaluation_enabled", "ruler.alerting-rules-evaluation-enabled", true, "",
		"Whether alerting rules are evaluated.", "ruler")
	RulerSyncRulesOnChangesEnabled = define("ruler_sync_rules_on_changes_enabled", "ruler.sync-rules-on-changes-enabled", true, "",
		"Whether rulers are notified of changed rules at once; otherwise they notice at their next poll.", "ruler")
	RulerMaxIndependentConcurrency = define("ruler_max_independent_rule_evaluation_concurrency_per_tenant", "ruler.max-independent-rule-evaluation-concurrency-per-tenant", 4, "rules",
		"Rules without dependencies that are evaluated at the same time, beside one of each group. 0: one after the other.", "ruler")
	RulerMinRuleEvaluationInterval = define("ruler_min_rule_evaluation_interval", "ruler.min-rule-evaluation-interval", time.Duration(0), "",
		"Shortest interval of a group. 0: no limit.", "ruler")
	RulerExternalLabels = structured(Row{Name: "ruler_external_labels", Flag: "ruler.external-labels", Default: new(Labels),
		Doc: "Labels added to outgoing alerts that do not have them; .ExternalLabels in templates.", By: []string{"ruler"}}, readLabels)
	RulerAlertmanagerClient = structured(Row{Name: "ruler_alertmanager_client_config", Flag: "ruler.alertmanager-client-config", Default: new(AlertmanagerClient),
		Doc: "Where the tenant's alerts go in the place of ruler.alertmanager_url, and as whom: {alertmanager_url: 'http://am:9093', basic_auth_username: u, basic_auth_password: p}; also proxy_url, tls_ca_path, tls_cert_path, tls_key_path, tls_server_name, tls_insecure_skip_verify, and oauth2 with client_id, client_secret, token_url and scopes.",
		By:  []string{"ruler"}}, readAlertmanagerClient)
	RulerMaxRuleEvaluationResults = define("ruler_max_rule_evaluation_results", "ruler.max-rule-evaluation-results", 0, "results",
		"Most series or alerts that one evaluation of a rule may produce; with more the rule fails. 0: no limit.", "ruler")
)
