import { useState } from "preact/hooks";
import { server } from "../api";
import { useLoad } from "../load";
import { go, href } from "../route";
import { when } from "../text";
import { Badge, Button, Card, Dialog, Empty, Form, Head, Link, Loading, Problem, Table, Text } from "../ui";
import { create, isAbsent, list, signsOnly, type Workspace } from "../workspaces";

export const name = (w: Workspace): string => w.alias || w.workspaceId;

export function State(p: { code: string }) {
  return <Badge kind={p.code === "ACTIVE" ? "good" : /FAILED/.test(p.code) ? "bad" : "warn"}>{p.code.toLowerCase().replace(/_/g, " ")}</Badge>;
}

export function Workspaces() {
  const all = useLoad(list, []);
  const [making, setMaking] = useState(false);
  const [find, setFind] = useState("");
  const shown = (all.data ?? []).filter((w) => (name(w) + " " + w.workspaceId + " " + Object.entries(w.tags).join(" ")).toLowerCase().includes(find.toLowerCase()));
  const make = (
    <Button look="main" onClick={() => setMaking(true)}>
      Create workspace
    </Button>
  );
  const absent = isAbsent(all.error);
  return (
    <>
      <Head title="Workspaces" sub="A workspace keeps the metrics, rules and alerts of one team or system apart from all others." actions={absent || signsOnly() ? null : make} />
      {absent ? <Empty title="This server has no control plane.">Tenants are used without workspaces. Open one below.</Empty> : <Problem error={all.error} what="Workspaces cannot be listed" />}
      {all.loading && <Loading what="workspaces" />}
      {all.data && all.data.length === 0 && (
        <Empty title="No workspaces yet" action={make}>
          Create one, and point a Prometheus at it.
        </Empty>
      )}
      {all.data && all.data.length > 0 && (
        <Card>
          {all.data.length > 5 && <Text label="Find" type="search" value={find} set={setFind} placeholder="Alias, id or tag" />}
          <Table
            caption="Workspaces"
            rows={shown}
            id={(w) => w.workspaceId}
            columns={[
              { name: "Workspace", by: name, show: (w) => <Link to={href({ kind: "workspace", id: w.workspaceId }, signsOnly() ? "explore" : "overview")}>{name(w)}</Link> },
              { name: "ID", by: (w) => w.workspaceId, show: (w) => <code>{w.workspaceId}</code> },
              { name: "State", by: (w) => w.status.statusCode, show: (w) => <State code={w.status.statusCode} /> },
              { name: "Tags", show: (w) => <Tags tags={w.tags} /> },
              { name: "Created", by: (w) => w.createdAt, show: (w) => when(w.createdAt) },
            ]}
          />
          <p class="hidden" aria-live="polite">
            {shown.length} workspaces
          </p>
        </Card>
      )}
      <Tenant />
      {making && <Create close={() => setMaking(false)} />}
    </>
  );
}

export function Tags(p: { tags: Record<string, string> }) {
  const pairs = Object.entries(p.tags);
  if (!pairs.length) return <span class="faint">none</span>;
  return (
    <ul class="tags">
      {pairs.map(([k, v]) => (
        <li key={k}>
          {k}
          {v && "="}
          {v}
        </li>
      ))}
    </ul>
  );
}

function Create(p: { close: () => void }) {
  const [alias, setAlias] = useState("");
  return (
    <Dialog title="Create workspace" close={p.close}>
      <Form
        label="Create"
        cancel={p.close}
        submit={async () => {
          const made = await create(alias.trim(), {});
          p.close();
          go(href({ kind: "workspace", id: made.workspaceId }, "overview"));
        }}
      >
        <Text label="Alias (optional)" value={alias} set={setAlias} maxLength={100} hint="A name for people. It can be changed at any time, and need not be unique." />
      </Form>
    </Dialog>
  );
}

/** Tenant opens what is not registered as a workspace. */
function Tenant() {
  const only = server().defaultTenant;
  const [id, setID] = useState("");
  if (only) {
    return (
      <Card title="Data outside of workspaces">
        <p>
          What is written to <code>/api/v1/push</code>, without the name of a workspace, belongs to the tenant <Link to={href({ kind: "tenant", id: only }, "explore")}>{only}</Link>.
        </p>
      </Card>
    );
  }
  return (
    <Card title="Open a tenant">
      <Form small label="Open" disabled={!id.trim()} submit={() => go(href({ kind: "tenant", id: id.trim() }, "explore"))}>
        <Text label="Tenant ID" value={id} set={setID} class="code" hint="What clients name in X-Scope-OrgID. The data of a workspace is that of the tenant with its id." />
      </Form>
    </Card>
  );
}
