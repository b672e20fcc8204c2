import { useState } from "preact/hooks";
import { json, Refusal } from "../api";
import { useLoad } from "../load";
import { when } from "../text";
import { Badge, Card, Choice, Dialog, Empty, Field, Form, Head, Loading, Notice, Problem, Table, Text } from "../ui";

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
  more?: boolean;
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
  const it = useLoad(
    (signal) =>
      json<Found>("/api/v1/audit", {
        signal,
        params: {
          from: new Date(Date.now() - Number(q.hours) * 3600e3).toISOString(),
          event: q.event || undefined,
          caller: q.caller || undefined,
          errors: q.errors ? "true" : undefined,
          limit: "500",
        },
      }),
    [q],
  );
  const rows = [...(it.data?.Records ?? [])].reverse(); // the newest first
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
          {it.data?.damaged?.length ? (
            <Notice kind="bad" title="Records were changed or are missing">
              {it.data.damaged.join("\n")}
            </Notice>
          ) : null}
          {it.loading && <Loading what="records" />}
          {it.data && rows.length === 0 && <Empty title="No records">Nobody did anything like that in this time.</Empty>}
          {rows.length > 0 && (
            <Card>
              <p class="summary" role="status">
                {rows.length} records{it.data?.more ? ", the oldest of this time; there are newer ones, so narrow the search" : ""}.
              </p>
              <Table
                caption="Audit records"
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
            </Card>
          )}
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
