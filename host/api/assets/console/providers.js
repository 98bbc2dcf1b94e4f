// The providers: what they can, and how they are.

import { get, segment } from "./api.js";
import { badge, byId, element, facts, hint, update } from "./dom.js";
import { bytes, day, duration, number, plural } from "./words.js";

/** Answers of /v1/providers/NAME; what the list alone tells of those that did not answer. */
let known = [];

/** Asks for all of them. */
export async function load() {
  const list = await get("providers");
  const detail = (entry) => get(`providers/${segment(entry.name)}`).catch(() => entry);
  known = await Promise.all(list.providers.map(detail));
}

/** All of them, as they were when they were asked for last. */
export async function providers() {
  if (known.length === 0) await load();
  return known;
}

/** `live`: the providers of /v1/status. */
export function show(live) {
  const shown = known.map((one) => [one, live.find(({ digest }) => digest === one.digest)]);
  update(byId("providers-list"), shown, () => shown.map(provider));
}

/** `live`: nothing of a provider that cannot be used. */
function provider([one, live]) {
  const { name, origin, digest, fault, versions = [], manifest } = one;
  return element(
    "li",
    {},
    element("div", { class: "head" }, element("h3", {}, manifest?.title ?? name), badge(...state(one, live))),
    element("p", { class: "hint" }, element("code", {}, name), manifest?.vendor ? ` by ${manifest.vendor}` : ""),
    fault ? element("p", { class: "said" }, fault) : null,
    facts([
      ["Component", element("code", {}, short(digest))],
      ["Version", manifest?.version],
      ["From", { "built-in": "This program", operator: "The operator", own: "Your upload" }[origin]],
      ["Failed calls", number(live?.failures ?? one.failures ?? 0)],
    ]),
    versions.length > 0 ? element("ul", { class: "versions", "aria-label": "Uploaded versions" }, ...versions.map(version)) : null,
  );
}

function state(one, live) {
  if (live === undefined) return one.state === "unusable" ? ["bad", "Unusable"] : ["note", "Changing"];
  if (live.quarantined !== null) return ["bad", `Quarantined, ${duration(live.quarantined)} left`];
  return live.warm > 0 ? ["good", `Warm, ${plural(live.warm, "instance")}`] : ["note", "Ready, not in use"];
}

function version({ digest, active, size, uploaded, quarantined_for: wait }) {
  const words = wait ? ["bad", `Quarantined, ${duration(wait)} left`] : active ? ["good", "In use"] : ["note", "Kept"];
  return element("li", {}, element("code", {}, short(digest)), badge(...words), hint(` ${day(new Date(uploaded))}, ${bytes(size)}`));
}

const short = (digest) => String(digest).slice(0, 12);
