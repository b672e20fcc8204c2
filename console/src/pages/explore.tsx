import { useEffect, useRef, useState } from "preact/hooks";
import { type Answer, prom, type Scope } from "../api";
import { Chart, colour, type Line } from "../chart";
import { Editor } from "../editor";
import { go, href } from "../route";
import { count, seconds, series, span, when } from "../text";
import { Button, Card, Choice, Empty, Head, Loading, Notice, Problem, Table, Tabs, Text } from "../ui";

interface Result {
  resultType: "vector" | "matrix" | "scalar" | "string";
  result: unknown;
}

interface Sample {
  metric: Record<string, string>;
  value?: [number, string];
  values?: [number, string][];
  histogram?: [number, Histogram];
  histograms?: [number, Histogram][];
}

interface Histogram {
  count: string;
  sum: string;
}

interface Shown {
  answer: Answer<Result>;
  kind: "graph" | "table";
  from: number;
  to: number;
  step: number;
  took: number;
}

const ranges: [string, string][] = [
  ["900", "Last 15 minutes"],
  ["3600", "Last hour"],
  ["21600", "Last 6 hours"],
  ["86400", "Last day"],
  ["604800", "Last week"],
  ["2592000", "Last 30 days"],
  ["custom", "Custom…"],
];

/** mostLines bounds what is drawn: more cannot be told apart, and would only slow the browser. */
const mostLines = 100;

const stamp = (t: number): string => {
  const d = new Date((t - new Date(t * 1000).getTimezoneOffset() * 60) * 1000);
  return d.toISOString().slice(0, 19);
};

export default function Explore(p: { scope: Scope; params: URLSearchParams }) {
  const [query, setQuery] = useState(p.params.get("q") ?? "");
  const [tab, setTab] = useState<"graph" | "table">(p.params.get("tab") === "table" ? "table" : "graph");
  const [range, setRange] = useState(p.params.get("range") ?? "3600");
  const [from, setFrom] = useState(p.params.get("from") ?? stamp(Date.now() / 1000 - 3600));
  const [to, setTo] = useState(p.params.get("to") ?? stamp(Date.now() / 1000));
  const [step, setStep] = useState(p.params.get("step") ?? "");
  const [shown, setShown] = useState<Shown | null>(null);
  const [error, setError] = useState<unknown>(null);
  const [busy, setBusy] = useState(false);
  const running = useRef<AbortController | null>(null);

  const run = async (over: { tab?: "graph" | "table"; range?: string; from?: string; to?: string } = {}) => {
    const kind = over.tab ?? tab;
    const span = over.range ?? range;
    if (!query.trim()) return;
    running.current?.abort();
    const own = (running.current = new AbortController());
    const now = Math.floor(Date.now() / 1000);
    let end = now;
    let start = now - Number(span);
    if (span === "custom") {
      start = new Date(over.from ?? from).getTime() / 1000;
      end = new Date(over.to ?? to).getTime() / 1000;
    }
    const given = step.trim() ? seconds(step.trim()) : null;
    const width = given ?? Math.max(1, Math.ceil((end - start) / 250));
    const address: Record<string, string> = { q: query, tab: kind, range: span };
    if (span === "custom") Object.assign(address, { from: over.from ?? from, to: over.to ?? to });
    if (step.trim()) address["step"] = step.trim();
    go(href(p.scope, "explore", address), true);
    setBusy(true);
    setError(null);
    const began = performance.now();
    try {
      if (Number.isNaN(start) || Number.isNaN(end) || end < start) throw new Error("The end must be after the start.");
      if (step.trim() && !given) throw new Error("The step must be a duration, as 30s or 5m.");
      // A grid that does not move with every second keeps graphs still, and results can be kept by the server.
      start = Math.floor(start / width) * width;
      end = Math.floor(end / width) * width;
      const answer =
        kind === "graph"
          ? await prom<Result>(p.scope, "/api/v1/query_range", { query, start: String(start), end: String(end), step: String(width) }, own.signal, "POST")
          : await prom<Result>(p.scope, "/api/v1/query", { query, time: String(span === "custom" ? end : now), limit: "5000" }, own.signal, "POST");
      setShown({ answer, kind, from: start, to: end, step: width, took: performance.now() - began });
    } catch (err) {
      if (own.signal.aborted) return;
      setError(err);
      setShown(null);
    } finally {
      if (running.current === own) setBusy(false);
    }
  };
  useEffect(() => {
    if (query) void run();
    return () => running.current?.abort();
  }, []);

  const zoom = (a: number, b: number) => {
    const x = stamp(Math.floor(a));
    const y = stamp(Math.ceil(b));
    setRange("custom");
    setFrom(x);
    setTo(y);
    void run({ range: "custom", from: x, to: y });
  };

  return (
    <>
      <Head title="Explore" />
      <Card class="query">
        <Editor scope={p.scope} label="PromQL query" value={query} set={setQuery} run={() => void run()} />
        <div class="controls">
          <Choice
            label="Range"
            value={range}
            options={ranges}
            set={(v) => {
              setRange(v);
              if (v !== "custom") void run({ range: v });
            }}
          />
          {range === "custom" && (
            <>
              <Text label="From" type="datetime-local" step="1" value={from} set={setFrom} />
              <Text label="To" type="datetime-local" step="1" value={to} set={setTo} />
            </>
          )}
          <Text label="Step" value={step} set={setStep} placeholder="auto" />
          <div class="run">
            {busy ? (
              <Button onClick={() => { running.current?.abort(); setBusy(false); }}>Stop</Button>
            ) : (
              <Button look="main" onClick={() => void run()} disabled={!query.trim()}>
                Run query
              </Button>
            )}
          </div>
        </div>
      </Card>
      <Tabs
        label="Result"
        value={tab}
        set={(v) => {
          setTab(v as "graph" | "table");
          void run({ tab: v as "graph" | "table" });
        }}
        tabs={[
          ["graph", "Graph"],
          ["table", "Table"],
        ]}
      >
        <Problem error={error} what="The query failed" />
        {busy && !shown && <Loading what="the result" />}
        {!busy && !error && !shown && (
          <Empty title="Ask something">
            Enter runs a query, Shift+Enter begins a line. Names, labels and functions are completed as you type.
          </Empty>
        )}
        {shown && <Outcome shown={shown} zoom={zoom} />}
      </Tabs>
    </>
  );
}

function Outcome(p: { shown: Shown; zoom: (a: number, b: number) => void }) {
  const { answer, kind } = p.shown;
  const rows = answer.data.result as Sample[];
  const many = Array.isArray(rows) && (answer.data.resultType === "matrix" || answer.data.resultType === "vector");
  return (
    <div class={"outcome"}>
      {answer.warnings?.map((w) => (
        <Notice key={w} kind="warn">
          {w}
        </Notice>
      ))}
      {answer.infos?.map((w) => (
        <Notice key={w} kind="info">
          {w}
        </Notice>
      ))}
      <p class="summary" role="status">
        {many ? `${count(rows.length)} series` : answer.data.resultType} in {span(p.shown.took / 1000)}
        {kind === "graph" && `, a point every ${span(p.shown.step)}`}
      </p>
      {many && rows.length === 0 && <Empty title="No series">The query selects nothing at this time.</Empty>}
      {many && rows.length > 0 && kind === "graph" && <Graph shown={p.shown} rows={rows} zoom={p.zoom} />}
      {many && rows.length > 0 && kind === "table" && <Instant rows={rows} />}
      {!many && (
        <Card>
          <p class="big">{String((answer.data.result as [number, string])[1])}</p>
        </Card>
      )}
    </div>
  );
}

function Graph(p: { shown: Shown; rows: Sample[]; zoom: (a: number, b: number) => void }) {
  const [only, setOnly] = useState<number | null>(null);
  const [lines, setLines] = useState<Line[]>([]);
  useEffect(() => {
    setOnly(null);
    setLines(
      p.rows.slice(0, mostLines).map((r) => ({
        name: series(r.metric),
        points: r.values ? r.values.map(([t, v]): [number, number] => [t, Number(v)]) : (r.histograms ?? []).map(([t, h]): [number, number] => [t, Number(h.count)]),
      })),
    );
  }, [p.rows]);
  const last = (line: Line) => line.points[line.points.length - 1]?.[1] ?? NaN;
  const values = (line: Line) => line.points.map(([, v]) => v).filter(Number.isFinite);
  const rows = lines.map((line, i) => ({ line, i, last: last(line), min: Math.min(...values(line)), max: Math.max(...values(line)) }));
  const number = (v: number) => (Number.isFinite(v) ? count(v) : String(v));
  return (
    <Card>
      {p.rows.length > mostLines && (
        <Notice kind="info">
          The first {mostLines} of {p.rows.length} series are drawn. Aggregate to see all of them.
        </Notice>
      )}
      <Chart lines={lines} from={p.shown.from} to={p.shown.to} step={p.shown.step} only={only} zoom={p.zoom} label={`Graph of ${lines.length} series from ${when(p.shown.from)} to ${when(p.shown.to)}; the table below has their values`} />
      <Table
        caption="Series of the graph"
        rows={rows}
        id={(r) => String(r.i)}
        most={25}
        columns={[
          {
            name: "Series",
            by: (r) => r.line.name,
            show: (r) => (
              <button type="button" class="legend" aria-pressed={only === r.i} title="Show only this series" onClick={() => setOnly(only === r.i ? null : r.i)}>
                <span class="swatch" style={{ background: colour(r.i) }} aria-hidden="true" />
                <code>{r.line.name}</code>
              </button>
            ),
          },
          { name: "Least", number: true, by: (r) => r.min, show: (r) => number(r.min) },
          { name: "Most", number: true, by: (r) => r.max, show: (r) => number(r.max) },
          { name: "Last", number: true, by: (r) => r.last, show: (r) => number(r.last) },
        ]}
      />
    </Card>
  );
}

function Instant(p: { rows: Sample[] }) {
  const value = (r: Sample) => r.value?.[1] ?? (r.histogram ? `count ${r.histogram[1].count}, sum ${r.histogram[1].sum}` : (r.values ?? []).map(([t, v]) => `${v} @ ${when(t)}`).join("\n"));
  return (
    <Card>
      <Table
        caption="Result"
        rows={p.rows.map((r, i) => ({ r, i, name: series(r.metric) }))}
        id={(x) => String(x.i)}
        columns={[
          { name: "Series", by: (x) => x.name, show: (x) => <code>{x.name}</code> },
          { name: "Value", number: true, by: (x) => Number(x.r.value?.[1] ?? 0), show: (x) => <span class="values">{value(x.r)}</span> },
        ]}
      />
    </Card>
  );
}
