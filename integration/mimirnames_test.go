package integration

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// mimirSeries are what the dashboards and alerts of Mimir read most: name, type, labels.
const mimirSeries = `
cortex_alertmanager_alerts gauge state,user
cortex_alertmanager_notifications_failed_total counter integration,reason,user
cortex_alertmanager_notifications_total counter integration,user
cortex_alertmanager_partial_state_merges_failed_total counter key
cortex_alertmanager_ring_check_errors_total counter -
cortex_alertmanager_silences gauge state,user
cortex_alertmanager_state_initial_sync_completed_total counter outcome
cortex_alertmanager_state_persist_failed_total counter -
cortex_alertmanager_state_replication_failed_total counter key
cortex_alertmanager_sync_configs_failed_total counter reason
cortex_alertmanager_tenants_owned gauge -
cortex_bucket_blocks_count gauge user
cortex_bucket_index_estimated_compaction_jobs gauge type,user
cortex_bucket_index_estimated_compaction_jobs_errors_total counter -
cortex_bucket_index_last_successful_update_timestamp_seconds gauge user
cortex_bucket_store_series_blocks_queried summary level,out_of_order,source
cortex_bucket_stores_blocks_last_successful_sync_timestamp_seconds gauge -
cortex_bucket_stores_tenants_synced gauge -
cortex_build_info gauge branch,goversion,revision,version
cortex_client_invalid_cluster_validation_label_requests_total counter method,protocol
cortex_compactor_block_cleanup_last_successful_run_timestamp_seconds gauge -
cortex_compactor_blocks_marked_for_no_compaction_total counter reason
cortex_compactor_build_sparse_headers_failures_total counter -
cortex_compactor_disk_out_of_space_errors_total gauge -
cortex_compactor_group_compaction_runs_started_total counter -
cortex_compactor_last_successful_run_timestamp_seconds gauge -
cortex_compactor_runs_failed_total counter reason
cortex_discarded_samples_total counter group,reason,user
cortex_distributor_exemplars_in_total counter user
cortex_distributor_inflight_push_requests gauge -
cortex_distributor_instance_limits gauge limit
cortex_distributor_received_exemplars_total counter user
cortex_distributor_received_samples_total counter user
cortex_distributor_replication_factor gauge -
cortex_grpc_concurrent_streams_limit gauge -
cortex_inflight_requests gauge method,route
cortex_ingester_active_series gauge user
cortex_ingester_client_request_duration_seconds histogram operation,status_code
cortex_ingester_instance_limits gauge limit
cortex_ingester_memory_series gauge -
cortex_ingester_memory_series_created_total counter user
cortex_ingester_memory_series_removed_total counter user
cortex_ingester_memory_users gauge -
cortex_ingester_oldest_unshipped_block_timestamp_seconds gauge -
cortex_ingester_owned_series gauge user
cortex_ingester_queried_exemplars histogram -
cortex_ingester_queried_samples histogram -
cortex_ingester_queried_series histogram stage
cortex_ingester_shipper_last_successful_upload_timestamp_seconds gauge -
cortex_ingester_tsdb_checkpoint_creations_failed_total counter -
cortex_ingester_tsdb_checkpoint_deletions_failed_total counter -
cortex_ingester_tsdb_compactions_failed_total counter -
cortex_ingester_tsdb_exemplar_exemplars_appended_total counter user
cortex_ingester_tsdb_exemplar_series_with_exemplars_in_storage gauge user
cortex_ingester_tsdb_forced_compactions_in_progress gauge -
cortex_ingester_tsdb_head_max_timestamp_seconds gauge -
cortex_ingester_tsdb_head_truncations_failed_total counter -
cortex_ingester_tsdb_storage_blocks_bytes gauge user
cortex_ingester_tsdb_wal_corruptions_total counter -
cortex_ingester_tsdb_wal_truncations_failed_total counter -
cortex_ingester_tsdb_wal_writes_failed_total counter -
cortex_kv_request_duration_seconds histogram kv_name,operation,role,status_code
cortex_limits_overrides gauge limit_name,user
cortex_partition_ring_partitions gauge name,state
cortex_prometheus_notifications_errors_total counter user
cortex_prometheus_notifications_sent_total counter user
cortex_prometheus_rule_evaluation_failures_total counter reason,rule_group,user
cortex_prometheus_rule_evaluations_total counter rule_group,user
cortex_prometheus_rule_group_iterations_missed_total counter rule_group,user
cortex_prometheus_rule_group_rules gauge rule_group,user
cortex_querier_maximum_supported_query_plan_version gauge -
cortex_querier_request_duration_seconds histogram method,route,status_code,ws
cortex_query_frontend_querier_ring_calculated_maximum_supported_query_plan_version gauge -
cortex_query_frontend_queries_expression_bytes histogram user
cortex_query_frontend_queue_duration_seconds histogram user
cortex_query_frontend_retries histogram -
cortex_query_scheduler_queue_duration_seconds histogram additional_queue_dimensions,user
cortex_query_scheduler_queue_length gauge user
cortex_request_duration_seconds histogram method,route,status_code,ws
cortex_ring_members gauge name,state
cortex_ruler_managers_total gauge -
cortex_runtime_config_hash gauge sha256
cortex_tcp_connections gauge protocol
cortex_tcp_connections_limit gauge protocol
`

// withoutCounterpart says why some are not there.
func withoutCounterpart() map[string]string {
	return map[string]string{
		"cortex_compactor_build_sparse_headers_failures_total":                               "there are no sparse headers",
		"cortex_partition_ring_partitions":                                                   "there are no partitions",
		"cortex_querier_maximum_supported_query_plan_version":                                "plans have no versions",
		"cortex_query_frontend_querier_ring_calculated_maximum_supported_query_plan_version": "plans have no versions",
		"cortex_query_frontend_queries_expression_bytes":                                     "it is named cortex_api_query_expression_bytes, without tenants",
		"cortex_query_frontend_queue_duration_seconds":                                       "only schedulers have queues",
	}
}

// TestDashboardsOfMimirFindTheirSeries compares the metrics of a process that serves with what the
// dashboards of Mimir read. Those of which there are no series yet must at least be declared.
func TestDashboardsOfMimirFindTheirSeries(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	overrides := filepath.Join(t.TempDir(), "overrides.yaml")
	must(t, os.WriteFile(overrides, []byte("overrides: {team: {ingestion_rate: 5000}}\n"), 0o600))
	n := everything(ctx, t, "-metrics.namespace=cortex", "-target=all,overrides-exporter", "-runtime-config.file="+overrides)
	stored(t, pushV1(ctx, t, n.URL(""), "team", floats(time.Now(), 1, "__name__", "x")))
	hasValue(ctx, t, n.URL(""), "team", "x", "1")
	body, err := harness.Get(ctx, n.URL("/metrics"))
	must(t, err)
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(body))
	must(t, err)
	declared, err := os.ReadFile("../docs/reference/metrics.md")
	must(t, err)

	gaps := withoutCounterpart()
	for line := range strings.Lines(strings.TrimSpace(mimirSeries)) {
		name, kind, labels := fields3(line)
		f := families[name]
		_, gap := gaps[name]
		own := "| `amphora_" + strings.TrimPrefix(name, "cortex_") + "` | "
		switch {
		case gap && f != nil:
			t.Errorf("%s is there, and is said not to be", name)
		case gap:
		case f == nil && !bytes.Contains(declared, []byte(own)):
			t.Errorf("%s is not there", name)
		case f == nil && !bytes.Contains(declared, []byte(own+kind)) && kind != "summary":
			t.Errorf("%s is declared as another type than %s", name, kind)
		case f != nil:
			compareSeries(t, f, kind, labels)
		}
	}
}

func fields3(line string) (a, b, c string) {
	parts := strings.Fields(line)
	return parts[0], parts[1], parts[2]
}

// compareSeries looks at the type and the labels. We may have more labels than dashboards read. A summary and a
// histogram both have _sum and _count, and what is named _total is a counter.
func compareSeries(t *testing.T, f *dto.MetricFamily, kind, labels string) {
	t.Helper()
	got := strings.ToLower(f.GetType().String())
	if got != kind && (kind != "summary" || got != "histogram") && (kind != "gauge" || got != "counter" || !strings.HasSuffix(f.GetName(), "_total")) {
		t.Errorf("%s is a %s, want %s", f.GetName(), got, kind)
	}
	have := map[string]bool{}
	for _, m := range f.GetMetric() {
		for _, l := range m.GetLabel() {
			have[l.GetName()] = true
		}
	}
	for want := range strings.SplitSeq(labels, ",") {
		if want != "-" && !have[want] && !slices.Contains(otherLabels()[f.GetName()], want) {
			t.Errorf("%s has the labels %q, want %s", f.GetName(), slices.Sorted(maps.Keys(have)), want)
		}
	}
}

// otherLabels are labels that series of ours do not have: panels that group by them show one line.
func otherLabels() map[string][]string {
	return map[string][]string{
		"cortex_bucket_store_series_blocks_queried":     {"source", "level", "out_of_order"},
		"cortex_compactor_runs_failed_total":            {"reason"},
		"cortex_ingester_queried_series":                {"stage"},
		"cortex_query_scheduler_queue_duration_seconds": {"user", "additional_queue_dimensions"}, // ours has the class
		"cortex_query_scheduler_queue_length":           {"user"},
	}
}
