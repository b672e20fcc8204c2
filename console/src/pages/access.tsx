import { useState } from "preact/hooks";
import { json, Refusal, send, server } from "../api";
import { useLoad } from "../load";
import { when } from "../text";
import { Area, Badge, Button, Card, Choice, Confirm, Copy, Dialog, Empty, Facts, Form, Head, Loading, Notice, Problem, Table, Tabs, Text } from "../ui";

interface AccessKey {
  id: string;
  inactive?: boolean;
  created?: string;
}

interface Token {
  id: string;
  description?: string;
  workspace?: string;
  expires?: string;
  inactive?: boolean;
  created?: string;
}

interface Entity {
  name: string;
  policies?: string[];
  inline?: Record<string, string>;
  [other: string]: unknown;
}

interface User extends Entity {
  groups?: string[];
  keys?: AccessKey[];
  tokens?: Token[];
  created?: string;
}

interface Policy extends Entity {
  document: string;
}

interface Account {
  id: string;
  name?: string;
  root_keys?: AccessKey[];
  users?: User[];
  groups?: Entity[];
  roles?: Entity[];
  policies?: Policy[];
  oidc_providers?: { issuer: string; [other: string]: unknown }[];
}

type Kind = "users" | "groups" | "roles" | "policies" | "providers";

const root = "/api/v1/iam/accounts";
const builtIn = ["AmazonPrometheusFullAccess", "AmazonPrometheusQueryAccess", "AmazonPrometheusRemoteWriteAccess", "AmazonPrometheusConsoleFullAccess", "AliyunPrometheusMetricReadAccess", "AliyunCloudMonitorFullAccess", "AdministratorAccess"];

export function Access() {
  const off = !server().authentication;
  const accounts = useLoad(async (signal) => (off ? [] : (await json<{ accounts: string[] | null }>(root, { signal })).accounts ?? []), [off]);
  const [chosen, setChosen] = useState("");
  const stored = accounts.data ?? [];
  const own = stored.includes(server().account) || stored.length === 0 ? server().account : (stored[0] ?? "");
  const account = off || !accounts.data ? "" : chosen || own;
  return (
    <>
      <Head
        title="Access"
        sub="Who may call, and what they may. Shown is what is kept in object storage; identities of the operator's file are changed there."
        actions={accounts.data && accounts.data.length > 1 && <Choice label="Account" value={account} set={setChosen} options={accounts.data} />}
      />
      {off && (
        <Empty title="Authentication is off">
          Set <code>auth.enabled</code> so that callers must say who they are, and policies what they may.
        </Empty>
      )}
      <Problem error={accounts.error} what="Accounts cannot be listed" />
      {accounts.loading && <Loading what="accounts" />}
      {accounts.data && !off && stored.length === 0 && <Notice kind="info">All identities come from the operator's file so far. The first that is made here is kept in object storage.</Notice>}
      {account && <One key={account} id={account} />}
    </>
  );
}

function One(p: { id: string }) {
  const at = `${root}/${p.id}`;
  const it = useLoad(
    (signal) =>
      json<Account>(at, { signal }).catch((err: unknown): Account => {
        if (err instanceof Refusal && err.status === 404) return { id: p.id }; // it is made with the first thing in it
        throw err;
      }),
    [at],
  );
  const [tab, setTab] = useState<Kind>("users");
  const [user, setUser] = useState("");
  const [told, setTold] = useState("");
  const [dialog, setDialog] = useState<{ kind: Kind; name: string; old: object | null; remove?: boolean } | null>(null);
  if (!it.data) {
    return (
      <>
        {it.loading && <Loading what="the account" />}
        <Problem error={it.error} what="The account cannot be shown" />
      </>
    );
  }
  const a = it.data;
  const close = () => setDialog(null);
  const done = (text: string) => async () => {
    close();
    setTold(text);
    await it.reload();
  };
  const entities: Record<Kind, Entity[]> = {
    users: a.users ?? [],
    groups: a.groups ?? [],
    roles: a.roles ?? [],
    policies: a.policies ?? [],
    providers: (a.oidc_providers ?? []).map((x) => ({ ...x, name: x.issuer })),
  };
  const one: Record<Kind, string> = { users: "user", groups: "group", roles: "role", policies: "policy", providers: "identity provider" };
  const rows = entities[tab];
  const its = (e: Entity) => [...(e.policies ?? []), ...Object.keys(e.inline ?? {}).map((n) => n + " (inline)")].join(", ") || "–";
  const open = a.users?.find((u) => u.name === user);
  return (
    <>
      {told && <Notice kind="good">{told}</Notice>}
      <Problem error={it.error} />
      <Tabs
        label="Kinds of identities"
        value={tab}
        set={(k) => {
          setTab(k as Kind);
          setTold("");
        }}
        tabs={[
          ["users", "Users"],
          ["groups", "Groups"],
          ["roles", "Roles"],
          ["policies", "Policies"],
          ["providers", "Identity providers"],
        ]}
      >
        <Card
          title={`${rows.length} ${rows.length === 1 ? one[tab] : tab}`}
          actions={
            <Button look="main" onClick={() => setDialog({ kind: tab, name: "", old: null })}>
              Create {one[tab]}
            </Button>
          }
        >
          {rows.length === 0 && <p class="faint">There are none in object storage.</p>}
          {rows.length > 0 && (
            <Table
              caption={tab}
              rows={rows}
              id={(e) => e.name}
              columns={[
                { name: "Name", by: (e) => e.name, show: (e) => (tab === "users" ? <button type="button" class="legend" onClick={() => setUser(e.name)}><strong class="link">{e.name}</strong></button> : <strong>{e.name}</strong>) },
                ...(tab === "users" || tab === "groups" || tab === "roles" ? [{ name: "Policies", show: (e: Entity) => its(e) }] : []),
                ...(tab === "users"
                  ? [
                      { name: "Groups", show: (e: Entity) => (e as User).groups?.join(", ") ?? "–" },
                      { name: "Keys", number: true, show: (e: Entity) => (e as User).keys?.length ?? 0 },
                      { name: "Tokens", number: true, show: (e: Entity) => (e as User).tokens?.length ?? 0 },
                    ]
                  : []),
                {
                  name: "Actions",
                  hide: true,
                  show: (e) => (
                    <div class="row-actions">
                      {tab === "users" && (
                        <Button look="quiet" aria-label={`Keys and tokens of ${e.name}`} onClick={() => setUser(e.name)}>
                          Keys and tokens
                        </Button>
                      )}
                      <Button look="quiet" aria-label={`Edit ${e.name}`} onClick={() => setDialog({ kind: tab, name: e.name, old: e })}>
                        Edit
                      </Button>
                      <Button look="quiet" aria-label={`Delete ${e.name}`} onClick={() => setDialog({ kind: tab, name: e.name, old: e, remove: true })}>
                        Delete
                      </Button>
                    </div>
                  ),
                },
              ]}
            />
          )}
        </Card>
      </Tabs>
      {dialog && !dialog.remove && <Put at={at} kind={dialog.kind} what={one[dialog.kind]} name={dialog.name} old={dialog.old} account={a} close={close} done={done(`The ${one[dialog.kind]} was saved.`)} />}
      {dialog?.remove && (
        <Confirm title={`Delete ${one[dialog.kind]}`} label="Delete" typed={dialog.name} close={close} act={async () => {
            await json(`${at}/${dialog.kind}/${encodeURIComponent(dialog.name)}`, { method: "DELETE" });
            await done(`The ${one[dialog.kind]} was deleted.`)();
          }}>
          <p>What {dialog.name} could do, nobody can do as {dialog.name} any more.</p>
        </Confirm>
      )}
      {open && <Credentials at={`${at}/users/${encodeURIComponent(open.name)}`} user={open} close={() => setUser("")} reload={it.reload} />}
    </>
  );
}

const starting: Record<Kind, object> = {
  users: { policies: [] },
  groups: { policies: [] },
  roles: { trust: { Version: "2012-10-17", Statement: { Effect: "Allow", Principal: { AWS: "*" }, Action: "sts:AssumeRole" } }, policies: [] },
  policies: { Version: "2012-10-17", Statement: [{ Effect: "Allow", Action: ["aps:QueryMetrics", "aps:GetLabels", "aps:GetSeries", "aps:GetMetricMetadata"], Resource: "*" }] },
  providers: { audiences: ["amphora"], roles: [] },
};

/** known are what the server sets itself, and does not take. */
const known = ["name", "keys", "tokens", "id", "created", "issuer"];

function editable(kind: Kind, old: object | null): object {
  if (!old) return starting[kind];
  if (kind === "policies") return JSON.parse((old as Policy).document) as object;
  return Object.fromEntries(
    Object.entries(old)
      .filter(([k]) => !known.includes(k))
      .map(([k, v]) => [k, k === "trust" && typeof v === "string" ? JSON.parse(v) : v]),
  );
}

function Put(p: { at: string; kind: Kind; what: string; name: string; old: object | null; account: Account; close: () => void; done: () => Promise<void> }) {
  const [name, setName] = useState(p.name);
  const [text, setText] = useState(JSON.stringify(editable(p.kind, p.old), null, 2));
  const simple = p.kind === "users" && !p.old;
  const [policy, setPolicy] = useState("AmazonPrometheusQueryAccess");
  const submit = async () => {
    let body: unknown;
    try {
      body = JSON.parse(text);
    } catch (err) {
      throw new Error("This is not JSON: " + (err as Error).message);
    }
    if (p.kind === "policies") body = { document: body };
    if (simple) body = { policies: policy ? [policy] : [] };
    await send("PUT", `${p.at}/${p.kind}/${encodeURIComponent(name.trim())}`, body);
    await p.done();
  };
  const policies: [string, string][] = [["", "none yet"], ...[...builtIn, ...(p.account.policies ?? []).map((x) => x.name)].map((n): [string, string] => [n, n])];
  return (
    <Dialog wide={!simple} title={p.old ? `Edit ${p.name}` : `Create ${p.what}`} close={p.close}>
      <Form label={p.old ? "Save" : "Create"} cancel={p.close} disabled={!name.trim()} submit={submit}>
        {!p.old && <Text label={p.kind === "providers" ? "Host and path of the issuer" : "Name"} value={name} set={setName} class="code" maxLength={128} />}
        {simple ? (
          <Choice label="Policy" value={policy} set={setPolicy} options={policies} hint="More can be attached later." />
        ) : (
          <Area
            label={p.kind === "policies" ? "Policy document" : "As JSON"}
            value={text}
            set={setText}
            rows={16}
            hint={p.kind === "policies" ? "A policy of IAM: what is not allowed is denied." : `Policies by name: ${policies.slice(1).map(([n]) => n).join(", ")}`}
          />
        )}
      </Form>
    </Dialog>
  );
}

function Credentials(p: { at: string; user: User; close: () => void; reload: () => Promise<void> }) {
  const [secret, setSecret] = useState<{ name: string; value: string }[] | null>(null);
  const [error, setError] = useState<unknown>(null);
  const [gone, setGone] = useState<{ of: "keys" | "tokens"; id: string } | null>(null);
  const [workspace, setWorkspace] = useState("");
  const [about, setAbout] = useState("");
  const [until, setUntil] = useState("");
  const guarded = (f: () => Promise<unknown>) => () => {
    setError(null);
    void f()
      .then(p.reload)
      .catch(setError);
  };
  const key = async () => {
    const k = await send<{ access_key: string; secret_key: string }>("POST", p.at + "/keys");
    setSecret([
      { name: "Access key ID", value: k.access_key },
      { name: "Secret access key", value: k.secret_key },
    ]);
  };
  const token = async () => {
    const body = { ...(about.trim() ? { Description: about.trim() } : {}), ...(workspace.trim() ? { Workspace: workspace.trim() } : {}), ...(until ? { Expires: new Date(until).toISOString() } : {}) };
    const t = await send<{ id: string; token: string }>("POST", p.at + "/tokens", body);
    setSecret([{ name: "Token", value: t.token }]);
    setAbout("");
    await p.reload();
  };
  const row = (of: "keys" | "tokens", c: AccessKey | Token) => (
    <div class="row-actions">
      <Button look="quiet" aria-label={`${c.inactive ? "Switch on" : "Switch off"} ${c.id}`} onClick={guarded(() => send("PUT", `${p.at}/${of}/${encodeURIComponent(c.id)}`, { inactive: !c.inactive }))}>
        {c.inactive ? "Switch on" : "Switch off"}
      </Button>
      <Button look="quiet" aria-label={`Delete ${c.id}`} onClick={() => setGone({ of, id: c.id })}>
        Delete
      </Button>
    </div>
  );
  const state = (c: AccessKey | Token) => <Badge kind={c.inactive ? "warn" : "good"}>{c.inactive ? "off" : "on"}</Badge>;
  return (
    <Dialog wide title={`Keys and tokens of ${p.user.name}`} close={p.close}>
      <Problem error={error} />
      {secret && (
        <Notice kind="good" title="This is shown once. Copy it now.">
          <Facts rows={secret.map((s) => [s.name, <><code>{s.value}</code> <Copy text={s.value} what={s.name} /></>])} />
        </Notice>
      )}
      <Card title="Access keys" actions={<Button onClick={guarded(key)} disabled={(p.user.keys?.length ?? 0) >= 2}>Create access key</Button>}>
        {p.user.keys?.length ? (
          <Table
            caption="Access keys"
            rows={p.user.keys}
            id={(k) => k.id}
            columns={[
              { name: "ID", show: (k) => <code>{k.id}</code> },
              { name: "State", show: state },
              { name: "Created", show: (k) => when(k.created) },
              { name: "Actions", hide: true, show: (k) => row("keys", k) },
            ]}
          />
        ) : (
          <p class="faint">None. A user may have two, so that one can be replaced while the other is in use.</p>
        )}
      </Card>
      <Card title="API tokens">
        {p.user.tokens?.length ? (
          <Table
            caption="API tokens"
            rows={p.user.tokens}
            id={(t) => t.id}
            columns={[
              { name: "ID", show: (t) => <><code>{t.id}</code> {t.description}</> },
              { name: "State", show: state },
              { name: "Good for", show: (t) => (t.workspace ? <code>{t.workspace}</code> : "all workspaces") },
              { name: "Until", show: (t) => (t.expires ? when(t.expires) : "no end") },
              { name: "Actions", hide: true, show: (t) => row("tokens", t) },
            ]}
          />
        ) : (
          <p class="faint">None.</p>
        )}
        <Form label="Create token" submit={token}>
          <div class="fields">
            <Text label="What it is for (optional)" value={about} set={setAbout} />
            <Text label="Only workspace (optional)" value={workspace} set={setWorkspace} class="code" />
            <Text label="Until (optional)" type="datetime-local" value={until} set={setUntil} />
          </div>
        </Form>
      </Card>
      {gone && (
        <Confirm title={gone.of === "keys" ? "Delete access key" : "Delete token"} label="Delete" close={() => setGone(null)} act={async () => {
            await json(`${p.at}/${gone.of}/${encodeURIComponent(gone.id)}`, { method: "DELETE" });
            await p.reload();
          }}>
          <p>
            Whoever still uses <code>{gone.id}</code> is refused. It can be switched off first, which can be taken back.
          </p>
        </Confirm>
      )}
    </Dialog>
  );
}
