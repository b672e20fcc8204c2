// The control plane, as Amazon's clients call it.
import { json, type Refusal, send } from "./api";

export interface Workspace {
  workspaceId: string;
  alias?: string;
  arn: string;
  status: { statusCode: string };
  createdAt: number;
  tags: Record<string, string>;
  prometheusEndpoint?: string;
}

const one = (id: string): string => "/workspaces/" + encodeURIComponent(id);

export async function list(signal?: AbortSignal): Promise<Workspace[]> {
  const all: Workspace[] = [];
  let next: string | undefined;
  do {
    const page = await json<{ workspaces: Workspace[]; nextToken?: string }>("/workspaces", { params: { maxResults: "100", nextToken: next }, signal });
    all.push(...page.workspaces);
    next = page.nextToken;
  } while (next);
  return all;
}

export const describe = async (id: string, signal?: AbortSignal): Promise<Workspace> => (await json<{ workspace: Workspace }>(one(id), { signal })).workspace;

export const create = (alias: string, tags: Record<string, string>): Promise<{ workspaceId: string }> =>
  send("POST", "/workspaces", { ...(alias ? { alias } : {}), tags, clientToken: clientToken() });

export const rename = (id: string, alias: string): Promise<void> => send("POST", one(id) + "/alias", { ...(alias ? { alias } : {}), clientToken: clientToken() });

export const remove = (id: string): Promise<void> => json(one(id), { method: "DELETE", params: { clientToken: clientToken() } });

/** retag makes the tags of a resource those of next. */
export async function retag(arn: string, before: Record<string, string>, next: Record<string, string>): Promise<void> {
  const at = "/tags/" + encodeURIComponent(arn);
  const gone = Object.keys(before).filter((k) => !(k in next));
  const set = Object.fromEntries(Object.entries(next).filter(([k, v]) => before[k] !== v));
  if (Object.keys(set).length) await send("POST", at, { tags: set });
  if (gone.length) await json(at, { method: "DELETE", params: { tagKeys: gone } });
}

/** clientToken makes a call that is sent twice be done once. */
export function clientToken(): string {
  const raw = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(raw, (b) => b.toString(16).padStart(2, "0")).join("");
}

/** isAbsent says whether err means that the server has no control plane. */
export const isAbsent = (err: unknown): boolean => (err as Refusal)?.status === 404;
