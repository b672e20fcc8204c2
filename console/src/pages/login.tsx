import { useState } from "preact/hooks";
import { signIn } from "../api";
import { Field, Form, Notice, Tabs, Text } from "../ui";

export function Login(p: { done: () => void; refused: string }) {
  const [kind, setKind] = useState("key");
  const [id, setID] = useState("");
  const [secret, setSecret] = useState("");
  const [session, setSession] = useState("");
  const [token, setToken] = useState("");
  const [keep, setKeep] = useState(true);
  const submit = async () => {
    const c = kind === "key" ? ({ kind: "key", key: { id: id.trim(), secret: secret.trim(), session: session.trim() || undefined } } as const) : ({ kind: "token", token: token.trim() } as const);
    await signIn(c, keep);
    p.done();
  };
  const secretProps = { type: "password", autocomplete: "off", class: "code" } as const;
  return (
    <main class="login">
      <div class="login-brand">
        <img src="/console/icon.svg" alt="" width="40" height="40" />
        <h1>Sign in to Amphora</h1>
      </div>
      {p.refused && (
        <Notice kind="warn" title="The server does not take these credentials any more. Sign in again.">
          {p.refused}
        </Notice>
      )}
      <Tabs
        label="How to sign in"
        value={kind}
        set={setKind}
        tabs={[
          ["key", "Access key"],
          ["token", "API token"],
        ]}
      >
        <Form label="Sign in" submit={submit} disabled={kind === "key" ? !id || !secret : !token}>
          {kind === "key" ? (
            <>
              <Text label="Access key ID" value={id} set={setID} class="code" autocomplete="username" />
              <Text label="Secret access key" value={secret} set={setSecret} {...secretProps} hint="It stays in this browser: requests are signed with it, never sent with it." />
              <details>
                <summary>Temporary credentials</summary>
                <Text label="Session token" value={session} set={setSession} {...secretProps} />
              </details>
            </>
          ) : (
            <Text label="Token" value={token} set={setToken} {...secretProps} />
          )}
          <Field label="Stay signed in until this tab is closed">
            {(ids) => <input type="checkbox" {...ids} checked={keep} onChange={(e) => setKeep(e.currentTarget.checked)} />}
          </Field>
        </Form>
      </Tabs>
    </main>
  );
}
