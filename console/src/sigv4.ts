// Signatures as clients of AWS make them (Signature Version 4). The secret never leaves the browser.
// The hashes are in JavaScript because browsers lend their own only to pages that come over TLS or
// from the same machine.
import { hmac } from "@noble/hashes/hmac.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex, utf8ToBytes } from "@noble/hashes/utils.js";

export interface Key {
  id: string;
  secret: string;
  session?: string | undefined;
}

/** escape encodes text so that only unreserved characters stay, as signatures want it. */
export function escape(text: string): string {
  return encodeURIComponent(text).replace(/[!'()*]/g, (c) => "%" + c.charCodeAt(0).toString(16).toUpperCase());
}

/** query renders pairs in the order in which they are signed. */
export function query(pairs: [string, string][]): string {
  return pairs
    .map(([k, v]) => [escape(k), escape(v)] as const)
    .sort(([a, x], [b, y]) => (a < b ? -1 : a > b ? 1 : x < y ? -1 : x > y ? 1 : 0))
    .map(([k, v]) => k + "=" + v)
    .join("&");
}

function mac(key: Uint8Array, text: string): Uint8Array {
  return hmac(sha256, key, utf8ToBytes(text));
}

export interface Unsigned {
  method: string;
  host: string;
  path: string; // escaped
  query: string; // as query() renders it
  headers: Record<string, string>; // to be signed, too; names in lower case
  body: string;
}

/** sign returns the headers that r needs beside its own. */
export function sign(r: Unsigned, key: Key, scope: { region: string; service: string }, now: Date): Record<string, string> {
  const stamp = now.toISOString().replace(/[-:]|\.\d{3}/g, "");
  const day = stamp.slice(0, 8);
  const more: Record<string, string> = { "x-amz-date": stamp };
  if (key.session) more["x-amz-security-token"] = key.session;
  const all: Record<string, string> = { ...r.headers, ...more, host: r.host };
  const names = Object.keys(all).sort();
  const canonical = [
    r.method,
    r.path.split("/").map(escape).join("/"),
    r.query,
    ...names.map((n) => n + ":" + (all[n] ?? "").trim().replace(/ +/g, " ")),
    "",
    names.join(";"),
    bytesToHex(sha256(utf8ToBytes(r.body))),
  ].join("\n");
  const place = [day, scope.region, scope.service, "aws4_request"].join("/");
  const text = ["AWS4-HMAC-SHA256", stamp, place, bytesToHex(sha256(utf8ToBytes(canonical)))].join("\n");
  let k: Uint8Array = utf8ToBytes("AWS4" + key.secret);
  for (const part of [day, scope.region, scope.service, "aws4_request"]) k = mac(k, part);
  const signature = bytesToHex(mac(k, text));
  more["authorization"] = `AWS4-HMAC-SHA256 Credential=${key.id}/${place}, SignedHeaders=${names.join(";")}, Signature=${signature}`;
  return more;
}
