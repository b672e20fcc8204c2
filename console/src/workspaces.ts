// The control plane, as Amazon's clients call it.
import { json, type Refusal, send } from "./api";
import { toBase64 } from "./text";

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

interface RuleFile {
  name: string;
  status: { statusCode: string; statusReason?: string };
  createdAt: number;
  modifiedAt: number;
}

const rulesOf = (id: string): string => one(id) + "/rulegroupsnamespaces";

export async function listRules(id: string, signal?: AbortSignal): Promise<RuleFile[]> {
  const all: RuleFile[] = [];
  let next: string | undefined;
  do {
    const page = await json<{ ruleGroupsNamespaces: RuleFile[]; nextToken?: string }>(rulesOf(id), { params: { maxResults: "100", nextToken: next }, signal });
    all.push(...page.ruleGroupsNamespaces);
    next = page.nextToken;
  } while (next);
  return all;
}

export const describeRules = async (id: string, name: string): Promise<{ data: string }> =>
  (await json<{ ruleGroupsNamespace: { data: string } }>(`${rulesOf(id)}/${encodeURIComponent(name)}`)).ruleGroupsNamespace;

export const putRules = (id: string, name: string, text: string, known: boolean): Promise<void> =>
  known
    ? send("PUT", `${rulesOf(id)}/${encodeURIComponent(name)}`, { data: toBase64(text), clientToken: clientToken() })
    : send("POST", rulesOf(id), { name, data: toBase64(text), clientToken: clientToken() });

export const deleteRules = (id: string, name: string): Promise<void> =>
  json(`${rulesOf(id)}/${encodeURIComponent(name)}`, { method: "DELETE", params: { clientToken: clientToken() } });

const definitionOf = (id: string): string => one(id) + "/alertmanager/definition";

export const describeDefinition = async (id: string, signal?: AbortSignal): Promise<{ data: string }> =>
  (await json<{ alertManagerDefinition: { data: string } }>(definitionOf(id), { signal })).alertManagerDefinition;

export const putDefinition = (id: string, text: string, known: boolean): Promise<void> =>
  send(known ? "PUT" : "POST", definitionOf(id), { data: toBase64(text), clientToken: clientToken() });

export const deleteDefinition = (id: string): Promise<void> => json(definitionOf(id), { method: "DELETE", params: { clientToken: clientToken() } });

export const configuration = async <T>(id: string, signal?: AbortSignal): Promise<T> =>
  (await json<{ workspaceConfiguration: T }>(one(id) + "/configuration", { signal })).workspaceConfiguration;

export const configure = (id: string, change: Record<string, unknown>): Promise<void> => send("PATCH", one(id) + "/configuration", { ...change, clientToken: clientToken() });
