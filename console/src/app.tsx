import { lazy, Suspense } from "preact/compat";
import { useEffect, useState } from "preact/hooks";
import { onUnknownCaller, server, signedIn, use } from "./api";
import { Login } from "./pages/login";
import { Workspaces } from "./pages/workspaces";
import { Overview } from "./pages/overview";
import { href, type Route, useRoute } from "./route";
import { Button, Empty, Head, Link, Loading } from "./ui";

const Explore = lazy(() => import("./pages/explore"));

const scoped: [string, string][] = [
  ["overview", "Overview"],
  ["explore", "Explore"],
];

const global: [string, string][] = [["workspaces", "Workspaces"]];

export function App() {
  const route = useRoute();
  const [known, setKnown] = useState(!server().authentication || signedIn() !== null);
  const [expired, setExpired] = useState(false);
  useEffect(
    () =>
      onUnknownCaller(() => {
        use(null);
        setExpired(true);
        setKnown(false);
      }),
    [],
  );
  if (!known) {
    return (
      <Login
        expired={expired}
        done={() => {
          setExpired(false);
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
    }
  } else {
    switch (page) {
      case "workspaces":
        return <Workspaces />;
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
            <p class="nav-scope" title={scope.id}>
              {scope.id}
            </p>
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
