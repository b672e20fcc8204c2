import { useState } from "preact/hooks";
import { useLoad } from "../load";
import { href } from "../route";
import { fromBase64, when } from "../text";
import { Area, Button, Card, Choice, Confirm, Dialog, Empty, Form, Head, Link, Loading, Problem, Table, Text, Upload } from "../ui";
import { createScraper, defaultScrape, deleteScraper, describeScraper, isAbsent, list, listScrapers, logScraper, type Scraper, scraperLogs, updateScraper, type Workspace } from "../workspaces";
import { group } from "./logging";
import { name, State } from "./workspaces";

const named = (s: Scraper): string => s.alias || s.scraperId;
const into = (s: Scraper): string => s.destination.ampConfiguration?.workspaceArn.split("/").pop() ?? "";

type Open = { kind: "new"; text: string; workspaces: Workspace[] } | { kind: "edit"; it: Scraper; text: string } | { kind: "logs"; it: Scraper; arn: string } | { kind: "delete"; it: Scraper };

export function Scrapers() {
  const all = useLoad(listScrapers, [], 10000);
  const [dialog, setDialog] = useState<Open | null>(null);
  const [error, setError] = useState<unknown>(null);
  const guarded = (f: () => Promise<void>) => () => {
    setError(null);
    f().catch(setError);
  };
  const close = () => setDialog(null);
  const done = async () => {
    close();
    await all.reload();
  };
  const absent = isAbsent(all.error);
  const make = (
    <Button
      look="main"
      onClick={guarded(async () => {
        const [text, workspaces] = await Promise.all([defaultScrape(), list()]);
        setDialog({ kind: "new", text: fromBase64(text), workspaces: workspaces.filter((w) => w.status.statusCode === "ACTIVE") });
      })}
    >
      Create scraper
    </Button>
  );
  return (
    <>
      <Head title="Scrapers" sub="A scraper discovers and collects as a Prometheus does, from where the server runs, and writes into a workspace." actions={absent ? null : make} />
      <Problem error={error} what="Scrapers" />
      {absent ? <Empty title="This server has no control plane." /> : <Problem error={all.error} what="Scrapers cannot be listed" />}
      {all.loading && <Loading what="scrapers" />}
      {all.data && all.data.length === 0 && <Empty title="No scrapers yet">Where no Prometheus runs, one of them collects for you.</Empty>}
      {all.data && all.data.length > 0 && (
        <Card>
          <Table<Scraper>
            caption="Scrapers"
            rows={all.data}
            id={(s) => s.scraperId}
            columns={[
              { name: "Scraper", by: named, show: (s) => <><strong>{named(s)}</strong> {s.alias && <code class="faint">{s.scraperId}</code>}</> },
              { name: "State", by: (s) => s.status.statusCode, show: (s) => <><State code={s.status.statusCode} /> {s.statusReason && <p class="hint bad">{s.statusReason}</p>}</> },
              { name: "Workspace", by: into, show: (s) => <Link to={href({ kind: "workspace", id: into(s) }, "overview")}>{into(s)}</Link> },
              { name: "Changed", by: (s) => s.lastModifiedAt, show: (s) => when(s.lastModifiedAt) },
              {
                name: "Actions",
                hide: true,
                show: (s) => (
                  <div class="row-actions">
                    <Button look="quiet" aria-label={`Change ${named(s)}`} onClick={guarded(async () => {
                        const it = await describeScraper(s.scraperId);
                        setDialog({ kind: "edit", it, text: fromBase64(it.scrapeConfiguration?.configurationBlob ?? "") });
                      })}>
                      Change
                    </Button>
                    <Button look="quiet" aria-label={`Logging of ${named(s)}`} onClick={guarded(async () => setDialog({ kind: "logs", it: s, arn: await scraperLogs(s.scraperId) }))}>
                      Logging
                    </Button>
                    <Button look="quiet" aria-label={`Delete ${named(s)}`} onClick={() => setDialog({ kind: "delete", it: s })}>
                      Delete
                    </Button>
                  </div>
                ),
              },
            ]}
          />
        </Card>
      )}
      {dialog?.kind === "new" && <Create text={dialog.text} workspaces={dialog.workspaces} close={close} done={done} />}
      {dialog?.kind === "edit" && <Edit it={dialog.it} text={dialog.text} close={close} done={done} />}
      {dialog?.kind === "logs" && <Logs it={dialog.it} arn={dialog.arn} close={close} done={done} />}
      {dialog?.kind === "delete" && (
        <Confirm title="Delete scraper" label="Delete scraper" close={close} act={async () => {
            await deleteScraper(dialog.it.scraperId);
            await done();
          }}>
          <p>
            <strong>{named(dialog.it)}</strong> collects no more. What it has written stays.
          </p>
        </Confirm>
      )}
    </>
  );
}

const label = "Configuration, as Prometheus reads it";
const hint = "global and scrape_configs. The server checks it before anything changes.";

function Create(p: { text: string; workspaces: Workspace[]; close: () => void; done: () => Promise<void> }) {
  const [alias, setAlias] = useState("");
  const [arn, setArn] = useState(p.workspaces[0]?.arn ?? "");
  const [text, setText] = useState(p.text);
  return (
    <Dialog wide title="Create scraper" close={p.close}>
      {p.workspaces.length === 0 ? (
        <p>There is no workspace to write into. Create one first.</p>
      ) : (
        <Form label="Create" cancel={p.close} disabled={!text.trim()} submit={async () => {
            await createScraper(alias.trim(), arn, text);
            await p.done();
          }}>
          <Text label="Alias (optional)" value={alias} set={setAlias} maxLength={100} class="code" />
          <Choice label="Writes into" value={arn} set={setArn} options={p.workspaces.map((w): [string, string] => [w.arn, `${name(w)} (${w.workspaceId})`])} />
          <Upload label="Read from a file" accept=".yaml,.yml" set={setText} />
          <Area label={label} value={text} set={setText} rows={16} hint={hint} />
        </Form>
      )}
    </Dialog>
  );
}

function Edit(p: { it: Scraper; text: string; close: () => void; done: () => Promise<void> }) {
  const [alias, setAlias] = useState(p.it.alias ?? "");
  const [text, setText] = useState(p.text);
  return (
    <Dialog wide title={`Change ${named(p.it)}`} close={p.close}>
      <Form label="Save" cancel={p.close} disabled={!text.trim()} submit={async () => {
          await updateScraper(p.it.scraperId, alias.trim(), text);
          await p.done();
        }}>
        <Text label="Alias (optional)" value={alias} set={setAlias} maxLength={100} class="code" />
        <Upload label="Read from a file" accept=".yaml,.yml" set={setText} />
        <Area label={label} value={text} set={setText} rows={16} hint={hint} />
      </Form>
    </Dialog>
  );
}

function Logs(p: { it: Scraper; arn: string; close: () => void; done: () => Promise<void> }) {
  const [arn, setArn] = useState(p.arn);
  return (
    <Dialog title={`Logging of ${named(p.it)}`} close={p.close}>
      <Form label="Save" cancel={p.close} disabled={!arn.trim() && !p.arn} submit={async () => {
          await logScraper(p.it.scraperId, arn.trim() && group(arn));
          await p.done();
        }}>
        <Text label="Log group" value={arn} set={setArn} class="code" hint="What it discovers, collects and writes is told in the log of the server with this log group: a name, or an ARN of CloudWatch Logs. Empty: nothing is told." />
      </Form>
    </Dialog>
  );
}
