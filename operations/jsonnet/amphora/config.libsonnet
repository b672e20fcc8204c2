// What most clusters change. Everything else of a process is configured by `config`.
{
  _config:: {
    name: 'amphora',
    namespace: error '_config.namespace is where the objects go',
    image: 'ghcr.io/amphora-metrics/amphora:dev',
    cluster_domain: 'cluster.local',
    storage: { backend: 's3', s3: { endpoint: 's3.eu-central-1.amazonaws.com', region: 'eu-central-1', bucket_name: error '_config.storage.s3.bucket_name is the bucket for blocks', insecure: false } },
    storage_secret: '',
    auth_secret: 'amphora-auth',
    regions: ['us-east-1'],
    // A secret with tls.crt, tls.key and ca.crt, good for a server and a client of server_name: calls between processes
    // by gRPC and HTTP, and gossip, then need it. The transitions are for moving a running cluster to TLS.
    tls: { secret: '', server_name: 'amphora', http: true, http_transition: false, gossip: true, gossip_transition: false },
    zones: ['zone-a', 'zone-b', 'zone-c'],
    // zone_nodes says on which nodes a zone runs: { 'zone-a': { 'topology.kubernetes.io/zone': 'eu-1a' } }
    zone_nodes: {},
    config: {},
    overrides: {},
    extra_args: [],

    // Which component has the HTTP routes of each service.
    routes: {
      distributor: 'distributor',
      ingester: 'ingester',
      querier: 'query-frontend',
      'store-gateway': 'store-gateway',
      compactor: 'compactor',
      ruler: 'ruler',
      alertmanager: 'alertmanager',
      control: 'control',
    },

    local resources(cpu, memory, limit) = { requests: { cpu: cpu, memory: memory }, limits: { memory: limit } },
    components: {
      gateway: { replicas: 2, resources: resources('250m', '256Mi', '512Mi') },
      distributor: { replicas: 3, resources: resources('1', '1Gi', '2Gi'), grace: 90 },
      ingester: { replicas: 1, zones: true, storage: '50Gi', resources: resources('1', '4Gi', '8Gi'), grace: 1200 },
      'query-frontend': { replicas: 2, resources: resources('500m', '512Mi', '1Gi'), grace: 180 },
      'query-scheduler': { replicas: 2, resources: resources('100m', '128Mi', '256Mi'), grace: 180 },
      querier: { replicas: 2, resources: resources('1', '2Gi', '4Gi'), grace: 180 },
      'store-gateway': { replicas: 1, zones: true, storage: '50Gi', resources: resources('500m', '2Gi', '4Gi'), grace: 120 },
      compactor: { replicas: 1, storage: '100Gi', resources: resources('500m', '1Gi', '4Gi'), grace: 300 },
      ruler: { replicas: 2, resources: resources('500m', '512Mi', '2Gi'), grace: 180 },
      alertmanager: { replicas: 3, storage: '2Gi', resources: resources('100m', '256Mi', '1Gi'), grace: 120 },
      control: { replicas: 2, resources: resources('100m', '128Mi', '512Mi') },
      // Limits of tenants as metrics, and the test that writes and reads without end.
      'overrides-exporter': { enabled: false, replicas: 1, resources: resources('50m', '128Mi', '256Mi') },
      'continuous-test': { enabled: false, replicas: 1, resources: resources('100m', '256Mi', '512Mi') },
    },
  },
}
