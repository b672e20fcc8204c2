// The objects of one cluster as a list, for `kubectl apply -f -`. Needs: -V namespace, -V bucket.
local amphora = (import 'amphora/amphora.libsonnet') {
  _config+:: { namespace: std.extVar('namespace'), storage+: { s3+: { bucket_name: std.extVar('bucket') } } },
};
{ apiVersion: 'v1', kind: 'List', items: [amphora._objects[name] for name in std.objectFields(amphora._objects)] }
