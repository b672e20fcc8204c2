package main

// refusal is an id with what it means and what to do.
type refusal struct{ id, text string }

// The ends that texts have in common.
const (
	retried   = " Senders try again, so nothing is lost while it is short."
	senderFix = " The sample is not stored and must not be sent again as it is: look at who sends it."
	native    = " A native histogram that breaks this rule would make every query of it wrong. Look at the library of who sends it."
)

func ids() []refusal {
	return append(append(append(writeIDs(), sampleIDs()...), readIDs()...), alertIDs()...)
}

func alertIDs() []refusal {
	return []refusal{
		{"alertmanager-max-grafana-config-size", "The configuration that a Grafana keeps here for a tenant is larger than `alertmanager_max_grafana_config_size_bytes`; the one before stays."},
		{"alertmanager-max-grafana-state-size", "The state that a Grafana keeps here for a tenant is larger than `alertmanager_max_grafana_state_size_bytes`; the one before stays."},
	}
}

func writeIDs() []refusal {
	return []refusal{
		{"distributor-max-inflight-push-requests", "A distributor has as many pushes under way as `distributor.instance_limits.max_inflight_push_requests` lets it." + retried + " If it goes on, ingesters are slow or distributors too few."},
		{"distributor-max-inflight-push-requests-bytes", "The pushes under way in a distributor have as many bytes as `distributor.instance_limits.max_inflight_push_requests_bytes` allows." + retried + " Add distributors, or send smaller requests."},
		{"distributor-max-ingestion-rate", "A distributor takes as many samples a second as `distributor.instance_limits.max_ingestion_rate` lets it." + retried + " Add distributors."},
		{"distributor-max-otlp-request-size", "One OTLP request is larger than `distributor.max_otlp_request_size`. Send smaller batches, or raise it."},
		{"distributor-max-write-message-size", "One push is larger than `distributor.max_recv_msg_size`. Send fewer samples at once (`max_samples_per_send` of Prometheus), or raise it."},
		{"distributor-reactive-limiter", "A distributor noticed that it became slow and takes less (`distributor.reactive_limiter`)." + retried},
		{"ingester-circuit-breaker-open", "Too many requests of this kind to an ingester failed, and it takes none for a while (`ingester.push_circuit_breaker`, `read_circuit_breaker`). Look at why they failed before that."},
		{"ingester-disk-full", "An ingester has next to no disk left and takes no samples: `ingester.min_free_disk_space_bytes`. See [AmphoraIngesterDiskRestricted](#amphoraingesterdiskrestricted)."},
		{"ingester-disk-low", "An ingester has little disk left and takes no new series: `ingester.min_free_disk_space_ratio`. See [AmphoraIngesterDiskRestricted](#amphoraingesterdiskrestricted)."},
		{"ingester-max-inflight-push-requests", "An ingester has as many pushes under way as `ingester.instance_limits.max_inflight_push_requests` lets it." + retried + " Its disk is slow, or there are too few."},
		{"ingester-max-inflight-push-requests-bytes", "The pushes under way in an ingester have as many bytes as `ingester.instance_limits.max_inflight_push_requests_bytes` allows." + retried},
		{"ingester-max-inflight-read-requests", "An ingester has as many queries under way as `ingester.instance_limits.max_inflight_read_requests` lets it. Another replica answers; if none does, the query fails."},
		{"ingester-max-ingestion-rate", "An ingester stores as many samples a second as `ingester.instance_limits.max_ingestion_rate` lets it." + retried + " Add ingesters."},
		{"ingester-max-series", "An ingester holds as many series as `ingester.instance_limits.max_series` lets it; those known go on. Add ingesters. See [AmphoraIngesterReachingSeriesLimit](#amphoraingesterreachingserieslimit)."},
		{"ingester-max-tenants", "An ingester has as many tenants as `ingester.instance_limits.max_tenants` lets it. See [AmphoraIngesterReachingTenantsLimit](#amphoraingesterreachingtenantslimit)."},
		{"ingester-push-reactive-limiter", "An ingester noticed that it became slow and takes fewer pushes (`ingester.push_reactive_limiter`)." + retried},
		{"ingester-read-reactive-limiter", "An ingester noticed that it became slow and answers fewer queries (`ingester.read_reactive_limiter`). Another replica is asked."},
		{"ingester-too-busy", "An ingester uses as much CPU or memory as `ingester.read_path_cpu_utilization_limit` or `read_path_memory_utilization_limit` allows for queries. Add ingesters."},
		{"memory-limit", "The process is short of memory and refuses this kind of work rather than being killed. See [AmphoraMemoryPressure](#amphoramemorypressure)."},
		{"max-active-series", "The tenant has as many active series as `max_active_series_per_user`. Samples of new series are refused with 429, the others stored. `/api/v1/user_stats` and cardinality queries show what grew; `drop_labels` and `metric_relabel_configs` make it smaller."},
		{"max-series-per-user", "The tenant has as many series in memory as `max_global_series_per_user`. Known series go on. What to do is as for max-active-series."},
		{"max-series-per-metric", "One metric of the tenant has as many series as `max_global_series_per_metric`. Mostly one of its labels has a value for each request or user: take it away."},
		{"max-series-per-label-set", "The series with the labels that the text names are as many as `limits_per_label_set` allows."},
		{"max-metadata-per-user", "The tenant has descriptions of as many metrics as `max_global_metadata_per_user`. Samples are stored without."},
		{"max-metadata-per-metric", "A metric has as many descriptions as `max_global_metadata_per_metric`. Samples are stored without."},
		{"tenant-max-ingestion-rate", "The tenant sends more samples a second than `ingestion_rate`, beyond bursts of `ingestion_burst_size`. Prometheus tries again if it is told to (`retry_on_http_429`). Raise the limit or send less."},
		{"tenant-max-request-rate", "The tenant makes more pushes a second than `request_rate`. Send more samples in each."},
		{"tenant-too-many-ha-clusters", "The tenant's samples come from more clusters of Prometheus pairs than `ha_max_clusters`. Look at the label that names the cluster: it may hold something that changes."},
		{"unknown-tenant", "`distributor.known_tenants_only` is on, and the tenant of a push is neither in the overrides of `runtime_config.file` nor an active workspace. Correct `X-Scope-OrgID` of who sends it, or make the tenant known: `tenant: {}` among the overrides is enough."},
		{"tenant-not-allowed", "The tenant that a series names by its labels is not one that this sender may write to: `tenant_from_label_allowed`."},
	}
}

func sampleIDs() []refusal {
	return []refusal{
		{"missing-metric-name", "A series has no metric name." + senderFix},
		{"metric-name-invalid", "A metric name has characters that `name_validation_scheme` does not allow." + senderFix},
		{"label-invalid", "A label name has characters that `name_validation_scheme` does not allow." + senderFix},
		{"label-value-invalid", "A label value is not UTF-8." + senderFix},
		{"label-name-too-long", "A label name is longer than `max_label_name_length`." + senderFix},
		{"label-value-too-long", "A label value is longer than `max_label_value_length`. `label_value_length_over_limit_strategy` can shorten or drop it instead." + senderFix},
		{"max-label-names-per-series", "A series has more labels than `max_label_names_per_series`." + senderFix},
		{"max-label-names-per-info-series", "A series of an info metric has more labels than `max_label_names_per_info_series`." + senderFix},
		{"duplicate-label-names", "A series has a label twice." + senderFix},
		{"labels-not-sorted", "The labels of a series reached an ingester in the wrong order. Distributors sort them, so another program writes to ingesters."},
		{"too-far-in-future", "A sample is further in the future than `creation_grace_period`. Look at the clock of who sends it." + senderFix},
		{"too-far-in-past", "A sample is further in the past than `past_grace_period`." + senderFix},
		{"sample-timestamp-too-old", "A sample is older than `out_of_order_time_window` behind the newest of its tenant, or its time is in a block already. For the past there are blocks: `amphoratool backfill`." + senderFix},
		{"sample-out-of-order", "A sample is older than the newest of its series, and `out_of_order_time_window` is 0." + senderFix},
		{"sample-duplicate-timestamp", "There is another value for the same series and time. Mostly two Prometheus servers send the same series: give them the labels of a [pair](getting-started.md#pairs-of-prometheus), or different external labels." + senderFix},
		{"exemplar-labels-too-long", "The labels of an exemplar have more than 128 characters. The sample is stored without it."},
		{"exemplar-series-missing", "An exemplar came for a series that has no samples. It is dropped."},
		{"exemplar-too-far-in-past", "An exemplar is older than the newest of its series. It is dropped."},
		{"invalid-native-histogram", "A native histogram cannot be read." + native},
		{"invalid-native-histogram-schema", "A native histogram has a schema that is not known." + native},
		{"max-native-histogram-buckets", "A native histogram has more buckets than `max_native_histogram_buckets`, and `reduce_native_histogram_over_max_buckets` is off." + senderFix},
		{"not-reducible-native-histogram", "A native histogram has more buckets than `max_native_histogram_buckets` even at the coarsest schema." + senderFix},
		{"native-histogram-count-mismatch", "The buckets of a native histogram do not add up to its count." + native},
		{"native-histogram-count-not-big-enough", "The buckets of a native histogram hold more than its count." + native},
		{"native-histogram-negative-bucket-count", "A bucket of a native histogram has a negative count." + native},
		{"native-histogram-span-negative-offset", "A span of a native histogram goes backwards." + native},
		{"native-histogram-spans-buckets-mismatch", "The spans of a native histogram need another number of buckets than it has." + native},
		{"native-histogram-custom-buckets-mismatch", "A native histogram with custom buckets has another number of them than bounds." + native},
		{"native-histogram-custom-buckets-invalid", "The bounds of a native histogram with custom buckets do not rise." + native},
		{"native-histogram-custom-buckets-infinite", "The last bound of a native histogram with custom buckets is infinite, which is left out." + native},
		{"native-histogram-custom-buckets-not-reducible", "A native histogram with custom buckets has more than `max_native_histogram_buckets`, and such cannot be made coarser." + senderFix},
	}
}

func readIDs() []refusal {
	return []refusal{
		{"max-object-store-gets-per-hour", "Queries of a tenant have read as often from object storage in an hour as `max_object_store_gets_per_hour` allows. Raise it, or look at who asks for so much of the past."},
		{"max-object-store-lists-per-hour", "Queries of a tenant have caused as many listings of object storage in an hour as `max_object_store_lists_per_hour` allows. The tenant has no bucket index: see whether a compactor runs."},
		{"bucket-index-too-old", "The list of the tenant's blocks is older than `blocks_storage.bucket_store.bucket_index.max_stale_period`; an answer might lack blocks. See [AmphoraBucketIndexOld](#amphorabucketindexold)."},
		{"store-consistency-check-failed", "Blocks that the bucket index names are not in the bucket. See [AmphoraBlocksMissing](#amphorablocksmissing)."},
		{"max-chunks-per-query", "A query needs more chunks than `max_fetched_chunks_per_query`. Ask for fewer series or a shorter time; `/prometheus/api/v1/analyze` shows what it needs."},
		{"max-chunks-bytes-per-query", "The chunks of a query have more bytes than `max_fetched_chunk_bytes_per_query`. Ask for fewer series or a shorter time."},
		{"max-series-per-query", "A query selects more series than `max_fetched_series_per_query`. Select fewer, or record what is asked often by a rule."},
		{"max-estimated-memory-consumption-per-query", "A query would need more memory than the tenant's limit of a query lets it. Ask for fewer series or a shorter time."},
		{"query-evicted", "The process ran short of memory and ended this query, which held the most. Ask for less at once, or see [AmphoraMemoryPressure](#amphoramemorypressure)."},
		{"max-query-length", "A part of a query is over a longer time than `max_partial_query_length`."},
		{"max-total-query-length", "A query is over a longer time than `max_total_query_length`."},
		{"max-query-expression-size-bytes", "The text of a query is longer than `max_query_expression_size_bytes`. Somebody generates it: lists of values belong into a label, or a rule."},
		{"query-blocked", "An operator blocked this query: `blocked_queries` of the tenant."},
		{"query-limited", "An operator lets this query be asked only from time to time: `limited_queries` of the tenant."},
	}
}
