// Written by tools/mixin. A mixin of dashboards, alerts and recording rules, to be imported by path.
{
  grafanaDashboards+:: {
    'amphora-overview.json': import 'dashboards/amphora-overview.json',
    'amphora-writes.json': import 'dashboards/amphora-writes.json',
    'amphora-reads.json': import 'dashboards/amphora-reads.json',
    'amphora-queries.json': import 'dashboards/amphora-queries.json',
    'amphora-ruler.json': import 'dashboards/amphora-ruler.json',
    'amphora-alertmanager.json': import 'dashboards/amphora-alertmanager.json',
    'amphora-compactor.json': import 'dashboards/amphora-compactor.json',
    'amphora-object-store.json': import 'dashboards/amphora-object-store.json',
    'amphora-tenants.json': import 'dashboards/amphora-tenants.json',
    'amphora-gateway.json': import 'dashboards/amphora-gateway.json',
    'amphora-resources.json': import 'dashboards/amphora-resources.json',
    'amphora-rollout.json': import 'dashboards/amphora-rollout.json',
  },
  prometheusAlerts+:: std.parseYaml(importstr 'alerts.yaml'),
  prometheusRules+:: std.parseYaml(importstr 'rules.yaml'),
}
