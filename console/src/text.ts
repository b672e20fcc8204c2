// Numbers, times and names as people read them.

const short = new Intl.NumberFormat("en", { maximumFractionDigits: 1, notation: "compact" });
const long = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });

export const count = (n: number): string => (Math.abs(n) < 100000 ? long.format(n) : short.format(n));

export function bytes(n: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let i = 0;
  while (Math.abs(n) >= 1024 && i < units.length - 1) {
    n /= 1024;
    i++;
  }
  return long.format(Math.round(n * 10) / 10) + " " + units[i];
}

/** when renders a time of the server: RFC 3339, or seconds since 1970. */
export function when(t: string | number | Date | undefined): string {
  if (t === undefined || t === "" || (typeof t === "string" && t.startsWith("0001-"))) return "–";
  const d = typeof t === "number" ? new Date(t * 1000) : new Date(t);
  if (Number.isNaN(d.getTime())) return String(t);
  const two = (n: number) => String(n).padStart(2, "0");
  return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())} ${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
}

/** span renders seconds. */
export function span(seconds: number): string {
  if (seconds < 1) return Math.round(seconds * 1000) + " ms";
  if (seconds < 120) return Math.round(seconds) + " s";
  if (seconds < 7200) return Math.round(seconds / 60) + " min";
  if (seconds < 172800) return Math.round(seconds / 3600) + " h";
  return Math.round(seconds / 86400) + " d";
}

export function ago(t: string | Date): string {
  const d = new Date(t).getTime();
  if (Number.isNaN(d) || d <= 0) return "never";
  const s = (Date.now() - d) / 1000;
  return s < 0 ? "in " + span(-s) : span(s) + " ago";
}

/** seconds reads a duration as Prometheus writes it: 1h30m, 5m, 500ms. */
export function seconds(text: string): number | null {
  const unit: Record<string, number> = { ms: 0.001, s: 1, m: 60, h: 3600, d: 86400, w: 604800, y: 31536000 };
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text);
  if (!/^(\d+(ms|[smhdwy]))+$/.test(text)) return null;
  let sum = 0;
  for (const m of text.matchAll(/(\d+)(ms|[smhdwy])/g)) sum += Number(m[1]) * (unit[m[2] ?? "s"] ?? 0);
  return sum;
}

/** series renders labels as PromQL does. */
export function series(labels: Record<string, string>): string {
  const { __name__: name = "", ...rest } = labels;
  const pairs = Object.keys(rest)
    .sort()
    .map((k) => `${k}=${JSON.stringify(rest[k])}`);
  return pairs.length || !name ? `${name}{${pairs.join(", ")}}` : name;
}

/** base64 of text in UTF-8, and back. */
export function toBase64(text: string): string {
  let raw = "";
  for (const b of new TextEncoder().encode(text)) raw += String.fromCharCode(b);
  return btoa(raw);
}

export function fromBase64(data: string): string {
  return new TextDecoder().decode(Uint8Array.from(atob(data), (c) => c.charCodeAt(0)));
}

export function save(name: string, text: string, type: string): void {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const a = document.createElement("a");
  a.href = url;
  a.download = name;
  a.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}
