import { useState } from "preact/hooks";
import { promText, prom, type Scope } from "../api";
import { useLoad } from "../load";
import { count } from "../text";
import { Button, Card, Choice, Empty, Loading, Notice, Problem, Snippet, Table } from "../ui";

interface Use {
  name: string;
  series: number;
  values?: number;
  unused: boolean;
  last_asked?: string;
  last_rule?: string;
  last_dashboard?: string;
  last_ad_hoc?: string;
}

interface Report {
  days: number;
  observed_since: string;
  observed_days: number;
  incomplete?: string;
  totals: { metrics: number; unused_metrics: number; series: number; unused_series: number; unused_labels: number };
  metrics: Use[];
  labels: Use[];
  notes: string[];
}

/** Unused shows which metrics and labels nobody asks for, and makes the rules that drop metrics before they are stored. */
export function Unused(p: { scope: Scope }) {
  const [days, setDays] = useState("30");
  const [shown, setShown] = useState("unused");
  const it = useLoad(
    async (signal) => (await prom<Report>(p.scope, "/api/v1/usage/metrics", { days, limit: "1000", ...(shown === "unused" ? { unused: "true" } : {}) }, signal)).data,
    [p.scope.id, days, shown],
  );
  const r = it.data;
  return (
    <>
      <Card>
        <div class="line">
          <Choice label="Not asked for in" value={days} set={setDays} options={[["1", "1 day"], ["7", "7 days"], ["30", "30 days"], ["90", "90 days"]]} />
          <Choice label="Show" value={shown} set={setShown} options={[["unused", "What is unused"], ["all", "All"]]} />
        </div>
      </Card>
      <Problem error={it.error} what="What is used is not known" />
      {it.loading && <Loading what="what is used" />}
      {r && (
        <>
          {r.observed_days < r.days && (
            <Notice kind="warn" title={r.observed_days === 0 ? "Not observed yet" : `Observed on ${r.observed_days} of ${r.days} days`}>
              {r.observed_days === 0 ? "Nothing is called unused before it is noted what is asked for." : `Since ${r.observed_since}. What is asked for more seldom may seem unused.`}
            </Notice>
          )}
          {r.incomplete && (
            <Notice kind="warn" title="Not all that is asked for was noted">
              More names are asked for than are remembered, or usage insights were off for a time: nothing is called unused. The last time was {r.incomplete}.
            </Notice>
          )}
          <p class="summary" role="status">
            {count(r.totals.unused_metrics)} of {count(r.totals.metrics)} metrics are unused; they have {count(r.totals.unused_series)} of {count(r.totals.series)} series.
          </p>
          <Metrics key={days + shown} scope={p.scope} rows={r.metrics} />
          <Card title="Labels">
            <Uses caption="Labels by use" name="Label" rows={r.labels} />
          </Card>
          <ul class="hint">
            {r.notes.map((n) => (
              <li key={n}>{n}</li>
            ))}
          </ul>
        </>
      )}
    </>
  );
}

const day = (d: string | undefined) => d ?? "never";

function Uses(p: { caption: string; name: string; rows: Use[]; pick?: { has: (name: string) => boolean; toggle: (name: string) => void } }) {
  const pick = p.pick;
  if (p.rows.length === 0) return <Empty title="Nothing is unused" />;
  return (
    <Table
      caption={p.caption}
      rows={p.rows}
      id={(r) => r.name}
      most={50}
      columns={[
        ...(pick
          ? [{ name: "Drop", show: (r: Use) => <input type="checkbox" aria-label={`Drop ${r.name}`} checked={pick.has(r.name)} onChange={() => pick.toggle(r.name)} /> }]
          : []),
        { name: p.name, by: (r) => r.name, show: (r) => <code>{r.name}</code> },
        { name: "Series", number: true, by: (r) => r.series, show: (r) => count(r.series) },
        { name: "Last asked", by: (r) => r.last_asked ?? "", show: (r) => day(r.last_asked) },
        { name: "Rule", by: (r) => r.last_rule ?? "", show: (r) => day(r.last_rule) },
        { name: "Dashboard", by: (r) => r.last_dashboard ?? "", show: (r) => day(r.last_dashboard) },
        { name: "Ad hoc", by: (r) => r.last_ad_hoc ?? "", show: (r) => day(r.last_ad_hoc) },
      ]}
    />
  );
}

const forms: [string, string][] = [
  ["prometheus", "Prometheus: write_relabel_configs"],
  ["otelcol", "OpenTelemetry collector: filter"],
  ["overrides", "Operator: metric_relabel_configs"],
];

function Metrics(p: { scope: Scope; rows: Use[] }) {
  const [picked, setPicked] = useState<string[]>([]);
  const [form, setForm] = useState("prometheus");
  const unused = p.rows.filter((r) => r.unused).map((r) => r.name);
  const toggle = (name: string) => setPicked(picked.includes(name) ? picked.filter((n) => n !== name) : [...picked, name]);
  return (
    <>
      <Card
        title="Metrics"
        actions={
          <>
            {unused.length > 0 && <Button onClick={() => setPicked(unused)}>Select all unused</Button>}
            {picked.length > 0 && <Button onClick={() => setPicked([])}>Select none</Button>}
          </>
        }
      >
        <Uses caption="Metrics by use" name="Metric" rows={p.rows} pick={{ has: (n) => picked.includes(n), toggle }} />
      </Card>
      {picked.length > 0 && (
        <Card title={`Drop ${count(picked.length)} metrics`}>
          <Choice label="For" value={form} set={setForm} options={forms} />
          <Rules scope={p.scope} form={form} metrics={picked} />
        </Card>
      )}
    </>
  );
}

function Rules(p: { scope: Scope; form: string; metrics: string[] }) {
  const it = useLoad((signal) => promText(p.scope, "/api/v1/usage/drop", { format: p.form, "metric[]": p.metrics }, signal), [p.scope.id, p.form, p.metrics.join("\n")]);
  return (
    <>
      <Problem error={it.error} what="The rules cannot be made" />
      {it.data !== null && <Snippet title="Rules that drop these metrics" text={it.data} />}
    </>
  );
}
