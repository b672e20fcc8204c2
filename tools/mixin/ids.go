package main

// refusal is an id with what it means and what to do.
type refusal struct{ id, text string }

// The ends that texts have in common.
const (
	retried   = " Senders retry, so a short episode loses nothing."
	senderFix = " The sample is not stored, and sending it again is futile: fix the sender."
	native    = " Queries of a native histogram that breaks this rule would be wrong. Check the client library of the sender."
)

func ids() []refusal {
	return append(append(append(writeIDs(), sampleIDs()...), readIDs()...), alertIDs()...)
}

func alertIDs() []refusal {
	return []refusal{
		{"alertmanager-max-grafana-config-size", "The configuration that Grafana stores for a tenant is larger than `alertmanager_max_grafana_config_size_bytes`; the previous one stays."},
		{"alertmanager-max-grafana-state-size", "The state that Grafana stores for a tenant is larger than `alertmanager_max_grafana_state_size_bytes`; the previous one stays."},
	}
}

func writeIDs() []refusal {
	return []refusal{
		{"distributor-max-inflight-push-requests", "A distributor reached `distributor.instance_limits.max_inflight_push_requests`." + retried + " If it persists, ingesters are slow or there are too few distributors."},
		{"distributor-max-inflight-push-requests-bytes", "The pushes under way in a distributor reached `distributor.instance_limits.max_inflight_push_requests_bytes`." + retried + " Add distributors, or send smaller requests."},
		{"distributor-max-ingestion-rate", "A distributor reached `distributor.instance_limits.max_ingestion_rate`." + retried + " Add distributors."},
		{"distributor-max-otlp-request-size", "One OTLP request is larger than `distributor.max_otlp_request_size`. Send smaller batches, or raise it."},
		{"distributor-max-write-message-size", "One push is larger than `distributor.max_recv_msg_size`. Send fewer samples at once (`max_samples_per_send` of Prometheus), or raise it."},
		{"distributor-reactive-limiter", "A distributor became slow and accepts fewer pushes (`distributor.reactive_limiter`)." + retried},
		{"ingester-circuit-breaker-open", "Too many requests of this kind failed in an ingester, which refuses them for a while (`ingester.push_circuit_breaker`, `read_circuit_breaker`). Find out why they failed."},
		{"ingester-disk-full", "An ingester has almost no disk space left and accepts no samples: `ingester.min_free_disk_space_bytes`. See [AmphoraIngesterDiskRestricted](#amphoraingesterdiskrestricted)."},
		{"ingester-disk-low", "An ingester has little disk space left and accepts no new series: `ingester.min_free_disk_space_ratio`. See [AmphoraIngesterDiskRestricted](#amphoraingesterdiskrestricted)."},
		{"ingester-max-inflight-push-requests", "An ingester reached `ingester.instance_limits.max_inflight_push_requests`." + retried + " Its disk is slow, or there are too few ingesters."},
		{"ingester-max-inflight-push-requests-bytes", "The pushes under way in an ingester reached `ingester.instance_limits.max_inflight_push_requests_bytes`." + retried},
		{"ingester-max-inflight-read-requests", "An ingester reached `ingester.instance_limits.max_inflight_read_requests`. Another replica answers; if none can, the query fails."},
		{"ingester-max-ingestion-rate", "An ingester reached `ingester.instance_limits.max_ingestion_rate`." + retried + " Add ingesters."},
		{"ingester-max-series", "An ingester reached `ingester.instance_limits.max_series`; known series are still accepted. Add ingesters. See [AmphoraIngesterReachingSeriesLimit](#amphoraingesterreachingserieslimit)."},
		{"ingester-max-tenants", "An ingester reached `ingester.instance_limits.max_tenants`. See [AmphoraIngesterReachingTenantsLimit](#amphoraingesterreachingtenantslimit)."},
		{"ingester-push-reactive-limiter", "An ingester became slow and accepts fewer pushes (`ingester.push_reactive_limiter`)." + retried},
		{"ingester-read-reactive-limiter", "An ingester became slow and accepts fewer queries (`ingester.read_reactive_limiter`). Another replica is asked."},
		{"ingester-too-busy", "An ingester reached `ingester.read_path_cpu_utilization_limit` or `read_path_memory_utilization_limit`. Add ingesters."},
		{"memory-limit", "The process is short of memory and refuses this kind of work rather than being killed. See [AmphoraMemoryPressure](#amphoramemorypressure)."},
		{"max-active-series", "The tenant reached `max_active_series_per_user`. Samples of new series are refused with 429, the others stored. `/api/v1/user_stats` and cardinality queries show what grew; `drop_labels` and `metric_relabel_configs` reduce it."},
		{"max-series-per-user", "The tenant reached `max_global_series_per_user`. Known series are still accepted. See max-active-series for what to do."},
		{"max-series-per-metric", "One metric of the tenant reached `max_global_series_per_metric`. Usually one of its labels has a value per request or user: remove it."},
		{"max-series-per-label-set", "The series with the labels in the text reached their limit in `limits_per_label_set`."},
		{"max-metadata-per-user", "The tenant has metadata of `max_global_metadata_per_user` metrics. Samples are stored without it."},
		{"max-metadata-per-metric", "A metric has `max_global_metadata_per_metric` different metadata entries. Samples are stored without it."},
		{"tenant-max-ingestion-rate", "The tenant exceeds `ingestion_rate`, beyond bursts of `ingestion_burst_size`. Prometheus retries if configured to (`retry_on_http_429`). Raise the limit or send less."},
		{"tenant-max-request-rate", "The tenant exceeds `request_rate`. Send more samples per push."},
		{"tenant-too-many-ha-clusters", "The tenant's samples come from more clusters of Prometheus pairs than `ha_max_clusters`. Check the label that names the cluster: its value may be changing."},
		{"unknown-tenant", "`distributor.known_tenants_only` is on, and the tenant of a push is neither in the overrides of `runtime_config.file` nor an active workspace. Correct the sender's `X-Scope-OrgID`, or add the tenant: `tenant: {}` among the overrides is enough."},
		{"tenant-not-allowed", "A label of a series names a tenant that this sender may not write to: `tenant_from_label_allowed`."},
	}
}

func sampleIDs() []refusal {
	return []refusal{
		{"missing-metric-name", "A series has no metric name." + senderFix},
		{"metric-name-invalid", "A metric name has characters that `name_validation_scheme` does not allow." + senderFix},
		{"label-invalid", "A label name has characters that `name_validation_scheme` does not allow." + senderFix},
		{"label-value-invalid", "A label value is not valid UTF-8." + senderFix},
		{"label-name-too-long", "A label name is longer than `max_label_name_length`." + senderFix},
		{"label-value-too-long", "A label value is longer than `max_label_value_length`. `label_value_length_over_limit_strategy` can shorten or drop it instead." + senderFix},
		{"max-label-names-per-series", "A series has more labels than `max_label_names_per_series`." + senderFix},
		{"max-label-names-per-info-series", "A series of an info metric has more labels than `max_label_names_per_info_series`." + senderFix},
		{"duplicate-label-names", "A label name occurs twice in a series." + senderFix},
		{"labels-not-sorted", "The labels of a series reached an ingester in the wrong order. Distributors sort them, so another program writes to ingesters."},
		{"too-far-in-future", "A sample is further in the future than `creation_grace_period`. Check the sender's clock." + senderFix},
		{"too-far-in-past", "A sample is further in the past than `past_grace_period`." + senderFix},
		{"sample-timestamp-too-old", "A sample is older than the tenant's newest sample by more than `out_of_order_time_window`, or its time is in a block already. To import old data, upload blocks: `amphoratool backfill`." + senderFix},
		{"sample-out-of-order", "A sample is older than the newest one of its series, and `out_of_order_time_window` is 0." + senderFix},
		{"sample-duplicate-timestamp", "There is another value for the same series and time. Usually two Prometheus servers send the same series: give them the labels of a [pair](getting-started.md#pairs-of-prometheus), or different external labels." + senderFix},
		{"exemplar-labels-too-long", "The labels of an exemplar have more than 128 characters. The sample is stored without it."},
		{"exemplar-series-missing", "An exemplar belongs to a series without samples. It is dropped."},
		{"exemplar-too-far-in-past", "An exemplar is older than the newest one of its series. It is dropped."},
		{"invalid-native-histogram", "A native histogram cannot be decoded." + native},
		{"invalid-native-histogram-schema", "A native histogram has an unknown schema." + native},
		{"max-native-histogram-buckets", "A native histogram has more buckets than `max_native_histogram_buckets`, and `reduce_native_histogram_over_max_buckets` is off." + senderFix},
		{"not-reducible-native-histogram", "A native histogram has more buckets than `max_native_histogram_buckets` even with the coarsest schema." + senderFix},
		{"native-histogram-count-mismatch", "The bucket counts of a native histogram do not add up to its count." + native},
		{"native-histogram-count-not-big-enough", "The bucket counts of a native histogram exceed its count." + native},
		{"native-histogram-negative-bucket-count", "A bucket of a native histogram has a negative count." + native},
		{"native-histogram-span-negative-offset", "A span of a native histogram has a negative offset." + native},
		{"native-histogram-spans-buckets-mismatch", "The spans of a native histogram do not match its number of buckets." + native},
		{"native-histogram-custom-buckets-mismatch", "The number of custom buckets of a native histogram does not match its bounds." + native},
		{"native-histogram-custom-buckets-invalid", "The bounds of a native histogram with custom buckets are not ascending." + native},
		{"native-histogram-custom-buckets-infinite", "The last bound of a native histogram with custom buckets is infinite; that bound must be omitted." + native},
		{"native-histogram-custom-buckets-not-reducible", "A native histogram with custom buckets has more than `max_native_histogram_buckets`; its resolution cannot be reduced." + senderFix},
	}
}

func readIDs() []refusal {
	return []refusal{
		{"max-object-store-gets-per-hour", "The queries of a tenant used up `max_object_store_gets_per_hour`. Raise it, or find out who queries so much old data."},
		{"max-object-store-lists-per-hour", "The queries of a tenant used up `max_object_store_lists_per_hour`. The tenant has no bucket index: check that a compactor is running."},
		{"bucket-index-too-old", "The tenant's bucket index is older than `blocks_storage.bucket_store.bucket_index.max_stale_period`; answers might lack blocks. See [AmphoraBucketIndexOld](#amphorabucketindexold)."},
		{"store-consistency-check-failed", "Blocks in the bucket index are missing from the bucket. See [AmphoraBlocksMissing](#amphorablocksmissing)."},
		{"max-chunks-per-query", "A query needs more chunks than `max_fetched_chunks_per_query`. Select fewer series or a shorter time range; `/prometheus/api/v1/analyze` shows what it needs."},
		{"max-chunks-bytes-per-query", "The chunks of a query exceed `max_fetched_chunk_bytes_per_query`. Select fewer series or a shorter time range."},
		{"max-series-per-query", "A query selects more series than `max_fetched_series_per_query`. Select fewer, or precompute frequent queries with recording rules."},
		{"max-estimated-memory-consumption-per-query", "A query needs more memory than `max_estimated_memory_consumption_per_query`. Select fewer series or a shorter time range."},
		{"query-evicted", "The process ran short of memory and stopped this query, which used the most. Query less at once, or see [AmphoraMemoryPressure](#amphoramemorypressure)."},
		{"query-timeout", "A query reached its timeout after it computed for at least half of `querier.timeout` on one querier, and `querier.timeout_classification_enabled` is on. Select fewer series or a shorter time range, or precompute parts of it with recording rules."},
		{"max-query-length", "A part of a query covers more time than `max_partial_query_length`."},
		{"max-total-query-length", "A query covers more time than `max_total_query_length`."},
		{"max-query-expression-size-bytes", "The text of a query is longer than `max_query_expression_size_bytes`. It is probably generated: replace long lists of values by a label or a recording rule."},
		{"query-blocked", "An operator blocked this query: `blocked_queries` of the tenant."},
		{"request-blocked", "An operator blocked requests like this one: `blocked_requests` of the tenant."},
		{"query-limited", "An operator limited how often this query may run: `limited_queries` of the tenant."},
	}
}
