package main

func ruler() board {
	return board{"ruler", "Ruler", []row{
		{"Evaluation", []panel{
			graph("Rules", "none", total("amphora_prometheus_rule_group_rules", rulers(), "pod"), "{{pod}}"),
			graph("Evaluated", "ops", rate("amphora_prometheus_rule_evaluations_total", rulers(), "pod"), "{{pod}}"),
			graph("Failed", "ops", rate("amphora_prometheus_rule_evaluation_failures_total", rulers(), "user"), "{{user}}"),
			graph("Rounds missed", "ops", rate("amphora_prometheus_rule_group_iterations_missed_total", rulers(), "user"), "{{user}}").says("A group takes longer than its interval."),
			graph("Missed and made up for", "ops", rate("amphora_ruler_missed_evaluations_made_up_total", rulers(), "pod"), "made up").and(rate("amphora_ruler_missed_evaluations_failed_total", rulers(), "pod"), "lost"),
			graph("Slowest groups", "s", `topk(10, amphora_prometheus_rule_group_last_duration_seconds{`+rulers()+`})`, "{{user}} {{rule_group}}"),
		}},
		{"What rules read and write", []panel{
			graph("Queries", "ops", rate("amphora_ruler_queries_total", rulers(), "pod"), "{{pod}}").and(rate("amphora_ruler_queries_failed_total", rulers(), "reason"), "failed: {{reason}}"),
			graph("Pushes", "ops", rate("amphora_ruler_write_requests_total", rulers(), "pod"), "{{pod}}").and(rate("amphora_ruler_write_requests_failed_total", rulers(), "reason"), "failed: {{reason}}"),
			graph("Tenants", "none", total("amphora_ruler_managers_total", rulers(), "pod"), "{{pod}}"),
		}},
		{"Alerts on their way", []panel{
			graph("Sent", "ops", rate("amphora_prometheus_notifications_sent_total", rulers(), "pod"), "{{pod}}"),
			graph("Failed and dropped", "ops", rate("amphora_prometheus_notifications_errors_total", rulers(), "user"), "failed {{user}}").and(rate("amphora_prometheus_notifications_dropped_total", rulers(), "user"), "dropped {{user}}"),
			graph("Waiting", "percentunit", `max by (user) (amphora_prometheus_notifications_queue_length{`+rulers()+`} / amphora_prometheus_notifications_queue_capacity{`+rulers()+`})`, "{{user}}"),
		}},
	}}
}

func alertmanager() board {
	return board{"alertmanager", "Alertmanager", []row{
		{"Alerts", []panel{
			graph("Received", "ops", rate("amphora_alertmanager_alerts_received_total", alerters(), "pod"), "{{pod}}").and(rate("amphora_alertmanager_alerts_invalid_total", alerters(), "pod"), "{{pod}} refused"),
			graph("Alerts", "none", total("amphora_alertmanager_alerts", alerters(), "state"), "{{state}}"),
			graph("Silences", "none", total("amphora_alertmanager_silences", alerters(), "state"), "{{state}}"),
		}},
		{"Notifications", []panel{
			graph("Tried", "ops", rate("amphora_alertmanager_notifications_total", alerters(), "integration"), "{{integration}}"),
			graph("Given up", "ops", rate("amphora_alertmanager_notifications_failed_total", alerters(), "integration, reason"), "{{integration}} {{reason}}"),
			graph("Held back by limits", "ops", rate("amphora_alertmanager_notification_rate_limited_total", alerters(), "user"), "{{user}}"),
		}},
		{"Tenants and their configurations", []panel{
			graph("Tenants", "none", total("amphora_alertmanager_tenants_owned", alerters(), "pod"), "{{pod}}"),
			graph("Configurations that are not in force", "none", `count by (user) (amphora_alertmanager_config_last_reload_successful{`+alerters()+`} == 0)`, "{{user}}"),
			graph("Looks that failed", "ops", rate("amphora_alertmanager_sync_configs_failed_total", alerters(), "reason"), "{{reason}}"),
		}},
		{"State", []panel{
			graph("To other replicas", "ops", rate("amphora_alertmanager_state_replication_total", alerters(), "pod"), "{{pod}}").and(rate("amphora_alertmanager_state_replication_failed_total", alerters(), "pod"), "{{pod}} failed"),
			graph("From other replicas", "ops", rate("amphora_alertmanager_partial_state_merges_total", alerters(), "pod"), "{{pod}}").and(rate("amphora_alertmanager_partial_state_merges_failed_total", alerters(), "pod"), "{{pod}} failed"),
			graph("To object storage", "ops", rate("amphora_alertmanager_state_persist_total", alerters(), "pod"), "{{pod}}").and(rate("amphora_alertmanager_state_persist_failed_total", alerters(), "pod"), "{{pod}} failed"),
		}},
	}}
}

func compaction() board {
	return board{"compactor", "Compactor", []row{
		{"Rounds", []panel{
			graph("Since the last that went well", "s", `min by (pod) (time() - (amphora_compactor_last_successful_run_timestamp_seconds{`+compactor()+`} > 0))`, "{{pod}}"),
			graph("Failed", "none", `sum by (pod) (increase(amphora_compactor_runs_failed_total{`+compactor()+`}[$__rate_interval]))`, "{{pod}}"),
			latency("Time of a job", "amphora_compactor_job_duration_seconds", compactor()),
		}},
		{"Backlog", []panel{
			graph("Jobs that are due", "none", total("amphora_bucket_index_estimated_compaction_jobs", compactor(), "type"), "{{type}}"),
			graph("Bytes of these", "bytes", total("amphora_bucket_index_estimated_compaction_bytes", compactor(), "job"), "due"),
			graph("Time for these", "s", total("amphora_bucket_index_estimated_compaction_seconds", compactor(), "job"), "at the pace of the last jobs").says("If it keeps growing, add compactors."),
		}},
		{"Blocks", []panel{
			graph("Blocks", "none", total("amphora_bucket_blocks_count", compactor(), "job"), "all").and(total("amphora_bucket_blocks_marked_for_deletion_count", compactor(), "job"), "marked for deletion").and(total("amphora_bucket_blocks_partials_count", compactor(), "job"), "partial"),
			graph("Marked for deletion", "none", `sum by (reason) (increase(amphora_compactor_blocks_marked_for_deletion_total{`+compactor()+`}[$__rate_interval]))`, "{{reason}}"),
			graph("Set aside", "none", `sum by (reason) (increase(amphora_compactor_blocks_marked_for_no_compaction_total{`+compactor()+`}[$__rate_interval]))`, "{{reason}}"),
			graph("Deleted", "none", `sum(increase(amphora_compactor_blocks_cleaned_total{`+compactor()+`}[$__rate_interval]))`, "deleted").and(`sum(increase(amphora_compactor_block_cleanup_failures_total{`+compactor()+`}[$__rate_interval]))`, "failed"),
			graph("Age of the oldest bucket index", "s", `max(time() - (amphora_bucket_index_last_successful_update_timestamp_seconds{`+compactor()+`} > 0))`, "oldest"),
			graph("Requests to delete series", "none", `sum(increase(amphora_series_deletion_requests_total{`+compactor()+`}[$__rate_interval]))`, "taken").and(`sum(increase(amphora_series_deletion_requests_processed_total{`+compactor()+`}[$__rate_interval]))`, "done"),
		}},
	}}
}

func objectStore() board {
	return board{"object-store", "Object store", []row{
		{"Calls", []panel{
			graph("Calls", "ops", rate("amphora_objstore_bucket_operations_total", every(), "operation"), "{{operation}}").stack(),
			graph("Failures", "ops", rate("amphora_objstore_bucket_operation_failures_total", every(), "operation"), "{{operation}}").stack(),
			graph("Time", "s", `histogram_quantile(0.99, sum by (le, operation) (rate(amphora_objstore_bucket_operation_duration_seconds_bucket{`+every()+`}[$__rate_interval])))`, "99 % {{operation}}"),
		}},
		{"What for", []panel{
			graph("Calls by cause", "ops", rate("amphora_objstore_requests_total", every(), "cause"), "{{cause}}").stack(),
			graph("Bytes by cause", "Bps", rate("amphora_objstore_transferred_bytes_total", every(), "cause, direction"), "{{cause}} {{direction}}"),
			graph("Calls by tenant", "ops", `topk(10, sum by (user) (rate(amphora_objstore_tenant_requests_total{`+every()+`}[$__rate_interval])))`, "{{user}}"),
		}},
		{"Documents", []panel{
			graph("Operations", "ops", rate("amphora_docstore_operations_total", every(), "operation, outcome"), "{{operation}} {{outcome}}"),
			latency("Time", "amphora_docstore_operation_duration_seconds", every()),
			graph("Two at once", "ops", rate("amphora_docstore_conflicts_total", every(), "job"), "{{job}}"),
		}},
	}}
}

func tenants() board {
	top := func(expr string) string { return "topk(10, " + expr + ")" }
	return board{"tenants", "Tenants", []row{
		{"Who has the most", []panel{
			graph("Active series", "short", top(`sum by (user) (amphora_ingester_active_series{`+keepers()+`}) / on () group_left () max(amphora_distributor_replication_factor{`+writers()+`})`), "{{user}}"),
			graph("Samples", "short", top(rate("amphora_distributor_received_samples_total", writers(), "user")), "{{user}}"),
			graph("Exemplars", "short", top(rate("amphora_distributor_received_exemplars_total", writers(), "user")), "{{user}}"),
		}},
		{"Whose data is refused", []panel{
			graph("Samples", "short", top(rate("amphora_discarded_samples_total", every(), "user, reason")), "{{user}} {{reason}}"),
			graph("Pushes", "short", top(rate("amphora_discarded_requests_total", every(), "user, reason")), "{{user}} {{reason}}"),
			graph("Dropped as copies", "short", top(rate("amphora_distributor_deduped_samples_total", writers(), "user")), "{{user}}"),
		}},
		{"Churn", []panel{
			graph("Series that appear", "short", top(rate("amphora_ingester_memory_series_created_total", keepers(), "user")), "{{user}}"),
			graph("Late samples", "short", top(rate("amphora_ingester_tsdb_out_of_order_samples_appended_total", keepers(), "user")), "{{user}}"),
			graph("Newest sample, age", "s", top(`time() - max by (user) (amphora_distributor_latest_seen_sample_timestamp_seconds{`+writers()+`})`), "{{user}}"),
		}},
		{"Blocks and rules", []panel{
			graph("Blocks", "short", top(`sum by (user) (amphora_bucket_blocks_count{`+compactor()+`})`), "{{user}}"),
			graph("Rules", "none", top(`sum by (user) (amphora_prometheus_rule_group_rules{`+rulers()+`})`), "{{user}}"),
			graph("Rules that fail", "ops", top(rate("amphora_prometheus_rule_evaluation_failures_total", rulers(), "user")), "{{user}}"),
		}},
	}}
}

func front() board {
	return board{"gateway", "Gateway and control plane", []row{
		{"Gateway", []panel{
			graph("Requests", "reqps", rate("amphora_gateway_requests_total", doors(), "flavour, outcome"), "{{flavour}} {{outcome}}").stack(),
			graph("Who proved who they are", "reqps", rate("amphora_gateway_authentications_total", doors(), "scheme, result"), "{{scheme}} {{result}}"),
			graph("Looks for changed identities", "ops", rate("amphora_identity_refreshes_total", doors(), "result"), "{{result}}"),
		}},
		{"Audit", []panel{
			graph("Records", "ops", rate("amphora_audit_records_total", doors(), "pod"), "{{pod}}"),
			graph("Batches written", "ops", rate("amphora_audit_batches_total", doors(), "result"), "{{result}}"),
			graph("Waiting on disk", "bytes", total("amphora_audit_waiting_bytes", doors(), "pod"), "{{pod}}"),
		}},
		{"Control plane", []panel{
			graph("Calls", "reqps", rate("amphora_control_calls_total", controls(), "operation"), "{{operation}}"),
			graph("Calls that failed", "reqps", `sum by (outcome) (rate(amphora_control_calls_total{`+controls()+`, outcome!="ok"}[$__rate_interval]))`, "{{outcome}}"),
			graph("Since deleted workspaces were looked after", "s", `min(time() - (amphora_control_janitor_last_successful_run_timestamp_seconds{`+controls()+`} > 0))`, "age"),
		}},
	}}
}

func resources() board {
	return board{"resources", "Resources", []row{
		{"Memory", []panel{
			graph("Used, of what may be", "percentunit", `max by (pod) (amphora_memory_used_bytes{`+every()+`} / amphora_memory_go_limit_bytes{`+every()+`})`, "{{pod}}"),
			graph("Pressure", "none", `max by (pod) (amphora_memory_pressure{`+every()+`})`, "{{pod}}").says("0: none. 1: caches are given up. 2: new series are refused. 3: reads are. 4: writes are."),
			graph("Refused", "ops", rate("amphora_memory_refused_total", every(), "job"), "{{job}}"),
			graph("Resident", "bytes", `sum by (pod) (process_resident_memory_bytes{`+every()+`})`, "{{pod}}"),
			graph("Heap", "bytes", `sum by (pod) (go_memstats_heap_inuse_bytes{`+every()+`})`, "{{pod}}"),
			graph("Goroutines", "none", `sum by (pod) (go_goroutines{`+every()+`})`, "{{pod}}"),
		}},
		{"CPU, files, connections", []panel{
			graph("CPU", "short", `sum by (pod) (rate(process_cpu_seconds_total{`+every()+`}[$__rate_interval]))`, "{{pod}}"),
			graph("Files", "percentunit", `max by (pod) (process_open_fds{`+every()+`} / process_max_fds{`+every()+`})`, "{{pod}}"),
			graph("Connections", "none", total("amphora_tcp_connections", every(), "pod, protocol"), "{{pod}} {{protocol}}"),
		}},
		{"Network", []panel{
			graph("Received", "Bps", `sum by (job) (rate(process_network_receive_bytes_total{`+every()+`}[$__rate_interval]))`, "{{job}}"),
			graph("Sent", "Bps", `sum by (job) (rate(process_network_transmit_bytes_total{`+every()+`}[$__rate_interval]))`, "{{job}}"),
			graph("Requests under way", "none", total("amphora_inflight_requests", every(), "job"), "{{job}}"),
		}},
	}}
}

func rollout() board {
	return board{"rollout", "Rollout", []row{
		{"Versions", []panel{
			graph("Processes by version", "none", `count by (job, version) (amphora_build_info{`+every()+`})`, "{{job}} {{version}}").stack(),
			graph("Configurations", "none", `count by (job) (count by (job, sha256) (amphora_config_hash{`+every()+`}))`, "{{job}}").says("More than one: processes of a kind are configured differently."),
			graph("Overrides", "none", `count by (job) (count by (job, sha256) (amphora_runtime_config_hash{`+every()+`}))`, "{{job}}"),
		}},
		{"Who has just started", []panel{
			graph("Up since", "s", `min by (job) (time() - process_start_time_seconds{`+every()+`})`, "{{job}}"),
			graph("Replay of the log", "s", `max by (pod) (amphora_ingester_tsdb_wal_replay_duration_seconds{`+keepers()+`})`, "{{pod}}"),
			graph("Members of rings", "none", `max by (name, state) (amphora_ring_members{`+every()+`})`, "{{name}} {{state}}"),
		}},
		{"What clients notice", []panel{
			graph("Failed pushes", "percentunit", `sum(rate(amphora_request_duration_seconds_count{`+writers()+`, route=~"api_v1_push|otlp_v1_metrics", status_code=~"5.."}[$__rate_interval])) / sum(rate(amphora_request_duration_seconds_count{`+writers()+`, route=~"api_v1_push|otlp_v1_metrics"}[$__rate_interval]))`, "failed"),
			graph("Failed queries", "percentunit", `sum(rate(amphora_request_duration_seconds_count{`+readers()+`, route=~"prometheus_api_v1_query(_range)?", status_code=~"5.."}[$__rate_interval])) / sum(rate(amphora_request_duration_seconds_count{`+readers()+`, route=~"prometheus_api_v1_query(_range)?"}[$__rate_interval]))`, "failed"),
			latency("Time of a push", "amphora_request_duration_seconds", writers()+`, route="api_v1_push"`),
		}},
	}}
}
