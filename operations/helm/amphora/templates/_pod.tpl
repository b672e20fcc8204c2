{{/* The pod of a workload. Arguments: root, name (of the component), component, zone (a dict, empty for none). */}}
{{- define "amphora.pod" -}}
{{- $root := .root }}{{- $c := .component }}{{- $v := $root.Values }}
{{- $door := or (eq .name "gateway") (eq .name "all") }}
{{- /* The test of the cluster is no member of it. */}}
{{- $inner := not (has .name (list "gateway" "continuous-test")) }}
{{- /* Whether the members' HTTP is by mutual TLS. */}}
{{- $secure := and (ne $v.tls.internalSecret "") $v.tls.http (ne $v.mode "single") }}
{{- $both := and (ne $v.tls.internalSecret "") $v.tls.httpTransition }}
{{- $served := and $secure $inner (ne .name "all") }}
{{- $routes := include "amphora.routes" $root | fromYaml }}
{{- $suffix := printf "headless.%s.svc.%s:8080" $root.Release.Namespace $v.clusterDomain }}
metadata:
  labels:
    {{- include "amphora.common" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .name }}
    {{- with .zone }}
    amphora/zone: {{ .name }}
    {{- end }}
    {{- if and $inner (ne .name "all") }}
    amphora/gossip: "true"
    {{- end }}
    {{- with $v.podLabels }}{{- toYaml . | nindent 4 }}{{- end }}
  annotations:
    checksum/config: {{ include "amphora.config" $root | sha256sum }}
    {{- with $v.podAnnotations }}{{- toYaml . | nindent 4 }}{{- end }}
spec:
  serviceAccountName: {{ include "amphora.serviceAccount" $root }}
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: {{ $c.terminationGracePeriodSeconds | default 60 }}
  securityContext: {{- toYaml $v.podSecurityContext | nindent 4 }}
  {{- with $v.image.pullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $v.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- $nodes := mustMergeOverwrite (dict) (deepCopy ($c.nodeSelector | default dict)) (deepCopy (.zone.nodeSelector | default dict)) }}
  {{- with $nodes }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  topologySpreadConstraints:
    {{- if not .zone }}
    - maxSkew: 1
      topologyKey: topology.kubernetes.io/zone
      whenUnsatisfiable: ScheduleAnyway
      labelSelector: {matchLabels: {app.kubernetes.io/instance: {{ $root.Release.Name }}, app.kubernetes.io/component: {{ .name }}}}
    {{- end }}
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector: {matchLabels: {app.kubernetes.io/instance: {{ $root.Release.Name }}, app.kubernetes.io/component: {{ .name }}}}
  containers:
    - name: {{ .name }}
      image: {{ printf "%s:%s" $v.image.repository ($v.image.tag | default $root.Chart.AppVersion) }}
      imagePullPolicy: {{ $v.image.pullPolicy }}
      args:
        - -target={{ .name }}
        - -config.file=/etc/amphora/amphora.yaml
        - -server.http-listen-address=0.0.0.0
        - -ingester.ring.instance-id=$(POD_NAME)
        - -ingester.ring.instance-availability-zone={{ .zone.name | default "none" }}
        {{- if and $inner (ne .name "all") }}
        - -server.grpc-listen-address=0.0.0.0
        - -memberlist.bind-addr=0.0.0.0
        - -memberlist.advertise-addr=$(POD_IP)
        - -ingester.ring.instance-addr=$(POD_IP)
        {{- if $v.tls.internalSecret }}
        - -server.grpc-tls-cert-path=/etc/amphora/tls/tls.crt
        - -server.grpc-tls-key-path=/etc/amphora/tls/tls.key
        - -server.grpc-tls-ca-path=/etc/amphora/tls/ca.crt
        - -server.grpc-tls-client-auth=RequireAndVerifyClientCert
        - -ingester.client.tls-enabled=true
        - -ingester.client.tls-cert-path=/etc/amphora/tls/tls.crt
        - -ingester.client.tls-key-path=/etc/amphora/tls/tls.key
        - -ingester.client.tls-ca-path=/etc/amphora/tls/ca.crt
        - -ingester.client.tls-server-name={{ $v.tls.serverName }}
        {{- if $secure }}
        - -server.http-tls-cert-path=/etc/amphora/tls/tls.crt
        - -server.http-tls-key-path=/etc/amphora/tls/tls.key
        - -server.http-tls-ca-path=/etc/amphora/tls/ca.crt
        - -server.http-tls-probes-without-certificate=true
        {{- end }}
        {{- if $v.tls.gossip }}
        - -memberlist.tls-enabled=true
        {{- end }}
        {{- if $v.tls.gossipTransition }}
        - -memberlist.tls-transition=true
        {{- end }}
        {{- end }}
        {{- end }}
        {{- if and (ne .name "gateway") (ne .name "all") (not (and $served $v.tls.gossip (not $v.tls.gossipTransition))) }}
        {{- /* What certificates do not protect is held by the network policy. */}}
        - -auth.unsafe-listen-without-authentication=true
        {{- end }}
        {{- if eq .name "continuous-test" }}
        {{- if $secure }}
        - -ingester.client.tls-enabled=true
        - -ingester.client.tls-cert-path=/etc/amphora/tls/tls.crt
        - -ingester.client.tls-key-path=/etc/amphora/tls/tls.key
        - -ingester.client.tls-ca-path=/etc/amphora/tls/ca.crt
        - -ingester.client.tls-server-name={{ $v.tls.serverName }}
        {{- end }}
        - -tests.write-endpoint={{ $secure | ternary "https" "http" }}://{{ include "amphora.name" $root }}-{{ $routes.distributor }}-{{ $suffix }}
        - -tests.read-endpoint={{ $secure | ternary "https" "http" }}://{{ include "amphora.name" $root }}-{{ $routes.querier }}-{{ $suffix }}/prometheus
        - -tests.tenant-id=continuous-test
        {{- end }}
        {{- if eq .name "all" }}
        - -ingester.ring.replication-factor=1
        {{- end }}
        {{- if $door }}
        {{- if $v.auth.enabled }}
        - -auth.enabled=true
        - -auth.regions={{ join "," $v.auth.regions }}
        - -auth.key-file=/etc/amphora/auth/operator.key
        - -auth.identity-file=/etc/amphora/auth/identities.yaml
        - -auth.root-credential-file=
        {{- else }}
        - -auth.unsafe-listen-without-authentication=true
        {{- end }}
        {{- end }}
        {{- if eq .name "gateway" }}
        {{- range $service := keys $routes | sortAlpha }}
        {{- if or $secure $both }}
        - -gateway.upstreams={{ $service }}=dns+https://{{ include "amphora.name" $root }}-{{ index $routes $service }}-{{ $suffix }}
        {{- end }}
        {{- if or (not $secure) $both }}
        - -gateway.upstreams={{ $service }}=dns+http://{{ include "amphora.name" $root }}-{{ index $routes $service }}-{{ $suffix }}
        {{- end }}
        {{- end }}
        {{- if or $secure $both }}
        - -gateway.tls-cert-path=/etc/amphora/tls/tls.crt
        - -gateway.tls-key-path=/etc/amphora/tls/tls.key
        - -gateway.tls-ca-path=/etc/amphora/tls/ca.crt
        - -gateway.tls-server-name={{ $v.tls.serverName }}
        {{- end }}
        {{- end }}
        {{- range concat $v.extraArgs ($c.extraArgs | default list) }}
        - {{ . }}
        {{- end }}
      env:
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
        {{- with concat $v.extraEnv ($c.extraEnv | default list) }}{{- toYaml . | nindent 8 }}{{- end }}
      {{- if and $v.storage.existingSecret (ne .name "continuous-test") }}
      envFrom:
        - secretRef: {name: {{ $v.storage.existingSecret }}}
      {{- end }}
      ports:
        - {name: http-metrics, containerPort: 8080}
        {{- if and $inner (ne .name "all") }}
        - {name: grpc, containerPort: 9095}
        - {name: gossip, containerPort: 7946}
        {{- end }}
      startupProbe:
        httpGet: {path: /-/healthy, port: http-metrics{{ if $served }}, scheme: HTTPS{{ end }}}
        periodSeconds: 5
        failureThreshold: 60
      livenessProbe:
        httpGet: {path: /-/healthy, port: http-metrics{{ if $served }}, scheme: HTTPS{{ end }}}
        periodSeconds: 15
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /ready, port: http-metrics{{ if $served }}, scheme: HTTPS{{ end }}}
        periodSeconds: 5
      resources: {{- toYaml $c.resources | nindent 8 }}
      securityContext: {{- toYaml $v.containerSecurityContext | nindent 8 }}
      volumeMounts:
        - {name: config, mountPath: /etc/amphora/amphora.yaml, subPath: amphora.yaml, readOnly: true}
        - {name: runtime, mountPath: /etc/amphora/runtime, readOnly: true}
        - {name: data, mountPath: /data}
        - {name: tmp, mountPath: /tmp}
        {{- if and $door $v.auth.enabled }}
        - {name: auth, mountPath: /etc/amphora/auth, readOnly: true}
        {{- end }}
        {{- if $v.tls.internalSecret }}
        - {name: tls, mountPath: /etc/amphora/tls, readOnly: true}
        {{- end }}
  volumes:
    - {name: config, configMap: {name: {{ include "amphora.name" $root }}-config}}
    - {name: runtime, configMap: {name: {{ include "amphora.name" $root }}-runtime}}
    - {name: tmp, emptyDir: {}}
    {{- if not $c.storage }}
    - {name: data, emptyDir: {}}
    {{- end }}
    {{- if and $door $v.auth.enabled }}
    - {name: auth, secret: {secretName: {{ include "amphora.authSecret" $root }}, defaultMode: 288}}
    {{- end }}
    {{- with $v.tls.internalSecret }}
    - {name: tls, secret: {secretName: {{ . }}, defaultMode: 288}}
    {{- end }}
{{- end }}
