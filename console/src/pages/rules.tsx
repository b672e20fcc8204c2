import { useState } from "preact/hooks";
import { prom, request, at, type Scope } from "../api";
import { useLoad } from "../load";
import { href } from "../route";
import { ago, count, fromBase64, save, span, when } from "../text";
import { Area, Badge, Button, Card, Choice, Confirm, Dialog, Form, Head, Link, Loading, Notice, Problem, Table, Text, Upload } from "../ui";
import * as files from "../workspaces";
import { State } from "./workspaces";

interface Rule {
  type: "alerting" | "recording";
  name: string;
  query: string;
  state?: string;
  health: string;
  lastError?: string;
  evaluationTime: number;
  lastEvaluation: string;
  duration?: number;
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
  alerts?: unknown[];
}

interface Group {
  name: string;
  file: string;
  interval: number;
  evaluationTime: number;
  lastEvaluation: string;
  rules: Rule[];
}

async function groups(scope: Scope, signal: AbortSignal): Promise<Group[]> {
  const all: Group[] = [];
  let next: string | undefined;
  do {
    const page = (await prom<{ groups: Group[]; groupNextToken?: string }>(scope, "/api/v1/rules", { group_limit: "500", group_next_token: next }, signal)).data;
    all.push(...page.groups);
    next = page.groupNextToken;
  } while (next && all.length < 10000);
  return all;
}

/** fine says how a rule does, in the words of the server. */
function Health(p: { rule: Rule }) {
  const h = p.rule.health;
  if (h === "ok" && p.rule.state === "firing") return <Badge kind="bad">firing</Badge>;
  if (h === "ok" && p.rule.state === "pending") return <Badge kind="warn">pending</Badge>;
  return <Badge kind={h === "ok" ? "good" : h === "err" ? "bad" : "none"}>{h === "err" ? "error" : h}</Badge>;
}

export function Rules(p: { scope: Scope }) {
  const state = useLoad((signal) => groups(p.scope, signal), [p.scope.id], 15000);
  const [show, setShow] = useState("all");
  const all = state.data ?? [];
  const rules = all.flatMap((g) => g.rules);
  const failed = rules.filter((r) => r.health === "err").length;
  const firing = rules.filter((r) => r.state === "firing").length;
  const wanted = (r: Rule) => show === "all" || (show === "error" && r.health === "err") || (show === "firing" && (r.state === "firing" || r.state === "pending")) || r.type === show;
  const shown = all.map((g) => ({ ...g, rules: g.rules.filter(wanted) })).filter((g) => g.rules.length > 0);
  return (
    <>
      <Head title="Rules" sub="Recording rules write new series, alerting rules tell the alert manager." />
      {p.scope.kind === "workspace" ? <Files scope={p.scope} changed={state.reload} /> : <TenantFile scope={p.scope} changed={state.reload} />}
      <Card
        title="State"
        actions={
          <Choice
            label="Show"
            value={show}
            set={setShow}
            options={[
              ["all", `All rules (${rules.length})`],
              ["error", `With errors (${failed})`],
              ["firing", `Pending or firing (${firing} firing)`],
              ["alerting", "Alerting rules"],
              ["recording", "Recording rules"],
            ]}
          />
        }
      >
        <Problem error={state.error} what="The state of rules cannot be shown" />
        {state.loading && <Loading what="rules" />}
        {state.data && failed > 0 && <Notice kind="bad">{`${failed} of ${rules.length} rules failed when they were last evaluated.`}</Notice>}
        {state.data && shown.length === 0 && <p class="faint">{rules.length ? "No rule is like that." : "No rules are evaluated yet. Those of a new file begin within a minute."}</p>}
        {shown.map((g) => (
          <section class="group" key={g.file + "/" + g.name}>
            <h3>
              <span class="faint">{g.file} /</span> {g.name}
            </h3>
            <p class="hint">
              every {span(g.interval)}, {ago(g.lastEvaluation) === "never" ? "not evaluated yet" : `last ${ago(g.lastEvaluation)} in ${span(g.evaluationTime)}`}
            </p>
            <Table
              caption={`Rules of group ${g.name}`}
              rows={g.rules.map((r, i) => ({ ...r, i }))}
              id={(r) => String(r.i)}
              columns={[
                { name: "Rule", by: (r) => r.name, show: (r) => <strong>{r.name}</strong> },
                { name: "State", show: (r) => <Health rule={r} /> },
                {
                  name: "Query",
                  show: (r) => (
                    <>
                      <Link to={href(p.scope, "explore", { q: r.query })}>
                        <code>{r.query}</code>
                      </Link>
                      {r.lastError && <p class="hint bad">{r.lastError}</p>}
                    </>
                  ),
                },
                { name: "Kind", by: (r) => r.type, show: (r) => r.type + (r.duration ? `, for ${span(r.duration)}` : "") },
                { name: "Took", number: true, by: (r) => r.evaluationTime, show: (r) => span(r.evaluationTime) },
              ]}
            />
          </section>
        ))}
      </Card>
    </>
  );
}

interface File {
  name: string;
  status: { statusCode: string; statusReason?: string };
  createdAt: number;
  modifiedAt: number;
}

function Files(p: { scope: Scope; changed: () => Promise<void> }) {
  const id = p.scope.id;
  const all = useLoad((signal) => files.listRules(id, signal), [id]);
  const [dialog, setDialog] = useState<{ kind: "new" | "edit" | "delete"; name: string; text: string } | null>(null);
  const [error, setError] = useState<unknown>(null);
  const read = async (name: string) => fromBase64((await files.describeRules(id, name)).data);
  const guarded = (f: () => Promise<void>) => () => {
    setError(null);
    f().catch(setError);
  };
  const close = () => setDialog(null);
  const done = async () => {
    close();
    await Promise.all([all.reload(), p.changed()]);
  };
  const add = (
    <Button look="main" onClick={() => setDialog({ kind: "new", name: "", text: example })}>
      Add rule file
    </Button>
  );
  return (
    <Card title="Rule files" actions={add}>
      <Problem error={error ?? all.error} what="Rule files" />
      {all.loading && <Loading what="rule files" />}
      {all.data && all.data.length === 0 && <p class="faint">This workspace has no rule files.</p>}
      {all.data && all.data.length > 0 && (
        <Table<File>
          caption="Rule files"
          rows={all.data}
          id={(f) => f.name}
          columns={[
            { name: "File", by: (f) => f.name, show: (f) => <strong>{f.name}</strong> },
            {
              name: "State",
              show: (f) => (
                <>
                  <State code={f.status.statusCode} /> {f.status.statusReason}
                </>
              ),
            },
            { name: "Changed", by: (f) => f.modifiedAt, show: (f) => when(f.modifiedAt) },
            {
              name: "Actions",
              hide: true,
              show: (f) => (
                <div class="row-actions">
                  <Button look="quiet" aria-label={`Replace ${f.name}`} onClick={guarded(async () => setDialog({ kind: "edit", name: f.name, text: await read(f.name) }))}>
                    Replace
                  </Button>
                  <Button look="quiet" aria-label={`Download ${f.name}`} onClick={guarded(async () => save(f.name + ".yaml", await read(f.name), "application/yaml"))}>
                    Download
                  </Button>
                  <Button look="quiet" aria-label={`Delete ${f.name}`} onClick={() => setDialog({ kind: "delete", name: f.name, text: "" })}>
                    Delete
                  </Button>
                </div>
              ),
            },
          ]}
        />
      )}
      {dialog && dialog.kind !== "delete" && <Put id={id} known={dialog.kind === "edit"} name={dialog.name} text={dialog.text} close={close} done={done} />}
      {dialog?.kind === "delete" && (
        <Confirm title="Delete rule file" label="Delete" close={close} act={async () => {
            await files.deleteRules(id, dialog.name);
            await done();
          }}>
          <p>
            The rules of <strong>{dialog.name}</strong> are no longer evaluated, and alerts of theirs that fire are resolved.
          </p>
        </Confirm>
      )}
    </Card>
  );
}

const example = `groups:
  - name: example
    rules:
      - record: job:up:sum
        expr: sum by (job) (up)
      - alert: TargetDown
        expr: up == 0
        for: 5m
        labels:
          severity: page
        annotations:
          summary: '{{ $labels.instance }} does not answer'
`;

function Put(p: { id: string; known: boolean; name: string; text: string; close: () => void; done: () => Promise<void> }) {
  const [name, setName] = useState(p.name);
  const [text, setText] = useState(p.text);
  return (
    <Dialog wide title={p.known ? `Replace ${p.name}` : "Add rule file"} close={p.close}>
      <Form label={p.known ? "Replace" : "Add"} cancel={p.close} disabled={!name.trim() || !text.trim()} submit={async () => {
          await files.putRules(p.id, name.trim(), text, p.known);
          await p.done();
        }}>
        {!p.known && <Text label="Name" value={name} set={setName} class="code" maxLength={64} />}
        <Upload label="Read from a file" accept=".yaml,.yml" set={(t, from) => {
            setText(t);
            if (!p.known && !name) setName(from.replace(/\.ya?ml$/, ""));
          }} />
        <Area label="Rules, as Prometheus reads them" value={text} set={setText} rows={18} hint="The server checks them before anything changes." />
      </Form>
    </Dialog>
  );
}

/** TenantFile is all rules of a tenant that is no workspace: files by their names, as the rules API of Mimir and Cortex has them. */
function TenantFile(p: { scope: Scope; changed: () => Promise<void> }) {
  const { path, tenant } = at(p.scope, "/config/v1/rules");
  const call = { accept: "application/yaml", ...(tenant ? { tenant } : {}) };
  const file = useLoad(
    async (signal) => {
      const r = await request(path, { ...call, signal });
      return { text: await r.text(), version: r.headers.get("etag") ?? "" };
    },
    [p.scope.id],
  );
  const [editing, setEditing] = useState(false);
  const none = files.isAbsent(file.error);
  const close = () => setEditing(false);
  return (
    <Card
      title="Rule files"
      actions={
        <>
          {file.data && <Button onClick={() => save(`${p.scope.id}-rules.yaml`, file.data?.text ?? "", "application/yaml")}>Download all</Button>}
          {(file.data || none) && (
            <Button look="main" onClick={() => setEditing(true)}>
              Change rules
            </Button>
          )}
        </>
      }
    >
      {!none && <Problem error={file.error} what="Rule files" />}
      {none && <p class="faint">This tenant has no rule files.</p>}
      {file.data && (
        <details>
          <summary>{count(file.data.text.length)} bytes of rules</summary>
          <pre class="block" tabIndex={0} aria-label="Rules">
            <code>{file.data.text}</code>
          </pre>
        </details>
      )}
      {editing && (
        <TenantRules
          text={file.data?.text ?? tenantExample}
          close={close}
          put={async (body) => {
            await request(path, { ...call, method: "PUT", body, type: "application/yaml", ...(file.data?.version ? { match: file.data.version } : {}) });
            close();
            await Promise.all([file.reload(), p.changed()]);
          }}
        />
      )}
    </Card>
  );
}

const tenantExample = example.replace(/^groups:\n/, "example:\n");

function TenantRules(p: { text: string; close: () => void; put: (text: string) => Promise<void> }) {
  const [text, setText] = useState(p.text);
  return (
    <Dialog wide title="Change rules" close={p.close}>
      <Form label="Replace all rules" cancel={p.close} disabled={!text.trim()} submit={() => p.put(text)}>
        <Upload label="Read from a file" accept=".yaml,.yml" set={setText} />
        <Area label="Rule groups, below the name of their file" value={text} set={setText} rows={18} hint="The server checks them before anything changes, and refuses them if somebody else changed the rules meanwhile." />
      </Form>
    </Dialog>
  );
}
