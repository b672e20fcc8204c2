package main

import (
	"bytes"
	"slices"

	"go.yaml.in/yaml/v3"
)

// The severities: somebody must act at once, or in working hours.
const (
	critical = "critical"
	warning  = "warning"
)

// alert is an alert with what to do about it.
type alert struct {
	name, expr, wait, severity string
	summary                    string // for who is woken up
	means, act                 string // for the runbook
}

// alerts are all. Names are without the prefix, expressions group by where it is.
func alerts() []alert {
	return slices.Concat(ingestAlerts(), queryAlerts(), otherAlerts(), probeAlerts())
}

// probeAlerts are of the process with the target continuous-test.
func probeAlerts() []alert {
	return []alert{
		{"ContinuousTestFailed", `sum by (cluster, job, test, protocol, type) (rate(amphora_continuous_test_query_result_checks_failed_total[10m])) > 0`, "0m", critical, "Answers about {{ $labels.type }} samples written by {{ $labels.protocol }} are wrong.",
			"The continuous test read back something other than it wrote: samples were lost, changed or invented.",
			"The log of the test has the query, the time and the difference. Repeat the query with and without `Cache-Control: no-store`: if only the first is right, the results cache is at fault. Rule out that something else writes to the test's tenant, or that two tests share one."},
		{"ContinuousTestCannotWrite", `sum by (cluster, job, test) (rate(amphora_continuous_test_writes_failed_total[5m])) > 0`, "1h", warning, "{{ $labels.job }} cannot write.",
			"The writes of the continuous test are refused or time out, so it no longer proves anything.",
			"Its log has the status. 429 means a limit of its tenant, 401 and 403 its credentials; otherwise see `RequestErrors`."},
		{"ContinuousTestCannotRead", `sum by (cluster, job, test) (rate(amphora_continuous_test_queries_failed_total[5m])) > 0`, "1h", warning, "{{ $labels.job }} gets no answers.",
			"The queries of the continuous test fail, so it no longer proves anything.",
			"Its log has the error: a limit of its tenant or its credentials; otherwise see `RequestErrors`."},
	}
}

const failedPart = `sum by (cluster, job) (rate(amphora_request_duration_seconds_count{status_code=~"5..", route!~"ready|metrics|debug_pprof"}[2m])) / sum by (cluster, job) (rate(amphora_request_duration_seconds_count{route!~"ready|metrics|debug_pprof"}[2m])) > 0.01`

func ingestAlerts() []alert {
	return []alert{
		{"RequestErrors", failedPart, "15m", critical, "{{ $labels.job }} answers {{ $value | humanizePercentage }} of its requests with a server error.",
			"More than 1 % of requests were answered 5xx for 15 minutes.",
			"The dashboards Writes and Reads show the routes. The log of the process has a line for each failure with its cause. A 503 with an id is a limit: see the sections on ids below. If all routes of a component fail at once, a dependency is down: ingesters for distributors, object storage for store-gateways."},
		{"IngesterUnhealthy", `max by (cluster, name) (amphora_ring_members{state="Unhealthy", name="ingester"}) > 0`, "15m", critical, "{{ $value }} ingesters send no heartbeats.",
			"An ingester stopped without leaving the ring, or is unreachable. With three replicas one zone may be down; with two zones down, pushes fail.",
			"The page /ingester/ring shows which one; find out why it is not running. An ingester that returns takes its place again; one that does not is forgotten automatically, and its series move to others."},
		{"RingMembersDisagree", `max by (cluster, name) (amphora_ring_members{state="ACTIVE"}) - min by (cluster, name) (amphora_ring_members{state="ACTIVE"}) > 0`, "15m", warning, "Processes see different members of the ring {{ $labels.name }}.",
			"Gossip does not reach all processes: a network partition, different values of memberlist.cluster_label or memberlist.tls_enabled, or an expired certificate.",
			"Compare /memberlist of the processes. Port 7946 must be open in both directions between all of them, and memberlist.join_members must resolve to all. If amphora_gossip_connections_refused_total rises, the log of that process says who is refused and why."},
		{"IngesterReachingSeriesLimit", `max by (cluster, job, pod) (amphora_ingester_memory_series / on (cluster, job, pod) group_left () (amphora_ingester_instance_limits{limit="max_series"} > 0)) > 0.8`, "5m", warning, "{{ $labels.pod }} is at {{ $value | humanizePercentage }} of its series limit.",
			"The limit ingester.instance_limits.max_series is near; beyond it new series are refused.",
			"Add ingesters, or raise the limit if there is memory (dashboard Resources). The dashboard Tenants shows whose series grew."},
		{"IngesterReachingTenantsLimit", `max by (cluster, job, pod) (amphora_ingester_memory_users / on (cluster, job, pod) group_left () (amphora_ingester_instance_limits{limit="max_tenants"} > 0)) > 0.8`, "5m", warning, "{{ $labels.pod }} is at {{ $value | humanizePercentage }} of its tenant limit.",
			"The limit ingester.instance_limits.max_tenants is near; beyond it new tenants are refused.",
			"Raise it, add ingesters, or spread each tenant over fewer of them: ingestion_tenant_shard_size."},
		{"IngesterLogFailing", `sum by (cluster, job, pod) (rate(amphora_ingester_tsdb_wal_writes_failed_total[5m])) > 0`, "1m", critical, "{{ $labels.pod }} cannot write its log.",
			"Writes or syncs of the write-ahead log fail, and with them every push to this ingester. Nothing that was acknowledged is lost.",
			"Check whether the disk is full, read-only or broken: see dmesg and the log of the process. Once the disk works again, the ingester continues by itself. A broken disk can be replaced by an empty one, because two other replicas have the samples."},
		{"IngesterLogCorrupted", `sum by (cluster, job, pod) (increase(amphora_ingester_tsdb_wal_corruptions_total[15m])) > 0`, "0m", warning, "{{ $labels.pod }} found damage in its log when it started.",
			"A disk returned other bytes than were written. Only the damaged records are lost, and only on this replica.",
			"`amphoratool inspect wal` names the files. Replace the disk if it happens again."},
		{"IngesterLogSlow", `histogram_quantile(0.99, sum by (cluster, job, pod, le) (rate(amphora_ingester_tsdb_wal_fsync_duration_seconds_bucket[5m]))) > 0.5`, "15m", warning, "Syncs of the log of {{ $labels.pod }} take {{ $value }} seconds.",
			"Every push waits for a sync, and the disk is slow or busy.",
			"Give ingesters dedicated disks with fast syncs."},
		{"IngesterDiskRestricted", `max by (cluster, job, pod) (amphora_ingester_disk_restriction) > 0`, "1m", critical, "The disk of {{ $labels.pod }} is nearly full.",
			"With 5 % left no new series are accepted, with 100 MiB no samples.",
			"If blocks are not shipped (`IngesterNotShipping`), that is the cause. Otherwise enlarge the volume; new space is used at once."},
		{"IngesterCannotCutBlocks", `sum by (cluster, job, pod) (increase(amphora_ingester_tsdb_compactions_failed_total[1h])) > 0`, "0m", critical, "{{ $labels.pod }} cannot cut blocks from memory.",
			"Memory and log grow until cutting works again. The log of the process has the reason.",
			"The disk is usually full. Samples are safe in the write-ahead log meanwhile."},
		{"IngesterNotShipping", `time() - max by (cluster, job, pod) (amphora_ingester_oldest_unshipped_block_timestamp_seconds > 0) > 4 * 3600`, "15m", critical, "{{ $labels.pod }} has blocks older than four hours that are not in object storage.",
			"The samples are only on the disks of ingesters, which fill up.",
			"See `ObjectStoreFailing`: permissions, quotas, network. Ingesters retry by themselves."},
		{"DistributorAtItsLimit", `max by (cluster, job, pod) (amphora_distributor_inflight_push_requests / on (cluster, job, pod) group_left () (amphora_distributor_instance_limits{limit="max_inflight_push_requests"} > 0)) > 0.8`, "5m", critical, "{{ $labels.pod }} is at {{ $value | humanizePercentage }} of its limit of concurrent pushes.",
			"Beyond the limit pushes are refused with 503, and senders retry.",
			"Pushes usually pile up because ingesters are slow: dashboard Writes. Otherwise add distributors."},
		{"IngestersRefuseFrames", `sum by (cluster, job, reason) (rate(amphora_ingester_client_frames_refused_total[5m])) > 1`, "15m", warning, "Distributors fail to deliver {{ $value }} frames a second to ingesters: {{ $labels.reason }}.",
			"An ingester is slow or unreachable. Pushes succeed while two of three replicas work.",
			"The dashboard Writes shows which ingester lags. Look at its disk and CPU."},
		{"ReplicaElectionsFlap", `sum by (cluster, user) (increase(amphora_ha_tracker_elected_replica_changes_total[1h])) > 6`, "0m", warning, "The elected Prometheus replica of tenant {{ $labels.user }} changes often.",
			"Each change costs up to half a minute of samples. A replica restarts, or its network is slow.",
			"/distributor/ha_tracker shows the clusters. Check the Prometheus servers of the tenant."},
		{"InstanceIDConflict", `sum by (cluster, job) (increase(amphora_ring_instance_id_conflicts_total[15m])) > 0`, "0m", critical, "Two processes of {{ $labels.job }} have the same instance_id.",
			"They alternate in the ring, and reads miss samples of both.",
			"Give each its own ingester.ring.instance_id; without one it is the host name."},
	}
}

func queryAlerts() []alert {
	return []alert{
		{"QueriesStuck", `sum by (cluster, job) (min_over_time(amphora_query_scheduler_queue_length[1m])) > 0`, "5m", critical, "{{ $value }} queries wait in {{ $labels.job }}.",
			"There are fewer queriers than there is work, or none are connected.",
			"amphora_query_scheduler_connected_workers counts the connected workers. Add queriers; `/query-frontend/active_queries` lists the running queries of all tenants, and DELETE stops one."},
		{"BlocksMissing", `sum by (cluster, job) (rate(amphora_querier_blocks_consistency_checks_failed_total[5m])) > 0`, "10m", critical, "Queries fail because blocks of the bucket index are not in the bucket.",
			"Something other than the compactor deletes blocks, or a bucket index is old.",
			"`amphoratool bucket verify --tenant=…` names them. Look for lifecycle rules of the bucket. The next cleanup of the compactor rewrites the index."},
		{"StoreGatewayBusy", `sum by (cluster, job, pod) (rate(amphora_bucket_stores_gate_rejected_total[5m])) > 0`, "10m", warning, "{{ $labels.pod }} rejects calls.",
			"Calls beyond blocks_storage.bucket_store.max_concurrent waited longer than max_concurrent_queue_timeout.",
			"Add store-gateways, or larger disks if the dashboard Reads shows few hits of the local copies."},
		{"QueriesRefusedForMemory", `sum by (cluster, job) (rate(amphora_memory_refused_total[5m])) > 0`, "15m", warning, "{{ $labels.job }} refuses work because it is short of memory.",
			"See `MemoryPressure`.", "See `MemoryPressure`."},
		{"EnginePanics", `sum by (cluster, job) (increase(amphora_panics_total[15m])) > 0 or sum by (cluster, job) (increase(amphora_engine_panics_total[15m])) > 0 or sum by (cluster, job) (increase(amphora_grpc_panics_total[15m])) > 0 or sum by (cluster, job) (increase(amphora_http_panics_total[15m])) > 0 or sum by (cluster, job) (increase(amphora_compactor_panics_total[15m])) > 0`, "0m", critical, "{{ $labels.job }} hit a bug in its code.",
			"A request or a compaction job hit a bug. Only that request or job failed; the process continues.",
			"The log has the stack. Report it with the query or push that caused it, or with the block that the compactor set aside after it, if it did."},
		{"BucketIndexOld", `time() - min by (cluster, user) (amphora_bucket_index_last_successful_update_timestamp_seconds > 0) > 2100`, "10m", critical, "The bucket index of tenant {{ $labels.user }} was last updated more than half an hour ago.",
			"Queries do not see new blocks, and fail after an hour.",
			"Check that a compactor is running (`CompactorNotCleaning`). Its log has a line for each tenant that fails."},
		{"UsageNotWritten", `sum by (cluster, job) (rate(amphora_usage_writes_total{outcome="failed"}[15m])) > 0`, "1h", warning, "{{ $labels.job }} cannot write what tenants ask for to object storage.",
			"Metrics may be called unused that queries of the last hours asked for. A process keeps what it could not write until it ends.",
			"Its log says why, as `what tenants asked for is not written`. Check the access to the documents in the bucket. Until it is over, drop no metrics that the report calls unused, and do not restart these processes."},
	}
}

func otherAlerts() []alert {
	return []alert{
		{"CompactorNotRunning", `time() - max by (cluster, job) (amphora_compactor_last_successful_run_timestamp_seconds > 0) > 24 * 3600`, "1h", critical, "{{ $labels.job }} has not completed a round for a day.",
			"Blocks pile up, and queries of older data become slow.",
			"The log of the compactor names the failing tenant and block. Damaged blocks are excluded automatically; the other causes are disk and memory."},
		{"CompactorNotCleaning", `time() - max by (cluster, job) (amphora_compactor_block_cleanup_last_successful_run_timestamp_seconds > 0) > 6 * 3600`, "1h", critical, "{{ $labels.job }} has not cleaned up for six hours.",
			"Deleted blocks stay, retention is not enforced, and bucket indexes age.", "The log of the compactor has the reason, usually object storage."},
		{"CompactorSetsBlocksAside", `sum by (cluster, job, reason) (increase(amphora_compactor_blocks_marked_for_no_compaction_total[1h])) > 0`, "0m", warning, "{{ $labels.job }} excluded blocks from compaction: {{ $labels.reason }}.",
			"A block cannot be compacted. It is queried as before.",
			"`amphoratool bucket ls` shows it, `bucket verify --deep` reports the damage. Remove the mark with `bucket mark --remove` to try again."},
		{"BlocksDamaged", `sum by (cluster, job) (increase(amphora_bucket_store_corrupted_reads_total[1h])) > 0`, "0m", critical, "{{ $labels.job }} reads blocks that are damaged in the bucket.",
			"Queries that need them fail, because answers would have gaps.",
			"The log of the querier names the blocks, `amphoratool bucket verify --deep` reports the damage. Restore them from an object version or a copy of the bucket; if there is none, mark them for deletion with `bucket mark`, and queries continue without their samples."},
		{"CompactionFallsBehind", `sum by (cluster) (amphora_bucket_index_estimated_compaction_seconds) > 6 * 3600 and deriv(sum by (cluster) (amphora_bucket_index_estimated_compaction_seconds)[1h:5m]) > 0`, "6h", warning, "Compaction is {{ $value | humanizeDuration }} behind and falling further behind.",
			"There are too few compactors for the incoming blocks.", "Add compactors, or raise compactor.compaction_concurrency."},
		{"ObjectStoreFailing", `sum by (cluster, job, operation) (rate(amphora_objstore_bucket_operation_failures_total[5m])) / sum by (cluster, job, operation) (rate(amphora_objstore_bucket_operations_total[5m])) > 0.05`, "15m", critical, "{{ $value | humanizePercentage }} of the {{ $labels.operation }} calls of {{ $labels.job }} to object storage fail.",
			"Permissions, quotas, or the storage itself.",
			"The log has the answers of the storage. `amphoratool bucket-validation` tests it from where you run it. Pushes continue while ingesters have disk space."},
		{"RulerMissesEvaluations", `sum by (cluster, user) (rate(amphora_prometheus_rule_group_iterations_missed_total[5m])) / sum by (cluster, user) (rate(amphora_prometheus_rule_group_iterations_total[5m])) > 0.01`, "15m", warning, "Rule groups of tenant {{ $labels.user }} take longer than their interval.",
			"Recorded series have gaps, which are filled later, and alerts are late.",
			"The dashboard Ruler names the slowest groups. Split them, or add queriers."},
		{"RulerQueriesFail", `sum by (cluster, job) (rate(amphora_ruler_queries_failed_total{reason="operator"}[5m])) / sum by (cluster, job) (rate(amphora_ruler_queries_total[5m])) > 0.01`, "15m", critical, "{{ $value | humanizePercentage }} of the queries of rules fail.",
			"Alerts of these rules do not fire.", "The read path fails: see `RequestErrors`, `QueriesStuck`, `BlocksMissing`."},
		{"RulerPushesFail", `sum by (cluster, job) (rate(amphora_ruler_write_requests_failed_total{reason="operator"}[5m])) / sum by (cluster, job) (rate(amphora_ruler_write_requests_total[5m])) > 0.01`, "15m", critical, "{{ $value | humanizePercentage }} of the writes of recording rules fail.",
			"The write path fails.", "See `RequestErrors` and the alerts of ingesters."},
		{"RulesNotInForce", `count by (cluster, user) (amphora_ruler_config_last_reload_successful == 0) > 0`, "15m", warning, "The newest rules of tenant {{ $labels.user }} are not in force.",
			"They cannot be read; the previous ones stay in force.", "The log of the ruler has the reason. Upload the rules again: `amphoratool rules check`, then `sync`."},
		{"AlertsNotSent", `sum by (cluster, user) (rate(amphora_prometheus_notifications_errors_total[5m])) + sum by (cluster, user) (rate(amphora_prometheus_notifications_dropped_total[5m])) > 0`, "15m", critical, "Alerts of tenant {{ $labels.user }} do not reach an alertmanager.",
			"The alertmanagers of ruler.alertmanager_url are unreachable or too slow.", "Test the connection from the ruler. The dashboard Ruler shows the queue."},
		{"NotificationsFail", `sum by (cluster, user, integration) (rate(amphora_alertmanager_notifications_failed_total[5m])) / sum by (cluster, user, integration) (rate(amphora_alertmanager_notifications_total[5m])) > 0.1`, "15m", warning, "{{ $value | humanizePercentage }} of the notifications of tenant {{ $labels.user }} by {{ $labels.integration }} fail.",
			"The receiver rejects them or is unreachable.", "The log of the alertmanager has the receiver's answers, and `/alertmanager/api/v1/decisions` the reason why each alert was or was not sent."},
		{"AlertmanagerConfigNotInForce", `count by (cluster, user) (amphora_alertmanager_config_last_reload_successful == 0) > 0`, "15m", warning, "The newest configuration of the alertmanager of tenant {{ $labels.user }} is not in force.",
			"It cannot be loaded; the previous one stays in force.", "`amphoratool alertmanager verify` reports the error."},
		{"AlertmanagerSyncFails", `sum by (cluster, job) (rate(amphora_alertmanager_sync_configs_failed_total[5m])) > 0`, "15m", warning, "{{ $labels.job }} cannot check for changed configurations.",
			"Object storage or the ring fails; tenants keep their current configurations.", "`ObjectStoreFailing` and `RingMembersDisagree` say which."},
		{"AlertmanagerStateNotKept", `sum by (cluster, job) (rate(amphora_alertmanager_state_persist_failed_total[15m])) > 0`, "1h", warning, "{{ $labels.job }} cannot write silences and the notification log to object storage.",
			"If all replicas lost their disks at once, that state would be lost.", "`ObjectStoreFailing`."},
		{"AlertmanagerJournalFails", `sum by (cluster, job, pod) (rate(amphora_alertmanager_journal_failures_total[5m])) > 0`, "5m", critical, "{{ $labels.pod }} cannot write silences and the notification log to its disk.",
			"Silences are refused while too few replicas of a tenant can write them, and after the death of all replicas at once notifications would be repeated.", "Check the disk of `alertmanager.data_dir`: it is full, read-only or failing. The journal continues by itself once the disk works."},
		{"AlertmanagerReplicationFails", `sum by (cluster, job) (rate(amphora_alertmanager_state_replication_failed_total[15m])) / sum by (cluster, job) (rate(amphora_alertmanager_state_replication_total[15m])) > 0.01`, "15m", warning, "Alertmanagers cannot replicate silences and notifications.",
			"Notifications may be sent twice.", "Check the ring of alertmanagers, and port 9095 between them."},
		{"OverridesNotRead", `min by (cluster, job) (amphora_runtime_config_last_reload_successful) == 0`, "5m", critical, "{{ $labels.job }} cannot read the file of overrides.",
			"The previous limits stay in force.", "`amphoratool runtime-config validate` names the line."},
		{"OverridesDisagree", `count by (cluster, job) (count by (cluster, job, sha256) (amphora_runtime_config_hash)) > 1`, "1h", warning, "Processes of {{ $labels.job }} have different overrides.",
			"The file did not reach all processes.", "Compare /runtime_config of the processes."},
		{"MemoryPressure", `max by (cluster, job, pod) (amphora_memory_pressure) >= 2`, "10m", critical, "{{ $labels.pod }} is short of memory and refuses work.",
			"At 2 new series are refused, at 3 reads, at 4 writes, which keeps the process from being killed.",
			"Give it more memory, spread the load over more processes, or find the tenant that grew: dashboard Tenants."},
		{"KilledAtWork", `max by (cluster, job, pod) (amphora_activity_tracker_left_requests) > 0 and on (cluster, job, pod) time() - process_start_time_seconds < 3600`, "0m", warning, "{{ $labels.pod }} was killed with {{ $value }} requests under way.",
			"These requests failed, and one of them may be the cause and come again.", "The log since the start lists them: `request was under way when a process ended without stopping`. If one query is listed after several kills, limit it: `max_fetched_series_per_query`, `max_estimated_memory_consumption_per_query`."},
		{"TooManyConnections", `max by (cluster, job, pod) (amphora_tcp_connections / on (cluster, job, pod, protocol) (amphora_tcp_connections_limit > 0)) > 0.8`, "5m", critical, "{{ $labels.pod }} is at {{ $value | humanizePercentage }} of its connection limit.",
			"Beyond the limit new connections wait.", "Add processes, or raise server.http_listen_conn_limit."},
		{"ClocksDiffer", `max by (cluster, job, pod) (abs(amphora_ring_clock_skew_seconds)) > 10`, "15m", warning, "The clock of {{ $labels.pod }} is {{ $value }} seconds off.",
			"Members that are alive look silent.", "Check the time synchronization of the machine."},
		{"KVStoreFailing", `sum by (cluster, job, kv_name) (rate(amphora_kv_request_duration_seconds_count{status_code!~"2.."}[5m])) / sum by (cluster, job, kv_name) (rate(amphora_kv_request_duration_seconds_count[5m])) > 0.05`, "15m", critical, "{{ $labels.job }} cannot read or write {{ $labels.kv_name }}.",
			"The store of rings fails.", "With kvstore.store etcd look at etcd; with memberlist at gossip (`RingMembersDisagree`)."},
		{"AuditNotWritten", `sum by (cluster, job, pod) (amphora_audit_waiting_bytes) > 1e8`, "1h", warning, "Audit records of {{ $labels.pod }} wait on its disk.",
			"They cannot be written to object storage. None are lost while the disk survives.", "`ObjectStoreFailing`."},
		{"CertificateNotIssued", `min by (cluster, job, host) (amphora_acme_certificate_expiry_timestamp_seconds) - time() < 20 * 24 * 3600 and on (cluster, job) sum by (cluster, job) (increase(amphora_acme_orders_total{outcome="failure"}[12h])) > 0`, "1h", critical, "The certificate of {{ $labels.host }} could not be obtained or renewed.",
			"Once it expires clients refuse to connect, unless `server.http_tls_config` has another.",
			"The log has the CA's answer: usually port 443 of the name no longer leads to these listeners, or the CA limits the rate."},
		{"CertificateExpires", `min by (cluster, job, pod, listener) (amphora_server_tls_certificate_expiry_timestamp_seconds) - time() < 7 * 24 * 3600`, "1h", warning, "The certificate in the files of the listener {{ $labels.listener }} of {{ $labels.pod }} expires within a week, or has expired.",
			"After that clients, or other processes, refuse to connect.",
			"Replace `cert_file` and `key_file` of `server.http_tls_config` or `server.grpc_tls_config`; they are reloaded without a restart. If that was done, see `amphora_server_tls_reloads_total` with outcome failure and the log. Certificates with a lifetime below a week need another threshold."},
		{"IdentitiesNotRead", `sum by (cluster, job) (rate(amphora_identity_refreshes_total{result!="success"}[5m])) > 0`, "15m", warning, "{{ $labels.job }} cannot check for changed identities.",
			"The known ones stay valid: a revoked key may still work.", "The log has the reason: the file is invalid, or object storage fails."},
		{"WorkspacesNotPurged", `time() - max by (cluster) (amphora_control_janitor_last_successful_run_timestamp_seconds > 0) > 24 * 3600`, "1h", warning, "Deleted workspaces are not purged.",
			"Their data stays.", "The log of the control plane has the reason."},
	}
}

// runbookURL is where the runbooks are published.
const runbookURL = "https://github.com/amphora-metrics/amphora/blob/main/docs/runbooks.md#"

func alertsYAML() ([]byte, error) {
	type rule struct {
		Alert       string            `yaml:"alert"`
		Expr        string            `yaml:"expr"`
		For         string            `yaml:"for,omitempty"`
		Labels      map[string]string `yaml:"labels"`
		Annotations map[string]string `yaml:"annotations"`
	}
	var rules []rule
	for _, a := range alerts() {
		wait := a.wait
		if wait == "0m" {
			wait = ""
		}
		rules = append(rules, rule{"Amphora" + a.name, a.expr, wait, map[string]string{"severity": a.severity},
			map[string]string{"summary": a.summary, "runbook_url": runbookURL + anchor("Amphora"+a.name)}})
	}
	return groupYAML("amphora_alerts", rules)
}

func groupYAML(name string, rules any) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("# Written by tools/mixin.\n")
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	err := enc.Encode(map[string]any{"groups": []any{map[string]any{"name": name, "rules": rules}}})
	return b.Bytes(), err
}

// recording are the recording rules: what dashboards of long ranges and capacity planning read.
func recording() [][2]string {
	return [][2]string{
		{"cluster_job_route:amphora_request_duration_seconds_count:sum_rate", `sum by (cluster, job, route, status_code) (rate(amphora_request_duration_seconds_count[1m]))`},
		{"cluster_job_route:amphora_request_duration_seconds:99quantile", `histogram_quantile(0.99, sum by (cluster, job, route, le) (rate(amphora_request_duration_seconds_bucket[1m])))`},
		{"cluster_job:amphora_distributor_received_samples_total:sum_rate", `sum by (cluster, job) (rate(amphora_distributor_received_samples_total[5m]))`},
		{"cluster_user:amphora_distributor_received_samples_total:sum_rate", `sum by (cluster, user) (rate(amphora_distributor_received_samples_total[5m]))`},
		{"cluster_user:amphora_discarded_samples_total:sum_rate", `sum by (cluster, user, reason) (rate(amphora_discarded_samples_total[5m]))`},
		{"cluster_user:amphora_ingester_active_series:sum", `sum by (cluster, user) (amphora_ingester_active_series) / on (cluster) group_left () max by (cluster) (amphora_distributor_replication_factor)`},
		{"cluster_job:amphora_ingester_memory_series:sum", `sum by (cluster, job) (amphora_ingester_memory_series)`},
		{"cluster_job:amphora_query_scheduler_queue_duration_seconds:99quantile", `histogram_quantile(0.99, sum by (cluster, job, le) (rate(amphora_query_scheduler_queue_duration_seconds_bucket[1m])))`},
		{"cluster_user:amphora_prometheus_rule_evaluation_failures_total:sum_rate", `sum by (cluster, user) (rate(amphora_prometheus_rule_evaluation_failures_total[5m]))`},
		{"cluster_operation:amphora_objstore_bucket_operations_total:sum_rate", `sum by (cluster, operation) (rate(amphora_objstore_bucket_operations_total[5m]))`},
	}
}

func rulesYAML() ([]byte, error) {
	type rule struct {
		Record string `yaml:"record"`
		Expr   string `yaml:"expr"`
	}
	var rules []rule
	for _, r := range recording() {
		rules = append(rules, rule{r[0], r[1]})
	}
	return groupYAML("amphora_rules", rules)
}
