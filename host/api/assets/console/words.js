// What the API's words and numbers are called on this page.

const OUTCOMES = {
  delivered: ["Delivered", "good"],
  replaced: ["Delivered, new token", "good"],
  unregistered: ["Dead token", "note"],
  rejected: ["Rejected", "bad"],
  credential_rejected: ["Credential rejected", "bad"],
  throttled: ["Throttled", "warn"],
  unavailable: ["Service unavailable", "warn"],
  unknown: ["Perhaps delivered", "warn"],
  failed: ["Failed in this server", "bad"],
  valid: ["Valid, not sent", "good"],
  duplicate: ["Duplicate, sent once", "good"],
};

export const STATUSES = Object.keys(OUTCOMES);

/** Its words and tone; a status that this page does not know is shown as it is. */
export function outcome(status) {
  const [words, tone] = OUTCOMES[status] ?? [String(status), "warn"];
  return { words, tone, isGood: tone === "good" };
}

/** { all, good, lost } of counts by status. */
export function sums(outcomes) {
  let [all, good] = [0, 0];
  for (const [status, count] of Object.entries(outcomes ?? {})) {
    all += count;
    if (outcome(status).isGood) good += count;
  }
  return { all, good, lost: all - good };
}

const NUMBER = new Intl.NumberFormat("en");
const TIME = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const DAY_AND_TIME = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "medium" });
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const DAY = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });

export const number = (value) => NUMBER.format(value);
export const day = (date) => DAY.format(date);
/** The minute of a time in seconds. */
export const clock = (seconds) => CLOCK.format(new Date(seconds * 1000));

/** Without the day if it is today. */
export function time(seconds, now = new Date()) {
  const then = new Date(seconds * 1000);
  return (then.toDateString() === now.toDateString() ? TIME : DAY_AND_TIME).format(then);
}

export function rate(value) {
  return value >= 100 ? number(Math.round(value)) : value.toFixed(1);
}

export function percent(part, all) {
  if (all === 0) return "–";
  const value = (100 * part) / all;
  // What is not nothing shall not be shown as nothing.
  if (part > 0 && value < 0.05) return "< 0.1 %";
  // What is not all shall not be shown as all.
  const digits = value > 99.9 && part < all ? 99.9 : value;
  return `${digits.toFixed(digits === 100 || digits === 0 ? 0 : 1)} %`;
}

export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, value)) / 10));
  const count = value / 1024 ** power;
  return `${count >= 100 || power === 0 ? Math.round(count) : count.toFixed(1)} ${units[power]}`;
}

export function plural(count, one, many = `${one}s`) {
  return `${number(count)} ${count === 1 ? one : many}`;
}

export function duration(seconds) {
  if (seconds < 120) return plural(Math.round(seconds), "second");
  if (seconds < 7200) return plural(Math.round(seconds / 60), "minute");
  if (seconds < 172800) return plural(Math.round(seconds / 3600), "hour");
  return plural(Math.floor(seconds / 86400), "day");
}

/** How long a credential is valid: { tone, words, days }. `end`: RFC 3339, or nothing. */
export function validity(end, now = Date.now()) {
  const left = Date.parse(end ?? "") - now;
  if (Number.isNaN(left)) return { tone: "note", words: "Does not expire", days: Infinity };
  const days = Math.floor(left / 86400000);
  if (left <= 0) return { tone: "bad", words: left > -86400000 ? "Ended today" : `Ended ${plural(-days - 1, "day")} ago`, days };
  if (days < 1) return { tone: "bad", words: "Ends within a day", days };
  return { tone: days < 7 ? "bad" : days < 30 ? "warn" : "good", words: `${plural(days, "day")} left`, days };
}
