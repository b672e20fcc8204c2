import { useState } from "preact/hooks";
import { type Scope, server } from "../api";
import { useLoad } from "../load";
import { go, href } from "../route";
import { when } from "../text";
import { Button, Card, Confirm, Copy, Dialog, Facts, Form, Head, Link, Loading, Problem, Snippet, Tabs, Text } from "../ui";
import { describe, remove, rename, retag, type Workspace } from "../workspaces";
import { name, State, Tags } from "./workspaces";

export function Overview(p: { scope: Scope }) {
  if (p.scope.kind === "tenant") return <TenantOverview scope={p.scope} />;
  return <WorkspaceOverview scope={p.scope} />;
}

function WorkspaceOverview(p: { scope: Scope }) {
  const w = useLoad((signal) => describe(p.scope.id, signal), [p.scope.id]);
  const [dialog, setDialog] = useState<"" | "alias" | "tags" | "delete">("");
  const close = () => setDialog("");
  const done = async () => {
    close();
    await w.reload();
  };
  if (!w.data) {
    return (
      <>
        <Head title="Workspace" sub={<code>{p.scope.id}</code>} />
        {w.loading && <Loading what="the workspace" />}
        <Problem error={w.error} what="The workspace cannot be shown" />
      </>
    );
  }
  const it = w.data;
  return (
    <>
      <Head
        title={name(it)}
        sub={
          <>
            <code>{it.workspaceId}</code> <State code={it.status.statusCode} />
          </>
        }
        actions={
          <Button look="danger" onClick={() => setDialog("delete")}>
            Delete
          </Button>
        }
      />
      <Problem error={w.error} />
      <Card title="About">
        <Facts
          rows={[
            ["Alias", <>{it.alias ?? <span class="faint">none</span>} <Button look="quiet" onClick={() => setDialog("alias")}>Change alias</Button></>],
            ["ARN", <><code>{it.arn}</code> <Copy text={it.arn} what="the ARN" /></>],
            ["Created", when(it.createdAt)],
            ["Tags", <><Tags tags={it.tags} /> <Button look="quiet" onClick={() => setDialog("tags")}>Change tags</Button></>],
          ]}
        />
      </Card>
      <Connect base={(it.prometheusEndpoint ?? "").replace(/\/$/, "")} />
      {dialog === "alias" && <Alias it={it} close={close} done={done} />}
      {dialog === "tags" && <EditTags it={it} close={close} done={done} />}
      {dialog === "delete" && (
        <Confirm title="Delete workspace" label="Delete workspace" typed={it.alias ?? it.workspaceId} close={close} act={async () => {
            await remove(it.workspaceId);
            go(href(null, "workspaces"));
          }}>
          <p>
            Its rules and its alert manager stop at once, and nobody can read or write its metrics any more. An operator can restore it until its data is purged.
          </p>
        </Confirm>
      )}
    </>
  );
}

function Alias(p: { it: Workspace; close: () => void; done: () => Promise<void> }) {
  const [alias, setAlias] = useState(p.it.alias ?? "");
  return (
    <Dialog title="Change alias" close={p.close}>
      <Form label="Save" cancel={p.close} submit={async () => {
          await rename(p.it.workspaceId, alias.trim());
          await p.done();
        }}>
        <Text label="Alias" value={alias} set={setAlias} maxLength={100} hint="Empty: the workspace has none." />
      </Form>
    </Dialog>
  );
}

function EditTags(p: { it: Workspace; close: () => void; done: () => Promise<void> }) {
  const [rows, setRows] = useState<[string, string][]>([...Object.entries(p.it.tags), ["", ""]]);
  const set = (i: number, k: string, v: string) => {
    const next = rows.map((row, j): [string, string] => (i === j ? [k, v] : row));
    if (next[next.length - 1]?.[0]) next.push(["", ""]);
    setRows(next);
  };
  return (
    <Dialog title="Change tags" close={p.close}>
      <Form label="Save" cancel={p.close} submit={async () => {
          await retag(p.it.arn, p.it.tags, Object.fromEntries(rows.filter(([k]) => k.trim()).map(([k, v]) => [k.trim(), v.trim()])));
          await p.done();
        }}>
        {rows.map(([k, v], i) => (
          <div class="pair" key={i}>
            <Text label={`Key ${i + 1}`} value={k} set={(x) => set(i, x, v)} />
            <Text label={`Value ${i + 1}`} value={v} set={(x) => set(i, k, x)} />
            <Button look="quiet" aria-label={`Remove tag ${i + 1}`} onClick={() => setRows(rows.length > 1 ? rows.filter((_, j) => j !== i) : [["", ""]])}>
              Remove
            </Button>
          </div>
        ))}
      </Form>
    </Dialog>
  );
}

function TenantOverview(p: { scope: Scope }) {
  const s = server();
  return (
    <>
      <Head title={p.scope.id} sub="A tenant that is not registered as a workspace." />
      <Card title="Addresses">
        <Facts
          rows={[
            ["Write", <Address text={location.origin + "/api/v1/push"} />],
            ["Read", <Address text={location.origin + s.prometheus} />],
            ["Tenant", s.defaultTenant ? "the only one; clients name none" : <code>X-Scope-OrgID: {p.scope.id}</code>],
          ]}
        />
        <p>
          <Link to={href(p.scope, "explore")}>Explore its metrics</Link>
        </p>
      </Card>
    </>
  );
}

function Address(p: { text: string }) {
  return (
    <>
      <code>{p.text}</code> <Copy text={p.text} what={p.text} />
    </>
  );
}

/** Connect has what clients need, ready to paste. */
function Connect(p: { base: string }) {
  const [tab, setTab] = useState("prometheus");
  const { region, authentication } = server();
  const sigv4 = authentication
    ? `
    sigv4:
      region: ${region}
      access_key: <access key ID>
      secret_key: <secret access key>`
    : "";
  const prometheus = `remote_write:
  - url: ${p.base}/api/v1/remote_write${sigv4}
    queue_config:
      max_samples_per_send: 1000
      max_shards: 200
      capacity: 2500
`;
  const adot = `extensions:
  sigv4auth:
    region: ${region}
    service: aps

exporters:
  prometheusremotewrite:
    endpoint: ${p.base}/api/v1/remote_write${
      authentication
        ? `
    auth:
      authenticator: sigv4auth`
        : ""
    }

service:
  extensions: [sigv4auth]
  pipelines:
    metrics:
      receivers: [otlp]
      exporters: [prometheusremotewrite]
`;
  const grafana = `apiVersion: 1
datasources:
  - name: Amphora
    type: prometheus
    access: proxy
    url: ${p.base}
    jsonData:
      httpMethod: POST${
        authentication
          ? `
      sigV4Auth: true
      sigV4AuthType: keys
      sigV4Region: ${region}
    secureJsonData:
      sigV4AccessKey: <access key ID>
      sigV4SecretKey: <secret access key>`
          : ""
      }
`;
  const curl = `curl ${authentication ? `--aws-sigv4 aws:amz:${region}:aps --user '<access key ID>:<secret access key>' ` : ""}\\
  '${p.base}/api/v1/query?query=up'
`;
  const text: Record<string, [string, string]> = {
    prometheus: ["prometheus.yml", prometheus],
    adot: ["Collector configuration", authentication ? adot : adot.replace(/extensions:\n {2}sigv4auth:[\s\S]*?\n\n/, "").replace("  extensions: [sigv4auth]\n", "")],
    grafana: ["Data source of Grafana", grafana],
    curl: ["Shell", curl],
  };
  const [title, body] = text[tab] ?? ["", ""];
  return (
    <Card title="Connect">
      <Facts
        rows={[
          ["Remote write URL", <Address text={p.base + "/api/v1/remote_write"} />],
          ["Query URL", <Address text={p.base + "/api/v1/query"} />],
        ]}
      />
      <Tabs
        label="Client"
        value={tab}
        set={setTab}
        tabs={[
          ["prometheus", "Prometheus"],
          ["adot", "OpenTelemetry / ADOT"],
          ["grafana", "Grafana"],
          ["curl", "curl"],
        ]}
      >
        <Snippet title={title} text={body} />
      </Tabs>
    </Card>
  );
}
