// Amphora on Kubernetes: the mode microservices of the Helm chart, with the same workloads, ports and
// flags, which a test compares.
//
//   local amphora = import 'amphora/amphora.libsonnet';
//   amphora { _config+:: { namespace: 'metrics', storage+: { s3+: { bucket_name: 'blocks' } } } }
//
// _objects has every Kubernetes object, named after its kind and name:
// `_objects+:: { 'deployment/amphora-ruler'+: { spec+: { replicas: 4 } } }` changes one.
local pod = import 'pod.libsonnet';

(import 'config.libsonnet') + {
  local c = self._config,
  local meta(name, labels={}) = { name: name, namespace: c.namespace, labels: pod.common(c) + labels },
  local of(component) = { 'app.kubernetes.io/component': component },
  local selects(labels) = { matchLabels: pod.common(c) + labels },

  // _file is the configuration file of every process.
  _file:: std.mergePatch({
    multitenancy_enabled: true,
    activity_tracker: { filepath: '/data/activity' },
    alertmanager: { data_dir: '/data/alertmanager' },
    audit: { dir: '/data/audit' },
    blocks_storage: c.storage { bucket_store: { sync_dir: '/data/blocks-cache' } },
    compactor: { data_dir: '/data/compactor' },
    ingester: { data_dir: '/data/ingester', ring: { replication_factor: 3, zone_awareness_enabled: true } },
    memberlist: { cluster_label: c.name, join_members: ['dns+%s-gossip.%s.svc.%s:7946' % [c.name, c.namespace, c.cluster_domain]] },
    ruler: { alertmanager_url: ['dns+http://%s/alertmanager' % pod.headless(c, 'alertmanager')] },
    runtime_config: { file: ['/etc/amphora/runtime/limits.yaml'] },
    store_gateway: { sharding_ring: { zone_awareness_enabled: true } },
  }, c.config),

  local workload(component, zone) = {
    local x = c.components[component],
    local labels = of(component) + (if zone == '' then {} else { 'amphora/zone': zone }),
    local stateful = std.objectHas(x, 'storage'),
    apiVersion: 'apps/v1',
    kind: if stateful then 'StatefulSet' else 'Deployment',
    metadata: meta('%s-%s%s' % [c.name, component, if zone == '' then '' else '-' + zone], of(component)),
    spec: {
      replicas: x.replicas,
      selector: selects(labels),
      template: pod.template(c, component, zone, labels),
      [if stateful then 'serviceName']: '%s-%s-headless' % [c.name, component],
      [if stateful then 'podManagementPolicy']: 'Parallel',
      [if stateful then 'volumeClaimTemplates']: [{
        metadata: { name: 'data' },
        spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: x.storage } } },
      }],
      [if !stateful then 'strategy']: { rollingUpdate: { maxSurge: '15%', maxUnavailable: 0 } },
    },
  },

  local service(name, labels, port, headless=true, extra={}) = {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: meta(name, extra),
    spec: {
      [if headless then 'clusterIP']: 'None',
      selector: pod.common(c) + labels,
      ports: [port],
    },
  },

  local budget(component) = {
    apiVersion: 'policy/v1',
    kind: 'PodDisruptionBudget',
    metadata: meta('%s-%s' % [c.name, component]),
    spec: { maxUnavailable: 1, selector: selects(of(component)) },
  },

  local configMap(name, data) = { apiVersion: 'v1', kind: 'ConfigMap', metadata: meta(name), data: data },
  local http = { name: 'http-metrics', port: 8080, targetPort: 'http-metrics' },
  local zoned(component) = std.get(c.components[component], 'zones', false),

  local enabled = [component for component in std.objectFields(c.components) if std.get(c.components[component], 'enabled', true)],

  local objects =
    [
      configMap(c.name + '-config', { 'amphora.yaml': std.manifestYamlDoc($._file, quote_keys=false) }),
      configMap(c.name + '-runtime', { 'limits.yaml': std.manifestYamlDoc({ overrides: c.overrides }, quote_keys=false) }),
      { apiVersion: 'v1', kind: 'ServiceAccount', metadata: meta(c.name), automountServiceAccountToken: false },
      service(c.name, of('gateway'), { name: 'http', port: 80, targetPort: 'http-metrics' }, headless=false),
      service(c.name + '-gossip', { 'amphora/gossip': 'true' }, { name: 'gossip', port: 7946, targetPort: 'gossip' }) + { spec+: { publishNotReadyAddresses: true } },
      {
        apiVersion: 'networking.k8s.io/v1',
        kind: 'NetworkPolicy',
        metadata: meta(c.name),
        spec: { podSelector: selects({}), policyTypes: ['Ingress'], ingress: [{ from: [{ podSelector: selects({}) }] }, { from: [{ namespaceSelector: {}, podSelector: { matchLabels: { 'app.kubernetes.io/name': 'prometheus' } } }], ports: [{ port: 'http-metrics' }] }] },
      },
      {
        apiVersion: 'networking.k8s.io/v1',
        kind: 'NetworkPolicy',
        metadata: meta(c.name + '-clients'),
        spec: { podSelector: selects(of('gateway')), policyTypes: ['Ingress'], ingress: [{ ports: [{ port: 'http-metrics' }] }] },
      },
    ] + [
      workload(component, zone)
      for component in enabled
      for zone in (if zoned(component) then c.zones else [''])
    ] + [
      service('%s-%s-headless' % [c.name, component], of(component), http, extra=of(component) { 'amphora/headless': 'true' })
      for component in enabled
    ] + [
      budget(component)
      for component in enabled
      if c.components[component].replicas > 1 || zoned(component)
    ],
  _objects:: { [std.asciiLower(o.kind) + '/' + o.metadata.name]: o for o in objects },
}
