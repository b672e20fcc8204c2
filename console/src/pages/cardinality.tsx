import { useState } from "preact/hooks";
import { prom, Refusal, type Scope } from "../api";
import { useLoad } from "../load";
import { href } from "../route";
import { count } from "../text";
import { Unused } from "./unused";
import { Button, Card, Empty, Form, Head, Link, Loading, Problem, Table, Tabs, Text } from "../ui";

interface Row {
  name: string;
  series: number;
}

/** braces turns a matcher list into a selector; a selector stays as it is. */
const braces = (s: string): string => (!s.trim() ? "" : s.includes("{") || /^[a-zA-Z_:][\w:]*$/.test(s.trim()) ? s.trim() : `{${s.trim()}}`);

/**
 * byLabel counts series by the values of label. Where the tenant may use the analysis of ingesters, they
 * count; else a query does, which costs more and sees what had a sample in the last five minutes.
 */
async function byLabel(scope: Scope, selector: string, label: string, signal: AbortSignal): Promise<{ rows: Row[]; total: number; queried: boolean }> {
  try {
    const params = { "label_names[]": label, limit: "100", count_method: "active", ...(selector ? { selector } : {}) };
    const a = await prom<unknown>(scope, "/api/v1/cardinality/label_values", params, signal);
    const its = a as unknown as { series_count_total: number; labels: { series_count: number; cardinality: { label_value: string; series_count: number }[] }[] };
    return { rows: (its.labels[0]?.cardinality ?? []).map((c) => ({ name: c.label_value, series: c.series_count })), total: its.series_count_total, queried: false };
  } catch (err) {
    if (!(err instanceof Refusal) || signal.aborted || !/cardinality analysis is disabled|nothing at/.test(err.message)) throw err;
  }
  const what = selector || '{__name__=~".+"}';
  const [top, sum] = await Promise.all([
    prom<{ result: { metric: Record<string, string>; value: [number, string] }[] }>(scope, "/api/v1/query", { query: `sort_desc(topk(100, count by (${label}) (${what})))` }, signal, "POST"),
    prom<{ result: { value: [number, string] }[] }>(scope, "/api/v1/query", { query: `count(${what})` }, signal, "POST"),
  ]);
  return {
    rows: top.data.result.map((r) => ({ name: r.metric[label] ?? "", series: Number(r.value[1]) })),
    total: Number(sum.data.result[0]?.value[1] ?? 0),
    queried: true,
  };
}

/** mostLabels bounds how many labels are asked for their values one by one. */
const mostLabels = 40;

async function labelsOf(scope: Scope, selector: string, signal: AbortSignal): Promise<{ name: string; values: number }[]> {
  const now = Math.floor(Date.now() / 1000);
  const params = { start: String(now - 300), end: String(now), ...(selector ? { "match[]": selector } : {}) };
  const names = (await prom<string[]>(scope, "/api/v1/labels", params, signal)).data.filter((n) => n !== "__name__");
  const out: { name: string; values: number }[] = [];
  for (const name of names.slice(0, mostLabels)) {
    const values = (await prom<string[]>(scope, `/api/v1/label/${encodeURIComponent(name)}/values`, { ...params, limit: "10000" }, signal)).data;
    out.push({ name, values: values.length });
  }
  return out.sort((a, b) => b.values - a.values);
}

export function Cardinality(p: { scope: Scope }) {
  const [tab, setTab] = useState("now");
  return (
    <>
      <Head title="Cardinality" sub="Which metrics and labels make how many series." />
      <Tabs
        label="Where"
        value={tab}
        set={setTab}
        tabs={[
          ["now", "Now"],
          ["blocks", "In blocks"],
          ["unused", "Unused"],
        ]}
      >
        {tab === "now" ? <Now scope={p.scope} /> : tab === "blocks" ? <Blocks scope={p.scope} /> : <Unused scope={p.scope} />}
      </Tabs>
    </>
  );
}

function Now(p: { scope: Scope }) {
  const [typed, setTyped] = useState("");
  const [selector, setSelector] = useState("");
  const [label, setLabel] = useState("__name__");
  const rows = useLoad((signal) => byLabel(p.scope, selector, label, signal), [p.scope.id, selector, label]);
  const labels = useLoad((signal) => labelsOf(p.scope, selector, signal), [p.scope.id, selector]);
  const total = rows.data?.total ?? 0;
  const narrow = (value: string) => {
    const next = label === "__name__" && !selector ? `{__name__=${JSON.stringify(value)}}` : `${selector.replace(/}$/, "")}${selector ? (selector.endsWith("{}") ? "" : selector.endsWith("}") ? ", " : "{") : "{"}${label}=${JSON.stringify(value)}}`;
    setSelector(next);
    setTyped(next);
    if (label === "__name__") setLabel("job");
  };
  const clear = () => {
    setSelector("");
    setTyped("");
    setLabel("__name__");
  };
  return (
    <>
      <Card>
        <Form small label="Count" submit={() => setSelector(braces(typed))}>
          <Text label="Series that match" value={typed} set={setTyped} class="code" placeholder='all, or {job="api"}' />
        </Form>
        {selector && (
          <p>
            <Button look="quiet" onClick={clear}>
              Start again with all metrics
            </Button>
          </p>
        )}
      </Card>
      <div class="grid wide-left">
        <Card title={label === "__name__" ? "Series by metric" : `Series by ${label}`}>
          <Problem error={rows.error} what="Series cannot be counted" />
          {rows.loading && <Loading what="counts" />}
          {rows.data && (
            <>
              <p class="summary" role="status">
                {count(total)} series in all. {rows.data.queried && "Counted by a query over the last five minutes; with the limit cardinality_analysis_enabled ingesters count."}
              </p>
              {rows.data.rows.length === 0 ? (
                <Empty title="No series" />
              ) : (
                <Table
                  caption={`Series by ${label}`}
                  rows={rows.data.rows}
                  id={(r) => r.name}
                  most={50}
                  columns={[
                    {
                      name: label === "__name__" ? "Metric" : label,
                      by: (r) => r.name,
                      show: (r) => (
                        <button type="button" class="legend" onClick={() => narrow(r.name)} title="Only these series">
                          <code>{r.name || "(none)"}</code>
                        </button>
                      ),
                    },
                    { name: "Series", number: true, by: (r) => r.series, show: (r) => count(r.series) },
                    { name: "Share", number: true, show: (r) => <Share of={r.series} in={total} /> },
                  ]}
                />
              )}
            </>
          )}
        </Card>
        <Card title="Labels">
          <Problem error={labels.error} what="Labels cannot be listed" />
          {labels.loading && <Loading what="labels" />}
          {labels.data && (
            <Table
              caption="Labels of these series"
              rows={labels.data}
              id={(l) => l.name}
              columns={[
                {
                  name: "Label",
                  by: (l) => l.name,
                  show: (l) => (
                    <button type="button" class="legend" aria-pressed={label === l.name} title="Count series by this label" onClick={() => setLabel(l.name)}>
                      <code>{l.name}</code>
                    </button>
                  ),
                },
                { name: "Values", number: true, by: (l) => l.values, show: (l) => count(l.values) + (l.values >= 10000 ? "+" : "") },
              ]}
            />
          )}
          <p>
            <Button look="quiet" aria-pressed={label === "__name__"} onClick={() => setLabel("__name__")}>
              By metric
            </Button>
            {selector && <Link to={href(p.scope, "explore", { q: selector, tab: "table" })}>Explore these series</Link>}
          </p>
        </Card>
      </div>
    </>
  );
}

function Share(p: { of: number; in: number }) {
  const share = p.in ? Math.min(1, p.of / p.in) : 0;
  return (
    <span class="share">
      <progress max={1} value={share} aria-hidden="true" /> {Math.round(share * 1000) / 10} %
    </span>
  );
}

interface Stat {
  name: string;
  value: number;
}

interface Stored {
  headStats: { numSeries: number; numLabelPairs: number; chunkCount: number };
  seriesCountByMetricName: Stat[];
  labelValueCountByLabelName: Stat[];
  memoryInBytesByLabelName: Stat[];
  seriesCountByLabelValuePair: Stat[];
}

function Blocks(p: { scope: Scope }) {
  const it = useLoad(async (signal) => (await prom<Stored>(p.scope, "/api/v1/status/tsdb", { limit: "50" }, signal)).data, [p.scope.id]);
  const table = (title: string, name: string, unit: string, rows: Stat[]) => (
    <Card title={title}>
      <Table
        caption={title}
        rows={rows}
        id={(r) => r.name}
        most={20}
        columns={[
          { name, by: (r) => r.name, show: (r) => <code>{r.name}</code> },
          { name: unit, number: true, by: (r) => r.value, show: (r) => count(r.value) },
        ]}
      />
    </Card>
  );
  return (
    <>
      <Problem error={it.error} what="Blocks cannot be counted" />
      {it.loading && <Loading what="all blocks" />}
      {it.data && it.data.headStats.numSeries === 0 && <Empty title="No blocks yet">Samples move from ingesters into blocks after about two hours.</Empty>}
      {it.data && it.data.headStats.numSeries > 0 && (
        <>
          <p class="summary" role="status">
            {count(it.data.headStats.numSeries)} series in {count(it.data.headStats.chunkCount)} chunks.
          </p>
          <div class="grid">
            {table("Metrics with the most series", "Metric", "Series", it.data.seriesCountByMetricName)}
            {table("Labels with the most values", "Label", "Values", it.data.labelValueCountByLabelName)}
            {table("Values with the most series", "Label and value", "Series", it.data.seriesCountByLabelValuePair)}
            {table("Labels with the longest values", "Label", "Bytes", it.data.memoryInBytesByLabelName)}
          </div>
        </>
      )}
    </>
  );
}
