// Which workspace the pages below are of, and the way to another one's page of the same kind.
import { useEffect, useId, useRef, useState } from "preact/hooks";
import type { Scope } from "./api";
import { useLoad } from "./load";
import { href } from "./route";
import { Link, Loading, Problem, Text } from "./ui";
import { describe, list, type Workspace } from "./workspaces";

const name = (w: Workspace): string => w.alias || w.workspaceId;

/** most is how many workspaces are shown at once; who has more finds them by a part of their name. */
const most = 50;

export function Switcher(p: { scope: Scope; page: string }) {
  const { kind, id } = p.scope;
  const its = useLoad(async (signal) => (kind === "workspace" ? ((await describe(id, signal)).alias ?? id) : id), [kind, id]);
  const [open, setOpen] = useState(false);
  const panel = useId();
  const button = useRef<HTMLButtonElement>(null);
  useEffect(() => setOpen(false), [kind, id, p.page]);
  const title = its.data ?? id;
  if (kind !== "workspace") {
    return (
      <p class="nav-scope" title={id}>
        {title}
      </p>
    );
  }
  const leave = (e: KeyboardEvent) => {
    if (!open || e.key !== "Escape") return;
    setOpen(false);
    button.current?.focus();
  };
  return (
    <div class="switcher" onKeyDown={leave}>
      <button ref={button} type="button" title={id} aria-expanded={open} aria-controls={open ? panel : undefined} aria-label={`${title}: switch workspace`} onClick={() => setOpen(!open)}>
        <span>{title}</span>
        <span aria-hidden="true">{open ? "▴" : "▾"}</span>
      </button>
      {open && <Others id={panel} scope={p.scope} page={p.page} />}
    </div>
  );
}

function Others(p: { id: string; scope: Scope; page: string }) {
  const all = useLoad(list, []);
  const [find, setFind] = useState("");
  const rows = (all.data ?? []).filter((w) => (name(w) + " " + w.workspaceId).toLowerCase().includes(find.toLowerCase()));
  return (
    <div id={p.id} class="switcher-list">
      {all.loading && <Loading what="workspaces" />}
      <Problem error={all.error} what="Workspaces cannot be listed" />
      {(all.data?.length ?? 0) > 7 && <Text label="Find a workspace" type="search" value={find} set={setFind} />}
      <ul aria-label="Workspaces">
        {rows.slice(0, most).map((w) => (
          <li key={w.workspaceId}>
            <Link to={href({ kind: "workspace", id: w.workspaceId }, p.page)} current={w.workspaceId === p.scope.id}>
              {name(w)}
            </Link>
          </li>
        ))}
      </ul>
      {all.data && rows.length === 0 && <p class="faint">None is named so.</p>}
      {rows.length > most && <p class="faint">{rows.length - most} more; name a part to find them.</p>}
      <p class="hidden" aria-live="polite">
        {all.data ? `${rows.length} workspaces` : ""}
      </p>
    </div>
  );
}
