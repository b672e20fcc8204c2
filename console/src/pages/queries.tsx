import { useState } from "preact/hooks";
import { at, json, prom, type Scope } from "../api";
import { useLoad } from "../load";
import { href } from "../route";
import { ago } from "../text";
import { Badge, Button, Card, Confirm, Head, Link, Loading, Notice, Problem, Table } from "../ui";

interface Query {
  id: string;
  tenants: string[];
  class: string;
  query: string;
  since: string;
}

/** Queries are those under way, of one workspace or of several, each of which is asked for by itself. */
export function Live(p: { scopes: Scope[] }) {
  const key = p.scopes.map((s) => s.id).join(" ");
  const all = useLoad(
    async (signal) => {
      const lists = await Promise.all(p.scopes.map(async (scope) => ((await prom<Query[] | null>(scope, "/api/v1/status/active_queries", {}, signal)).data ?? []).map((q) => ({ ...q, scope }))));
      return lists.flat();
    },
    [key],
    3000,
  );
  const [ending, setEnding] = useState<(Query & { scope: Scope }) | null>(null);
  const [told, setTold] = useState("");
  return (
    <Card title="Live queries">
      {told && <Notice kind="good">{told}</Notice>}
      <Problem error={all.error} what="Live queries cannot be shown" />
      {all.loading && <Loading what="live queries" />}
      {all.data?.length === 0 && <p class="faint">No query is under way in this process. The list is read every three seconds.</p>}
      {all.data && all.data.length > 0 && (
        <Table
          caption="Live queries"
          rows={all.data}
          id={(q) => q.id}
          columns={[
            { name: "Query", show: (q) => <Link to={href(q.scope, "explore", { q: q.query })}><code>{q.query}</code></Link> },
            { name: "Of", by: (q) => q.tenants.join(), show: (q) => <code>{q.tenants.join(", ")}</code> },
            { name: "Class", by: (q) => q.class, show: (q) => <Badge>{q.class}</Badge> },
            { name: "Began", by: (q) => q.since, show: (q) => ago(q.since) },
            { name: "Actions", hide: true, show: (q) => (
                <Button look="quiet" aria-label={`Stop the query ${q.query}`} onClick={() => setEnding(q)}>
                  Stop
                </Button>
              ) },
          ]}
        />
      )}
      {ending && (
        <Confirm title="Stop query" label="Stop query" close={() => setEnding(null)} act={async () => {
            const { path, tenant } = at(ending.scope, "/api/v1/status/active_queries/" + encodeURIComponent(ending.id));
            await json(path, { method: "DELETE", ...(tenant ? { tenant } : {}) });
            setTold("The query was stopped.");
            await all.reload();
          }}>
          <p>
            Whoever asked <code>{ending.query}</code> gets an error.
          </p>
        </Confirm>
      )}
    </Card>
  );
}

export function Queries(p: { scope: Scope }) {
  return (
    <>
      <Head title="Live queries" sub="Queries that this server evaluates now." />
      <Live scopes={[p.scope]} />
    </>
  );
}
