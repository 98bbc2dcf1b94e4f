// The API, as everybody uses it.

const KEPT = "pushlet-authorization";
const HANDED_OVER = "pushlet-handed-over";
/** Milliseconds for which the next page takes what this one hands over. */
const FRESH = 60_000;
/** Milliseconds that an answer may take. */
const LONGEST = 60_000;

/** Goes with every request; null: none is needed, or nobody is signed in. */
let authorization = takeHandedOver() ?? sessionStorage.getItem(KEPT);

/** An answer that is an error, or none at all (status 0). */
export class Refusal extends Error {
  constructor(status, { error, message, field } = {}) {
    super(message ?? `The server answers ${status}.`);
    this.status = status;
    this.code = error;
    this.field = field;
  }
}

export const basic = (username, password) => `Basic ${base64(new TextEncoder().encode(`${username}:${password}`))}`;
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
  sessionStorage.removeItem(HANDED_OVER);
}

/** For the other page of this server, which is opened next: it takes the credentials, and they are not kept. */
export function handOver() {
  if (authorization === null || sessionStorage.getItem(KEPT) !== null) return;
  sessionStorage.setItem(HANDED_OVER, `${Date.now()} ${authorization}`);
}

function takeHandedOver() {
  const handed = sessionStorage.getItem(HANDED_OVER);
  sessionStorage.removeItem(HANDED_OVER);
  const [, at, value] = /^(\d+) (.*)$/s.exec(handed ?? "") ?? [];
  return value !== undefined && Date.now() - Number(at) < FRESH ? value : null;
}

export const hasCredentials = () => authorization !== null;
/** `basic`, `bearer`, or null. */
export const kindOfCredentials = () => authorization?.split(" ")[0].toLowerCase() ?? null;
export const get = (path) => call("GET", `v1/${path}`);
export const post = (path, body) => call("POST", `v1/${path}`, body);
export const put = (path, body) => call("PUT", `v1/${path}`, body);
export const remove = (path) => call("DELETE", `v1/${path}`);
export const openApi = () => call("GET", "openapi.json");

/** A path's segment. */
export const segment = encodeURIComponent;

/** A query without what is empty. */
export function query(parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return new URLSearchParams(given).toString();
}

/** The answer's JSON; null: it has none. Throws a Refusal. */
async function call(method, path, body) {
  const headers = { accept: "application/json" };
  if (authorization !== null) headers.authorization = authorization;
  if (body !== undefined) headers["content-type"] = "application/json";
  const response = await fetch(path, {
    method,
    headers,
    body: JSON.stringify(body),
    cache: "no-store",
    // No dialog of the browser's own asks for a password.
    credentials: "omit",
    redirect: "error",
    signal: AbortSignal.timeout(LONGEST),
  }).catch((failure) => {
    const message = failure.name === "TimeoutError" ? "The server gives no answer." : "The server cannot be reached.";
    throw new Refusal(0, { message });
  });
  if (response.status === 204) return null;
  const answer = await response.json().catch(() => null);
  if (!response.ok) throw new Refusal(response.status, answer ?? undefined);
  if (answer === null) throw new Refusal(0, { message: "The answer is none that Pushlet gives." });
  return answer;
}

/** Of bytes. */
export function base64(bytes) {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}
