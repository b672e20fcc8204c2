// The control plane, as Amazon's clients call it.
import { json, type Refusal, send, server, signedIn } from "./api";
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

/** signsOnly says that the calls of a workspace itself are not for who signed in, whose token the server takes elsewhere. */
export const signsOnly = (): boolean => signedIn()?.kind === "token" && !server().tokensForWorkspaces;

export async function list(signal?: AbortSignal): Promise<Workspace[]> {
  const all: Workspace[] = [];
  let next: string | undefined;
  do {
    const page = await json<{ workspaces: Workspace[]; nextToken?: string }>(signedIn()?.kind === "token" ? "/api/v1/workspaces" : "/workspaces", { params: { maxResults: "100", nextToken: next }, signal });
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

export const describeDefinition = async (id: string, signal?: AbortSignal): Promise<{ data: string; status: { statusCode: string; statusReason?: string } }> =>
  (await json<{ alertManagerDefinition: { data: string; status: { statusCode: string; statusReason?: string } } }>(definitionOf(id), { signal })).alertManagerDefinition;

export const putDefinition = (id: string, text: string, known: boolean): Promise<void> =>
  send(known ? "PUT" : "POST", definitionOf(id), { data: toBase64(text), clientToken: clientToken() });

export const deleteDefinition = (id: string): Promise<void> => json(definitionOf(id), { method: "DELETE", params: { clientToken: clientToken() } });

export const configuration = async <T>(id: string, signal?: AbortSignal): Promise<T> =>
  (await json<{ workspaceConfiguration: T }>(one(id) + "/configuration", { signal })).workspaceConfiguration;

export const configure = (id: string, change: Record<string, unknown>): Promise<void> => send("PATCH", one(id) + "/configuration", { ...change, clientToken: clientToken() });

// Where events of a workspace go.

export interface Logging {
  logGroupArn: string;
  status: { statusCode: string; statusReason?: string };
  modifiedAt: number;
}

export interface QueryLogging {
  destinations: { cloudWatchLogs: { logGroupArn: string }; filters: { qspThreshold: number } }[];
  status: { statusCode: string; statusReason?: string };
  modifiedAt: number;
}

/** ifSet is null where the server has nothing of what is asked for. */
async function ifSet<T>(f: Promise<T>): Promise<T | null> {
  try {
    return await f;
  } catch (err) {
    if ((err as Refusal)?.status === 404) return null;
    throw err;
  }
}

const loggingOf = (id: string): string => one(id) + "/logging";

/** logging reads both configurations; the workspace is asked for too, so that one that does not exist is told from one that logs nothing. */
export async function logging(id: string, signal?: AbortSignal): Promise<{ events: Logging | null; queries: QueryLogging | null }> {
  const [, events, queries] = await Promise.all([
    describe(id, signal),
    ifSet(json<{ loggingConfiguration: Logging }>(loggingOf(id), { signal })),
    ifSet(json<{ queryLoggingConfiguration: QueryLogging }>(loggingOf(id) + "/query", { signal })),
  ]);
  return { events: events?.loggingConfiguration ?? null, queries: queries?.queryLoggingConfiguration ?? null };
}

export const logEvents = (id: string, logGroupArn: string, known: boolean): Promise<void> =>
  send(known ? "PUT" : "POST", loggingOf(id), { logGroupArn, clientToken: clientToken() });

export const logQueries = (id: string, logGroupArn: string, qspThreshold: number, known: boolean): Promise<void> =>
  send(known ? "PUT" : "POST", loggingOf(id) + "/query", { destinations: [{ cloudWatchLogs: { logGroupArn }, filters: { qspThreshold } }], clientToken: clientToken() });

export const stopLogging = (id: string, what: "events" | "queries"): Promise<void> =>
  json(loggingOf(id) + (what === "queries" ? "/query" : ""), { method: "DELETE", params: { clientToken: clientToken() } });

// Scrapers, which collect for a workspace.

export interface Scraper {
  scraperId: string;
  alias?: string;
  arn: string;
  status: { statusCode: string };
  statusReason?: string;
  createdAt: number;
  lastModifiedAt: number;
  tags: Record<string, string>;
  destination: { ampConfiguration?: { workspaceArn: string } };
  scrapeConfiguration?: { configurationBlob: string };
}

export async function listScrapers(signal?: AbortSignal): Promise<Scraper[]> {
  const all: Scraper[] = [];
  let next: string | undefined;
  do {
    const page = await json<{ scrapers: Scraper[]; nextToken?: string }>("/scrapers", { params: { maxResults: "100", nextToken: next }, signal });
    all.push(...page.scrapers);
    next = page.nextToken;
  } while (next);
  return all;
}

const scraperOf = (id: string): string => "/scrapers/" + encodeURIComponent(id);

export const describeScraper = async (id: string): Promise<Scraper> => (await json<{ scraper: Scraper }>(scraperOf(id))).scraper;

export const defaultScrape = async (): Promise<string> => (await json<{ configuration: string }>("/scraperconfiguration")).configuration;

/** createScraper makes one whose targets are reached from the process that runs it; the networks that Amazon's service asks for are named for form. */
export const createScraper = (alias: string, workspaceArn: string, text: string): Promise<void> =>
  send("POST", "/scrapers", {
    ...(alias ? { alias } : {}),
    scrapeConfiguration: { configurationBlob: toBase64(text) },
    source: { vpcConfiguration: { securityGroupIds: ["sg-0"], subnetIds: ["subnet-0"] } },
    destination: { ampConfiguration: { workspaceArn } },
    clientToken: clientToken(),
  });

export const updateScraper = (id: string, alias: string, text: string): Promise<void> =>
  send("PUT", scraperOf(id), { ...(alias ? { alias } : {}), scrapeConfiguration: { configurationBlob: toBase64(text) }, clientToken: clientToken() });

export const deleteScraper = (id: string): Promise<void> => json(scraperOf(id), { method: "DELETE", params: { clientToken: clientToken() } });

const parts = ["SERVICE_DISCOVERY", "COLLECTOR", "EXPORTER"];

/** scraperLogs is where a scraper tells what it does; "": nowhere. */
export const scraperLogs = async (id: string): Promise<string> =>
  (await ifSet(json<{ loggingDestination: { cloudWatchLogs: { logGroupArn: string } } }>(scraperOf(id) + "/logging-configuration")))?.loggingDestination.cloudWatchLogs.logGroupArn ?? "";

export const logScraper = (id: string, logGroupArn: string): Promise<void> =>
  logGroupArn
    ? send("PUT", scraperOf(id) + "/logging-configuration", { loggingDestination: { cloudWatchLogs: { logGroupArn } }, scraperComponents: parts.map((type) => ({ type })) })
    : json(scraperOf(id) + "/logging-configuration", { method: "DELETE", params: { clientToken: clientToken() } });
