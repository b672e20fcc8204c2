import { useState } from "preact/hooks";
import { at, json, Refusal, request, type Scope, send } from "../api";
import { useLoad } from "../load";
import { ago, fromBase64, save, seconds, when } from "../text";
import { Area, Badge, Button, Card, Confirm, Dialog, Empty, Form, Head, Loading, Notice, Problem, Table, Tabs, Text, Upload } from "../ui";
import * as files from "../workspaces";

interface Alert {
  fingerprint: string;
  labels: Record<string, string>;
  annotations: Record<string, string>;
  startsAt: string;
  status: { state: string; silencedBy: string[]; inhibitedBy: string[] };
}

interface Group {
  labels: Record<string, string>;
  receiver: { name: string };
  alerts: Alert[];
}

interface Matcher {
  name: string;
  value: string;
  isRegex: boolean;
  isEqual?: boolean;
}

interface Silence {
  id: string;
  matchers: Matcher[];
  startsAt: string;
  endsAt: string;
  createdBy: string;
  comment: string;
  status: { state: string };
}

const call = (scope: Scope, path: string) => {
  const { path: to, tenant } = at(scope, "/alertmanager/api/v2" + path);
  return { to, header: tenant ? { tenant } : {} };
};

function read<T>(scope: Scope, path: string, signal: AbortSignal): Promise<T> {
  const { to, header } = call(scope, path);
  return json<T>(to, { ...header, signal });
}

export function Alerts(p: { scope: Scope }) {
  const [tab, setTab] = useState("alerts");
  const [matchers, setMatchers] = useState<Matcher[] | null>(null);
  const [told, setTold] = useState("");
  const [version, setVersion] = useState(0);
  return (
    <>
      <Head
        title="Alert manager"
        actions={
          <Button look="main" onClick={() => setMatchers([{ name: "alertname", value: "", isRegex: false, isEqual: true }])}>
            Create silence
          </Button>
        }
      />
      {told && <Notice kind="good">{told}</Notice>}
      <Tabs
        label="Alert manager"
        value={tab}
        set={(t) => {
          setTab(t);
          setTold("");
        }}
        tabs={[
          ["alerts", "Alert groups"],
          ["silences", "Silences"],
          ["definition", "Definition"],
        ]}
      >
        {tab === "alerts" && <Groups scope={p.scope} silence={setMatchers} />}
        {tab === "silences" && <Silences key={version} scope={p.scope} told={setTold} />}
        {tab === "definition" && <Definition scope={p.scope} />}
      </Tabs>
      {matchers && (
        <NewSilence
          scope={p.scope}
          matchers={matchers}
          close={() => setMatchers(null)}
          done={() => {
            setMatchers(null);
            setTab("silences");
            setTold("The silence was created.");
            setVersion(version + 1);
          }}
        />
      )}
    </>
  );
}

function Labels(p: { labels: Record<string, string>; but?: string[] }) {
  const pairs = Object.entries(p.labels).filter(([k]) => !p.but?.includes(k));
  return (
    <ul class="tags">
      {pairs.map(([k, v]) => (
        <li key={k}>
          {k}={v}
        </li>
      ))}
    </ul>
  );
}

function Groups(p: { scope: Scope; silence: (m: Matcher[]) => void }) {
  const all = useLoad((signal) => read<Group[]>(p.scope, "/alerts/groups", signal), [p.scope.id], 15000);
  if (all.loading) return <Loading what="alerts" />;
  return (
    <>
      <Problem error={all.error} what="Alerts cannot be shown" />
      {all.data?.length === 0 && <Empty title="No alerts">Nothing is pending at the alert manager now.</Empty>}
      {all.data?.map((g, i) => (
        <Card
          key={i}
          title={
            <>
              {Object.keys(g.labels).length ? <Labels labels={g.labels} /> : "All alerts"} <span class="faint">to {g.receiver.name}</span>
            </>
          }
        >
          <Table
            caption={`Alerts to ${g.receiver.name}`}
            rows={g.alerts}
            id={(a) => a.fingerprint}
            columns={[
              { name: "Alert", by: (a) => a.labels["alertname"] ?? "", show: (a) => (
                  <>
                    <strong>{a.labels["alertname"]}</strong>
                    {(a.annotations["summary"] ?? a.annotations["description"]) && <p class="hint">{a.annotations["summary"] ?? a.annotations["description"]}</p>}
                  </>
                ) },
              { name: "State", show: (a) => <Badge kind={a.status.state === "active" ? "bad" : "warn"}>{a.status.silencedBy.length ? "silenced" : a.status.inhibitedBy.length ? "inhibited" : a.status.state}</Badge> },
              { name: "Labels", show: (a) => <Labels labels={a.labels} but={["alertname"]} /> },
              { name: "Since", by: (a) => a.startsAt, show: (a) => <time dateTime={a.startsAt} title={when(a.startsAt)}>{ago(a.startsAt)}</time> },
              {
                name: "Actions",
                hide: true,
                show: (a) => (
                  <Button look="quiet" aria-label={`Silence ${a.labels["alertname"]}`} onClick={() => p.silence(Object.entries(a.labels).map(([name, value]) => ({ name, value, isRegex: false, isEqual: true })))}>
                    Silence
                  </Button>
                ),
              },
            ]}
          />
        </Card>
      ))}
    </>
  );
}

const sign = (m: Matcher): string => (m.isEqual === false ? (m.isRegex ? "!~" : "!=") : m.isRegex ? "=~" : "=");
const written = (m: Matcher): string => m.name + sign(m) + JSON.stringify(m.value);

function Silences(p: { scope: Scope; told: (s: string) => void }) {
  const all = useLoad((signal) => read<Silence[]>(p.scope, "/silences", signal), [p.scope.id]);
  const [ending, setEnding] = useState<Silence | null>(null);
  const order: Record<string, number> = { active: 0, pending: 1, expired: 2 };
  const rows = [...(all.data ?? [])].sort((a, b) => (order[a.status.state] ?? 3) - (order[b.status.state] ?? 3) || (a.endsAt < b.endsAt ? 1 : -1));
  return (
    <>
      <Problem error={all.error} what="Silences cannot be shown" />
      {all.loading && <Loading what="silences" />}
      {all.data && rows.length === 0 && <Empty title="No silences">A silence keeps matching alerts from notifying anybody for a while.</Empty>}
      {rows.length > 0 && (
        <Card>
          <Table
            caption="Silences"
            rows={rows}
            id={(s) => s.id}
            columns={[
              { name: "Alerts that match", show: (s) => <code>{s.matchers.map(written).join(", ")}</code> },
              { name: "State", by: (s) => s.status.state, show: (s) => <Badge kind={s.status.state === "active" ? "good" : s.status.state === "pending" ? "warn" : "none"}>{s.status.state}</Badge> },
              { name: "Comment", show: (s) => <>{s.comment} <span class="faint">{s.createdBy}</span></> },
              { name: "Ends", by: (s) => s.endsAt, show: (s) => when(s.endsAt) },
              { name: "Actions", hide: true, show: (s) => s.status.state !== "expired" && (
                  <Button look="quiet" aria-label={`Expire the silence ${s.comment}`} onClick={() => setEnding(s)}>
                    Expire
                  </Button>
                ) },
            ]}
          />
        </Card>
      )}
      {ending && (
        <Confirm title="Expire silence" label="Expire" close={() => setEnding(null)} act={async () => {
            const { to, header } = call(p.scope, "/silence/" + encodeURIComponent(ending.id));
            await json(to, { ...header, method: "DELETE" });
            p.told("The silence has expired.");
            await all.reload();
          }}>
          <p>
            Alerts that match <code>{ending.matchers.map(written).join(", ")}</code> notify again.
          </p>
        </Confirm>
      )}
    </>
  );
}

/** parse reads name=value, name!=value, name=~value or name!~value, the value with quotes or without. */
function parse(text: string): Matcher {
  const m = /^\s*([^\s=!~]+)\s*(=~|!~|!=|=)\s*(.*?)\s*$/.exec(text);
  if (!m) throw new Error(`${text} is no matcher: write name=value, or one of != =~ !~`);
  let value = m[3] ?? "";
  if (value.startsWith('"')) value = JSON.parse(value) as string;
  return { name: m[1] ?? "", value, isRegex: m[2]?.endsWith("~") ?? false, isEqual: !m[2]?.startsWith("!") };
}

function NewSilence(p: { scope: Scope; matchers: Matcher[]; close: () => void; done: () => void }) {
  const [text, setText] = useState(p.matchers.map(written).join("\n"));
  const [length, setLength] = useState("2h");
  const [by, setBy] = useState("");
  const [comment, setComment] = useState("");
  const submit = async () => {
    const matchers = text.split("\n").filter((l) => l.trim()).map(parse);
    const s = seconds(length.trim());
    if (!s) throw new Error("How long must be a duration, as 30m or 2h.");
    const now = Date.now();
    const { to, header } = call(p.scope, "/silences");
    await send("POST", to, { matchers, startsAt: new Date(now).toISOString(), endsAt: new Date(now + s * 1000).toISOString(), createdBy: by.trim(), comment: comment.trim() }, header);
    p.done();
  };
  return (
    <Dialog title="Create silence" close={p.close}>
      <Form label="Create silence" cancel={p.close} submit={submit} disabled={!text.trim() || !comment.trim() || !by.trim()}>
        <Area label="Alerts that match all of" value={text} set={setText} rows={5} hint="A matcher on each line: severity=&quot;page&quot;, instance=~&quot;db-.*&quot;" />
        <Text label="For how long" value={length} set={setLength} hint="30m, 2h, 1d" />
        <Text label="Who" value={by} set={setBy} />
        <Text label="Why" value={comment} set={setComment} />
      </Form>
    </Dialog>
  );
}

const empty = `alertmanager_config: |
  route:
    receiver: team
    group_by: [alertname]
  receivers:
    - name: team
      webhook_configs:
        - url: https://example.com/hook
`;

/** store is where the definition of a scope is: Amazon's calls for workspaces, Mimir's for others. */
function store(scope: Scope) {
  if (scope.kind === "workspace") {
    return {
      read: async (signal: AbortSignal) => {
        const d = await files.describeDefinition(scope.id, signal);
        return { text: fromBase64(d.data), wrong: d.status.statusCode.endsWith("_FAILED") ? (d.status.statusReason ?? d.status.statusCode) : "" };
      },
      put: (text: string, known: boolean) => files.putDefinition(scope.id, text, known),
      remove: () => files.deleteDefinition(scope.id),
    };
  }
  const header = at(scope, "/").tenant;
  const about = header ? { tenant: header } : {};
  return {
    read: async (signal: AbortSignal) => ({ text: await (await request("/api/v1/alerts", { ...about, signal, accept: "application/yaml" })).text(), wrong: "" }),
    put: async (text: string) => void (await request("/api/v1/alerts", { ...about, method: "POST", body: text, type: "application/yaml" })),
    remove: async () => void (await request("/api/v1/alerts", { ...about, method: "DELETE" })),
  };
}

function Definition(p: { scope: Scope }) {
  const its = store(p.scope);
  const file = useLoad(async (signal) => {
    try {
      return { ...(await its.read(signal)), known: true };
    } catch (err) {
      if (err instanceof Refusal && err.status === 404) return { text: empty, wrong: "", known: false };
      throw err;
    }
  }, [p.scope.id]);
  if (file.loading) return <Loading what="the definition" />;
  if (!file.data) return <Problem error={file.error} what="The definition cannot be shown" />;
  return <EditDefinition key={file.data.text} scope={p.scope} its={its} text={file.data.text} wrong={file.data.wrong} known={file.data.known} reload={file.reload} />;
}

function EditDefinition(p: { scope: Scope; its: ReturnType<typeof store>; text: string; wrong: string; known: boolean; reload: () => Promise<void> }) {
  const [text, setText] = useState(p.text);
  const [told, setTold] = useState("");
  const [deleting, setDeleting] = useState(false);
  return (
    <Card
      title="Definition"
      actions={
        p.known && (
          <>
            <Button onClick={() => save(`${p.scope.id}-alertmanager.yaml`, p.text, "application/yaml")}>Download</Button>
            <Button look="danger" onClick={() => setDeleting(true)}>
              Delete
            </Button>
          </>
        )
      }
    >
      {p.wrong && (
        <Notice kind="bad" title="The definition would be refused today">
          {p.wrong}
        </Notice>
      )}
      {!p.known && <Notice kind="info">There is no definition yet, so alerts reach nobody. Below is one to begin with.</Notice>}
      {told && <Notice kind="good">{told}</Notice>}
      <Form label={p.known ? "Replace" : "Create"} disabled={!text.trim() || (p.known && text === p.text)} submit={async () => {
          setTold("");
          await p.its.put(text, p.known);
          setTold("The definition was saved. Alert managers follow within a minute.");
          await p.reload();
        }}>
        <Upload label="Read from a file" accept=".yaml,.yml" set={setText} />
        <Area label="alertmanager_config and template_files" value={text} set={setText} rows={20} hint="The server checks it before anything changes. Secrets in it are shown to whoever may read the definition." />
      </Form>
      {deleting && (
        <Confirm title="Delete definition" label="Delete" close={() => setDeleting(false)} act={async () => {
            await p.its.remove();
            await p.reload();
          }}>
          <p>Alerts reach nobody from then on.</p>
        </Confirm>
      )}
    </Card>
  );
}
