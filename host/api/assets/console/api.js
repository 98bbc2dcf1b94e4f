// The API, as everybody uses it.

const KEPT = "pushlet-authorization";

/** Goes with every request; null: none is needed, or nobody is signed in. */
let authorization = sessionStorage.getItem(KEPT);

/** An answer that is an error, or none at all (status 0). */
export class Refusal extends Error {
  constructor(status, { error, message, field } = {}) {
    super(message ?? `The server answers ${status}.`);
    this.status = status;
    this.code = error;
    this.field = field;
  }
}

export const basic = (username, password) => `Basic ${base64(`${username}:${password}`)}`;
export const bearer = (key) => `Bearer ${key}`;

/** `keep`: until the tab is closed, else until the page is left. */
export function signIn(value, keep) {
  authorization = value;
  if (keep) sessionStorage.setItem(KEPT, value);
  else sessionStorage.removeItem(KEPT);
}

export function signOut() {
  authorization = null;
  sessionStorage.removeItem(KEPT);
}

export const hasCredentials = () => authorization !== null;
export const get = (path) => call("GET", path);
export const post = (path, body) => call("POST", path, body);

/** The answer's JSON; throws a Refusal. */
async function call(method, path, body) {
  const headers = { accept: "application/json" };
  if (authorization !== null) headers.authorization = authorization;
  if (body !== undefined) headers["content-type"] = "application/json";
  const response = await fetch(`v1/${path}`, {
    method,
    headers,
    body: JSON.stringify(body),
    cache: "no-store",
    // No dialog of the browser's own asks for a password.
    credentials: "omit",
    redirect: "error",
    signal: AbortSignal.timeout(60_000),
  }).catch((failure) => {
    const message = failure.name === "TimeoutError" ? "The server gives no answer." : "The server can not be reached.";
    throw new Refusal(0, { message });
  });
  const answer = await response.json().catch(() => null);
  if (!response.ok) throw new Refusal(response.status, answer ?? undefined);
  if (answer === null) throw new Refusal(0, { message: "The answer is none that Pushlet gives." });
  return answer;
}

function base64(text) {
  return btoa(String.fromCharCode(...new TextEncoder().encode(text)));
}
