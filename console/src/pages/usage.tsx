import { useState } from "preact/hooks";
import { at, json, prom, type Scope } from "../api";
import { useLoad } from "../load";
import { bytes, count } from "../text";
import { Button, Card, Dialog, Facts, Form, Head, Loading, Notice, Problem, Table, Text } from "../ui";
import { configuration, configure } from "../workspaces";

interface Stats {
  ingestionRate: number;
  numSeries: number;
  activeSeries: number;
  APIIngestionRate: number;
  RuleIngestionRate: number;
  missing?: string[];
}

type Limits = Record<string, unknown>;

interface Measure {
  name: string;
  used: number | null;
  most: number; // 0: no limit
  limit: string;
  unit: (n: number) => string;
}

/** own calls what exists below the Prometheus API for workspaces, and at the root for all. */
async function own<T>(scope: Scope, what: "user_stats" | "user_limits", signal: AbortSignal): Promise<T> {
  const { path, tenant } = at(scope, "/api/v1/" + what);
  return json<T>(path, tenant ? { tenant, signal } : { signal });
}

/** ifAllowed is null where the caller may not know, or the part does not run. */
async function ifAllowed<T>(f: Promise<T>): Promise<T | null> {
  try {
    return await f;
  } catch {
    return null;
  }
}

async function read(scope: Scope, signal: AbortSignal) {
  const alert = (path: string) => {
    const { path: to, tenant } = at(scope, "/alertmanager/api/v2" + path);
    return ifAllowed(json<{ status: { state: string } }[]>(to, tenant ? { tenant, signal } : { signal }));
  };
  const [stats, limits, rules, silences, alerts] = await Promise.all([
    own<Stats>(scope, "user_stats", signal),
    own<Limits>(scope, "user_limits", signal),
    ifAllowed(prom<{ groups: { rules: unknown[] }[] }>(scope, "/api/v1/rules", {}, signal)),
    alert("/silences"),
    alert("/alerts"),
  ]);
  return { stats, limits, groups: rules?.data.groups ?? null, silences, alerts };
}

const perSecond = (n: number) => count(n) + "/s";

export function Usage(p: { scope: Scope }) {
  const it = useLoad((signal) => read(p.scope, signal), [p.scope.id], 15000);
  const head = <Head title="Usage and quotas" sub="What is used now, of what is allowed. It is read again every 15 seconds." />;
  if (!it.data) {
    return (
      <>
        {head}
        {it.loading && <Loading what="usage" />}
        <Problem error={it.error} what="Usage cannot be shown" />
      </>
    );
  }
  const { stats, limits, groups, silences, alerts } = it.data;
  const most = (name: string): number => Number(limits[name] ?? 0) || 0;
  const measures: Measure[] = [
    { name: "Series in memory", used: stats.numSeries, most: most("max_global_series_per_user"), limit: "max_global_series_per_user", unit: count },
    { name: "Active series", used: stats.activeSeries, most: most("max_active_series_per_user"), limit: "max_active_series_per_user", unit: count },
    { name: "Samples written", used: stats.ingestionRate, most: most("ingestion_rate"), limit: "ingestion_rate", unit: perSecond },
    { name: "Rule groups", used: groups && groups.length, most: most("ruler_max_rule_groups_per_tenant"), limit: "ruler_max_rule_groups_per_tenant", unit: count },
    { name: "Rules in the largest group", used: groups && Math.max(0, ...groups.map((g) => g.rules.length)), most: most("ruler_max_rules_per_rule_group"), limit: "ruler_max_rules_per_rule_group", unit: count },
    { name: "Silences", used: silences && silences.filter((s) => s.status.state !== "expired").length, most: most("alertmanager_max_silences_count"), limit: "alertmanager_max_silences_count", unit: count },
    { name: "Alerts", used: alerts && alerts.length, most: most("alertmanager_max_alerts_count"), limit: "alertmanager_max_alerts_count", unit: count },
  ];
  const show = (v: unknown): string => (typeof v === "object" ? JSON.stringify(v) : String(v));
  return (
    <>
      {head}
      <Problem error={it.error} />
      {stats.missing && <Notice kind="warn">{`Some ingesters did not answer, so figures are estimates: ${stats.missing.join(", ")}`}</Notice>}
      <Card title="Now">
        <ul class="meters">
          {measures.map((m) => (
            <Meter key={m.name} m={m} />
          ))}
        </ul>
      </Card>
      <Card title="Kept and accepted">
        <Facts
          rows={[
            ["Retention", zero(limits["compactor_blocks_retention_period"], "for ever")],
            ["Late samples", zero(limits["out_of_order_time_window"], "not accepted")],
            ["Burst of samples", count(most("ingestion_burst_size"))],
            ["Labels of a series", count(most("max_label_names_per_series"))],
            ["Written by clients", perSecond(stats.APIIngestionRate)],
            ["Written by rules", perSecond(stats.RuleIngestionRate)],
            ["Alert manager definition", most("alertmanager_max_config_size_bytes") ? "at most " + bytes(most("alertmanager_max_config_size_bytes")) : "no limit"],
          ]}
        />
      </Card>
      {p.scope.kind === "workspace" && <Configuration id={p.scope.id} />}
      <Card title="All limits">
        <details>
          <summary>{Object.keys(limits).length} limits hold for it</summary>
          <Table
            caption="All limits"
            rows={Object.entries(limits)}
            id={([k]) => k}
            most={500}
            columns={[
              { name: "Limit", by: ([k]) => k, show: ([k]) => <code>{k}</code> },
              { name: "Value", show: ([, v]) => <code>{show(v)}</code> },
            ]}
          />
        </details>
      </Card>
    </>
  );
}

const zero = (v: unknown, text: string): string => (!v || /^0[a-z]*$/.test(String(v)) ? text : String(v));

function Meter(p: { m: Measure }) {
  const { m } = p;
  const share = m.most && m.used !== null ? m.used / m.most : 0;
  const kind = share >= 1 ? "bad" : share >= 0.8 ? "warn" : "";
  return (
    <li>
      <span class="meter-name">
        {m.name} <code class="faint">{m.limit}</code>
      </span>
      <span class="meter-value">
        {m.used === null ? "not known" : m.unit(m.used)} <span class="faint">{m.most ? "of " + m.unit(m.most) : "no limit"}</span>
      </span>
      {m.most > 0 && m.used !== null && (
        <progress class={kind} max={1} value={Math.min(1, share)} aria-label={`${m.name}: ${Math.round(share * 100)} percent`} />
      )}
    </li>
  );
}

interface Settings {
  retentionPeriodInDays?: number;
  limitsPerLabelSet?: { labelSet: Record<string, string>; limits: { maxSeries?: number } }[];
}

/** Configuration is what the workspace sets itself. */
function Configuration(p: { id: string }) {
  const it = useLoad((signal) => configuration<Settings>(p.id, signal), [p.id]);
  const [editing, setEditing] = useState(false);
  const sets = it.data?.limitsPerLabelSet ?? [];
  return (
    <Card
      title="Set by the workspace itself"
      actions={
        it.data && (
          <Button onClick={() => setEditing(true)}>Change retention</Button>
        )
      }
    >
      <Problem error={it.error} what="The configuration cannot be shown" />
      {it.data && (
        <Facts
          rows={[
            ["Retention", it.data.retentionPeriodInDays ? `${it.data.retentionPeriodInDays} days` : "as the operator set it"],
            ["Limits per label set", sets.length ? <code>{sets.map((s) => `${JSON.stringify(s.labelSet)} ≤ ${s.limits.maxSeries ?? "∞"}`).join(", ")}</code> : "none"],
          ]}
        />
      )}
      {editing && it.data && <Retention id={p.id} days={it.data.retentionPeriodInDays} close={() => setEditing(false)} done={it.reload} />}
    </Card>
  );
}

function Retention(p: { id: string; days: number | undefined; close: () => void; done: () => Promise<void> }) {
  const [days, setDays] = useState(String(p.days ?? ""));
  return (
    <Dialog title="Change retention" close={p.close}>
      <Form label="Save" cancel={p.close} disabled={!/^\d+$/.test(days)} submit={async () => {
          await configure(p.id, { retentionPeriodInDays: Number(days) });
          await p.done();
          p.close();
        }}>
        <Text label="Days" type="number" value={days} set={setDays} hint="Samples that are older are deleted. A shorter time deletes them at the next run of the compactor, for good." />
      </Form>
    </Dialog>
  );
}
