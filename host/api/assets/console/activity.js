// What happens now: rates, outcomes, failures.

import { badge, byId, drawn, element, update } from "./dom.js";
import { STATUSES, duration, number, outcome, percent, rate, sums, time } from "./words.js";

/** Seconds that the chart shows: it grows with what is known. */
const [SHORTEST, LONGEST] = [60, 300];
/** Seconds over which the rate of this moment is taken. */
const MOMENT = 10;
const [WIDTH, HEIGHT] = [600, 150];

/** Totals at moments of the last minutes: { at, all, lost }. */
let samples = [];
let uptime = 0;

/** Takes an answer of /v1/status. */
export function show(status, now = performance.now() / 1000) {
  const totals = sums(status.outcomes);
  // A server that began anew counts from zero.
  if (status.uptime < uptime) samples = [];
  uptime = status.uptime;
  samples = [...samples.filter((sample) => now - sample.at <= LONGEST + MOMENT), { at: now, ...totals }];
  const speed = speedAt(samples.length - 1, MOMENT);
  tiles(totals, speed, status.outcomes.unregistered ?? 0);
  chart(now, speed);
  outcomes(status.outcomes, totals.all);
  failures(status.failures);
}

/** Pushes a second over `span` seconds before the sample. */
function speedAt(index, span) {
  const last = samples[index];
  const first = samples.slice(0, index).find((sample) => last.at - sample.at <= span) ?? samples[index - 1];
  if (first === undefined) return { all: 0, lost: 0 };
  const seconds = Math.max(last.at - first.at, 0.001);
  return { all: (last.all - first.all) / seconds, lost: (last.lost - first.lost) / seconds };
}

function tiles(totals, speed, dead) {
  const all = [
    ["Pushes per second", rate(speed.all), ""],
    ["Delivered", number(totals.good), percent(totals.good, totals.all)],
    ["Not delivered", number(totals.lost), percent(totals.lost, totals.all)],
    ["Dead tokens", number(dead), percent(dead, totals.all)],
  ];
  const tile = ([name, value, detail]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, element("strong", {}, value), element("span", {}, detail)));
  update(byId("tiles"), all, () => all.map(tile));
}

function chart(now, speed) {
  const points = samples.map((sample, index) => ({ at: sample.at, ...speedAt(index, 3) })).slice(1);
  const top = ceiling(Math.max(1, ...points.map((point) => point.all)));
  const span = Math.min(LONGEST, Math.max(SHORTEST, now - samples[0].at));
  const x = (at) => (WIDTH * (1 - (now - at) / span)).toFixed(1);
  const y = (value) => (HEIGHT * (1 - value / top)).toFixed(1);
  const line = (name) => points.map((point) => `${x(point.at)},${y(point[name])}`).join(" ");
  const parts = [0.25, 0.5, 0.75].map((part) =>
    drawn("line", { class: "grid", x1: 0, x2: WIDTH, y1: HEIGHT * part, y2: HEIGHT * part }),
  );
  if (points.length > 1) {
    const [first, last] = [x(points[0].at), x(points.at(-1).at)];
    parts.push(
      drawn("polygon", { class: "area", points: `${first},${HEIGHT} ${line("all")} ${last},${HEIGHT}` }),
      drawn("polyline", { class: "all", points: line("all") }),
      drawn("polyline", { class: "lost", points: line("lost") }),
    );
  }
  const picture = byId("chart");
  picture.replaceChildren(...parts);
  picture.setAttribute("aria-label", `${rate(speed.all)} pushes per second now, ${rate(speed.lost)} of them not delivered`);
  byId("scale").textContent = number(top);
  byId("span").textContent = `${duration(span)} ago`;
}

/** The next of 1, 2, 5, 10, 20, … */
function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}

function outcomes(counts, all) {
  const known = STATUSES.filter((status) => status in counts);
  const names = [...known, ...Object.keys(counts).filter((status) => !STATUSES.includes(status))];
  const line = (status) => {
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
  };
  const none = () => [element("tr", {}, element("td", { colspan: 3, class: "hint" }, "Nothing was sent yet."))];
  const body = byId("outcomes").tBodies[0];
  const some = names.filter((status) => counts[status] > 0);
  update(body, [counts, all], () => (some.length > 0 ? some.map(line) : none()));
}

function failures(all) {
  const line = (failure) => {
    const { words, tone } = outcome(failure.status);
    return element(
      "li",
      {},
      element(
        "div",
        { class: "top" },
        badge(tone, words),
        failure.code ? element("code", { class: "code" }, failure.code) : null,
        element("time", { datetime: new Date(failure.at * 1000).toISOString() }, time(failure.at)),
      ),
      failure.message ? element("p", { class: "said" }, failure.message) : null,
      element("p", { class: "hint" }, `${failure.application} by ${failure.provider} to `, element("code", {}, failure.target)),
    );
  };
  byId("failures-none").hidden = all.length > 0;
  byId("failures-list").hidden = all.length === 0;
  update(byId("failures-list"), all, () => all.map(line));
}
