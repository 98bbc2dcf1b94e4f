// The applications: found, paged through, shown, registered, renewed, removed.

import { get, query, remove, segment } from "./api.js";
import { outcomeRows } from "./activity.js";
import { Chart, hour } from "./chart.js";
import { badge, button, byId, confirm, dialog, element, facts, hint, row, say, told, update } from "./dom.js";
import { register } from "./registration.js";
import * as send from "./send.js";
import { Pager } from "./pager.js";
import { day, number, plural, sums, validity } from "./words.js";

/** Days: what ends within these is to be renewed. */
const SOON = 30;
/** Dead tokens that are shown of an application. */
const TOKENS = 10;

const pager = new Pager(byId("applications-pager"), 10, load);

/** Listens to the fields. */
export function start() {
  const { search, sort } = byId("applications-find").elements;
  byId("applications-find").addEventListener("submit", (event) => event.preventDefault());
  search.addEventListener("input", () => pager.restart(250));
  sort.addEventListener("change", () => pager.restart());
  byId("applications-new").addEventListener("click", () => register(null, changed));
}

/** Asks for the page that is looked at, and shows it. Throws a Refusal. */
export async function load() {
  const { search, sort } = byId("applications-find").elements;
  const wanted = { limit: pager.size, after: pager.after, search: search.value.trim(), sort: sort.value };
  const { applications, total, next } = await get(`applications?${query(wanted)}`);
  if (applications.length === 0 && pager.back()) return load();
  pager.show(applications.length, total, next);
  const none = byId("applications-none");
  none.hidden = applications.length > 0;
  none.textContent = wanted.search === "" ? "There is none yet. Register one with its credential." : "No application has this in its name, provider or topic.";
  byId("applications-table").hidden = applications.length === 0;
  byId("send-none").hidden = total > 0 || wanted.search !== "";
  send.suggest(applications.map(({ id }) => id));
  update(byId("applications-table").tBodies[0], applications, () => applications.map(applicationRow));
}

/** Those that end soon are counted apart: they may be on another page. */
export async function loadSoon() {
  const { applications } = await get(`applications?${query({ sort: "expiry", limit: 100 })}`);
  const soon = applications.filter(({ credential }) => validity(credential?.not_after).days < SOON).length;
  const words = `${soon === 100 ? "100 or more credentials" : plural(soon, "credential")} to renew`;
  update(byId("applications-soon"), soon, () => (soon > 0 ? [badge("warn", words)] : []));
}

async function changed(text, id) {
  say(byId("applications-message"), "good", text);
  send.forget(id);
  await Promise.all([load(), loadSoon()]).catch(() => {});
}

function applicationRow(application) {
  const { id, provider, environment, credential, outcomes } = application;
  const { tone, words } = validity(credential?.not_after);
  const end = credential?.not_after ? hint(day(new Date(credential.not_after))) : null;
  const valid = credential ? [badge(tone, words), end] : [badge("note", "No credential")];
  const { good, lost } = sums(outcomes);
  const count = (value) => (outcomes === null ? "–" : number(value));
  const open = button(id, () => show(id), { class: "link", title: id, "data-focus": id });
  return row([
    ["Application", open],
    ["Provider", [provider, hint(environment)]],
    ["Credential", credential ? [credential.credential, hint(named(credential))] : "–"],
    ["Valid", valid.filter(Boolean)],
    ["Delivered", count(good), "number"],
    ["Not delivered", count(lost), "number"],
  ]);
}

/** Whose credential it is. */
function named(credential) {
  const topics = credential.topics.length > 0 ? credential.topics.join(", ") : null;
  return credential.subject ?? topics ?? (credential.fingerprint ? `SHA-256 ${credential.fingerprint.slice(0, 12)}…` : "");
}

/** One application, in a dialog. */
async function show(id) {
  const path = `applications/${segment(id)}`;
  try {
    const [application, status, { dead_tokens: dead }] = await Promise.all([
      get(path),
      get(`status?${query({ application: id, applications: false })}`),
      get(`${path}/feedback`),
    ]);
    dialog(id, (opened) => detail(opened, application, status, dead));
  } catch (refusal) {
    say(byId("applications-message"), "bad", told(refusal));
  }
}

function detail(opened, application, status, dead) {
  const { id, provider, environment, credential, settings } = application;
  const { tone, words } = validity(credential?.not_after);
  const figure = element("figure", { class: "chart small" });
  figure.append(element("figcaption", {}, "Pushes per minute"));
  new Chart(figure, `Pushes per minute of ${id}`).show(
    hour(status.minutes, ({ outcomes }) => ({ good: sums(outcomes).good, bad: sums(outcomes).lost })),
  );
  const rows = outcomeRows(status.outcomes);
  const message = element("p", { class: "message", role: "status" });
  const actions = element("div", { class: "actions" });
  actions.append(
    button("Send a test push", () => {
      opened.close();
      send.choose(id);
    }),
    button("Renew", () => {
      opened.close();
      register(application, changed);
    }, { class: "quiet" }),
    button("Remove", () => confirm(actions, message, "Pushes for it will fail, and its dead tokens are forgotten.", "Remove it", async () => {
      await remove(`applications/${segment(id)}`);
      opened.close();
      await changed(`${id} was removed.`, id);
    }), { class: "quiet danger" }),
  );
  return [
    credential ? element("p", {}, badge(tone, words)) : null,
    facts([
      ["Provider", provider],
      ["Environment", environment],
      ["Credential", credential?.credential],
      ["Subject", credential?.subject],
      ["Topics", credential?.topics.join(", ")],
      ["Valid until", credential?.not_after ? day(new Date(credential.not_after)) : null],
      ["SHA-256", credential?.fingerprint ? element("code", {}, credential.fingerprint) : null],
      ...Object.entries(settings).map(([name, value]) => [name, element("code", {}, value)]),
    ]),
    figure,
    rows.length > 0
      ? element("table", { class: "outcomes" }, element("caption", {}, "Outcomes since the server started"), element("tbody", {}, ...rows))
      : element("p", { class: "hint" }, "Nothing was sent since the server started."),
    tokens(dead),
    message,
    actions,
  ].filter(Boolean);
}

function tokens(dead) {
  if (dead.length === 0) return null;
  const line = ({ device_token: token, since }) =>
    element("li", {}, element("code", {}, token), since ? hint(` since ${since}`) : null);
  const more = dead.length > TOKENS ? ` The first ${TOKENS}:` : "";
  return element(
    "div",
    {},
    element("h3", {}, plural(dead.length, "dead token")),
    element("p", { class: "hint" }, `Your next call of the feedback route takes them.${more}`),
    element("ul", { class: "tokens" }, ...dead.slice(0, TOKENS).map(line)),
  );
}
