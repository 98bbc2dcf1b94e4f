// The operator's page: what all tenants do, and what each may.

import { get, put, query, remove, segment } from "./api.js";
import { showTiles } from "./activity.js";
import { Chart, hour, meter, sparkline } from "./chart.js";
import { badge, button, byId, confirm, dialog, element, facts, field, hint, onlyOnce, row, say, told, update } from "./dom.js";
import { Keys } from "./keys.js";
import { Pager } from "./pager.js";
import { bytes, day, duration, number, percent, rate, sums, validity } from "./words.js";

/** The limits of a tenant, as they are called here, and their units. */
const LIMITS = {
  requests_per_second: ["Requests per second"],
  pushes_per_second: ["Pushes per second"],
  concurrent_sends: ["Sends at a time"],
  applications: ["Applications"],
  components: ["Uploaded providers"],
  component_bytes: ["Size of uploaded providers", "bytes"],
  call_milliseconds: ["Time of a call into a provider", "ms"],
  cpu_milliseconds_per_second: ["Processor time per second", "ms"],
  instance_memory_bytes: ["Memory of a provider's instance", "bytes"],
  memory_bytes: ["Memory", "bytes"],
};

const pager = new Pager(byId("tenants-pager"), 20, load);
let picture = null;

/** Listens to the fields. */
export function start() {
  picture = new Chart(byId("operator-chart"), "Pushes of all tenants per minute");
  const { search } = byId("tenants-find").elements;
  byId("tenants-find").addEventListener("submit", (event) => event.preventDefault());
  search.addEventListener("input", () => pager.restart(250));
  byId("tenants-new").addEventListener("click", create);
}

/** Asks for the page of tenants that is looked at, and shows it. Throws a Refusal. */
export async function load() {
  const search = byId("tenants-find").elements.search.value.trim();
  const overview = await get(`overview?${query({ limit: pager.size, after: pager.after, search })}`);
  const { tenants, total, next, minutes, version, uptime } = overview;
  if (tenants.length === 0 && pager.back()) return load();
  pager.show(tenants.length, total, next);
  byId("server").textContent = `The operator's page. Pushlet ${version}, up for ${duration(uptime)}.`;
  activity(minutes, uptime);
  byId("tenants-none").hidden = tenants.length > 0;
  byId("tenants-table").hidden = tenants.length === 0;
  update(byId("tenants-table").tBodies[0], tenants, () => tenants.map(tenantRow));
}

function activity(minutes, uptime) {
  const all = minutes.map((minute) => ({ at: minute.at, refused: minute.refused ?? 0, ...sums(minute.outcomes) }));
  const sum = (name, of = all) => of.reduce((total, minute) => total + minute[name], 0);
  // The running minute says little at its begin.
  const whole = all.length > 1 ? all.slice(-6, -1) : all;
  const perMinute = sum("all", whole) / (all.length > 1 ? whole.length : Math.max(1, Math.min(60, uptime)) / 60);
  showTiles(byId("operator-tiles"), [
    ["Pushes per minute", rate(perMinute), "in the last 5 minutes"],
    ["Delivered", number(sum("good")), `${percent(sum("good"), sum("all"))} in the last hour`],
    ["Not delivered", number(sum("lost")), percent(sum("lost"), sum("all"))],
    ["Refused", number(sum("refused")), "over a limit, in the last hour"],
  ]);
  picture.show(hour(minutes, ({ outcomes }) => ({ good: sums(outcomes).good, bad: sums(outcomes).lost })));
}

function tenantRow(tenant) {
  const { id, suspended, created, delivered, undelivered, refused, applications } = tenant;
  const minutes = delivered.map((good, index) => ({ at: 60 * index, good, bad: undelivered[index] }));
  const total = (counts) => counts.reduce((sum, count) => sum + count, 0);
  const whole = minutes.length > 1 ? minutes.slice(-6, -1) : minutes;
  const perMinute = whole.reduce((sum, { good, bad }) => sum + good + bad, 0) / whole.length;
  const refusals = total(refused);
  return row([
    ["Tenant", button(id, () => show(id), { class: "link", title: id, "data-focus": id })],
    ["State", [suspended ? badge("warn", "Suspended") : badge("good", "Active"), hint(day(new Date(created)))]],
    ["Last hour", [sparkline(hour(minutes, ({ good, bad }) => ({ good, bad }))), hint(`${rate(perMinute)} a minute`)]],
    ["Refused", refusals > 0 ? badge("warn", number(refusals)) : "0", "number"],
    ["Nearest limit", nearest(tenant)],
    ["Applications", number(applications), "number"],
    ["Certificates", certificates(tenant)],
  ]);
}

function nearest({ nearest_limit: limit, nearest_limit_use: use }) {
  if (limit === null || use === null) return "–";
  return [titleOf(limit), hint(`${amount(limit, use.used)} of ${amount(limit, use.limit)}`), meter(use.used, use.limit)];
}

function certificates({ expiring, first_end: end }) {
  if (end === null) return "–";
  const { tone, words } = validity(end);
  return expiring > 0 ? [badge(tone, `${number(expiring)} to renew`), hint(`first: ${words}`)] : [badge("good", "Valid"), hint(`first ends ${day(new Date(end))}`)];
}

const titleOf = (limit) => LIMITS[limit]?.[0] ?? limit;

function amount(limit, value) {
  const unit = LIMITS[limit]?.[1];
  return unit === "bytes" ? bytes(value) : unit ? `${number(value)} ${unit}` : number(value);
}

/** What a tenant uses of each limit. */
export function usage(limits) {
  const used = Object.keys(LIMITS).filter((name) => name in limits);
  const line = (name) => {
    const { used: now, limit } = limits[name];
    const words = limit === null ? "no limit" : now === null ? amount(name, limit) : `${amount(name, now)} of ${amount(name, limit)}`;
    return element("li", {}, element("span", {}, titleOf(name)), element("span", { class: "number" }, limit === null && now ? `${amount(name, now)}, no limit` : words), now !== null && limit !== null ? meter(now, limit) : null);
  };
  return element("ul", { class: "limits" }, ...used.map(line));
}

/** One tenant, in a dialog. */
async function show(id) {
  const path = `tenants/${segment(id)}`;
  try {
    const [tenant, used, { keys }] = await Promise.all([get(path), get(`${path}/usage`), get(`${path}/keys`)]);
    dialog(id, (opened) => new Detail(opened, path, tenant, used, keys).children);
  } catch (refusal) {
    say(byId("tenants-message"), "bad", told(refusal));
  }
}

/** Says it on the page, and shows what is there now. */
async function changed(text) {
  say(byId("tenants-message"), "good", text);
  await load().catch(() => {});
}

class Detail {
  #opened;
  #path;
  #tenant;
  #message = element("p", { class: "message", role: "status" });
  #actions = element("div", { class: "actions" });

  constructor(opened, path, tenant, used, keys) {
    [this.#opened, this.#path, this.#tenant] = [opened, path, tenant];
    const { requests, pushes, refused, cpu_milliseconds: times } = used.since_start;
    const busy = Object.values(times).reduce((sum, time) => sum + time, 0);
    this.#showActions();
    this.children = [
      element("p", {}, tenant.suspended ? badge("warn", "Suspended") : badge("good", "Active"), hint(` since ${day(new Date(tenant.created))}`)),
      facts([
        ["Requests since the start", number(requests)],
        ["Pushes", number(pushes)],
        ["Refused", number(refused)],
        ["Processor time", `${rate(busy / 1000)} s`],
      ]),
      element("h3", {}, "Limits in use"),
      usage(used.limits),
      element("details", {}, element("summary", {}, "Change the limits"), this.#limits(tenant.limits)),
      element("h3", {}, "API keys"),
      new Keys(path, keys, this.#message).element,
      this.#message,
      this.#actions,
    ];
  }

  /** Calls the server; says what it answers if that is an error. */
  async #try(work) {
    say(this.#message, "", "");
    try {
      return await work();
    } catch (refusal) {
      say(this.#message, "bad", told(refusal));
      return undefined;
    }
  }

  #limits(own) {
    const form = element("form", { novalidate: true, class: "columns" });
    const input = (name) => element("input", { name, inputmode: "numeric", autocomplete: "off", value: own[name], placeholder: "The server's own" });
    form.append(...Object.entries(LIMITS).map(([name, words]) => field(words.join(", "), input(name))), element("button", { type: "submit" }, "Set the limits"));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const given = [...form.elements].filter(({ name, value }) => name in LIMITS && value.trim() !== "");
      const wrong = given.find(({ value }) => !/^\d{1,15}$/.test(value.trim()));
      for (const one of form.elements) one.removeAttribute("aria-invalid");
      wrong?.setAttribute("aria-invalid", "true");
      if (wrong) return say(this.#message, "bad", `${titleOf(wrong.name)} is not a whole number.`);
      const limits = Object.fromEntries(given.map(({ name, value }) => [name, Number(value)]));
      // What this form does not show stays as it is.
      for (const name of Object.keys(own).filter((name) => !(name in LIMITS))) limits[name] = own[name];
      await this.#try(async () => {
        await put(this.#path, { limits });
        this.#opened.close();
        await changed(`${this.#tenant.id} has new limits.`);
      });
    });
    return form;
  }

  #showActions() {
    const { id, suspended } = this.#tenant;
    const change = button(suspended ? "Resume" : "Suspend", () => this.#try(async () => {
      await put(this.#path, { suspended: !suspended });
      this.#opened.close();
      await changed(`${id} is ${suspended ? "active again" : "suspended"}.`);
    }), { class: "quiet" });
    const warning = "Its applications, providers, keys and dead tokens are deleted with it.";
    const end = button("Delete", () => confirm(this.#actions, this.#message, warning, "Delete it", async () => {
      await remove(this.#path);
      this.#opened.close();
      await changed(`${id} was deleted.`);
    }), { class: "quiet danger" });
    this.#actions.replaceChildren(change, ...(id === "default" ? [] : [end]));
  }
}

function create() {
  const message = element("p", { class: "message", role: "alert" });
  const id = element("input", { name: "id", required: true, maxlength: 64, autocomplete: "off", autocapitalize: "none", spellcheck: "false" });
  const form = element(
    "form",
    { novalidate: true },
    field("Id", id, hint("1 to 64 letters, digits, dots, dashes and underscores.")),
    message,
    element("button", { type: "submit" }, "Create"),
  );
  const opened = dialog("New tenant", () => form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const name = id.value.trim();
    id.removeAttribute("aria-invalid");
    try {
      const isTaken = name !== "" && (await get(`overview?${query({ search: name, limit: 1000 })}`)).tenants.some((one) => one.id === name);
      if (name === "" || isTaken) {
        id.setAttribute("aria-invalid", "true");
        say(message, "bad", isTaken ? "There is a tenant with this id already." : "Type an id for the tenant.");
        id.focus();
        return;
      }
      const { api_key: key } = await put(`tenants/${segment(name)}`, {});
      form.replaceWith(onlyOnce("The new API key", key));
      opened.querySelector("h2").textContent = name;
      await changed(`${name} was created.`);
    } catch (refusal) {
      say(message, "bad", told(refusal));
    }
  });
}
