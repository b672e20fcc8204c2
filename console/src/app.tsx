import { lazy, Suspense } from "preact/compat";
import { useEffect, useState } from "preact/hooks";
import { onUnknownCaller, server, signedIn, use } from "./api";
import { Access } from "./pages/access";
import { Alerts } from "./pages/alerts";
import { Audit } from "./pages/audit";
import { Cardinality } from "./pages/cardinality";
import { Cluster } from "./pages/cluster";
import { Logging } from "./pages/logging";
import { Login } from "./pages/login";
import { Overview } from "./pages/overview";
import { Queries } from "./pages/queries";
import { Rules } from "./pages/rules";
import { Scrapers } from "./pages/scrapers";
import { Usage } from "./pages/usage";
import { Workspaces } from "./pages/workspaces";
import { href, type Route, useRoute } from "./route";
import { Switcher } from "./switcher";
import { Button, Empty, Head, Link, Loading } from "./ui";

const Explore = lazy(() => import("./pages/explore"));

const scoped: [string, string][] = [
  ["overview", "Overview"],
  ["explore", "Explore"],
  ["rules", "Rules"],
  ["alerts", "Alert manager"],
  ["usage", "Usage and quotas"],
  ["cardinality", "Cardinality"],
  ["queries", "Live queries"],
  ["logging", "Logging"],
];

const global: [string, string][] = [
  ["workspaces", "Workspaces"],
  ["scrapers", "Scrapers"],
  ["access", "Access"],
  ["audit", "Audit"],
  ["cluster", "Cluster"],
];

export function App() {
  const route = useRoute();
  const [known, setKnown] = useState(!server().authentication || signedIn() !== null);
  const [refused, setRefused] = useState("");
  useEffect(
    () =>
      onUnknownCaller((why) => {
        use(null);
        setRefused(why);
        setKnown(false);
      }),
    [],
  );
  if (!known) {
    return (
      <Login
        refused={refused}
        done={() => {
          setRefused("");
          setKnown(true);
        }}
      />
    );
  }
  const leave = () => {
    use(null);
    setKnown(false);
  };
  return (
    <div class="shell">
      <a class="skip" href="#main">
        Skip to content
      </a>
      <Sidebar route={route} leave={leave} />
      <main id="main" tabIndex={-1}>
        <Suspense fallback={<Loading />}>
          <Page key={location.pathname} route={route} />
        </Suspense>
      </main>
    </div>
  );
}

function Page(p: { route: Route }) {
  const { scope, page } = p.route;
  if (scope) {
    switch (page) {
      case "overview":
        return <Overview scope={scope} />;
      case "explore":
        return <Explore scope={scope} params={p.route.params} />;
      case "rules":
        return <Rules scope={scope} />;
      case "alerts":
        return <Alerts scope={scope} />;
      case "usage":
        return <Usage scope={scope} />;
      case "cardinality":
        return <Cardinality scope={scope} />;
      case "queries":
        return <Queries scope={scope} />;
      case "logging":
        return <Logging scope={scope} />;
    }
  } else {
    switch (page) {
      case "workspaces":
        return <Workspaces />;
      case "scrapers":
        return <Scrapers />;
      case "access":
        return <Access />;
      case "audit":
        return <Audit />;
      case "cluster":
        return <Cluster />;
    }
  }
  return (
    <>
      <Head title="Nothing here" />
      <Empty title="This page does not exist." action={<Link to={href(null, "workspaces")}>Go to workspaces</Link>} />
    </>
  );
}

function Sidebar(p: { route: Route; leave: () => void }) {
  const { scope, page } = p.route;
  const [open, setOpen] = useState(false);
  useEffect(() => setOpen(false), [p.route]);
  return (
    <div class="side">
      <div class="brand">
        <Link to={href(null, "workspaces")}>
          <img src="/console/icon.svg" alt="" width="26" height="26" />
          <span>Amphora</span>
        </Link>
        <button type="button" class="menu" aria-expanded={open} aria-controls="nav" onClick={() => setOpen(!open)}>
          Menu
        </button>
      </div>
      <div id="nav" class={open ? "nav open" : "nav"}>
        <nav aria-label="Main">
          <ul>
            {global.map(([to, text]) => (
              <li key={to}>
                <Link to={href(null, to)} current={!scope && page === to}>
                  {text}
                </Link>
              </li>
            ))}
          </ul>
        </nav>
        {scope && (
          <nav aria-label={scope.kind === "workspace" ? "Workspace" : "Tenant"}>
            <p class="nav-title">{scope.kind}</p>
            <Switcher scope={scope} page={page} />
            <ul>
              {scoped.map(([to, text]) => (
                <li key={to}>
                  <Link to={href(scope, to)} current={page === to}>
                    {text}
                  </Link>
                </li>
              ))}
            </ul>
          </nav>
        )}
        <footer>
          <Caller leave={p.leave} />
          <p class="version">{server().version}</p>
        </footer>
      </div>
    </div>
  );
}

function Caller(p: { leave: () => void }) {
  const c = signedIn();
  if (!server().authentication) return <p class="caller">Authentication is off: everybody who reaches this server may do everything.</p>;
  if (!c) return null;
  return (
    <div class="caller">
      <p>{c.kind === "key" ? c.key.id : "API token"}</p>
      <Button look="quiet" onClick={p.leave}>
        Sign out
      </Button>
    </div>
  );
}
