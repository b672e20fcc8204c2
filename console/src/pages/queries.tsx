import { useState } from "preact/hooks";
import { type Answer, at, json, type Scope, server } from "../api";
import { useLoad } from "../load";
import { href } from "../route";
import { ago } from "../text";
import { Badge, Button, Card, Confirm, Head, Link, Loading, Notice, Problem, Table } from "../ui";

interface Query {
  id: string;
  frontend?: string;
  tenants: string[];
  class: string;
  query: string;
  since: string;
}

/** path is where the queries of a scope are listed and stopped, or those of all tenants. */
const path = (scope?: Scope) => (scope ? at(scope, "/api/v1/status/active_queries") : { path: "/query-frontend/active_queries", tenant: undefined });

/** isQuery tells queries from other reads, of which the method comes first. */
const isQuery = (q: Query) => !/^[A-Z]+ \/prometheus\/api\//.test(q.query);

/** scopeOf is where a query can be asked again. */
function scopeOf(q: Query): Scope | null {
  const [id, more] = q.tenants;
  if (!id || more) return null;
  return { kind: id === server().defaultTenant || !id.startsWith("ws-") ? "tenant" : "workspace", id };
}

function Text(p: { of: Query; scope: Scope | null }) {
  const text = <code>{p.of.query}</code>;
  return p.scope && isQuery(p.of) ? <Link to={href(p.scope, "explore", { q: p.of.query })}>{text}</Link> : text;
}

/** Live shows the queries under way, of a scope or of all tenants. */
export function Live(p: { scope?: Scope }) {
  const all = useLoad(
    (signal) => {
      const { path: from, tenant } = path(p.scope);
      return json<Answer<Query[] | null>>(from, { signal, ...(tenant ? { tenant } : {}) });
    },
    [p.scope?.id ?? ""],
    3000,
  );
  const list = all.data?.data ?? [];
  const [ending, setEnding] = useState<Query | null>(null);
  const [told, setTold] = useState("");
  return (
    <Card title="Live queries">
      {told && <Notice kind="good">{told}</Notice>}
      <Problem error={all.error} what="Live queries cannot be shown" />
      {all.loading && <Loading what="live queries" />}
      {all.data?.warnings?.map((w) => <Notice kind="warn" key={w}>{w}</Notice>)}
      {all.data && list.length === 0 && <p class="faint">No query is under way. The list is read every three seconds.</p>}
      {list.length > 0 && (
        <Table
          caption="Live queries"
          rows={list}
          id={(q) => q.id}
          columns={[
            { name: "Query", show: (q) => <Text of={q} scope={p.scope ?? scopeOf(q)} /> },
            { name: "Of", by: (q) => q.tenants.join(), show: (q) => <code>{q.tenants.join(", ")}</code> },
            { name: "Query-frontend", by: (q) => q.frontend ?? "", show: (q) => q.frontend ?? "–" },
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
            const { path: from, tenant } = path(p.scope);
            await json(from + "/" + encodeURIComponent(ending.id), { method: "DELETE", ...(tenant ? { tenant } : {}) });
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
      <Head title="Live queries" sub="Queries that are evaluated now." />
      <Live scope={p.scope} />
    </>
  );
}
