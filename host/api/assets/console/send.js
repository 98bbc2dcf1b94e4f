// The form that sends a push, with what the application's provider knows.

import { get, post, query, segment } from "./api.js";
import { badge, button, byId, element, field, hint, say, told, update } from "./dom.js";
import { providers } from "./providers.js";
import { duration, outcome, plural } from "./words.js";

/** Targets of one test. */
const MOST = 20;
/** Applications that are suggested. */
const SUGGESTED = 20;

const form = byId("send-form");
const message = byId("send-message");
const results = byId("send-results");
const LABELS = {
  device: ["Device tokens", "Tokens, one a line"],
  topic: ["A topic", "Topic"],
  condition: ["A condition", "Condition"],
  channel: ["A channel", "Channel"],
  url: ["A URL", "URL"],
};

let isSending = false;
/** The manifest of the chosen application's provider, and its name; null: not known. */
let knows = null;
/** Names of providers, by application. */
const asked = new Map();
let wait = 0;

/** Listens to the fields. */
export function start() {
  const { application, kind, raw, option } = form.elements;
  offerTargets(Object.keys(LABELS));
  kind.addEventListener("change", label);
  application.addEventListener("input", () => {
    clearTimeout(wait);
    wait = setTimeout(search, 250);
  });
  application.addEventListener("change", () => learn());
  raw.addEventListener("change", writeRaw);
  option.addEventListener("change", addOption);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
}

/** Offers these applications while nothing is typed; the first is chosen if nothing is. */
export function suggest(ids) {
  const { application } = form.elements;
  if (application.value === "" && document.activeElement !== application && ids.length > 0) {
    [application.value] = ids;
    learn();
  }
  if (document.activeElement !== application) offerIds(ids);
}

/** Chooses an application, and goes to the form. */
export function choose(id) {
  form.elements.application.value = id;
  learn();
  byId("send").scrollIntoView();
  form.elements.targets.focus({ preventScroll: true });
}

/** What was known of an application that has changed. */
export function forget(id) {
  asked.delete(id);
  learn();
}

function offerIds(ids) {
  const shown = ids.slice(0, SUGGESTED);
  update(byId("send-applications"), shown, () => shown.map((value) => element("option", { value })));
}

async function search() {
  const typed = form.elements.application.value.trim();
  try {
    const { applications } = await get(`applications?${query({ limit: SUGGESTED, search: typed })}`);
    offerIds(applications.map(({ id }) => id));
    if (applications.some(({ id }) => id === typed)) learn();
  } catch {
    // Without suggestions an id can be typed all the same.
  }
}

/** Finds out what can be sent to the application that is chosen. */
async function learn() {
  const id = form.elements.application.value.trim();
  let name = asked.get(id);
  if (name === undefined && id !== "") {
    const application = await get(`applications/${segment(id)}`).catch(() => null);
    name = application?.provider;
    if (name !== undefined) asked.set(id, name);
  }
  const all = name === undefined ? [] : await providers().catch(() => []);
  // Another one may have been chosen meanwhile.
  if (form.elements.application.value.trim() !== id) return;
  const found = all.find((provider) => provider.name === name && provider.manifest);
  if (found?.digest === knows?.digest) return;
  knows = found ?? null;
  offerTargets(knows?.manifest.targets ?? Object.keys(LABELS));
  byId("send-options").replaceChildren();
  offerOptions();
}

function offerTargets(kinds) {
  const { kind } = form.elements;
  const before = kind.value;
  kind.replaceChildren(...kinds.filter((name) => name in LABELS).map((value) => element("option", { value }, LABELS[value][0])));
  if (kinds.includes(before)) kind.value = before;
  label();
}

function label() {
  byId("target-label").textContent = LABELS[form.elements.kind.value]?.[1] ?? "Targets";
}

/** The options that are not there yet. */
function offerOptions() {
  const { option } = form.elements;
  const there = new Set([...form.querySelectorAll("[data-option]")].map((input) => input.dataset.option));
  const names = knows === null ? [] : [...Object.keys(knows.manifest.options), knows.name].filter((name) => !there.has(name));
  option.replaceChildren(element("option", { value: "" }, names.length > 0 ? "Choose…" : "None"), ...names.map((value) => element("option", { value }, value)));
  option.disabled = names.length === 0;
}

/** A field for an option, as its kind wants it. The provider's own name stands for its raw object. */
function addOption() {
  const { option } = form.elements;
  const name = option.value;
  if (name === "" || knows === null) return;
  const { manifest } = knows;
  const { kind, choices } = manifest.option_kinds[name] ?? { kind: "json", choices: [] };
  const common = { "data-option": name, "data-kind": kind, autocomplete: "off", spellcheck: "false" };
  const values = kind === "boolean" ? ["true", "false"] : choices;
  const input =
    values.length > 0 ? element("select", common, ...values.map((value) => element("option", { value }, value)))
      : kind === "json" ? element("textarea", { ...common, rows: 3, placeholder: "{}" })
        : element("input", { ...common, inputmode: kind === "text" ? null : "decimal" });
  const drop = button("Remove", () => {
    line.remove();
    offerOptions();
    option.focus();
  }, { class: "quiet", "aria-label": `Remove ${name}` });
  const about = name === knows.name ? `A raw payload in the terms of ${manifest.title}.` : manifest.options[name];
  const line = element("div", { class: "option" }, field(name, input, hint(about)), drop);
  byId("send-options").append(line);
  offerOptions();
  input.focus();
}

/** Shows the notification as JSON instead of the fields, or the fields again. */
function writeRaw() {
  const { raw, json } = form.elements;
  if (raw.checked) {
    const { notification } = readFields();
    json.value = JSON.stringify(notification ?? {}, null, 2);
  }
  byId("send-fields").hidden = raw.checked;
  byId("send-raw").hidden = !raw.checked;
}

async function send() {
  if (isSending) return;
  const request = read();
  if (request === null) return;
  working(true);
  say(message, "", "Sending…");
  results.replaceChildren();
  try {
    const answer = await post("notifications", request);
    results.replaceChildren(...answer.results.map(result));
    const good = answer.results.filter(({ status }) => outcome(status).isGood).length;
    const done = request.validate_only ? "valid" : "delivered";
    const tone = good === answer.results.length ? "good" : good > 0 ? "warn" : "bad";
    say(message, tone, `${good} of ${plural(answer.results.length, "target")} ${done}.`);
  } catch (refusal) {
    say(message, "bad", told(refusal));
    mark(refusal.field);
  }
  working(false);
}

/** The request; null: something is missing, and the form says what. */
function read() {
  const { application, kind, targets, check, raw, body } = form.elements;
  for (const input of form.elements) input.removeAttribute("aria-invalid");
  const names = targets.value.split("\n").map((line) => line.trim()).filter((line) => line !== "");
  const { notification, wrong } = raw.checked ? readRaw() : readFields();
  const missing =
    (application.value.trim() === "" && [application, "Choose an application."]) ||
    (names.length === 0 && [targets, "Name at least one target."]) ||
    (names.length > MOST && [targets, `At most ${MOST} targets here; pushlet send takes any number.`]) ||
    wrong ||
    (Object.keys(notification).length === 0 && [body, "Write a title or a text."]);
  if (missing) {
    const [input, why] = missing;
    results.replaceChildren();
    say(message, "bad", why);
    input.closest("details")?.setAttribute("open", "");
    input.setAttribute("aria-invalid", "true");
    input.focus();
    return null;
  }
  const target = (name) => (kind.value === "device" ? name : { [kind.value]: name });
  return { application_id: application.value.trim(), notification, targets: names.map(target), validate_only: check.checked };
}

/** { notification } of the JSON text, or { wrong }: an input and why. */
function readRaw() {
  const { json } = form.elements;
  const notification = parsed(json.value);
  if (notification === undefined || notification === null || typeof notification !== "object" || Array.isArray(notification)) {
    return { wrong: [json, "The notification is not a JSON object."] };
  }
  return { notification };
}

/** The same of the fields. */
function readFields() {
  const { title, body, data, badge: count, sound } = form.elements;
  const notification = {};
  if (title.value !== "") notification.title = title.value;
  if (body.value !== "") notification.body = body.value;
  if (sound.value.trim() !== "") notification.sound = sound.value.trim();
  if (count.value.trim() !== "") {
    if (!/^\d+$/.test(count.value.trim())) return { wrong: [count, "The badge is not a whole number."] };
    notification.badge = Number(count.value);
  }
  if (data.value.trim() !== "") {
    notification.data = parsed(data.value);
    if (notification.data === null || typeof notification.data !== "object" || Array.isArray(notification.data)) {
      return { wrong: [data, "The data is not a JSON object."] };
    }
  }
  for (const input of form.querySelectorAll("[data-option]")) {
    const { option, kind } = input.dataset;
    const value = kind === "text" ? input.value : parsed(input.value);
    if (value === undefined) return { wrong: [input, `${option} is not ${kind === "json" ? "JSON" : "a number"}.`] };
    notification[option] = value;
  }
  return { notification };
}

/** undefined: it is no JSON. */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The field that the server's error names. */
function mark(name) {
  const { application, targets, title, body, data, badge: count, sound, json, raw } = form.elements;
  const parts = String(name ?? "").split(/[.[]/);
  const fields = { application_id: application, target: targets, targets, title, body, data, badge: count, sound };
  const options = [...form.querySelectorAll("[data-option]")];
  const own = (part) => fields[part] ?? options.find((input) => input.dataset.option === part);
  const named = own(parts.at(-1)) ?? own(parts[0]) ?? own(parts[1]);
  const input = raw.checked && named !== application && named !== targets && name ? json : named;
  input?.setAttribute("aria-invalid", "true");
}

function result({ target, status, code, message: text, id, retry_after: pause, replacement, since }) {
  const { words, tone } = outcome(status);
  const known = [
    id ? ["Id", id] : null,
    replacement ? ["New token", replacement] : null,
    since ? ["Dead since", since] : null,
    pause ? ["Try again in", duration(pause)] : null,
  ];
  const fact = ([name, value]) => element("p", { class: "hint" }, `${name} `, element("code", {}, value));
  return element(
    "li",
    {},
    element("div", { class: "top" }, badge(tone, words), code ? element("code", { class: "code" }, code) : null),
    text ? element("p", { class: "said" }, text) : null,
    element("p", { class: "hint" }, "To ", element("code", {}, typeof target === "string" ? target : Object.entries(target).flat().join(" "))),
    ...known.filter(Boolean).map(fact),
  );
}

/** The button stays where it is and keeps the focus. */
function working(yes) {
  isSending = yes;
  form.querySelector("button[type=submit]").setAttribute("aria-disabled", String(yes));
}
