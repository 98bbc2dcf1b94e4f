// Helpers for push providers of Pushlet. They use nothing that QuickJS lacks.

/** A field of a manifest: a setting, an option, an option of a target. */
export function field(name, kind, description, more = {}) {
  return {
    name, kind, required: false, choices: [], default: undefined, minimum: undefined, maximum: undefined,
    maxLength: undefined, unit: undefined, description, ...more,
  };
}

/** An endpoint of both environments, over HTTPS. */
export function endpoints(name, production, development = production) {
  const of = (environment, origin) => ({ name, environment, transport: "https", origin: { tag: "fixed", val: origin } });
  return [of("production", production), of("development", development)];
}

/** A credential of one text, which the host writes into a header. */
export function secret(name, secretName, description, header = "authorization", prefix = "Bearer ") {
  return {
    name,
    secrets: [{ name: secretName, format: "text", password: undefined, description }],
    companions: [],
    authentication: { tag: "secret", val: [secretName, { place: { tag: "header", val: header }, prefix }] },
    requiredSettings: [],
    derivations: [],
    inline: false,
    connectionSettings: [],
  };
}

/** The value of a setting of an application; undefined: it has none. */
export function setting(application, name) {
  return application.settings.find(([known]) => known === name)?.[1];
}

/** The value of an option of a notification or a recipient, read as JSON; undefined: it has none. */
export function option({ options }, name) {
  const value = options.find(([known]) => known === name)?.[1];
  return value === undefined ? undefined : JSON.parse(value);
}

/** Why something is refused, with the name of the field. */
export function invalid(field, message) {
  return { code: `invalid_${field}`, message, field, more: [] };
}

/** A request for the targets with these indices, of the message with this index. */
export function exchange(covers, path, { message = 0, headers = [], idempotent = false } = {}) {
  return { covers, message, url: undefined, path, headers, idempotent };
}

/** A text as a segment of a path, which cannot leave its place. */
export function segment(text) {
  return encodeURIComponent(text.toWellFormed?.() ?? text).replaceAll(".", "%2E");
}

/** What became of a target. */
export function outcome(disposition, { id, code, message, connection = "keep" } = {}) {
  return { disposition, id, code, message, connection };
}

export function delivered(id) {
  return outcome({ tag: "delivered" }, { id });
}

/**
 * What an HTTP status says by itself. A 404 is `rejected` unless the service means by it that the target is gone:
 * callers delete what is reported as unregistered.
 */
export function outcomeOf(response, now, { gone = [410], ...told } = {}) {
  return outcome(disposition(response, now, gone), told);
}

function disposition(response, now, gone) {
  const { status } = response;
  const wait = retryAfter(response, now);
  if (status >= 200 && status < 300) return { tag: "delivered" };
  if (gone.includes(status)) return { tag: "unregistered", val: undefined };
  if (status === 401 || status === 403) return { tag: "credential-rejected", val: "refused" };
  if (status === 429) return { tag: "throttled", val: { scope: "application", retryAfter: wait } };
  if (status >= 400 && status < 500) return { tag: "rejected" };
  if (status >= 500) return { tag: "unavailable", val: wait };
  return { tag: "unknown" };
}

/** The first header of this name, in lower case; undefined: there is none. */
export function header(response, name) {
  return response.headers.find(([known]) => known === name)?.[1];
}

/** Retry-After in milliseconds: it is in seconds, or a date (RFC 9110 section 10.2.3). */
export function retryAfter(response, now) {
  const value = header(response, "retry-after")?.trim() ?? "";
  if (/^\d{1,9}$/.test(value)) return Number(value) * 1000;
  const date = value.endsWith("GMT") ? Date.parse(value) : NaN;
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}

/** The object in a body, or an empty one if it is anything else. What is nested deeply would exhaust the stack. */
export function json(bytes) {
  try {
    const string = text(bytes);
    if (depth(string) > 100) return {};
    const value = JSON.parse(string);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? value : {};
  } catch {
    return {};
  }
}

function depth(string) {
  let [depth, most] = [0, 0];
  for (const letter of string) {
    if (letter === "[" || letter === "{") most = Math.max(most, ++depth);
    else if (letter === "]" || letter === "}") depth--;
  }
  return most;
}

/** A text as UTF-8. What is no text, a half of a pair alone, becomes U+FFFD. */
export function utf8(string) {
  const bytes = [];
  for (const letter of string) {
    let code = letter.codePointAt(0);
    if (code >= 0xd800 && code < 0xe000) code = 0xfffd;
    if (code < 0x80) bytes.push(code);
    else if (code < 0x800) bytes.push(0xc0 | (code >> 6), 0x80 | (code & 63));
    else if (code < 0x10000) bytes.push(0xe0 | (code >> 12), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
    else {
      bytes.push(0xf0 | (code >> 18), 0x80 | ((code >> 12) & 63), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
    }
  }
  return Uint8Array.from(bytes);
}

/** UTF-8 as a text. Throws if it is none. */
export function text(bytes) {
  let binary = "";
  for (let at = 0; at < bytes.length; at += 4096) binary += String.fromCharCode(...bytes.slice(at, at + 4096));
  return decodeURIComponent(escape(binary));
}
