// What is there: applications, providers, tenants.

import { get } from "./api.js";
import { badge, byId, element, row, update } from "./dom.js";
import { day, duration, number, plural, short, sums, validity } from "./words.js";

const PAGE = 100;
const MOST = 1000;
/** Days: certificates that end within these stand first. */
const SOON = 30;

let applications = [];
let wanted = PAGE;
/** Answers of /v1/providers/NAME; what the list alone tells of those that did not answer. */
let providers = [];

/** Asks for the applications, which it answers, and the providers. */
export async function load() {
  const list = await get(`applications?limit=${wanted}`);
  applications = list.applications.sort(bySoonestEnd);
  byId("applications-more").hidden = list.next === null || wanted >= MOST;
  const known = await get("providers");
  const detail = (entry) => get(`providers/${encodeURIComponent(entry.name)}`).catch(() => entry);
  providers = await Promise.all(known.providers.map(detail));
  return applications;
}

export function wantMore() {
  wanted = Math.min(MOST, wanted + PAGE);
}

export function show(status) {
  showApplications(status);
  const shown = providers.map((known) => [known, status.providers.find((live) => live.digest === known.digest)]);
  update(byId("providers-list"), shown, () => shown.map(provider));
}

function bySoonestEnd(one, other) {
  const days = (application) => {
    const left = validity(application.credential?.not_after).days;
    return left < SOON ? left : Infinity;
  };
  const [left, right] = [days(one), days(other)];
  if (left !== right) return left < right ? -1 : 1;
  return one.id < other.id ? -1 : 1;
}

function showApplications(status) {
  const counts = new Map(status.applications.map((counted) => [counted.application, sums(counted.outcomes)]));
  const of = (application) => counts.get(application.id) ?? { good: 0, lost: 0 };
  byId("applications-none").hidden = applications.length > 0;
  byId("applications-table").hidden = applications.length === 0;
  const soon = applications.filter((application) => validity(application.credential?.not_after).days < SOON).length;
  update(byId("applications-soon"), soon, () => (soon > 0 ? [badge("warn", `${plural(soon, "credential")} to renew`)] : []));
  const shown = applications.map((application) => [application, of(application)]);
  update(byId("applications-table").tBodies[0], shown, () => shown.map(applicationRow));
}

function applicationRow([application, { good, lost }]) {
  const { id, provider, environment, credential } = application;
  const { tone, words } = validity(credential?.not_after);
  const end = credential?.not_after ? element("span", { class: "hint" }, day(new Date(credential.not_after))) : null;
  const valid = credential ? [badge(tone, words), end] : [badge("note", "No credential")];
  return row([
    ["Application", element("strong", {}, id)],
    ["Provider", [provider, element("span", { class: "hint" }, environment)]],
    ["Credential", credential ? [credential.credential, element("span", { class: "hint" }, named(credential))] : "–"],
    ["Valid", valid.filter(Boolean)],
    ["Delivered", number(good), "number"],
    ["Not delivered", number(lost), "number"],
  ]);
}

/** Whose credential it is. */
function named(credential) {
  const topics = credential.topics.length > 0 ? credential.topics.join(", ") : null;
  return credential.subject ?? topics ?? (credential.fingerprint ? `SHA-256 ${short(credential.fingerprint)}…` : "");
}

/** `live`: what /v1/status tells; nothing of a provider that can not be used. */
function provider([known, live]) {
  const { name, origin, digest, fault, versions = [], manifest } = known;
  const facts = [
    ["Component", element("code", {}, short(digest))],
    ["Version", manifest?.version],
    ["From", { "built-in": "This program", operator: "The operator", own: "Your upload" }[origin]],
    ["Failed calls", number(live?.failures ?? known.failures)],
  ];
  const fact = ([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value));
  return element(
    "li",
    {},
    element("div", { class: "head" }, element("h3", {}, manifest?.title ?? name), badge(...state(known, live))),
    element("p", { class: "hint" }, element("code", {}, name), manifest?.vendor ? ` by ${manifest.vendor}` : ""),
    fault ? element("p", { class: "said" }, fault) : null,
    element("dl", { class: "facts" }, ...facts.filter(([, value]) => value).map(fact)),
    versions.length > 0 ? element("ul", { class: "versions", "aria-label": "Uploaded versions" }, ...versions.map(version)) : null,
  );
}

function state(known, live) {
  if (live === undefined) return known.state === "unusable" ? ["bad", "Unusable"] : ["note", "Changing"];
  if (live.quarantined !== null) return ["bad", `Quarantined, ${duration(live.quarantined)} left`];
  return live.warm > 0 ? ["good", `Warm, ${plural(live.warm, "instance")}`] : ["note", "Ready, not in use"];
}

function version({ digest, active, size, uploaded, quarantined_for: wait }) {
  const words = wait ? ["bad", `Quarantined, ${duration(wait)} left`] : active ? ["good", "In use"] : ["note", "Kept"];
  const about = ` ${day(new Date(uploaded))}, ${number(Math.ceil(size / 1024))} KiB`;
  return element("li", {}, element("code", {}, short(digest)), badge(...words), element("span", { class: "hint" }, about));
}

/** Asks for the tenants and shows them, or why they are not shown. */
export async function showTenants() {
  const [table, message] = [byId("tenants-table"), byId("tenants-message")];
  try {
    const { tenants, next } = await get(`tenants?limit=${MOST}`);
    message.textContent = next ? `The first ${number(tenants.length)}` : plural(tenants.length, "tenant");
    table.hidden = tenants.length === 0;
    update(table.tBodies[0], tenants, () => tenants.map(tenantRow));
  } catch (refusal) {
    table.hidden = true;
    message.textContent = refusal.status === 404 ? "This server has no tenants but you." : sentence(refusal.message);
  }
}

function tenantRow({ id, suspended, created }) {
  return row([
    ["Tenant", element("strong", {}, id)],
    ["State", suspended ? badge("warn", "Suspended") : badge("good", "Active")],
    ["Since", created ? day(new Date(created)) : "–"],
  ]);
}

function sentence(text) {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}
