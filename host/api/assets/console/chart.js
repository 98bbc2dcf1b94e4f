// Pictures of an hour: columns for each minute with their values, and small ones in tables.

import { drawn, element } from "./dom.js";
import { clock, number } from "./words.js";

const MINUTES = 60;
/** Of the picture's own coordinates. */
const [SLOT, WIDTH, HEIGHT] = [10, 8, 150];

/** Sums of two kinds by minute: { at, good, bad }. Minutes before the server's start are filled up. */
export function hour(minutes, split) {
  const known = minutes.slice(-MINUTES).map((minute) => ({ at: minute.at, ...split(minute) }));
  const first = known[0]?.at ?? 0;
  const missing = Array.from({ length: MINUTES - known.length }, (_, index) => first - 60 * (MINUTES - known.length - index));
  return [...missing.map((at) => ({ at, good: 0, bad: 0 })), ...known];
}

/** A chart in `figure`: shows an hour, and the values of the minute that the pointer or the arrow keys choose. */
export class Chart {
  #bars = drawn("svg", { viewBox: `0 0 ${SLOT * MINUTES} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  #cursor = element("div", { class: "cursor", hidden: true });
  #values = element("div", { class: "values", hidden: true });
  #scale = element("span", { class: "scale" }, "");
  #middle = element("span", { class: "scale middle" }, "");
  #times = [0, 1, 2, 3, 4].map(() => element("span", {}, ""));
  #plot;
  #minutes = [];
  #chosen = null;
  #last = "";

  constructor(figure, title) {
    this.#plot = element(
      "div",
      { class: "plot", role: "slider", tabindex: 0, "aria-label": title, "aria-valuemin": 1, "aria-valuemax": MINUTES, "aria-valuenow": MINUTES },
      this.#bars,
      this.#scale,
      this.#middle,
      this.#cursor,
      this.#values,
    );
    figure.append(this.#plot, element("div", { class: "axis", "aria-hidden": "true" }, ...this.#times));
    this.#plot.addEventListener("pointermove", (event) => this.#point(event));
    this.#plot.addEventListener("pointerdown", (event) => this.#point(event));
    this.#plot.addEventListener("pointerleave", () => this.#choose(null));
    this.#plot.addEventListener("blur", () => this.#choose(null));
    this.#plot.addEventListener("keydown", (event) => this.#key(event));
  }

  /** `minutes`: what `hour` returns. */
  show(minutes) {
    const now = JSON.stringify(minutes);
    if (now === this.#last) return;
    this.#last = now;
    this.#minutes = minutes;
    const top = ceiling(Math.max(4, ...minutes.map(({ good, bad }) => good + bad)));
    this.#bars.replaceChildren(...lines(), ...columns(minutes, top, HEIGHT));
    this.#scale.textContent = `${number(top)}`;
    this.#middle.textContent = `${number(top / 2)}`;
    this.#times.forEach((time, index) => {
      const at = minutes[Math.round((index * (MINUTES - 1)) / (this.#times.length - 1))].at;
      time.textContent = index === this.#times.length - 1 ? "now" : clock(at);
    });
    this.#choose(this.#chosen);
    if (this.#chosen === null) this.#plot.setAttribute("aria-valuetext", valueText(minutes.at(-1)));
  }

  #point(event) {
    const { left, width } = this.#plot.getBoundingClientRect();
    this.#choose(Math.min(MINUTES - 1, Math.max(0, Math.floor((MINUTES * (event.clientX - left)) / width))));
  }

  #key(event) {
    const from = this.#chosen ?? MINUTES - 1;
    const to = { ArrowLeft: from - 1, ArrowDown: from - 1, ArrowRight: from + 1, ArrowUp: from + 1, Home: 0, End: MINUTES - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.#choose(Math.min(MINUTES - 1, Math.max(0, to)));
  }

  #choose(index) {
    const minute = index === null ? undefined : this.#minutes[index];
    this.#chosen = minute === undefined ? null : index;
    this.#cursor.hidden = this.#values.hidden = minute === undefined;
    if (minute === undefined) return;
    const place = (100 * (index + 0.45)) / MINUTES;
    this.#cursor.style.left = `${place}%`;
    this.#values.style.left = `${place}%`;
    this.#values.classList.toggle("before", place > 50);
    this.#values.replaceChildren(
      element("strong", {}, index === MINUTES - 1 ? `${clock(minute.at)}, running` : clock(minute.at)),
      element("span", { class: "key all" }, `${number(minute.good)} delivered`),
      element("span", { class: "key lost" }, `${number(minute.bad)} not delivered`),
    );
    this.#plot.setAttribute("aria-valuenow", index + 1);
    this.#plot.setAttribute("aria-valuetext", valueText(minute));
  }
}

/** An hour in the size of a word. */
export function sparkline(minutes) {
  const top = Math.max(1, ...minutes.map(({ good, bad }) => good + bad));
  const all = minutes.reduce((sum, { good, bad }) => sum + good + bad, 0);
  const words = `${number(all)} pushes in the last hour`;
  const attributes = { class: "sparkline", viewBox: `0 0 ${SLOT * MINUTES} 100`, preserveAspectRatio: "none", role: "img", "aria-label": words };
  return drawn("svg", attributes, drawn("line", { class: "grid", x1: 0, x2: SLOT * MINUTES, y1: 100, y2: 100 }), ...columns(minutes, top, 100));
}

/** The part of a limit that is used. */
export function meter(used, most) {
  const part = most > 0 ? Math.min(1, used / most) : 0;
  const tone = part >= 0.9 ? "bad" : part >= 0.7 ? "warn" : "good";
  const bar = drawn("svg", { class: `share ${tone}`, viewBox: "0 0 100 4", preserveAspectRatio: "none", "aria-hidden": "true" });
  bar.append(drawn("rect", { width: 100 * part, height: 4 }));
  return bar;
}

function columns(minutes, top, height) {
  return minutes.flatMap(({ good, bad }, index) => {
    const running = index === MINUTES - 1 ? " running" : "";
    // What is not nothing can be seen.
    const of = (value) => (value === 0 ? 0 : Math.max(1.5, (height * value) / top));
    const [low, high] = [of(good), of(bad)];
    const column = (kind, length, base) =>
      length === 0 ? [] : [drawn("rect", { class: kind + running, x: index * SLOT, width: WIDTH, y: height - base - length, height: length })];
    return [...column("all", low, 0), ...column("lost", high, low)];
  });
}

function lines() {
  return [0.5].map((part) =>
    drawn("line", { class: "grid", x1: 0, x2: SLOT * MINUTES, y1: HEIGHT * part, y2: HEIGHT * part }),
  );
}

function valueText({ at, good, bad }) {
  return `${clock(at)}: ${number(good)} delivered, ${number(bad)} not delivered`;
}

/** The next of 2, 4, 6, 8, 10, 20, … so that half of it is whole. */
function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 6, 8, 10].map((step) => step * power).find((step) => step >= value && step > 1);
}
