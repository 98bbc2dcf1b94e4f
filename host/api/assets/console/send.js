// The form that sends a push.

import { post } from "./api.js";
import { badge, byId, element, update } from "./dom.js";
import { duration, outcome, plural } from "./words.js";

/** Targets of one test. */
const MOST = 20;

const form = byId("send-form");
const message = byId("send-message");
const results = byId("send-results");
const LABELS = {
  device: "Tokens, one a line",
  topic: "Topic",
  condition: "Condition",
  channel: "Channel",
  url: "URL",
};

let isSending = false;

/** Offers these applications; what was chosen stays chosen. */
export function offer(applications) {
  const select = form.elements.application;
  const ids = applications.map((application) => application.id).sort();
  const chosen = select.value;
  update(select, ids, () => ids.map((id) => element("option", { value: id }, id)));
  if (ids.includes(chosen)) select.value = chosen;
  byId("send-none").hidden = ids.length > 0;
}

form.elements.kind.addEventListener("change", label);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});

function label() {
  byId("target-label").textContent = LABELS[form.elements.kind.value];
}

async function send() {
  if (isSending) return;
  const request = read();
  if (request === null) return;
  working(true);
  say("", "Sending…");
  results.replaceChildren();
  try {
    const answer = await post("notifications", request);
    results.replaceChildren(...answer.results.map(result));
    const good = answer.results.filter(({ status }) => outcome(status).isGood).length;
    const done = request.validate_only ? "valid" : "delivered";
    const tone = good === answer.results.length ? "good" : good > 0 ? "warn" : "bad";
    say(tone, `${good} of ${plural(answer.results.length, "target")} ${done}.`);
  } catch (refusal) {
    say("bad", refusal.code ? `${refusal.message} (${refusal.code})` : refusal.message);
    mark(refusal.field);
  }
  working(false);
}

/** The request; null: something is missing, and the form says what. */
function read() {
  const { application, kind, targets, title, body, check } = form.elements;
  for (const field of form.elements) field.removeAttribute("aria-invalid");
  const names = targets.value.split("\n").map((line) => line.trim()).filter((line) => line !== "");
  const notification = {};
  if (title.value !== "") notification.title = title.value;
  if (body.value !== "") notification.body = body.value;
  const missing =
    (application.value === "" && [application, "Choose an application."]) ||
    (names.length === 0 && [targets, "Name at least one target."]) ||
    (names.length > MOST && [targets, `At most ${MOST} targets here; pushlet send takes any number.`]) ||
    (Object.keys(notification).length === 0 && [body, "Write a title or a text."]);
  if (missing) {
    const [field, why] = missing;
    results.replaceChildren();
    say("bad", why);
    field.setAttribute("aria-invalid", "true");
    field.focus();
    return null;
  }
  const target = (name) => (kind.value === "device" ? name : { [kind.value]: name });
  return { application_id: application.value, notification, targets: names.map(target), validate_only: check.checked };
}

/** The field that the server's error names. */
function mark(name) {
  const { application, targets, title, body } = form.elements;
  const part = String(name ?? "").split(/[.[]/);
  const fields = { application_id: application, target: targets, targets, title, body };
  const field = fields[part.at(-1)] ?? fields[part[0]];
  field?.setAttribute("aria-invalid", "true");
}

function result({ target, status, code, message: text, id, retry_after: wait, replacement, since }) {
  const { words, tone } = outcome(status);
  const facts = [
    id ? ["Id", id] : null,
    replacement ? ["New token", replacement] : null,
    since ? ["Dead since", since] : null,
    wait ? ["Try again in", duration(wait)] : null,
  ];
  const fact = ([name, value]) => element("p", { class: "hint" }, `${name} `, element("code", {}, value));
  return element(
    "li",
    {},
    element("div", { class: "top" }, badge(tone, words), code ? element("code", { class: "code" }, code) : null),
    text ? element("p", { class: "said" }, text) : null,
    element("p", { class: "hint" }, "To ", element("code", {}, typeof target === "string" ? target : Object.entries(target).flat().join(" "))),
    ...facts.filter(Boolean).map(fact),
  );
}

function say(tone, text) {
  message.className = `message ${tone}`;
  message.textContent = text;
}

/** The button stays where it is and keeps the focus. */
function working(yes) {
  isSending = yes;
  form.querySelector("button").setAttribute("aria-disabled", String(yes));
}
