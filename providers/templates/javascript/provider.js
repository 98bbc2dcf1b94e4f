// The provider acme: turns notifications into requests of a webhook, and its answers into outcomes.
//
// Pure functions: no clock, no socket, no secret. The server adds the credential and sends. Records have camelCase
// names here, variants are {tag, val}, u64 is a Number, and what is optional is null or undefined.

import { text as decoded, utf8 } from "./text.js";

export const manifest = {
  // What the provider is and needs. The server asks once, and refuses what is not declared here.
  describe() {
    const endpoint = (environment, origin) => ({
      name: "push", environment, transport: "https", origin: { tag: "fixed", val: origin },
    });
    return {
      name: "acme",
      title: "Acme",
      vendor: "acme",
      version: "0.1.0",
      description: "Posts notifications to Acme's webhook.",
      alsoAnswers: [],
      settings: [field("acme_channel", "text", "The channel in which it appears.")],
      credentials: [{
        name: "token",
        secrets: [{
          name: "acme_token", format: "text", password: undefined, description: "The token that Acme gave.",
        }],
        companions: [],
        authentication: {
          tag: "secret",
          val: ["acme_token", { place: { tag: "header", val: "authorization" }, prefix: "Bearer " }],
        },
        requiredSettings: ["acme_channel"],
        derivations: [],
        inline: false,
        connectionSettings: [],
      }],
      options: [field("pinned", "boolean", "Keep the message at the top.")],
      targetOptions: [],
      environments: ["production", "development"],
      targets: ["device"],
      endpoints: [
        endpoint("production", "https://push.acme.example"),
        endpoint("development", "https://sandbox.acme.example"),
      ],
      targetsPerExchange: 1,
      targetsPerCall: 500,
      // Answers are shown with these headers alone.
      responseHeaders: ["retry-after"],
      entropy: 0,
      examples: [{
        settings: [["acme_channel", "news"]],
        credential: "token",
        notification: '{"title":"Hello","body":"World"}',
        target: "device-1",
        targetOptions: [],
      }],
    };
  },
};

export const codec = {
  // Called when an application is registered: refuse here what would fail with each send.
  checkApplication(application) {
    if (setting(application, "acme_channel")?.includes("/")) {
      throw invalid("acme_channel", "acme_channel must not hold a slash");
    }
  },

  // One request for each target; what they have in common stands in one message.
  encode(context, application, notification, recipients) {
    const channel = encodeURIComponent(setting(application, "acme_channel") ?? "default");
    const encoded = { messages: recipients.length ? [message(notification)] : [], exchanges: [], refusals: [] };
    recipients.forEach(({ target }, place) => {
      if (target.tag === "device" && target.val.length <= 1000) {
        const path = `/v1/${segment(channel)}/${segment(encodeURIComponent(target.val))}`;
        encoded.exchanges.push({ covers: [place], message: 0, url: undefined, path, headers: [], idempotent: false });
      } else {
        // A bad target gets a refusal of its own, and costs the others nothing.
        const rejection = invalid("device_token", "a device of Acme has at most 1000 characters");
        encoded.refusals.push({ covers: [place], rejection });
      }
    });
    return encoded;
  },

  decode(context, application, answers, native) {
    return answers.map(({ targets, response }) => ({
      outcomes: targets.map(() => outcome(response, context.now)),
      native: undefined,
    }));
  },
};

function message(notification) {
  const { title, body: text } = notification.alert ?? {};
  const body = { title: title ?? undefined, text: text ?? undefined };
  for (const [name, value] of notification.options) {
    if (name === "pinned") body.pinned = JSON.parse(value);
  }
  if (notification.data) body.data = JSON.parse(notification.data);
  return {
    endpoint: "push",
    method: "post",
    headers: [["content-type", "application/json"]],
    body: utf8(JSON.stringify(body)),
    authenticate: true,
  };
}

// What became of a target. Say unregistered only when the service says that the target is gone: callers delete it.
export function outcome(response, now) {
  const body = parsed(response.body);
  const text = (name) => (typeof body[name] === "string" ? body[name] : undefined);
  return {
    disposition: disposition(response, now),
    id: text("id"),
    code: text("error"),
    message: text("message"),
    connection: "keep",
  };
}

function disposition(response, now) {
  const { status } = response;
  const wait = retryAfter(response, now);
  if (status >= 200 && status < 300) return { tag: "delivered" };
  if (status === 401 || status === 403) return { tag: "credential-rejected", val: "refused" };
  if (status === 404 || status === 410) return { tag: "unregistered", val: undefined };
  if (status === 429) return { tag: "throttled", val: { scope: "application", retryAfter: wait } };
  if (status >= 400 && status < 500) return { tag: "rejected" };
  if (status >= 500) return { tag: "unavailable", val: wait };
  return { tag: "unknown" };
}

// Retry-After in milliseconds: it is in seconds, or a date (RFC 9110 section 10.2.3).
function retryAfter(response, now) {
  const value = response.headers.find(([name]) => name === "retry-after")?.[1].trim() ?? "";
  if (/^\d{1,9}$/.test(value)) return Number(value) * 1000;
  const date = value.endsWith("GMT") ? Date.parse(value) : NaN;
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}

function setting(application, name) {
  return application.settings.find(([known]) => known === name)?.[1];
}

function field(name, kind, description) {
  return {
    name, kind, required: false, choices: [], default: undefined, minimum: undefined, maximum: undefined,
    maxLength: undefined, unit: undefined, description,
  };
}

function invalid(field, text) {
  return { code: `invalid_${field}`, message: text, field, more: [] };
}

// A segment that is only dots would climb.
function segment(encoded) {
  return encoded.replaceAll(".", "%2E");
}

// The object in a body, or an empty one if it is anything else. What is nested deeply would exhaust the stack.
function parsed(bytes) {
  try {
    const string = decoded(bytes);
    if (depth(string) > 100) return {};
    const value = JSON.parse(string);
    return typeof value === "object" && value !== null ? value : {};
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
