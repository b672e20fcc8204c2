// Calls of the server. Everything goes through request: it proves who calls, on behalf of which tenant,
// and turns every way in which the server refuses into one kind of error.
import { type Key, query, sign } from "./sigv4";

export interface Settings {
  version: string;
  authentication: boolean;
  region: string;
  service: string;
  account: string;
  tokensForWorkspaces: boolean;
  defaultTenant: string;
  prometheus: string;
  alertmanager: string;
}

export type Credentials = { kind: "key"; key: Key } | { kind: "token"; token: string };

/** Scope is whose data a page is about: a workspace, or a tenant that nobody registered as one. */
export interface Scope {
  kind: "workspace" | "tenant";
  id: string;
}

export class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
  /** whether an account has made its calls of this kind for now */
  get throttled(): boolean {
    return this.status === 429 && /Throttling/.test(this.code);
  }
  /** whether the server does not know who calls, so that signing in again may help */
  get unknown(): boolean {
    return this.status === 401 || (this.status === 403 && /UnrecognizedClient|Signature|MissingAuthentication|ExpiredToken|InvalidClientTokenId/.test(this.code));
  }
}

const place = "amphora.session"; // in the storage of the tab, which ends with it

let settings: Settings;
let credentials: Credentials | null = null;
let whenUnknown: (why: string) => void = () => {};

export const server = (): Settings => settings;
export const signedIn = (): Credentials | null => credentials;

export async function start(): Promise<Settings> {
  const r = await fetch("/console/settings.json", { credentials: "omit", cache: "no-store" });
  if (!r.ok) throw new Error(`the server answers ${r.status}`);
  settings = (await r.json()) as Settings;
  try {
    credentials = JSON.parse(sessionStorage.getItem(place) ?? "null") as Credentials | null;
  } catch {
    credentials = null;
  }
  return settings;
}

export function onUnknownCaller(f: (why: string) => void): void {
  whenUnknown = f;
}

export function use(c: Credentials | null, keep = false): void {
  credentials = c;
  try {
    if (c && keep) sessionStorage.setItem(place, JSON.stringify(c));
    else sessionStorage.removeItem(place);
  } catch {
    // A browser may have no storage; then the session ends with the page.
  }
}

export interface Call {
  method?: string;
  params?: Record<string, string | string[] | undefined>;
  body?: string;
  type?: string; // of the body
  accept?: string;
  tenant?: string; // named in the header
  match?: string; // the version that a change is made of
  signal?: AbortSignal | undefined;
  service?: string; // to sign for another than the server's
  redirects?: boolean; // an answer that sends elsewhere is a success
  quiet?: boolean; // an unknown caller is no reason to sign in again
}

/** request makes a call, and makes it again when the server lets an account make no more calls of its kind in this second. */
export async function request(path: string, call: Call = {}): Promise<Response> {
  for (let wait = 250; ; wait *= 2) {
    try {
      return await once(path, call);
    } catch (err) {
      // What is throttled was not begun, so that any call may be made again.
      if (wait > longestWait || !(err instanceof Refusal && err.throttled) || call.signal?.aborted) throw err;
      await new Promise((done) => setTimeout(done, wait * (0.75 + Math.random() / 2)));
    }
  }
}

const longestWait = 2000; // milliseconds: four more attempts within some four seconds

async function once(path: string, call: Call): Promise<Response> {
  const method = call.method ?? "GET";
  const pairs: [string, string][] = [];
  for (const [k, v] of Object.entries(call.params ?? {})) {
    if (v === undefined) continue;
    for (const one of Array.isArray(v) ? v : [v]) pairs.push([k, one]);
  }
  const q = query(pairs);
  const headers: Record<string, string> = { accept: call.accept ?? "application/json" };
  if (call.match) headers["if-match"] = call.match;
  if (call.tenant) headers["x-scope-orgid"] = call.tenant;
  if (call.body !== undefined) headers["content-type"] = call.type ?? "application/json";
  if (credentials?.kind === "token") headers["authorization"] = "Bearer " + credentials.token;
  if (credentials?.kind === "key") {
    const { accept, ...signed } = headers;
    const scope = { region: settings.region, service: call.service ?? settings.service };
    const unsigned = { method, host: location.host, path, query: q, headers: signed, body: call.body ?? "" };
    Object.assign(headers, sign(unsigned, credentials.key, scope, new Date()));
  }
  const init: RequestInit = { method, headers, credentials: "omit", redirect: call.redirects ? "manual" : "error", cache: "no-store" };
  if (call.body !== undefined) init.body = call.body;
  if (call.signal) init.signal = call.signal;
  let r: Response;
  try {
    r = await fetch(path + (q ? "?" + q : ""), init);
  } catch (err) {
    if (call.signal?.aborted) throw err;
    throw new Refusal(0, "", "The server cannot be reached.");
  }
  if (r.ok || (call.redirects && r.type === "opaqueredirect")) return r;
  let refusal = await refusalOf(r);
  if (credentials?.kind === "token" && /MissingAuthenticationToken/.test(refusal.code)) {
    const text = "This part of the server takes signatures only. Sign in with an access key, or ask the operator to set auth.workspaces_accept_other_schemes.";
    refusal = new Refusal(403, "AccessDeniedException", text);
  }
  if (refusal.unknown && settings.authentication && !call.quiet && r.headers.has("x-amzn-requestid")) whenUnknown(refusal.message);
  throw refusal;
}

async function refusalOf(r: Response): Promise<Refusal> {
  const text = (await r.text()).trim();
  let code = r.headers.get("x-amzn-errortype") ?? "";
  try {
    const v = JSON.parse(text) as Record<string, string>;
    code ||= v["__type"] ?? v["errorType"] ?? "";
    return new Refusal(r.status, code, v["message"] ?? v["Message"] ?? v["error"] ?? text);
  } catch {
    const said = /<Message>([^<]*)<\/Message>/.exec(text)?.[1];
    return new Refusal(r.status, code, said ?? (text.length > 0 && text.length < 2000 ? text : `The server answers ${r.status}.`));
  }
}

export async function json<T>(path: string, call: Call = {}): Promise<T> {
  const r = await request(path, call);
  const text = await r.text();
  return (text ? JSON.parse(text) : {}) as T;
}

/** send is json with a body. */
export function send<T>(method: string, path: string, body?: unknown, call: Call = {}): Promise<T> {
  return json<T>(path, body === undefined ? { ...call, method } : { ...call, method, body: JSON.stringify(body) });
}

/**
 * at returns where a call of the Prometheus API ("/api/v1/...") or of the Alertmanager's
 * ("/alertmanager/api/v2/...") of scope goes.
 */
export function at(scope: Scope, path: string): { path: string; tenant?: string } {
  if (settings.defaultTenant && scope.kind === "workspace") return { path: `/workspaces/${encodeURIComponent(scope.id)}${path}` };
  const rest = path.startsWith("/alertmanager/") ? settings.alertmanager + path.slice("/alertmanager".length) : settings.prometheus + path;
  return settings.defaultTenant ? { path: rest } : { path: rest, tenant: scope.id };
}

export interface Answer<T> {
  status: string;
  data: T;
  warnings?: string[];
  infos?: string[];
}

/** prom calls the Prometheus API of a scope. Long queries go into the body. */
export async function prom<T>(scope: Scope, path: string, params: Call["params"] = {}, signal?: AbortSignal, method = "GET"): Promise<Answer<T>> {
  const { path: to, call } = callOf(scope, path, params, signal, method);
  return json<Answer<T>>(to, call);
}

/** promText is prom for an answer that is not JSON. */
export async function promText(scope: Scope, path: string, params: Call["params"], signal: AbortSignal): Promise<string> {
  const { path: to, call } = callOf(scope, path, params, signal, "POST");
  return (await request(to, { ...call, accept: "*/*" })).text();
}

function callOf(scope: Scope, path: string, params: Call["params"] = {}, signal: AbortSignal | undefined, method: string): { path: string; call: Call } {
  const { path: to, tenant } = at(scope, path);
  const call: Call = { method, signal };
  if (tenant) call.tenant = tenant;
  if (method === "POST") {
    const form: [string, string][] = [];
    for (const [k, v] of Object.entries(params)) for (const one of Array.isArray(v) ? v : [v]) if (one !== undefined) form.push([k, one]);
    call.body = query(form);
    call.type = "application/x-www-form-urlencoded";
  } else {
    call.params = params;
  }
  return { path: to, call };
}

/** signIn checks credentials against the server, and uses them from then on if they are good. */
export async function signIn(c: Credentials, keep: boolean): Promise<void> {
  credentials = c;
  try {
    if (c.kind === "key") {
      const call: Call = { method: "POST", body: "Action=GetCallerIdentity&Version=2011-06-15", type: "application/x-www-form-urlencoded", service: "sts", quiet: true };
      await request("/", call);
    } else {
      // A call that needs a caller, and no right if it names no tenant. Who is known is told what is missing.
      await request(settings.prometheus + "/api/v1/format_query", { params: { query: "1" }, quiet: true });
    }
  } catch (err) {
    const fine = c.kind === "token" && err instanceof Refusal && err.status !== 0 && err.status < 500 && (err.message.includes("no org id") || /AccessDenied/.test(err.code));
    if (!fine) {
      credentials = null;
      throw err;
    }
  }
  use(c, keep);
}
