import { useState } from "preact/hooks";
import { json, Refusal, request } from "../api";
import { useLoad } from "../load";
import { ago, bytes, count, span, when } from "../text";
import { Badge, Button, Card, Choice, Confirm, Empty, Facts, Head, Loading, Notice, Problem, Table, Tabs } from "../ui";
import { Live } from "./queries";

const rings: [string, string][] = [
  ["/ingester/ring", "Ingesters"],
  ["/distributor/ring", "Distributors"],
  ["/store-gateway/ring", "Store-gateways"],
  ["/compactor/ring", "Compactors"],
  ["/query-frontend/ring", "Query-frontends"],
  ["/ruler/ring", "Rulers"],
  ["/multitenant_alertmanager/ring", "Alertmanagers"],
];

export function Cluster() {
  const [tab, setTab] = useState("health");
  return (
    <>
      <Head title="Cluster" sub="For operators: the parts of this process, the rings it is in, what object storage holds, and the queries under way." />
      <Tabs
        label="Of the cluster"
        value={tab}
        set={setTab}
        tabs={[
          ["health", "Health"],
          ["rings", "Rings"],
          ["blocks", "Blocks and compaction"],
          ["queries", "Live queries"],
        ]}
      >
        {tab === "health" && <Health />}
        {tab === "rings" && <Rings />}
        {tab === "blocks" && <Storage />}
        {tab === "queries" && <Live />}
      </Tabs>
    </>
  );
}

interface Service {
  name: string;
  state: string;
  failure?: string;
}

function Health() {
  const it = useLoad((signal) => json<Service[]>("/services", { signal }), [], 10000);
  const ready = useLoad(
    async (signal) => {
      try {
        return (await (await request("/ready", { signal })).text()).trim();
      } catch (err) {
        if (err instanceof Refusal) return err.message;
        throw err;
      }
    },
    [],
    10000,
  );
  const bad = it.data?.filter((s) => s.state !== "Running") ?? [];
  return (
    <>
      <Problem error={it.error} what="The state of the process cannot be shown" />
      {it.loading && <Loading what="services" />}
      {ready.data && <Notice kind={ready.data === "ready" ? "good" : "warn"}>{ready.data === "ready" ? "This process is ready." : ready.data}</Notice>}
      {it.data && (
        <Card title={bad.length ? `${bad.length} of ${it.data.length} services do not run` : `All ${it.data.length} services run`}>
          <Table
            caption="Services"
            rows={it.data}
            id={(s) => s.name}
            columns={[
              { name: "Service", by: (s) => s.name, show: (s) => s.name },
              { name: "State", by: (s) => s.state, show: (s) => <Badge kind={s.state === "Running" ? "good" : s.state === "Failed" ? "bad" : "warn"}>{s.state.toLowerCase()}</Badge> },
              { name: "Failure", show: (s) => s.failure ?? "" },
            ]}
          />
        </Card>
      )}
    </>
  );
}

interface Member {
  id: string;
  state: string;
  address: string;
  timestamp: string;
  zone: string;
  read_only: boolean;
  tokens: number[] | null;
  ownership: number;
  note?: string;
}

/** absent is null for a ring that this process is not in. */
async function orAbsent<T>(f: Promise<T>): Promise<T | null> {
  try {
    return await f;
  } catch (err) {
    if (err instanceof Refusal && err.status === 404) return null;
    throw err;
  }
}

function Rings() {
  const [ring, setRing] = useState(rings[0]?.[0] ?? "");
  const it = useLoad((signal) => orAbsent(json<{ shards: Member[] }>(ring, { signal })), [ring], 10000);
  const [gone, setGone] = useState<Member | null>(null);
  return (
    <Card title="Members" actions={<Choice label="Ring" value={ring} set={setRing} options={rings} />}>
      <Problem error={it.error} what="The ring cannot be shown" />
      {it.loading && <Loading what="the ring" />}
      {!it.loading && !it.error && it.data === null && <p class="faint">There is no such ring in this process: it is alone, or does not run this part.</p>}
      {it.data && (
        <Table
          caption="Members of the ring"
          rows={it.data.shards}
          id={(m) => m.id}
          columns={[
            { name: "Member", by: (m) => m.id, show: (m) => <strong>{m.id}</strong> },
            { name: "State", by: (m) => m.state, show: (m) => (
                <>
                  <Badge kind={m.state === "ACTIVE" ? "good" : m.state === "UNHEALTHY" ? "bad" : "warn"}>{m.state.toLowerCase()}</Badge> {m.read_only && <Badge kind="warn">read only</Badge>} {m.note}
                </>
              ) },
            { name: "Zone", by: (m) => m.zone, show: (m) => m.zone || "–" },
            { name: "Address", show: (m) => <code>{m.address}</code> },
            { name: "Heartbeat", by: (m) => m.timestamp, show: (m) => <time dateTime={m.timestamp} title={when(m.timestamp)}>{ago(m.timestamp)}</time> },
            { name: "Tokens", number: true, by: (m) => m.tokens?.length ?? 0, show: (m) => count(m.tokens?.length ?? 0) },
            { name: "Share", number: true, by: (m) => m.ownership, show: (m) => count(m.ownership) + " %" },
            { name: "Actions", hide: true, show: (m) => m.state !== "ACTIVE" && <Button look="quiet" onClick={() => setGone(m)}>Forget</Button> },
          ]}
        />
      )}
      {gone && (
        <Confirm title="Forget member" label="Forget" typed={gone.id} close={() => setGone(null)} act={async () => {
            await request(ring, { method: "POST", body: "forget=" + encodeURIComponent(gone.id), type: "application/x-www-form-urlencoded", redirects: true });
            await it.reload();
          }}>
          <p>Only a member that is gone for good may be forgotten. One that still lives comes back by itself.</p>
        </Confirm>
      )}
    </Card>
  );
}

interface Block {
  id: string;
  minTime: string;
  maxTime: string;
  level: number;
  shard?: string;
  outOfOrder?: boolean;
  bytes?: number;
  uploaded: string;
  markedForDeletion?: string;
  notCompacted?: string;
}

interface Jobs {
  bytes: number;
  estimatedSeconds: number;
  jobs: { key: string; stage: string; shard?: string; minTime: string; maxTime: string; bytes: number; blocks: string[] }[];
}

function Storage() {
  const tenants = useLoad(async (signal) => (await orAbsent(json<{ tenants: string[] | null }>("/store-gateway/tenants", { signal })))?.tenants ?? [], []);
  const [tenant, setTenant] = useState("");
  const chosen = tenant || tenants.data?.[0] || "";
  return (
    <>
      <Problem error={tenants.error} what="Tenants of object storage cannot be listed" />
      {tenants.loading && <Loading what="tenants" />}
      {tenants.data?.length === 0 && <Empty title="No blocks yet">Ingesters cut the first after about two hours.</Empty>}
      {chosen && (
        <>
          <Card>
            <Choice label="Tenant" value={chosen} set={setTenant} options={tenants.data ?? []} />
          </Card>
          <Backlog tenant={chosen} />
          <Blocks tenant={chosen} />
        </>
      )}
    </>
  );
}

function Backlog(p: { tenant: string }) {
  const it = useLoad((signal) => orAbsent(json<Jobs>(`/compactor/tenant/${encodeURIComponent(p.tenant)}/planned_jobs`, { signal })), [p.tenant]);
  return (
    <Card title="Compaction backlog">
      <Problem error={it.error} what="The backlog cannot be shown" />
      {it.loading && <Loading />}
      {it.data && (
        <Facts
          rows={[
            ["Jobs due", count(it.data.jobs.length)],
            ["To compact", bytes(it.data.bytes)],
            ["Takes about", it.data.jobs.length === 0 ? "–" : it.data.estimatedSeconds ? span(it.data.estimatedSeconds) : "not known before the first job"],
          ]}
        />
      )}
      {it.data && it.data.jobs.length > 0 && (
        <Table
          caption="Compaction jobs, the first to be done first"
          rows={it.data.jobs}
          id={(j) => j.key}
          most={20}
          columns={[
            { name: "Stage", show: (j) => j.stage },
            { name: "Shard", show: (j) => j.shard ?? "" },
            { name: "From", show: (j) => when(j.minTime) },
            { name: "To", show: (j) => when(j.maxTime) },
            { name: "Blocks", number: true, show: (j) => count(j.blocks.length) },
            { name: "Size", number: true, by: (j) => j.bytes, show: (j) => bytes(j.bytes) },
          ]}
        />
      )}
    </Card>
  );
}

function Blocks(p: { tenant: string }) {
  const it = useLoad((signal) => orAbsent(json<{ asOf: string; blocks: Block[] }>(`/store-gateway/tenant/${encodeURIComponent(p.tenant)}/blocks`, { signal })), [p.tenant]);
  const all = it.data?.blocks ?? [];
  const sum = all.reduce((n, b) => n + (b.bytes ?? 0), 0);
  return (
    <Card title="Blocks">
      <Problem error={it.error} what="Blocks cannot be listed" />
      {it.loading && <Loading what="blocks" />}
      {!it.loading && !it.error && !it.data && <p class="faint">No compactor has looked at this tenant yet.</p>}
      {it.data && (
        <p class="summary">
          {count(all.length)} blocks, {bytes(sum)}, as of {when(it.data.asOf)}
        </p>
      )}
      {all.length > 0 && (
        <Table
          caption="Blocks"
          rows={all}
          id={(b) => b.id}
          most={50}
          columns={[
            { name: "Block", by: (b) => b.id, show: (b) => <code>{b.id}</code> },
            { name: "From", by: (b) => b.minTime, show: (b) => when(b.minTime) },
            { name: "To", by: (b) => b.maxTime, show: (b) => when(b.maxTime) },
            { name: "Level", number: true, by: (b) => b.level, show: (b) => b.level },
            { name: "Size", number: true, by: (b) => b.bytes ?? 0, show: (b) => bytes(b.bytes ?? 0) },
            { name: "Marks", show: (b) => (
                <>
                  {b.outOfOrder && <Badge>out of order</Badge>} {b.markedForDeletion && <Badge kind="warn">to be deleted</Badge>} {b.notCompacted && <Badge kind="bad">not compacted: {b.notCompacted}</Badge>}
                </>
              ) },
          ]}
        />
      )}
    </Card>
  );
}
