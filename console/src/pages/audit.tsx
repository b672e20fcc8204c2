import { useMemo, useState } from "preact/hooks";
import { json, Refusal } from "../api";
import { usePages } from "../load";
import { when } from "../text";
import { Badge, Button, Card, Choice, Dialog, Empty, Field, Form, Head, Loading, Notice, Problem, Table, Text } from "../ui";

interface Entry {
  eventID: string;
  eventTime: string;
  eventName: string;
  eventSource: string;
  sourceIPAddress: string;
  userAgent: string;
  errorCode?: string;
  errorMessage?: string;
  readOnly: boolean;
  userIdentity: { arn?: string; userName?: string; accessKeyId?: string; accountId?: string };
}

interface Found {
  Records: Entry[] | null;
  nextToken?: string;
  damaged?: string[];
}

interface Question {
  hours: string;
  event: string;
  caller: string;
  errors: boolean;
}

const who = (r: Entry): string => r.userIdentity.userName ?? r.userIdentity.arn?.split(":").pop() ?? r.userIdentity.accessKeyId ?? "unknown";

export function Audit() {
  const [q, setQ] = useState<Question>({ hours: "24", event: "", caller: "", errors: false });
  const [event, setEvent] = useState("");
  const [caller, setCaller] = useState("");
  const [shown, setShown] = useState<Entry | null>(null);
  const [damaged, setDamaged] = useState<string[]>([]);
  const span = useMemo(() => ({ from: new Date(Date.now() - Number(q.hours) * 3600e3).toISOString(), to: new Date().toISOString() }), [q]);
  const it = usePages<Entry>(
    async (token, signal) => {
      const found = await json<Found>("/api/v1/audit", {
        signal,
        params: { ...span, event: q.event || undefined, caller: q.caller || undefined, errors: q.errors ? "true" : undefined, limit: "200", next_token: token },
      });
      setDamaged((before) => [...new Set([...(token ? before : []), ...(found.damaged ?? [])])]);
      return { rows: found.Records ?? [], token: found.nextToken };
    },
    [q],
  );
  const rows = it.rows;
  const none = it.error instanceof Refusal && it.error.status === 404;
  return (
    <>
      <Head title="Audit" sub="Who read or changed the configuration, and what was refused." />
      {none ? (
        <Empty title="No audit log here">
          It is kept when <code>auth.enabled</code> and <code>audit.enabled</code> are set.
        </Empty>
      ) : (
        <>
          <Card>
            <Form small label="Search" submit={() => setQ({ ...q, event: event.trim(), caller: caller.trim() })}>
              <Choice
                label="From"
                value={q.hours}
                set={(hours) => setQ({ ...q, hours })}
                options={[
                  ["1", "The last hour"],
                  ["24", "The last day"],
                  ["168", "The last week"],
                  ["720", "The last 30 days"],
                ]}
              />
              <Text label="Event" value={event} set={setEvent} placeholder="any" class="code" />
              <Text label="Caller" value={caller} set={setCaller} placeholder="anybody" class="code" />
              <Field label="Refused or failed only">{(ids) => <input type="checkbox" {...ids} checked={q.errors} onChange={(e) => setQ({ ...q, errors: e.currentTarget.checked })} />}</Field>
            </Form>
          </Card>
          <Problem error={it.error} what="The audit log cannot be read" />
          {damaged.length > 0 && (
            <Notice kind="bad" title="Records were changed or are missing">
              {damaged.join("\n")}
            </Notice>
          )}
          {!it.loading && !it.error && rows.length === 0 && <Empty title="No records">Nobody did anything like that in this time.</Empty>}
          {rows.length > 0 && (
            <Card>
              <p class="summary" role="status">
                {rows.length} records{it.more ? ", the newest of this time" : ""}.
              </p>
              <Table
                caption="Audit records"
                most={rows.length}
                rows={rows}
                id={(r) => r.eventID}
                columns={[
                  { name: "Time", by: (r) => r.eventTime, show: (r) => <span class="nowrap">{when(r.eventTime)}</span> },
                  {
                    name: "Event",
                    by: (r) => r.eventName,
                    show: (r) => (
                      <button type="button" class="legend" onClick={() => setShown(r)}>
                        <span class="link">{r.eventName}</span>
                      </button>
                    ),
                  },
                  { name: "Caller", by: who, show: who },
                  { name: "From", by: (r) => r.sourceIPAddress, show: (r) => r.sourceIPAddress },
                  { name: "Result", by: (r) => r.errorCode ?? "", show: (r) => (r.errorCode ? <Badge kind="bad">{r.errorCode}</Badge> : <Badge kind="good">ok</Badge>) },
                ]}
              />
              {it.more && (
                <Button busy={it.loading} onClick={() => void it.next()}>
                  Show older records
                </Button>
              )}
            </Card>
          )}
          {it.loading && <Loading what="records" />}
        </>
      )}
      {shown && (
        <Dialog wide title={shown.eventName} close={() => setShown(null)}>
          <pre class="block" tabIndex={0} aria-label="The record">
            <code>{JSON.stringify(shown, null, 2)}</code>
          </pre>
        </Dialog>
      )}
    </>
  );
}
