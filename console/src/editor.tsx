// The editor of PromQL. It lives in a shadow root: there its styles are sheets of the browser, which the
// page's content security policy allows, and not elements, which it does not.
import { autocompletion, closeBrackets, closeBracketsKeymap, completionKeymap } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap } from "@codemirror/commands";
import { bracketMatching, HighlightStyle, syntaxHighlighting } from "@codemirror/language";
import { lintKeymap } from "@codemirror/lint";
import { EditorState, Prec } from "@codemirror/state";
import { EditorView, keymap, placeholder } from "@codemirror/view";
import { tags as t } from "@lezer/highlight";
import { PromQLExtension } from "@prometheus-io/codemirror-promql";
import { useEffect, useRef } from "preact/hooks";
import { prom, type Scope } from "./api";

const colours = HighlightStyle.define([
  { tag: t.keyword, color: "var(--code-keyword)" },
  { tag: [t.function(t.variableName), t.standard(t.variableName)], color: "var(--code-function)" },
  { tag: t.labelName, color: "var(--code-label)" },
  { tag: t.string, color: "var(--code-string)" },
  { tag: [t.number, t.literal], color: "var(--code-number)" },
  { tag: t.operator, color: "var(--code-keyword)" },
  { tag: t.comment, color: "var(--faint)", fontStyle: "italic" },
]);

const look = EditorView.theme({
  "&": { fontSize: "0.875rem", color: "var(--text)", backgroundColor: "var(--field)", border: "1px solid var(--line-strong)", borderRadius: "6px" },
  "&.cm-focused": { outline: "2px solid var(--accent)", outlineOffset: "1px" },
  ".cm-content": { fontFamily: "var(--mono)", padding: "8px 0", caretColor: "var(--text)", minHeight: "20px" },
  ".cm-line": { padding: "0 10px" },
  ".cm-scroller": { maxHeight: "40vh", overflow: "auto" },
  ".cm-placeholder": { color: "var(--faint)" },
  ".cm-tooltip": { background: "var(--card)", border: "1px solid var(--line-strong)", borderRadius: "6px", boxShadow: "var(--shadow)", color: "var(--text)" },
  ".cm-tooltip.cm-tooltip-autocomplete > ul": { fontFamily: "var(--mono)", maxHeight: "18em", maxWidth: "min(90vw, 40em)" },
  ".cm-tooltip-autocomplete ul li[aria-selected]": { background: "var(--accent)", color: "var(--on-accent)" },
  ".cm-completionIcon": { display: "none" },
  ".cm-completionDetail": { color: "inherit", opacity: "0.75", marginLeft: "1em" },
  ".cm-completionInfo": { maxWidth: "24em" },
  ".cm-selectionBackground, &.cm-focused .cm-selectionBackground": { background: "var(--selected)" },
  ".cm-matchingBracket": { background: "var(--selected)" },
});

/** client lets completion ask the server as the caller. What cannot be read completes nothing. */
function client(scope: Scope) {
  const hour = () => ({ start: String(Math.floor(Date.now() / 1000) - 12 * 3600), end: String(Math.floor(Date.now() / 1000)), limit: "10000" });
  const ask = async <T,>(path: string, params: Record<string, string>, none: T): Promise<T> => {
    try {
      return (await prom<T>(scope, path, params)).data ?? none;
    } catch {
      return none;
    }
  };
  const values = (label: string, metric?: string) => ask<string[]>(`/api/v1/label/${encodeURIComponent(label)}/values`, { ...hour(), ...(metric ? { "match[]": metric } : {}) }, []);
  const kept = new Map<string, Promise<unknown>>();
  const once = <T,>(key: string, f: () => Promise<T>): Promise<T> => {
    const known = kept.get(key);
    if (known) return known as Promise<T>;
    const made = f();
    kept.set(key, made);
    setTimeout(() => kept.delete(key), 60000);
    return made;
  };
  return {
    labelNames: (metric?: string) => once("names " + metric, () => ask<string[]>("/api/v1/labels", { ...hour(), ...(metric ? { "match[]": metric } : {}) }, [])),
    labelValues: (label: string, metric?: string) => once(`values ${label} ${metric}`, () => values(label, metric)),
    metricMetadata: () => once("metadata", () => ask<Record<string, { type: string; help: string }[]>>("/api/v1/metadata", { limit: "2000" }, {})),
    series: async () => [],
    metricNames: () => once("metrics", () => values("__name__")),
    flags: async () => ({}),
  };
}

/** Editor begins with value, and from then on says what it has: the page does not write into it. */
export function Editor(p: { scope: Scope; label: string; value: string; set: (v: string) => void; run: () => void }) {
  const host = useRef<HTMLDivElement>(null);
  const now = useRef(p);
  now.current = p;
  useEffect(() => {
    const el = host.current;
    if (!el) return;
    const root = el.shadowRoot ?? el.attachShadow({ mode: "open", delegatesFocus: true });
    const language = new PromQLExtension().setComplete({ remote: client(p.scope) });
    const enter = Prec.highest(
      keymap.of([
        { key: "Mod-Enter", run: () => (now.current.run(), true) },
        { key: "Shift-Enter", run: (v) => (v.dispatch(v.state.replaceSelection("\n")), true) },
      ]),
    );
    const plainEnter = keymap.of([{ key: "Enter", run: () => (now.current.run(), true) }]);
    const v = new EditorView({
      root,
      state: EditorState.create({
        doc: p.value,
        extensions: [
          enter,
          keymap.of([...closeBracketsKeymap, ...completionKeymap]),
          plainEnter,
          keymap.of([...defaultKeymap, ...historyKeymap, ...lintKeymap]),
          history(),
          bracketMatching(),
          closeBrackets(),
          autocompletion(),
          language.asExtension(),
          syntaxHighlighting(colours),
          look,
          EditorView.lineWrapping,
          placeholder("up, or rate(http_requests_total[5m])"),
          EditorView.contentAttributes.of({ "aria-label": p.label }),
          EditorView.updateListener.of((u) => {
            if (u.docChanged) now.current.set(u.state.doc.toString());
          }),
        ],
      }),
    });
    root.replaceChildren(v.dom);
    return () => {
      language.destroy();
      v.destroy();
    };
  }, [p.scope.kind, p.scope.id]);
  return <div ref={host} class="editor" />;
}
