import { useState } from "preact/hooks";
import { server, type Scope } from "../api";
import { useLoad } from "../load";
import { count, when } from "../text";
import { Button, Card, Confirm, Dialog, Empty, Facts, Form, Head, Loading, Problem, Text } from "../ui";
import { type Logging as Events, logEvents, logging, logQueries, type QueryLogging, stopLogging } from "../workspaces";
import { State } from "./workspaces";

/** group makes the ARN that the API asks for of a plain name. */
export const group = (text: string): string => (text.startsWith("arn:") ? text : `arn:aws:logs:${server().region}:${server().account}:log-group:${text.trim()}:*`);

export function Logging(p: { scope: Scope }) {
  const id = p.scope.id;
  const it = useLoad((signal) => (p.scope.kind === "workspace" ? logging(id, signal) : Promise.resolve(null)), [id]);
  const [dialog, setDialog] = useState<"" | "events" | "queries" | "no events" | "no queries">("");
  const close = () => setDialog("");
  const done = async () => {
    close();
    await it.reload();
  };
  const head = <Head title="Logging" sub="What the log of the server tells about this workspace. Its log group is an attribute of each line, by which collectors of logs tell workspaces apart." />;
  if (p.scope.kind === "tenant") {
    return (
      <>
        {head}
        <Empty title="Tenants that are no workspaces have no logging configuration." />
      </>
    );
  }
  const actions = (what: "events" | "queries", set: boolean) => (
    <>
      <Button aria-label={`${set ? "Change" : "Set up"} logging of ${what}`} onClick={() => setDialog(what)}>
        {set ? "Change" : "Set up"}
      </Button>
      {set && (
        <Button aria-label={`Stop logging ${what}`} onClick={() => setDialog(`no ${what}`)}>
          Stop
        </Button>
      )}
    </>
  );
  const events = it.data?.events ?? null;
  const queries = it.data?.queries ?? null;
  return (
    <>
      {head}
      <Problem error={it.error} what="The logging configuration cannot be shown" />
      {it.loading && <Loading what="the logging configuration" />}
      {it.data && (
        <>
          <Card title="Rules and alerts" actions={actions("events", events !== null)}>
            {events ? <Told arn={events.logGroupArn} it={events} /> : <p class="faint">Warnings and errors of rules and alerts are not marked with a log group.</p>}
          </Card>
          <Card title="Heavy queries" actions={actions("queries", queries !== null)}>
            {queries ? (
              <Told arn={queries.destinations[0]?.cloudWatchLogs.logGroupArn ?? ""} it={queries} more={["From", `${count(queries.destinations[0]?.filters.qspThreshold ?? 0)} samples processed`]} />
            ) : (
              <p class="faint">Queries are not logged.</p>
            )}
          </Card>
        </>
      )}
      {dialog === "events" && <EventsDialog id={id} before={events} close={close} done={done} />}
      {dialog === "queries" && <QueriesDialog id={id} before={queries} close={close} done={done} />}
      {(dialog === "no events" || dialog === "no queries") && (
        <Confirm title="Stop logging" label="Stop logging" close={close} act={async () => {
            await stopLogging(id, dialog === "no events" ? "events" : "queries");
            await done();
          }}>
          <p>{dialog === "no events" ? "Events of rules and alerts no longer have the log group." : "Queries are no longer logged."} What was written stays.</p>
        </Confirm>
      )}
    </>
  );
}

function Told(p: { arn: string; it: Events | QueryLogging; more?: [string, string] }) {
  return (
    <Facts
      rows={[
        ["Log group", <code>{p.arn}</code>],
        ...(p.more ? [p.more] : []),
        ["State", <><State code={p.it.status.statusCode} /> {p.it.status.statusReason}</>],
        ["Changed", when(p.it.modifiedAt)],
      ]}
    />
  );
}

const hint = "A name, as /amphora/checkout, or an ARN of CloudWatch Logs.";

function EventsDialog(p: { id: string; before: Events | null; close: () => void; done: () => Promise<void> }) {
  const [arn, setArn] = useState(p.before?.logGroupArn ?? "");
  return (
    <Dialog title="Logging of rules and alerts" close={p.close}>
      <Form label="Save" cancel={p.close} disabled={!arn.trim()} submit={async () => {
          await logEvents(p.id, group(arn), p.before !== null);
          await p.done();
        }}>
        <Text label="Log group" value={arn} set={setArn} class="code" hint={hint} />
      </Form>
    </Dialog>
  );
}

function QueriesDialog(p: { id: string; before: QueryLogging | null; close: () => void; done: () => Promise<void> }) {
  const first = p.before?.destinations[0];
  const [arn, setArn] = useState(first?.cloudWatchLogs.logGroupArn ?? "");
  const [from, setFrom] = useState(String(first?.filters.qspThreshold ?? 1000000));
  return (
    <Dialog title="Logging of heavy queries" close={p.close}>
      <Form label="Save" cancel={p.close} disabled={!arn.trim() || !/^\d+$/.test(from)} submit={async () => {
          await logQueries(p.id, group(arn), Number(from), p.before !== null);
          await p.done();
        }}>
        <Text label="Log group" value={arn} set={setArn} class="code" hint={hint} />
        <Text label="Samples processed" type="number" value={from} set={setFrom} hint="Queries that process at least as many are logged. 0: all." />
      </Form>
    </Dialog>
  );
}
