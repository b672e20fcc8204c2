// Addresses of pages: /console/<page> and /console/<w|t>/<id>/<page>.
import { useEffect, useState } from "preact/hooks";
import type { Scope } from "./api";

export interface Route {
  scope: Scope | null;
  page: string;
  rest: string[];
  params: URLSearchParams;
}

const base = "/console/";

export function read(): Route {
  const parts = location.pathname.slice(base.length).split("/").filter(Boolean).map(decodeURIComponent);
  const params = new URLSearchParams(location.search);
  const kind = parts[0];
  if ((kind === "w" || kind === "t") && parts[1]) {
    return { scope: { kind: kind === "w" ? "workspace" : "tenant", id: parts[1] }, page: parts[2] ?? "overview", rest: parts.slice(3), params };
  }
  return { scope: null, page: parts[0] ?? "workspaces", rest: parts.slice(1), params };
}

export function href(scope: Scope | null, page: string, params?: Record<string, string>): string {
  const path = scope ? `${scope.kind === "workspace" ? "w" : "t"}/${encodeURIComponent(scope.id)}/${page}` : page;
  const q = params ? "?" + new URLSearchParams(params).toString() : "";
  return base + path + q;
}

const listeners = new Set<() => void>();
let moved = false;

/** hasMoved says whether this page was reached from another one of the console, and not by loading it. */
export const hasMoved = (): boolean => moved;

export function go(to: string, replace = false): void {
  if (replace) history.replaceState(null, "", to);
  else history.pushState(null, "", to);
  moved ||= !replace;
  for (const f of listeners) f();
}

export function useRoute(): Route {
  const [route, set] = useState(read);
  useEffect(() => {
    const change = () => set(read());
    listeners.add(change);
    addEventListener("popstate", change);
    return () => {
      listeners.delete(change);
      removeEventListener("popstate", change);
    };
  }, []);
  return route;
}
