// What happens now, and what happened in the last hour: rates, outcomes, failures.

import { Chart, hour } from "./chart.js";
import { badge, byId, drawn, element, update } from "./dom.js";
import { STATUSES, number, outcome, percent, rate, sums, time } from "./words.js";

/** Seconds over which the rate of this moment is taken. */
const MOMENT = 10;

/** By the value of the switch: how the time is called, and which minutes it has; null: since the server started. */
const WINDOWS = {
  5: ["in the last 5 minutes", (minutes) => minutes.slice(-5)],
  60: ["in the last hour", (minutes) => minutes],
  all: ["since the server started", null],
};

/** Totals at moments of the last seconds: { at, all }. */
let samples = [];
let last = null;
let picture = null;

/** Shows what was chosen, at once. */
export function start() {
  picture = new Chart(byId("chart"), "Pushes per minute");
  byId("window").addEventListener("change", () => last && draw());
  byId("failures-by").addEventListener("change", () => last && failures());
}

/** Takes an answer of /v1/status. */
export function show(status, now = performance.now() / 1000) {
  const { all } = sums(status.outcomes);
  // A server that began anew counts from zero.
  if (status.uptime < (last?.uptime ?? 0)) samples = [];
  samples = [...samples.filter((sample) => now - sample.at <= MOMENT), { at: now, all }];
  last = status;
  draw();
  failures();
}

function draw() {
  const chosen = byId("window").elements.window.value;
  const [words, cut] = WINDOWS[chosen];
  const minutes = cut === null ? null : cut(last.minutes);
  const outcomes = minutes === null ? last.outcomes : added(minutes);
  const seconds = minutes === null ? last.uptime : Math.min(covered(minutes), last.uptime);
  tiles(outcomes, seconds);
  shares(outcomes, words);
  picture.show(hour(last.minutes, (minute) => {
    const { good, lost } = sums(minute.outcomes);
    return { good, bad: lost };
  }));
}

function added(minutes) {
  const outcomes = {};
  for (const minute of minutes) {
    for (const [status, count] of Object.entries(minute.outcomes)) outcomes[status] = (outcomes[status] ?? 0) + count;
  }
  return outcomes;
}

/** Seconds from the first minute's begin until now. */
function covered(minutes) {
  return Math.max(1, 60 * (minutes.length - 1) + Math.min(60, Math.max(0, Date.now() / 1000 - minutes.at(-1).at)));
}

/** Pushes a second now: between two questions, or, at the first, in the running minute and the one before it. */
function speed() {
  const [first, final] = [samples[0], samples.at(-1)];
  if (samples.length > 1) return (final.all - first.all) / Math.max(final.at - first.at, 0.001);
  const minutes = last.minutes.slice(-2);
  return sums(added(minutes)).all / Math.min(covered(minutes), Math.max(1, last.uptime));
}

function tiles(outcomes, seconds) {
  const { all, good, lost } = sums(outcomes);
  const dead = outcomes.unregistered ?? 0;
  const shown = [
    ["Pushes per second", rate(speed()), `${rate(all / Math.max(1, seconds))} on average`],
    ["Delivered", number(good), percent(good, all)],
    ["Not delivered", number(lost), percent(lost, all)],
    ["Dead tokens", number(dead), percent(dead, all)],
  ];
  showTiles(byId("tiles"), shown);
}

/** `shown`: [name, value, detail]. */
export function showTiles(list, shown) {
  const tile = ([name, value, detail]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, element("strong", {}, value), element("span", {}, detail)));
  update(list, shown, () => shown.map(tile));
}

function shares(counts, words) {
  byId("outcomes-window").textContent = `Outcomes ${words}`;
  const { all } = sums(counts);
  const body = byId("outcomes").tBodies[0];
  const none = () => [element("tr", {}, element("td", { colspan: 3, class: "hint" }, `Nothing was sent ${words}.`))];
  const rows = outcomeRows(counts);
  update(body, [counts, words], () => (all > 0 ? rows : none()));
}

/** Rows of a table: outcome, targets, share. */
export function outcomeRows(counts) {
  const { all } = sums(counts);
  const known = STATUSES.filter((status) => status in counts);
  const names = [...known, ...Object.keys(counts).filter((status) => !STATUSES.includes(status))];
  return names.filter((status) => counts[status] > 0).map((status) => {
    const { words, tone } = outcome(status);
    const bar = drawn("svg", { class: `share ${tone}`, viewBox: "0 0 100 4", preserveAspectRatio: "none", "aria-hidden": "true" });
    bar.append(drawn("rect", { width: all === 0 ? 0 : (100 * counts[status]) / all, height: 4 }));
    return element(
      "tr",
      {},
      element("th", { scope: "row" }, words, bar),
      element("td", { class: "number" }, number(counts[status])),
      element("td", { class: "number" }, percent(counts[status], all)),
    );
  });
}

function failures() {
  const byReason = byId("failures-by").elements.by.value === "reason";
  const all = byReason ? last.reasons : last.failures;
  byId("failures-none").hidden = all.length > 0;
  byId("failures-list").hidden = all.length === 0;
  update(byId("failures-list"), [byReason, all], () => all.map(byReason ? reason : (one) => failure(one, [])));
}

function reason({ count, since, last: newest }) {
  const often = count > 1 ? `${number(count)} times since ${time(since)}; last: ` : "";
  return failure(newest, [element("span", { class: "count" }, number(count))], often);
}

function failure(one, marks, often = "") {
  const { words, tone } = outcome(one.status);
  return element(
    "li",
    {},
    element(
      "div",
      { class: "top" },
      ...marks,
      badge(tone, words),
      one.code ? element("code", { class: "code" }, one.code) : null,
      element("time", { datetime: new Date(one.at * 1000).toISOString() }, time(one.at)),
    ),
    one.message ? element("p", { class: "said" }, one.message) : null,
    element("p", { class: "hint" }, `${often}${one.application} by ${one.provider} to `, element("code", {}, one.target)),
  );
}

