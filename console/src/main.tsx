import { render } from "preact";
import { start } from "./api";
import { App } from "./app";
import "./style.css";

const root = document.getElementById("app");
if (root) {
  start().then(
    () => render(<App />, root),
    (err: unknown) => {
      root.textContent = "The console cannot start: " + (err instanceof Error ? err.message : String(err));
    },
  );
}
