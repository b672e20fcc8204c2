// The pod of a component.
{
  common(c):: { 'app.kubernetes.io/name': 'amphora', 'app.kubernetes.io/instance': c.name },

  // The test of a cluster is no member of it.
  inner(component):: component != 'gateway' && component != 'continuous-test',

  // Whether the members' HTTP is by mutual TLS.
  secure(c):: c.tls.secret != '' && c.tls.http,
  // Whether gateways call them with TLS and without, as some have it already.
  both(c):: c.tls.secret != '' && c.tls.http_transition,
  scheme(c):: if $.secure(c) then 'https' else 'http',
  // Whether nobody without a certificate is answered by a component.
  closed(c, component):: $.secure(c) && $.inner(component) && c.tls.gossip && !c.tls.gossip_transition,

  headless(c, component):: '%s-%s-headless.%s.svc.%s:8080' % [c.name, component, c.namespace, c.cluster_domain],

  // calls are the flags of calls to other processes.
  calls(c):: [
    '-ingester.client.tls-enabled=true',
    '-ingester.client.tls-cert-path=/etc/amphora/tls/tls.crt',
    '-ingester.client.tls-key-path=/etc/amphora/tls/tls.key',
    '-ingester.client.tls-ca-path=/etc/amphora/tls/ca.crt',
    '-ingester.client.tls-server-name=' + c.tls.server_name,
  ],

  // args are the flags of a component, in the order of the chart.
  args(c, component, zone):: [
    '-target=' + component,
    '-config.file=/etc/amphora/amphora.yaml',
    '-server.http-listen-address=0.0.0.0',
    '-ingester.ring.instance-id=$(POD_NAME)',
    '-ingester.ring.instance-availability-zone=' + (if zone == '' then 'none' else zone),
  ] + (
    if component == 'gateway' then [
      '-auth.enabled=true',
      '-auth.regions=' + std.join(',', c.regions),
      '-auth.key-file=/etc/amphora/auth/operator.key',
      '-auth.identity-file=/etc/amphora/auth/identities.yaml',
      '-auth.root-credential-file=',
    ] + [
      '-gateway.upstreams=%s=dns+%s://%s' % [service, scheme, $.headless(c, c.routes[service])]
      for service in std.objectFields(c.routes)
      for scheme in (if $.both(c) then ['https', 'http'] else [$.scheme(c)])
    ] + (
      if $.secure(c) || $.both(c) then [
        '-gateway.tls-cert-path=/etc/amphora/tls/tls.crt',
        '-gateway.tls-key-path=/etc/amphora/tls/tls.key',
        '-gateway.tls-ca-path=/etc/amphora/tls/ca.crt',
        '-gateway.tls-server-name=' + c.tls.server_name,
      ] else []
    ) else []
  ) + (
    if $.inner(component) then [
      '-server.grpc-listen-address=0.0.0.0',
      '-memberlist.bind-addr=0.0.0.0',
      '-memberlist.advertise-addr=$(POD_IP)',
      '-ingester.ring.instance-addr=$(POD_IP)',
    ] + (
      if c.tls.secret != '' then [
        '-server.grpc-tls-cert-path=/etc/amphora/tls/tls.crt',
        '-server.grpc-tls-key-path=/etc/amphora/tls/tls.key',
        '-server.grpc-tls-ca-path=/etc/amphora/tls/ca.crt',
        '-server.grpc-tls-client-auth=RequireAndVerifyClientCert',
      ] + $.calls(c) + (
        if $.secure(c) then [
          '-server.http-tls-cert-path=/etc/amphora/tls/tls.crt',
          '-server.http-tls-key-path=/etc/amphora/tls/tls.key',
          '-server.http-tls-ca-path=/etc/amphora/tls/ca.crt',
          '-server.http-tls-probes-without-certificate=true',
        ] else []
      ) + (if c.tls.gossip then ['-memberlist.tls-enabled=true'] else [])
      + (if c.tls.gossip_transition then ['-memberlist.tls-transition=true'] else [])
      else []
    ) else []
    // What certificates do not protect is held by the network policy.
  ) + (
    if component != 'gateway' && !$.closed(c, component) then ['-auth.unsafe-listen-without-authentication=true'] else []
  ) + (
    if component == 'continuous-test' then (if $.secure(c) then $.calls(c) else []) + [
      '-tests.write-endpoint=%s://%s' % [$.scheme(c), $.headless(c, c.routes.distributor)],
      '-tests.read-endpoint=%s://%s/prometheus' % [$.scheme(c), $.headless(c, c.routes.querier)],
      '-tests.tenant-id=continuous-test',
    ] else []
  ) + c.extra_args + std.get(c.components[component], 'extra_args', []),

  template(c, component, zone, labels):: {
    local x = c.components[component],
    local gateway = component == 'gateway',
    local spread(key) = { maxSkew: 1, topologyKey: key, whenUnsatisfiable: 'ScheduleAnyway', labelSelector: { matchLabels: { 'app.kubernetes.io/instance': c.name, 'app.kubernetes.io/component': component } } },
    local probe(path) = { httpGet: { path: path, port: 'http-metrics' } + (if $.secure(c) && $.inner(component) then { scheme: 'HTTPS' } else {}) },
    metadata: { labels: $.common(c) + labels + (if $.inner(component) then { 'amphora/gossip': 'true' } else {}) },
    spec: {
      serviceAccountName: c.name,
      automountServiceAccountToken: false,
      terminationGracePeriodSeconds: std.get(x, 'grace', 60),
      securityContext: { runAsNonRoot: true, runAsUser: 65532, runAsGroup: 65532, fsGroup: 65532, fsGroupChangePolicy: 'OnRootMismatch', seccompProfile: { type: 'RuntimeDefault' } },
      [if zone != '' && std.objectHas(c.zone_nodes, zone) then 'nodeSelector']: c.zone_nodes[zone],
      topologySpreadConstraints: (if zone == '' then [spread('topology.kubernetes.io/zone')] else []) + [spread('kubernetes.io/hostname')],
      containers: [{
        name: component,
        image: c.image,
        args: $.args(c, component, zone),
        env: [
          { name: 'POD_NAME', valueFrom: { fieldRef: { fieldPath: 'metadata.name' } } },
          { name: 'POD_IP', valueFrom: { fieldRef: { fieldPath: 'status.podIP' } } },
        ],
        [if c.storage_secret != '' && component != 'continuous-test' then 'envFrom']: [{ secretRef: { name: c.storage_secret } }],
        ports: [{ name: 'http-metrics', containerPort: 8080 }] + (if $.inner(component) then [{ name: 'grpc', containerPort: 9095 }, { name: 'gossip', containerPort: 7946 }] else []),
        startupProbe: probe('/-/healthy') + { periodSeconds: 5, failureThreshold: 60 },
        livenessProbe: probe('/-/healthy') + { periodSeconds: 15, failureThreshold: 6 },
        readinessProbe: probe('/ready') + { periodSeconds: 5 },
        resources: x.resources,
        securityContext: { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ['ALL'] } },
        volumeMounts: [
          { name: 'config', mountPath: '/etc/amphora/amphora.yaml', subPath: 'amphora.yaml', readOnly: true },
          { name: 'runtime', mountPath: '/etc/amphora/runtime', readOnly: true },
          { name: 'data', mountPath: '/data' },
          { name: 'tmp', mountPath: '/tmp' },
        ] + (if gateway then [{ name: 'auth', mountPath: '/etc/amphora/auth', readOnly: true }] else [])
        + (if c.tls.secret != '' then [{ name: 'tls', mountPath: '/etc/amphora/tls', readOnly: true }] else []),
      }],
      volumes: [
        { name: 'config', configMap: { name: c.name + '-config' } },
        { name: 'runtime', configMap: { name: c.name + '-runtime' } },
        { name: 'tmp', emptyDir: {} },
      ] + (if std.objectHas(x, 'storage') then [] else [{ name: 'data', emptyDir: {} }])
      + (if gateway then [{ name: 'auth', secret: { secretName: c.auth_secret, defaultMode: 288 } }] else [])
      + (if c.tls.secret != '' then [{ name: 'tls', secret: { secretName: c.tls.secret, defaultMode: 288 } }] else []),
    },
  },
}
