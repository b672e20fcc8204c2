// walk.mjs walks the main tasks of the console in a browser, against a running server.
//
//   node test/walk.mjs --url http://127.0.0.1:8080 [--key ID --secret SECRET] [--shots DIR] [--chromium PATH]
//
// Without a key the server must not ask for one. It ends with 0 if every step worked, and nothing was
// refused by the page's content security policy, failed in a script or came from another host.
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";

const { values: args } = parseArgs({
  options: {
    url: { type: "string" },
    key: { type: "string" },
    secret: { type: "string" },
    shots: { type: "string" },
    chromium: { type: "string" },
  },
});
if (!args.url) throw new Error("--url is needed");
const base = args.url.replace(/\/$/, "");
const executablePath = args.chromium ?? ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(existsSync);
if (args.shots) mkdirSync(args.shots, { recursive: true });

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"] });
const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
context.setDefaultTimeout(30000);
const page = await context.newPage();

const faults = [];
page.on("pageerror", (e) => faults.push("script: " + e.message));
page.on("console", (m) => {
  // What the server refuses is shown on the page; the browser also writes it to its own log.
  if (m.type() === "error" && !/Failed to load resource/.test(m.text())) faults.push("console: " + m.text());
});
page.on("request", (r) => {
  if (!r.url().startsWith(base) && !/^(data|blob):/.test(r.url())) faults.push("another host: " + r.url());
});

let shot = 0;
async function step(name, f) {
  try {
    await f();
  } catch (err) {
    await page.screenshot({ path: `${args.shots ?? "."}/failed.png`, fullPage: true }).catch(() => {});
    console.error(`FAILED: ${name}: ${err.message}`);
    if (faults.length) console.error(faults.join("\n"));
    await browser.close();
    process.exit(1);
  }
  if (args.shots) await page.screenshot({ path: `${args.shots}/${String(++shot).padStart(2, "0")}-${name.replace(/\W+/g, "-")}.png`, fullPage: true });
  console.log("ok: " + name);
}

const button = (name) => page.getByRole("button", { name, exact: true });
const nav = async (name) => {
  await page.getByRole("link", { name, exact: true }).click();
};
const heading = (name) => page.getByRole("heading", { level: 1, name });
const dialog = () => page.getByRole("dialog");

/** unlabelled lists the controls of the page that a screen reader could not name. */
const unlabelled = () =>
  page.evaluate(() => {
    const named = (e) => e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.labels?.length || e.textContent?.trim() || e.title;
    return [...document.querySelectorAll("button, a, input, select, textarea")].filter((e) => !named(e)).map((e) => e.outerHTML);
  });

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** inaccessible lists what the rules of WCAG 2 A and AA find wrong with the page as it is. */
const inaccessible = async () => {
  if (!(await page.evaluate(() => "axe" in window))) await page.evaluate(axe);
  return page.evaluate(async () => {
    const found = await window.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"] });
    return found.violations.map((v) => `${v.id}: ${v.help}: ${v.nodes.slice(0, 3).map((n) => n.html.slice(0, 200)).join(" | ")}`);
  });
};

/** tabOrder goes through the page with the Tab key, and says where the focus does not go down the page or cannot be seen. */
const tabOrder = async (most) => {
  await page.evaluate(() => {
    document.activeElement?.blur();
    window.getSelection()?.removeAllRanges();
  });
  const wrong = [];
  let first = -1;
  let before = -1;
  let seen = 0;
  for (let i = 0; i < most; i++) {
    await page.keyboard.press("Tab");
    const at = await page.evaluate(() => {
      const e = document.activeElement;
      if (!e || e === document.body) return null;
      const style = getComputedStyle(e);
      const shown = e.matches(":focus-visible") && (style.outlineStyle !== "none" || style.boxShadow !== "none");
      return { index: [...document.querySelectorAll("*")].indexOf(e), shown, html: e.outerHTML.slice(0, 120) };
    });
    if (!at || at.index === first) break; // once around
    if (first < 0) first = at.index;
    seen++;
    if (at.index <= before) wrong.push("out of order: " + at.html);
    if (!at.shown) wrong.push("focus is not seen: " + at.html);
    before = at.index;
  }
  if (seen < 5) wrong.push(`only ${seen} stops`);
  return wrong;
};

/** tooWide says by how much the page is wider than the window. */
const tooWide = () => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);

const alias = "walk-" + Math.random().toString(36).slice(2, 8);
let id = "";

await page.goto(base + "/console/");
if (args.key) {
  await step("a wrong secret is refused", async () => {
    await page.getByLabel("Access key ID").fill(args.key);
    await page.getByLabel("Secret access key").fill("not the secret");
    await button("Sign in").click();
    await page.getByRole("alert").waitFor();
  });
  await step("sign in with an access key", async () => {
    await page.getByLabel("Secret access key").fill(args.secret);
    await page.keyboard.press("Enter");
    await heading("Workspaces").waitFor();
    const kept = await page.evaluate(() => JSON.stringify(localStorage));
    assert.equal(kept, "{}", "something is in localStorage");
  });
}

await step("create a workspace", async () => {
  await heading("Workspaces").waitFor();
  await page.getByRole("button", { name: "Create workspace" }).first().click();
  await dialog().getByLabel("Alias").fill(alias);
  await dialog().getByRole("button", { name: "Create", exact: true }).click();
  await heading(alias).waitFor();
  id = new URL(page.url()).pathname.split("/")[3];
  assert.match(id, /^ws-/);
});

await step("change alias and tags", async () => {
  await button("Change tags").click();
  await dialog().getByLabel("Key 1").fill("team");
  await dialog().getByLabel("Value 1").fill("checkout");
  await dialog().getByRole("button", { name: "Save" }).click();
  await page.getByText("team=checkout").waitFor();
  await button("Change alias").click();
  await dialog().getByLabel("Alias").fill(alias + "-2");
  await dialog().getByRole("button", { name: "Save" }).click();
  await heading(alias + "-2").waitFor();
});

await step("snippets name the address of the workspace", async () => {
  for (const tab of ["OpenTelemetry / ADOT", "Grafana", "curl", "Prometheus"]) {
    await page.getByRole("tab", { name: tab }).click();
    assert.match(await page.locator(".snippet pre").innerText(), new RegExp(`/workspaces/${id}`));
  }
});

await step("add a rule file", async () => {
  await nav("Rules");
  await heading("Rules").waitFor();
  await button("Add rule file").click();
  await dialog().getByLabel("Name").fill("walk");
  const area = dialog().getByLabel("Rules, as Prometheus reads them");
  await area.fill("groups: [{name: g, rules: [{record: bad name, expr: 'vector('}]}]");
  await dialog().getByRole("button", { name: "Add", exact: true }).click();
  await dialog().getByRole("alert").waitFor(); // the server says what is wrong
  await area.fill(
    ["groups:", "- name: g", "  interval: 5s", "  rules:", "  - {record: 'walk:one', expr: 'vector(1)'}", "  - {record: 'walk:two', expr: 'vector(2)', labels: {side: left}}", "  - {alert: Always, expr: 'vector(1) > 0', labels: {severity: page}, annotations: {summary: It always fires}}"].join("\n"),
  );
  await dialog().getByRole("button", { name: "Add", exact: true }).click();
  await dialog().waitFor({ state: "detached" });
  await page.getByRole("table", { name: "Rule files" }).getByText("walk", { exact: true }).waitFor();
});

await step("download and replace a rule file", async () => {
  const [download] = await Promise.all([page.waitForEvent("download"), button("Download walk").click()]);
  assert.equal(download.suggestedFilename(), "walk.yaml");
  await button("Replace walk").click();
  const area = dialog().getByLabel("Rules, as Prometheus reads them");
  const text = await area.inputValue();
  assert.match(text, /walk:one/);
  await area.fill(text + "\n  - {record: 'walk:three', expr: 'vector(3)'}");
  await dialog().getByRole("button", { name: "Replace", exact: true }).click();
  await dialog().waitFor({ state: "detached" });
});

await step("rules are evaluated", async () => {
  await page.getByRole("table", { name: "Rules of group g" }).getByText("walk:three", { exact: true }).waitFor({ timeout: 120000 });
  await page.getByText("firing", { exact: true }).first().waitFor({ timeout: 120000 });
});

await step("create an alert manager definition", async () => {
  await nav("Alert manager");
  await page.getByRole("tab", { name: "Definition" }).click();
  await page.getByLabel("alertmanager_config and template_files").waitFor();
  await button("Create").click();
  await page.getByRole("button", { name: "Replace" }).waitFor();
});

await step("create a silence, and let it expire", async () => {
  await button("Create silence").click();
  await dialog().getByLabel("Alerts that match all of").fill('alertname="Always"');
  await dialog().getByLabel("Who").fill("walk");
  await dialog().getByLabel("Why").fill("a test");
  await dialog().getByRole("button", { name: "Create silence" }).click();
  await page.getByRole("status").filter({ hasText: "The silence was created." }).waitFor(); // screen readers are told
  await button("Expire the silence a test").click();
  await dialog().getByRole("button", { name: "Expire" }).click();
  await page.getByText("The silence has expired.").waitFor();
  await page.getByRole("table", { name: "Silences" }).getByText("expired", { exact: true }).waitFor();
});

await step("alert groups", async () => {
  await page.getByRole("tab", { name: "Alert groups" }).click();
  await page.getByText("Always").first().waitFor({ timeout: 120000 }).catch(() => page.getByText("No alerts").waitFor());
});

await step("ask a query, as graph and as table", async () => {
  await nav("Explore");
  await heading("Explore").waitFor();
  const editor = page.getByRole("textbox", { name: "PromQL query" });
  const deadline = Date.now() + 120000;
  await editor.click();
  await page.keyboard.insertText('{__name__=~"walk:.*"}');
  for (;;) {
    await button("Run query").click();
    await page.getByText(/\d+ series in|No series/).first().waitFor();
    if ((await page.getByText(/^[1-9]\d* series in/).count()) > 0) break;
    assert.ok(Date.now() < deadline, "no sample of the rules came");
    await page.waitForTimeout(1000);
  }
  await page.locator(".chart canvas").waitFor();
  assert.match(page.url(), /q=/);
  await page.getByRole("tab", { name: "Table" }).click();
  await page.getByRole("table", { name: "Result" }).getByText("walk:two").first().waitFor();
});

await step("the editor completes what the server knows", async () => {
  const editor = page.getByRole("textbox", { name: "PromQL query" });
  await editor.click();
  await page.keyboard.press("Control+A");
  await page.keyboard.type("walk:t", { delay: 30 });
  await page.getByRole("option", { name: /walk:two/ }).first().waitFor();
  await page.keyboard.press("Escape");
  await page.keyboard.press("Control+A");
  await page.keyboard.insertText("walk:two");
  await page.keyboard.press("Control+Enter");
  await page.getByText(/^1 series in/).waitFor();
});

await step("usage against quotas", async () => {
  await nav("Usage and quotas");
  await page.getByText("Series in memory").waitFor();
  await button("Change retention").click();
  await dialog().getByLabel("Days").fill("30");
  await dialog().getByRole("button", { name: "Save" }).click();
  await page.getByText("30 days").waitFor();
});

await step("cardinality, narrowed to a metric", async () => {
  await nav("Cardinality");
  await page.getByRole("table", { name: "Series by __name__" }).getByText("walk:two").click();
  await page.getByText("Series by job").first().waitFor();
  await page.getByRole("table", { name: "Labels of these series" }).getByText("side").click();
  await page.getByRole("table", { name: "Series by side" }).getByText("left").waitFor();
});

await step("metrics that nobody asks for, and what drops them", async () => {
  await page.getByRole("tab", { name: "Unused" }).click();
  await page.getByLabel("Show", { exact: true }).selectOption("all");
  await page.getByRole("table", { name: "Metrics by use" }).getByText("walk:two").waitFor();
  await page.getByLabel("Drop walk:two").check();
  await page.getByText(/write_relabel_configs:[^]*walk:two/).waitFor();
  await page.getByLabel("For", { exact: true }).selectOption("otelcol");
  await page.getByText(/filter\/unused/).waitFor();
});

await step("logging of events and of heavy queries", async () => {
  await nav("Logging");
  await page.getByText("Queries are not logged.").waitFor();
  await button("Set up logging of events").click();
  await dialog().getByLabel("Log group").fill("/walk/events");
  await dialog().getByRole("button", { name: "Save" }).click();
  await page.getByText(/log-group:\/walk\/events:\*/).waitFor();
  await button("Set up logging of queries").click();
  await dialog().getByLabel("Log group").fill("/walk/queries");
  await dialog().getByLabel("Samples processed").fill("5000");
  await dialog().getByRole("button", { name: "Save" }).click();
  await page.getByText(/log-group:\/walk\/queries:\*/).waitFor();
  await button("Stop logging queries").click();
  await dialog().getByRole("button", { name: "Stop logging" }).click();
  await page.getByText("Queries are not logged.").waitFor();
});

await step("a call that is one too many in its second is made again", async () => {
  let refused = 0;
  const throttle = async (route) => {
    if (refused++ > 1) return route.continue();
    await route.fulfill({ status: 429, headers: { "x-amzn-errortype": "ThrottlingException" }, json: { message: "Rate exceeded" } });
  };
  await page.route(/\/scrapers$|\/scrapers\?/, throttle);
  await nav("Scrapers");
  await page.getByText("No scrapers yet").waitFor();
  await page.unroute(/\/scrapers$|\/scrapers\?/, throttle);
  assert.ok(refused > 2, `calls of the list: ${refused}`);
});

await step("a scraper: create, change, log, delete", async () => {
  await nav("Scrapers");
  await button("Create scraper").click();
  await dialog().getByLabel("Alias (optional)").fill(alias);
  const config = dialog().getByLabel("Configuration, as Prometheus reads it");
  await dialog().getByLabel("Writes into").selectOption({ label: `${alias}-2 (${id})` });
  await config.fill("scrape_configs: [{job_name: ''}]");
  await dialog().getByRole("button", { name: "Create", exact: true }).click();
  await dialog().getByRole("alert").waitFor(); // the server says what is wrong
  await config.fill("global: {scrape_interval: 30s}\nscrape_configs:\n- {job_name: walk, static_configs: [{targets: ['127.0.0.1:1']}]}\n");
  await dialog().getByRole("button", { name: "Create", exact: true }).click();
  await page.getByRole("table", { name: "Scrapers" }).getByText(alias, { exact: true }).waitFor();
  await button(`Change ${alias}`).click();
  assert.match(await config.inputValue(), /job_name: walk/);
  await dialog().getByLabel("Alias (optional)").fill(alias + "-b");
  await dialog().getByRole("button", { name: "Save" }).click();
  await button(`Logging of ${alias}-b`).click();
  await dialog().getByLabel("Log group").fill("/walk/scraper");
  await dialog().getByRole("button", { name: "Save" }).click();
  await dialog().waitFor({ state: "detached" });
  await button(`Logging of ${alias}-b`).click();
  assert.match(await dialog().getByLabel("Log group").inputValue(), /log-group:\/walk\/scraper:\*$/);
  await dialog().getByRole("button", { name: "Cancel" }).click();
  await button(`Delete ${alias}-b`).click();
  await dialog().getByRole("button", { name: "Delete scraper" }).click();
  await page.getByText("No scrapers yet").or(page.getByText("deleting", { exact: true })).first().waitFor();
});

await step("rules of a tenant that is no workspace", async () => {
  await page.goto(`${base}/console/t/${args.key ? alias : "anonymous"}/rules`);
  await button("Change rules").click();
  const area = dialog().getByLabel("Rule groups, below the name of their file");
  await area.fill("walk: [{name: g, rules: [{record: bad name, expr: 'vector('}]}]");
  await dialog().getByRole("button", { name: "Replace all rules" }).click();
  await dialog().getByRole("alert").waitFor(); // the server says what is wrong
  await area.fill("walk:\n- name: g\n  rules:\n  - {record: 'tenant:one', expr: 'vector(1)'}\n");
  await dialog().getByRole("button", { name: "Replace all rules" }).click();
  await dialog().waitFor({ state: "detached" });
  await page.locator("summary").click();
  await page.getByText(/tenant:one/).first().waitFor();
  await page.goto(`${base}/console/w/${id}/overview`);
  await heading(alias + "-2").waitFor();
});

await step("live queries", async () => {
  await nav("Live queries");
  await page.getByRole("heading", { level: 2, name: "Live queries" }).waitFor();
});

await step("the cluster", async () => {
  await nav("Cluster");
  await page.getByRole("table", { name: "Services" }).waitFor();
  await page.getByRole("tab", { name: "Rings" }).click();
  await page.getByRole("table", { name: "Members of the ring" }).getByText("active").first().waitFor();
});

await step("blocks and live queries of the cluster", async () => {
  await page.getByRole("tab", { name: "Blocks and compaction" }).click();
  await page.getByText("No blocks yet").or(page.getByRole("heading", { name: "Compaction backlog" })).first().waitFor();
  await page.getByRole("tab", { name: "Live queries" }).click();
  await page.getByRole("heading", { level: 2, name: "Live queries" }).waitFor();
});

if (args.key) {
  await step("create a user with a key and a token", async () => {
    await nav("Access");
    await button("Create user").click();
    await dialog().getByLabel("Name").fill(alias);
    await dialog().getByRole("button", { name: "Create", exact: true }).click();
    await page.getByText("The user was saved.").waitFor();
    await button(`Keys and tokens of ${alias}`).click();
    await button("Create access key").click();
    await page.getByText("This is shown once").waitFor();
    await dialog().getByLabel("What it is for").fill("walk");
    await button("Create token").click();
    await dialog().getByRole("table", { name: "API tokens" }).waitFor();
  });
  const token = (await page.locator(".notice code").first().innerText()).trim();
  await step("create a policy", async () => {
    await page.keyboard.press("Escape");
    await dialog().waitFor({ state: "detached" });
    await page.getByRole("tab", { name: "Policies" }).click();
    await button("Create policy").click();
    await dialog().getByLabel("Name").fill(alias);
    await dialog().getByRole("button", { name: "Create", exact: true }).click();
    await page.getByText("The policy was saved.").waitFor();
    await page.getByRole("table", { name: "policies" }).getByText(alias).waitFor();
  });
  await step("the audit log has it", async () => {
    await nav("Audit");
    await page.getByText("CreateWorkspace").first().waitFor();
  });
  await step("sign in with a token, which may not do what its user may not", async () => {
    await button("Sign out").click();
    await page.getByRole("tab", { name: "API token" }).click();
    await page.getByLabel("Token", { exact: true }).fill(token);
    await button("Sign in").click();
    await nav("Access");
    await page.getByRole("alert").waitFor();
    await page.goto(`${base}/console/w/${id}/explore?q=vector(1)&tab=table`);
    await page.getByText(/^1 series in/).waitFor();
  });
  await step("sign in again", async () => {
    await button("Sign out").click();
    await page.getByRole("tab", { name: "Access key" }).click();
    await page.getByLabel("Access key ID").fill(args.key);
    await page.getByLabel("Secret access key").fill(args.secret);
    await button("Sign in").click();
  });
  await step("delete the user and the policy", async () => {
    await nav("Access");
    for (const [tab, what] of [
      ["Users", "user"],
      ["Policies", "policy"],
    ]) {
      await page.getByRole("tab", { name: tab }).click();
      await button(`Delete ${alias}`).click();
      await dialog().getByRole("textbox").fill(alias);
      await dialog().getByRole("button", { name: "Delete", exact: true }).click();
      await page.getByText(`The ${what} was deleted.`).waitFor();
    }
  });
}

const everything = ["", "scrapers", "access", "audit", "cluster", ...["overview", "explore?q=vector(1)", "rules", "alerts", "usage", "cardinality", "queries", "logging"].map((p) => `w/${id}/${p}`)];

await step("every page fits 320 pixels, and every control has a name", async () => {
  await page.setViewportSize({ width: 320, height: 640 });
  for (const path of everything) {
    await page.goto(`${base}/console/${path}`, { waitUntil: "networkidle" });
    await page.locator("h1").waitFor();
    assert.ok((await tooWide()) <= 0, `${path} is ${await tooWide()} pixels too wide`);
    assert.deepEqual(await unlabelled(), [], `controls without a name on ${path}`);
    if (args.shots) await page.screenshot({ path: `${args.shots}/narrow-${path.replace(/.*\/|\?.*/g, "") || "workspaces"}.png`, fullPage: true });
  }
});

await step("every page in the light keeps the rules for accessible pages, and the focus goes down it", async () => {
  await page.setViewportSize({ width: 1280, height: 800 });
  for (const path of everything) {
    await page.goto(`${base}/console/${path}`, { waitUntil: "networkidle" });
    await page.locator("h1").waitFor();
    assert.deepEqual(await inaccessible(), [], path);
    if (!path.includes("explore")) assert.deepEqual(await tabOrder(40), [], path); // the editor takes Tab for itself
  }
});

await step("dialogs keep the rules for accessible pages, and give the focus back", async () => {
  await page.goto(`${base}/console/w/${id}/rules`, { waitUntil: "networkidle" });
  await button("Add rule file").focus();
  await page.keyboard.press("Enter");
  await dialog().waitFor();
  assert.deepEqual(await inaccessible(), []);
  assert.ok(await page.evaluate(() => document.querySelector("dialog")?.contains(document.activeElement)), "the focus is not in the dialog");
  await page.keyboard.press("Escape");
  await dialog().waitFor({ state: "detached" });
  // The focus goes back right after the dialog is gone, not in the same moment.
  await page.waitForFunction(() => document.activeElement?.textContent?.trim() === "Add rule file");
});

await step("every page in the dark", async () => {
  await page.emulateMedia({ colorScheme: "dark" });
  for (const path of everything) {
    await page.goto(`${base}/console/${path}`, { waitUntil: "networkidle" });
    await page.locator("h1").waitFor();
    assert.deepEqual(await inaccessible(), [], `${path} in the dark`);
    if (args.shots) await page.screenshot({ path: `${args.shots}/dark-${path.replace(/.*\/|\?.*/g, "") || "workspaces"}.png`, fullPage: true });
  }
  await page.emulateMedia({ colorScheme: "light" });
});

await step("keyboards reach the content and the navigation", async () => {
  await page.goto(`${base}/console/`, { waitUntil: "networkidle" });
  await heading("Workspaces").waitFor();
  await page.evaluate(() => document.activeElement?.blur());
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement?.textContent?.trim()), "Skip to content");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement?.id), "main");
});

await step("delete the workspace, whose name must be typed", async () => {
  await page.goto(`${base}/console/w/${id}/overview`);
  await button("Delete").click();
  const act = dialog().getByRole("button", { name: "Delete workspace" });
  assert.ok(await act.isDisabled(), "the workspace can be deleted without its name");
  await dialog().getByRole("textbox").fill(alias + "-2");
  await act.click();
  await heading("Workspaces").waitFor();
});

await browser.close();
if (faults.length) {
  console.error("FAILED:\n" + [...new Set(faults)].join("\n"));
  process.exit(1);
}
console.log("all steps passed");
