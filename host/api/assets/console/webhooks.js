// Webhooks: where a tenant's backend hears of dead tokens and of trouble. Made, changed, seen at work, deleted.

import { get, put, remove, segment } from "./api.js";
import { badge, button, byId, choice, chosen, confirm, dialog, element, facts, field, hint, onlyOnce, row, say, told, update } from "./dom.js";
import { day, number, plural, time } from "./words.js";

const EVENTS = {
  "token.dead": "Dead tokens",
  "token.replaced": "Tokens with a successor",
  "credential.rejected": "A credential was refused",
  "credential.expiring": "A credential ends soon",
  "provider.quarantined": "A provider is in quarantine",
  "limit.reached": "A limit was reached",
  "webhook.disabled": "Another webhook was switched off",
};

/** Listens to the fields. */
export function start() {
  byId("webhooks-new").addEventListener("click", () => edit(null));
}

/** Asks for all of them, and shows them. Throws a Refusal. */
export async function load() {
  const { webhooks } = await get("webhooks");
  byId("webhooks-none").hidden = webhooks.length > 0;
  byId("webhooks-table").hidden = webhooks.length === 0;
  update(byId("webhooks-table").tBodies[0], webhooks, () => webhooks.map(webhookRow));
}

function webhookRow(webhook) {
  const { id, url, events, waiting } = webhook;
  return row([
    ["Webhook", button(id, () => show(id), { class: "link", title: id, "data-focus": id })],
    ["URL", element("span", { class: "long", title: url }, url)],
    ["Events", isAll(events) ? "All" : plural(events.length, "kind")],
    ["State", state(webhook)],
    ["Waiting", waiting > 0 ? badge("warn", number(waiting)) : "0", "number"],
  ]);
}

const isAll = (events) => Object.keys(EVENTS).every((name) => events.includes(name));

function state({ disabled }) {
  return disabled ? [badge("bad", "Switched off"), hint(day(new Date(disabled)))] : [badge("good", "On")];
}

async function changed(text) {
  say(byId("webhooks-message"), "good", text);
  await load().catch(() => {});
}

/** One webhook, in a dialog. */
async function show(id) {
  const path = `webhooks/${segment(id)}`;
  try {
    const [webhook, { attempts }] = await Promise.all([get(path), get(`${path}/attempts`)]);
    dialog(id, (opened) => detail(opened, path, webhook, attempts));
  } catch (refusal) {
    say(byId("webhooks-message"), "bad", told(refusal));
  }
}

function detail(opened, path, webhook, attempts) {
  const { id, url, events, created, disabled, waiting } = webhook;
  const message = element("p", { class: "message", role: "status" });
  const actions = element("div", { class: "actions" });
  /** Does something with it; closes the dialog if there is nothing more to show. */
  const act = async (work) => {
    try {
      await work();
    } catch (refusal) {
      say(message, "bad", told(refusal));
    }
  };
  const on = button("Switch it on again", () => act(async () => {
    await put(path, { url, events });
    opened.close();
    await changed(`${id} is on again.`);
  }));
  const change = button("Change", () => {
    opened.close();
    edit(webhook);
  }, { class: "quiet" });
  const rotate = button("New secret", () => act(async () => {
    const { secret } = await put(path, { url, events, rotate_secret: true });
    actions.before(onlyOnce("The new secret", secret));
    say(message, "good", "The old secret ended at once.");
    await load().catch(() => {});
  }), { class: "quiet" });
  const end = button("Delete", () => confirm(actions, message, "Messages that have not arrived are not sent any more.", "Delete it", async () => {
    await remove(path);
    opened.close();
    await changed(`${id} was deleted.`);
  }), { class: "quiet danger" });
  actions.append(...(disabled ? [on] : []), change, rotate, end);
  return [
    element("p", {}, ...state(webhook)),
    facts([
      ["URL", url],
      ["Events", isAll(events) ? "All" : events.map((name) => EVENTS[name] ?? name).join(", ")],
      ["Made", day(new Date(created))],
      ["Messages waiting", number(waiting)],
    ]),
    element("h3", {}, "Last attempts"),
    attempts.length > 0
      ? element("ul", { class: "results", "aria-label": "Attempts" }, ...attempts.map(attempt))
      : element("p", { class: "hint" }, "None since the server started."),
    message,
    actions,
  ];
}

function attempt({ at, message, event, attempt: tries, status, error, milliseconds }) {
  const arrived = status !== null && status >= 200 && status < 300;
  return element(
    "li",
    {},
    element("div", { class: "top" }, badge(arrived ? "good" : "bad", status === null ? "No response" : String(status)), element("span", { class: "code" }, event), element("time", { datetime: at }, time(Date.parse(at) / 1000))),
    hint(`${tries === 1 ? "First attempt" : `Attempt ${number(tries)}`}, ${number(milliseconds)} ms. `, element("code", {}, message)),
    error ? element("p", { class: "said" }, error) : null,
  );
}

/** The form. `known`: the webhook to change; null: a new one. */
function edit(known) {
  const message = element("p", { class: "message", role: "alert" });
  const plain = { required: true, autocomplete: "off", autocapitalize: "none", spellcheck: "false" };
  const id = element("input", { name: "id", maxlength: 64, value: known?.id, readonly: known !== null, ...plain });
  const url = element("input", { name: "url", type: "url", value: known?.url, ...plain });
  const events = choice("Events", "events", "All", Object.entries(EVENTS), known === null || isAll(known.events) ? null : known.events);
  const form = element(
    "form",
    { novalidate: true },
    field("Id", id, known ? null : hint("1 to 64 letters, digits, dots, dashes and underscores.")),
    field("URL", url, hint("By https, on the public internet. Messages are sent here by POST, signed as Standard Webhooks say.")),
    events,
    message,
    element("button", { type: "submit" }, known ? "Change" : "Create"),
  );
  const opened = dialog(known ? known.id : "New webhook", () => form);
  const refuse = (why, input) => {
    say(message, "bad", why);
    input?.setAttribute("aria-invalid", "true");
    input?.focus();
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    for (const input of [id, url]) input.removeAttribute("aria-invalid");
    const [name, wanted] = [id.value.trim(), chosen(events)];
    if (name === "") return refuse("Type an id for the webhook.", id);
    if (wanted?.length === 0) return refuse("Choose the events that it hears of.", null);
    try {
      if (known === null && (await isTaken(name))) return refuse("There is a webhook with this id already.", id);
      const { secret } = await put(`webhooks/${segment(name)}`, { url: url.value.trim(), ...(wanted ? { events: wanted } : {}) });
      if (secret) {
        form.replaceWith(onlyOnce("The secret", secret));
        opened.querySelector("h2").textContent = name;
      } else {
        opened.close();
      }
      await changed(`${name} was ${known ? "changed" : "created"}.`);
    } catch (refusal) {
      refuse(told(refusal), refusal.field === "url" ? url : null);
    }
  });
}

/** A PUT changes a webhook of the same id: here that is only wanted for one that was opened. */
async function isTaken(id) {
  return (await get("webhooks")).webhooks.some((one) => one.id === id);
}
