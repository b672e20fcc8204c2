{{- define "amphora.name" -}}
{{- if contains "amphora" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-amphora" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "amphora.common" -}}
app.kubernetes.io/name: amphora
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "amphora.labels" -}}
{{ include "amphora.common" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* The workloads of the mode and those that are asked for, as YAML: name and target. */}}
{{- define "amphora.workloads" -}}
{{- $names := list "gateway" "distributor" "ingester" "query-frontend" "query-scheduler" "querier" "store-gateway" "compactor" "ruler" "alertmanager" "control" -}}
{{- if eq .Values.mode "single" -}}
{{- $names = list "all" -}}
{{- else if eq .Values.mode "roles" -}}
{{- $names = list "gateway" "write" "read" "backend" -}}
{{- end -}}
{{- range $name := list "overrides-exporter" "continuous-test" -}}
{{- if (index $.Values.components $name).enabled -}}
{{- if eq $.Values.mode "single" -}}
{{- fail (printf "components.%s is for the modes roles and microservices" $name) -}}
{{- end -}}
{{- $names = append $names $name -}}
{{- end -}}
{{- end -}}
{{- toYaml $names -}}
{{- end }}

{{/* Which workload has the HTTP routes of each service, as YAML. */}}
{{- define "amphora.routes" -}}
{{- if eq .Values.mode "roles" -}}
{distributor: write, ingester: write, querier: read, store-gateway: read, compactor: backend, ruler: backend, alertmanager: backend, control: backend}
{{- else -}}
{distributor: distributor, ingester: ingester, querier: query-frontend, store-gateway: store-gateway, compactor: compactor, ruler: ruler, alertmanager: alertmanager, control: control}
{{- end }}
{{- end }}

{{- define "amphora.serviceAccount" -}}
{{- if .Values.serviceAccount.name }}{{ .Values.serviceAccount.name }}{{ else if .Values.serviceAccount.create }}{{ include "amphora.name" . }}{{ else }}default{{ end }}
{{- end }}

{{- define "amphora.authSecret" -}}
{{- .Values.auth.existingSecret | default (printf "%s-auth" (include "amphora.name" .)) }}
{{- end }}

{{/* The configuration file: what the chart knows, and what the values say, which wins. */}}
{{- define "amphora.config" -}}
{{- $s := .Values.storage -}}
{{- $storage := dict "backend" $s.backend -}}
{{- if eq $s.backend "s3" -}}
{{- $_ := set $storage "s3" (dict "endpoint" $s.s3.endpoint "region" $s.s3.region "bucket_name" (required "storage.s3.bucketName is the bucket for blocks" $s.s3.bucketName) "insecure" $s.s3.insecure) -}}
{{- else if eq $s.backend "gcs" -}}
{{- $_ := set $storage "gcs" (dict "bucket_name" (required "storage.gcs.bucketName is the bucket for blocks" $s.gcs.bucketName)) -}}
{{- else if eq $s.backend "azure" -}}
{{- $_ := set $storage "azure" (dict "account_name" (required "storage.azure.accountName is the storage account" $s.azure.accountName) "container_name" (required "storage.azure.containerName is the container for blocks" $s.azure.containerName)) -}}
{{- else if ne .Values.mode "single" -}}
{{- fail "storage.backend filesystem is for mode single only" -}}
{{- else -}}
{{- $_ := set $storage "filesystem" (dict "dir" "/data/blocks") -}}
{{- end -}}
{{- $_ := set $storage "bucket_store" (dict "sync_dir" "/data/blocks-cache") -}}
{{- $known := dict
  "blocks_storage" $storage
  "ingester" (dict "data_dir" "/data/ingester")
  "compactor" (dict "data_dir" "/data/compactor")
  "alertmanager" (dict "data_dir" "/data/alertmanager")
  "audit" (dict "dir" "/data/audit")
  "activity_tracker" (dict "filepath" "/data/activity")
  "runtime_config" (dict "file" (list "/etc/amphora/runtime/limits.yaml"))
-}}
{{- if ne .Values.mode "single" -}}
{{- $_ := set $known "memberlist" (dict "join_members" (list (printf "dns+%s-gossip.%s.svc.%s:7946" (include "amphora.name" .) .Release.Namespace .Values.clusterDomain)) "cluster_label" (include "amphora.name" .)) -}}
{{- $_ := set $known "ingester" (dict "data_dir" "/data/ingester" "ring" (dict "replication_factor" 3 "zone_awareness_enabled" true)) -}}
{{- if eq .Values.mode "microservices" -}}
{{- $_ := set $known "store_gateway" (dict "sharding_ring" (dict "zone_awareness_enabled" true)) -}}
{{- end -}}
{{- $_ := set $known "ruler" (dict "alertmanager_url" (list (printf "dns+http://%s-%s-headless.%s.svc.%s:8080/alertmanager" (include "amphora.name" .) (eq .Values.mode "roles" | ternary "backend" "alertmanager") .Release.Namespace .Values.clusterDomain))) -}}
{{- end -}}
{{- toYaml (mustMergeOverwrite $known (deepCopy .Values.config)) -}}
{{- end }}
