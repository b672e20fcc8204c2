// The parts that pages are made of. Each is a plain element of HTML that keyboards and screen readers
// know, with a class.
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { go, hasMoved } from "./route";

type Children = { children?: ComponentChildren };

export function Link(p: { to: string; class?: string; current?: boolean } & Children) {
  const follow = (e: MouseEvent) => {
    if (e.button !== 0 || e.metaKey || e.ctrlKey || e.shiftKey || e.altKey) return;
    e.preventDefault();
    go(p.to);
  };
  return (
    <a href={p.to} class={p.class} aria-current={p.current ? "page" : undefined} onClick={follow}>
      {p.children}
    </a>
  );
}

export function Button(p: JSX.IntrinsicElements["button"] & { look?: "main" | "plain" | "danger" | "quiet"; busy?: boolean }) {
  const { look = "plain", busy, children, disabled, ...rest } = p;
  return (
    <button type="button" {...rest} class={"button " + look} disabled={disabled || busy} aria-busy={busy ? "true" : undefined}>
      {children}
    </button>
  );
}

/** Field is a control with its label, and with what explains it or what is wrong with it. */
export function Field(p: { label: string; hint?: ComponentChildren; error?: string | undefined; children: (ids: { id: string; "aria-describedby": string | undefined; "aria-invalid": "true" | undefined }) => ComponentChildren }) {
  const id = useId();
  const about = p.error || p.hint ? id + "-about" : undefined;
  return (
    <div class="field">
      <label for={id}>{p.label}</label>
      {p.children({ id, "aria-describedby": about, "aria-invalid": p.error ? "true" : undefined })}
      {about && (
        <p id={about} class={p.error ? "hint bad" : "hint"}>
          {p.error ?? p.hint}
        </p>
      )}
    </div>
  );
}

export interface TextProps {
  label: string;
  value: string;
  set: (v: string) => void;
  hint?: ComponentChildren;
  error?: string | undefined;
  type?: "text" | "search" | "password" | "number" | "datetime-local";
  class?: string;
  placeholder?: string;
  autocomplete?: "off" | "username";
  maxLength?: number;
  step?: string;
}

export function Text(p: TextProps) {
  const { label, value, set, hint, error, type = "text", autocomplete = "off", ...rest } = p;
  return (
    <Field label={label} hint={hint} error={error}>
      {(ids) => <input type={type as "text"} autocomplete={autocomplete} spellcheck={false} {...rest} {...ids} value={value} onInput={(e) => set(e.currentTarget.value)} />}
    </Field>
  );
}

export function Area(p: { label: string; value: string; set: (v: string) => void; rows?: number; hint?: ComponentChildren; error?: string | undefined; readOnly?: boolean }) {
  return (
    <Field label={p.label} hint={p.hint} error={p.error}>
      {(ids) => (
        <textarea {...ids} class="code" rows={p.rows ?? 12} spellcheck={false} readOnly={p.readOnly ?? false} value={p.value} onInput={(e) => p.set(e.currentTarget.value)} />
      )}
    </Field>
  );
}

export function Choice(p: { label: string; value: string; set: (v: string) => void; options: (string | [string, string])[]; hint?: ComponentChildren }) {
  return (
    <Field label={p.label} hint={p.hint}>
      {(ids) => (
        <select {...ids} value={p.value} onChange={(e) => p.set(e.currentTarget.value)}>
          {p.options.map((o) => {
            const [v, text] = typeof o === "string" ? [o, o] : o;
            return (
              <option key={v} value={v}>
                {text}
              </option>
            );
          })}
        </select>
      )}
    </Field>
  );
}

/** Notice says what happened. Screen readers tell it, an error at once. */
export function Notice(p: { kind: "bad" | "good" | "info" | "warn"; title?: string | undefined } & Children) {
  const mark = { bad: "!", good: "✓", info: "i", warn: "!" }[p.kind];
  return (
    <div class={"notice " + p.kind} role={p.kind === "bad" ? "alert" : "status"}>
      <span class="mark" aria-hidden="true">
        {mark}
      </span>
      <div>
        {p.title && <strong>{p.title}</strong>}
        {p.children && <div>{p.children}</div>}
      </div>
    </div>
  );
}

export function Problem(p: { error: unknown; what?: string }) {
  if (!p.error) return null;
  return (
    <Notice kind="bad" title={p.what}>
      {p.error instanceof Error ? p.error.message : String(p.error)}
    </Notice>
  );
}

/** Loading is shown after a moment only, so that fast answers do not flicker. */
export function Loading(p: { what?: string }) {
  return (
    <p class="loading" role="status">
      <span class="spinner" aria-hidden="true" /> Loading{p.what ? " " + p.what : ""}…
    </p>
  );
}

export function Empty(p: { title: string; action?: ComponentChildren } & Children) {
  return (
    <div class="empty">
      <p class="empty-title">{p.title}</p>
      {p.children && <p>{p.children}</p>}
      {p.action}
    </div>
  );
}

export function Badge(p: { kind?: "good" | "bad" | "warn" | "none" } & Children) {
  return <span class={"badge " + (p.kind ?? "none")}>{p.children}</span>;
}

export function Card(p: { title?: ComponentChildren; actions?: ComponentChildren; class?: string } & Children) {
  return (
    <section class={"card " + (p.class ?? "")}>
      {p.title && (
        <header>
          <h2>{p.title}</h2>
          {p.actions && <div class="actions">{p.actions}</div>}
        </header>
      )}
      {p.children}
    </section>
  );
}

/** Head is the heading of a page. Focus goes there when another page leads to it; one that is loaded is read from its beginning. */
export function Head(p: { title: string; sub?: ComponentChildren; actions?: ComponentChildren }) {
  const h = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    document.title = p.title + " · Amphora";
    if (hasMoved()) h.current?.focus();
  }, [p.title]);
  return (
    <div class="head">
      <div>
        <h1 ref={h} tabIndex={-1}>
          {p.title}
        </h1>
        {p.sub && <div class="sub">{p.sub}</div>}
      </div>
      {p.actions && <div class="actions">{p.actions}</div>}
    </div>
  );
}

export interface Column<T> {
  name: string;
  show: (row: T) => ComponentChildren;
  number?: boolean;
  /** key to sort by */
  by?: (row: T) => string | number;
  hide?: boolean; // the name is for screen readers only
}

/** Table is sortable by its headings, and scrolls sideways by itself on a narrow screen. */
export function Table<T>(p: { caption: string; rows: T[]; columns: Column<T>[]; id: (row: T) => string; most?: number }) {
  const [sort, setSort] = useState<{ name: string; up: boolean } | null>(null);
  const [all, setAll] = useState(false);
  const by = sort && p.columns.find((c) => c.name === sort.name)?.by;
  let rows = p.rows;
  if (by) {
    rows = [...rows].sort((a, b) => {
      const x = by(a);
      const y = by(b);
      return (x < y ? -1 : x > y ? 1 : 0) * (sort.up ? 1 : -1);
    });
  }
  const most = p.most ?? 200;
  const shown = all ? rows : rows.slice(0, most);
  return (
    <div class="scroll" role="region" aria-label={p.caption} tabIndex={0}>
      <table>
        <caption class="hidden">{p.caption}</caption>
        <thead>
          <tr>
            {p.columns.map((c) => {
              const on = sort?.name === c.name;
              return (
                <th key={c.name} scope="col" class={c.number ? "n" : undefined} aria-sort={on ? (sort.up ? "ascending" : "descending") : undefined}>
                  {c.by ? (
                    <button type="button" class="sort" onClick={() => setSort({ name: c.name, up: on ? !sort.up : !c.number })}>
                      {c.name}
                      <span aria-hidden="true">{on ? (sort.up ? " ↑" : " ↓") : ""}</span>
                    </button>
                  ) : (
                    <span class={c.hide ? "hidden" : undefined}>{c.name}</span>
                  )}
                </th>
              );
            })}
          </tr>
        </thead>
        <tbody>
          {shown.map((row) => (
            <tr key={p.id(row)}>
              {p.columns.map((c) => (
                <td key={c.name} class={c.number ? "n" : undefined}>
                  {c.show(row)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
      {rows.length > shown.length && (
        <p class="more">
          {shown.length} of {rows.length} are shown. <Button look="quiet" onClick={() => setAll(true)}>Show all</Button>
        </p>
      )}
    </div>
  );
}

/** Dialog is modal: the browser keeps the focus inside and Escape closes it. */
export function Dialog(p: { title: string; close: () => void; wide?: boolean } & Children) {
  const d = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    const el = d.current;
    const before = document.activeElement;
    el?.showModal();
    return () => {
      el?.close();
      if (before instanceof HTMLElement && before.isConnected) before.focus();
    };
  }, []);
  return (
    <dialog
      ref={d}
      class={p.wide ? "wide" : undefined}
      aria-labelledby={id}
      onCancel={(e) => {
        e.preventDefault();
        p.close();
      }}
    >
      <header>
        <h2 id={id}>{p.title}</h2>
        <button type="button" class="close" aria-label="Close" onClick={p.close}>
          ×
        </button>
      </header>
      <div class="dialog-body">{p.children}</div>
    </dialog>
  );
}

/** Form submits once at a time and shows why it could not. */
export function Form(p: { submit: () => Promise<void> | void; label: string; cancel?: (() => void) | undefined; danger?: boolean; disabled?: boolean; small?: boolean } & Children) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const onSubmit = async (e: Event) => {
    e.preventDefault();
    if (busy || p.disabled) return;
    setBusy(true);
    setError(null);
    try {
      await p.submit();
    } catch (err) {
      setError(err);
    } finally {
      setBusy(false);
    }
  };
  return (
    <form onSubmit={onSubmit} noValidate class={p.small ? "line" : "stack"}>
      {p.children}
      <Problem error={error} />
      <div class="buttons">
        <Button type="submit" look={p.danger ? "danger" : "main"} busy={busy} disabled={p.disabled}>
          {p.label}
        </Button>
        {p.cancel && <Button onClick={p.cancel}>Cancel</Button>}
      </div>
    </form>
  );
}

/** Confirm asks before something is gone; with typed, the name must be typed. */
export function Confirm(p: { title: string; label: string; typed?: string; close: () => void; act: () => Promise<void> } & Children) {
  const [text, setText] = useState("");
  return (
    <Dialog title={p.title} close={p.close}>
      <Form
        label={p.label}
        danger
        cancel={p.close}
        disabled={p.typed !== undefined && text !== p.typed}
        submit={async () => {
          await p.act();
          p.close();
        }}
      >
        {p.children}
        {p.typed !== undefined && <Text label={`Type ${p.typed} to confirm`} value={text} set={setText} class="code" />}
      </Form>
    </Dialog>
  );
}

export function Copy(p: { text: string; what: string }) {
  const [done, setDone] = useState(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(p.text);
    } catch {
      // Pages without TLS have no clipboard of their own.
      const area = document.createElement("textarea");
      area.value = p.text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    setDone(true);
    setTimeout(() => setDone(false), 2000);
  };
  return (
    <Button look="quiet" onClick={copy} aria-label={"Copy " + p.what}>
      <span aria-live="polite">{done ? "Copied" : "Copy"}</span>
    </Button>
  );
}

export function Snippet(p: { title: string; text: string }) {
  return (
    <div class="snippet">
      <header>
        <h3>{p.title}</h3>
        <Copy text={p.text} what={p.title} />
      </header>
      <pre tabIndex={0} aria-label={p.title}>
        <code>{p.text}</code>
      </pre>
    </div>
  );
}

/** Tabs follow the pattern of ARIA: arrows move, Tab leaves. */
export function Tabs(p: { label: string; tabs: [string, string][]; value: string; set: (v: string) => void } & Children) {
  const id = useId();
  const move = (e: KeyboardEvent) => {
    const i = p.tabs.findIndex(([v]) => v === p.value);
    const step = e.key === "ArrowRight" ? 1 : e.key === "ArrowLeft" ? -1 : 0;
    if (!step) return;
    e.preventDefault();
    const next = p.tabs[(i + step + p.tabs.length) % p.tabs.length];
    if (!next) return;
    p.set(next[0]);
    document.getElementById(id + next[0])?.focus();
  };
  return (
    <div class="tabbed">
      <div role="tablist" aria-label={p.label} class="tabs" onKeyDown={move}>
        {p.tabs.map(([v, text]) => (
          <button key={v} id={id + v} type="button" role="tab" aria-selected={v === p.value} aria-controls={id + "panel"} tabIndex={v === p.value ? 0 : -1} onClick={() => p.set(v)}>
            {text}
          </button>
        ))}
      </div>
      <div role="tabpanel" id={id + "panel"} aria-labelledby={id + p.value}>
        {p.children}
      </div>
    </div>
  );
}

export function Facts(p: { rows: [string, ComponentChildren][] }) {
  return (
    <dl class="facts">
      {p.rows.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

/** Upload reads a file of text. */
export function Upload(p: { label: string; accept: string; set: (text: string, name: string) => void }) {
  const [error, setError] = useState("");
  const read = async (e: { currentTarget: HTMLInputElement }) => {
    const file = e.currentTarget.files?.[0];
    if (!file) return;
    setError("");
    if (file.size > 1 << 20) {
      setError("The file is larger than 1 MiB.");
      return;
    }
    p.set(await file.text(), file.name);
  };
  return (
    <Field label={p.label} error={error || undefined}>
      {(ids) => <input type="file" {...ids} accept={p.accept} onChange={(e) => void read(e)} />}
    </Field>
  );
}
