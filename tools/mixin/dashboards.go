package main

// dashboards are all, in the order in which an operator opens them.
func dashboards() []board {
	return []board{
		overview(), writes(), reads(), queries(), ruler(), alertmanager(), compaction(), objectStore(), tenants(), front(), resources(), rollout(),
	}
}

func overview() board {
	return board{"overview", "Overview", []row{
		{"Is anything wrong", []panel{
			graph("Alerts that fire", "none", `sum by (alertname) (ALERTS{alertname=~"Amphora.*", alertstate="firing"})`, "{{alertname}}").stack(),
			graph("Processes", "none", `count by (job) (amphora_build_info{`+every()+`})`, "{{job}}").stack(),
			graph("Failures of server", "percentunit", `sum by (job) (rate(amphora_request_duration_seconds_count{`+every()+`, status_code=~"5.."}[$__rate_interval])) / sum by (job) (rate(amphora_request_duration_seconds_count{`+every()+`}[$__rate_interval]))`, "{{job}}"),
		}},
		{"Writes", []panel{
			graph("Samples taken", "short", rate("amphora_distributor_received_samples_total", writers(), "job"), "{{job}}"),
			graph("Active series", "short", `sum(amphora_ingester_active_series{`+keepers()+`}) / on () group_left () max(amphora_distributor_replication_factor{`+writers()+`})`, "active"),
			latency("Time of a push", "amphora_request_duration_seconds", writers()+`, route=~"api_v1_push|otlp_v1_metrics|api_v1_push_influx_write"`),
		}},
		{"Reads", []panel{
			graph("Queries", "reqps", rate("amphora_query_frontend_queries_total", readers(), "class, outcome"), "{{class}} {{outcome}}").stack(),
			graph("Queries that wait", "none", total("amphora_query_scheduler_queue_length", queues(), "class"), "{{class}}"),
			latency("Time of a query", "amphora_request_duration_seconds", readers()+`, route=~"prometheus_api_v1_query(_range)?"`),
		}},
		{"Rules and alerts", []panel{
			graph("Rules evaluated", "ops", rate("amphora_prometheus_rule_evaluations_total", rulers(), "job"), "evaluated").and(rate("amphora_prometheus_rule_evaluation_failures_total", rulers(), "job"), "failed"),
			graph("Alerts sent", "ops", rate("amphora_prometheus_notifications_sent_total", rulers(), "job"), "sent").and(rate("amphora_prometheus_notifications_errors_total", rulers(), "job"), "failed"),
			graph("Notifications", "ops", rate("amphora_alertmanager_notifications_total", alerters(), "integration"), "{{integration}}"),
		}},
		{"Long term", []panel{
			graph("Blocks", "short", total("amphora_bucket_blocks_count", compactor(), "job"), "blocks"),
			graph("Jobs that are due", "none", total("amphora_bucket_index_estimated_compaction_jobs", compactor(), "type"), "{{type}}"),
			graph("Failures of object storage", "ops", rate("amphora_objstore_bucket_operation_failures_total", every(), "operation"), "{{operation}}"),
		}},
	}}
}

func writes() board {
	return board{"writes", "Writes", []row{
		{"Distributors", append(routes("Push", writers(), "api_v1_push|otlp_v1_metrics|api_v1_push_influx_write"),
			graph("Samples", "short", rate("amphora_distributor_samples_in_total", writers(), "job"), "came in").and(rate("amphora_distributor_received_samples_total", writers(), "job"), "taken"))},
		{"What is refused", []panel{
			graph("Samples, by reason", "short", rate("amphora_discarded_samples_total", every(), "reason"), "{{reason}}").stack(),
			graph("Pushes, by limit of the process", "reqps", rate("amphora_distributor_instance_rejected_requests_total", writers(), "reason"), "{{reason}}").stack(),
			graph("Pushes under way", "none", total("amphora_distributor_inflight_push_requests", writers(), "pod"), "{{pod}}"),
		}},
		{"Series the distributors know", []panel{
			graph("Hits", "percentunit", `sum(rate(amphora_distributor_series_cache_hits_total{`+writers()+`}[$__rate_interval])) / (sum(rate(amphora_distributor_series_cache_hits_total{`+writers()+`}[$__rate_interval])) + sum(rate(amphora_distributor_series_cache_misses_total{`+writers()+`}[$__rate_interval])))`, "hits").says("A sample of a known series costs next to nothing; each other is decoded and checked."),
			graph("Series", "short", total("amphora_distributor_series_cache_entries", writers(), "pod"), "{{pod}}"),
			graph("Pushed out", "short", rate("amphora_distributor_series_cache_evictions_total", writers(), "pod"), "{{pod}}"),
		}},
		{"To the ingesters", []panel{
			graph("Bytes under way", "bytes", total("amphora_ingester_client_inflight_bytes", writers(), "pod"), "{{pod}}"),
			graph("Frames refused", "ops", rate("amphora_ingester_client_frames_refused_total", writers(), "reason"), "{{reason}}").says("An ingester is slow or cannot be reached."),
			graph("Streams lost", "ops", rate("amphora_ingester_client_streams_lost_total", writers(), "pod"), "{{pod}}"),
		}},
		{"Ingesters", []panel{
			graph("Series in memory", "short", total("amphora_ingester_memory_series", keepers(), "pod"), "{{pod}}"),
			graph("Samples stored", "short", rate("amphora_ingester_ingested_samples_total", keepers(), "pod"), "{{pod}}"),
			graph("Refused", "ops", rate("amphora_ingester_instance_rejected_requests_total", keepers(), "reason"), "{{reason}}"),
			latency("Time of a sync of the log", "amphora_ingester_tsdb_wal_fsync_duration_seconds", keepers()).says("Every push waits for one."),
			graph("Log on disk", "bytes", total("amphora_ingester_tsdb_wal_storage_size_bytes", keepers(), "pod"), "{{pod}}"),
			graph("Free disk", "percentunit", `min by (pod) (amphora_ingester_disk_free_bytes{`+keepers()+`} / amphora_ingester_disk_size_bytes{`+keepers()+`})`, "{{pod}}"),
		}},
		{"Blocks of ingesters", []panel{
			graph("Cut", "none", `sum(increase(amphora_ingester_tsdb_compactions_total{`+keepers()+`}[$__rate_interval]))`, "cut").and(`sum(increase(amphora_ingester_tsdb_compactions_failed_total{`+keepers()+`}[$__rate_interval]))`, "failed"),
			graph("Shipped", "none", `sum(increase(amphora_ingester_shipper_uploads_total{`+keepers()+`}[$__rate_interval]))`, "shipped").and(`sum(increase(amphora_ingester_shipper_upload_failures_total{`+keepers()+`}[$__rate_interval]))`, "failed"),
			graph("Age of the oldest that is not shipped", "s", `max by (pod) (time() - (amphora_ingester_oldest_unshipped_block_timestamp_seconds{`+keepers()+`} > 0))`, "{{pod}}"),
		}},
	}}
}

func reads() board {
	return board{"reads", "Reads", []row{
		{"Frontends", append(routes("Queries", readers(), "prometheus_api_v1_query(_range)?"), routes("Labels and series", readers(), "prometheus_api_v1_(labels|label_name_values|series|read|metadata)")...)},
		{"Queue", []panel{
			graph("Waiting", "none", total("amphora_query_scheduler_queue_length", queues(), "class"), "{{class}}"),
			latency("Time in the queue", "amphora_query_scheduler_queue_duration_seconds", queues()),
			graph("Workers that ask for work", "none", total("amphora_query_scheduler_connected_workers", queues(), "pod"), "{{pod}}").and(total("amphora_query_scheduler_inflight_requests", queues(), "pod"), "{{pod}} at work"),
		}},
		{"Queriers", []panel{
			graph("Chunks read", "short", rate("amphora_querier_chunks_fetched_total", queriers(), "source"), "{{source}}"),
			graph("Bytes read", "Bps", rate("amphora_querier_chunk_bytes_fetched_total", queriers(), "source"), "{{source}}"),
			graph("Reads that wait for memory", "none", total("amphora_querier_fetches_waiting", queriers(), "pod"), "{{pod}}"),
			latency("Calls to ingesters", "amphora_ingester_client_request_duration_seconds", queriers()),
			latency("Calls to store-gateways", "amphora_storegateway_client_request_duration_seconds", queriers()),
			graph("Blocks that were missing", "ops", rate("amphora_querier_blocks_consistency_checks_failed_total", queriers(), "pod"), "{{pod}}"),
		}},
		{"Store-gateways", []panel{
			latency("Time to answer for series", "amphora_bucket_store_series_request_duration_seconds", gateways()),
			graph("Blocks open", "none", total("amphora_bucket_store_blocks_loaded", gateways(), "pod"), "{{pod}}"),
			graph("Found on the local disk", "percentunit", `sum(rate(amphora_bucket_store_cache_hit_bytes_total{`+gateways()+`}[$__rate_interval])) / (sum(rate(amphora_bucket_store_cache_hit_bytes_total{`+gateways()+`}[$__rate_interval])) + sum(rate(amphora_bucket_store_cache_fetched_bytes_total{`+gateways()+`}[$__rate_interval])))`, "bytes"),
			graph("Local copies", "bytes", total("amphora_bucket_store_cache_bytes", gateways(), "pod"), "{{pod}}"),
			graph("Calls that had to give up waiting", "ops", rate("amphora_bucket_stores_gate_rejected_total", gateways(), "pod"), "{{pod}}"),
			graph("Fetches that failed", "ops", rate("amphora_bucket_store_cache_fetch_failures_total", gateways(), "pod"), "{{pod}}"),
		}},
	}}
}

func queries() board {
	return board{"queries", "Queries", []row{
		{"What is asked", []panel{
			graph("Queries", "reqps", rate("amphora_query_frontend_queries_total", readers(), "class, outcome"), "{{class}} {{outcome}}").stack(),
			graph("Under way", "none", total("amphora_query_frontend_running_queries", readers(), "pod"), "{{pod}}"),
			graph("Mean time", "s", `sum by (class) (rate(amphora_query_frontend_query_seconds_total{`+readers()+`}[$__rate_interval])) / sum by (class) (rate(amphora_query_frontend_queries_total{`+readers()+`}[$__rate_interval]))`, "{{class}}"),
		}},
		{"How it is parted", []panel{
			graph("Parts", "ops", rate("amphora_query_frontend_parts_total", readers(), "kind"), "{{kind}}"),
			graph("Parts tried again", "ops", rate("amphora_query_frontend_retries_total", readers(), "pod"), "{{pod}}"),
			graph("Queued again after a querier went", "ops", rate("amphora_query_scheduler_requeued_requests_total", queues(), "pod"), "{{pod}}"),
		}},
		{"What is refused", []panel{
			graph("By frontends", "ops", rate("amphora_query_frontend_rejected_queries_total", readers(), "reason"), "{{reason}}").stack(),
			graph("By the engine", "ops", rate("amphora_engine_queries_refused_total", queriers(), "reason"), "{{reason}}").stack(),
			graph("By queriers", "ops", rate("amphora_querier_queries_rejected_total", queriers(), "reason"), "{{reason}}").stack(),
		}},
		{"Engine", []panel{
			graph("Queries by engine", "ops", rate("amphora_engine_queries_total", queriers(), "engine"), "{{engine}}"),
			graph("Copies of chunks that were alike", "short", rate("amphora_querier_chunks_deduplicated_total", queriers(), "job"), "alike"),
			graph("Length of the texts", "bytes", quantile("0.99", "amphora_api_query_expression_bytes", every()), "99 %"),
		}},
	}}
}
