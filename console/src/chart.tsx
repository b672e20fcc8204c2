import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { count } from "./text";

export interface Line {
  name: string;
  points: [number, number][]; // seconds, value; in order
}

const palette = ["#0b6b66", "#b4552d", "#4f6bc4", "#8a6d00", "#8c4a9e", "#2f7d32", "#b03a5b", "#5f6b73", "#1f7fae", "#7a5a3a"];
const paletteDark = ["#5ec4bb", "#f0a27d", "#9db4ff", "#d9bd55", "#d29be3", "#86c989", "#f28fae", "#aab6be", "#7cc4ea", "#cda883"];

export const isDark = (): boolean => matchMedia("(prefers-color-scheme: dark)").matches;
export const colour = (i: number): string => (isDark() ? paletteDark : palette)[i % palette.length] ?? "#888";

/** Chart draws lines over time. only shows one of them; null shows all. */
export function Chart(p: { lines: Line[]; from: number; to: number; step: number; only: number | null; label: string; zoom: (from: number, to: number) => void }) {
  const host = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const zoom = useRef(p.zoom);
  zoom.current = p.zoom;
  const [dark, setDark] = useState(isDark);
  useEffect(() => {
    const q = matchMedia("(prefers-color-scheme: dark)");
    const change = () => setDark(q.matches);
    q.addEventListener("change", change);
    return () => q.removeEventListener("change", change);
  }, []);
  useEffect(() => {
    const el = host.current;
    if (!el) return;
    const at = new Map<number, number>();
    const times: number[] = [];
    for (let t = p.from, i = 0; t <= p.to + p.step / 1000 && i < 20000; t += p.step, i++) {
      at.set(Math.round(t * 1000), i);
      times.push(t);
    }
    const data: uPlot.AlignedData = [
      times,
      ...p.lines.map((line) => {
        const values = new Array<number | null>(times.length).fill(null);
        for (const [t, v] of line.points) {
          const i = at.get(Math.round(t * 1000));
          if (i !== undefined && Number.isFinite(v)) values[i] = v;
        }
        return values;
      }),
    ];
    const css = getComputedStyle(document.documentElement);
    const axis = { stroke: css.getPropertyValue("--soft"), grid: { stroke: css.getPropertyValue("--line"), width: 1 }, ticks: { stroke: css.getPropertyValue("--line"), width: 1 }, font: "11px system-ui, sans-serif" };
    const height = () => Math.max(220, Math.min(380, innerHeight * 0.4));
    const u = new uPlot(
      {
        width: el.clientWidth,
        height: height(),
        legend: { show: false },
        cursor: { drag: { x: true, y: false, setScale: false }, points: { size: 6 } },
        scales: { x: { min: p.from, max: p.to } },
        axes: [axis, { ...axis, size: 64, values: (_, ticks) => ticks.map((v) => count(v)) }],
        series: [{}, ...p.lines.map((line, i) => ({ label: line.name, stroke: colour(i), width: 1.5, points: { show: line.points.length < 3 } }))],
        hooks: {
          setSelect: [
            (self) => {
              if (self.select.width < 4) return;
              const a = self.posToVal(self.select.left, "x");
              const b = self.posToVal(self.select.left + self.select.width, "x");
              self.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
              zoom.current(a, b);
            },
          ],
        },
      },
      data,
      el,
    );
    plot.current = u;
    const fit = new ResizeObserver(() => u.setSize({ width: el.clientWidth, height: height() }));
    fit.observe(el);
    return () => {
      fit.disconnect();
      u.destroy();
      plot.current = null;
    };
  }, [p.lines, p.from, p.to, p.step, dark]);
  useEffect(() => {
    const u = plot.current;
    if (!u) return;
    u.batch(() => p.lines.forEach((_, i) => u.setSeries(i + 1, { show: p.only === null || p.only === i })));
  }, [p.only, p.lines]);
  return <div ref={host} class="chart" role="img" aria-label={p.label} />;
}
