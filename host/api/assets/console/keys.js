// The API keys of a tenant, for the operator: with labels, scopes, ends and last uses; made and revoked.

import { get, post, remove, segment } from "./api.js";
import { button, choice, chosen, element, field, hint, onlyOnce, say, told } from "./dom.js";
import { day, time } from "./words.js";

const SCOPES = {
  send: "Send, and take reports of dead tokens",
  manage: "Change applications, channels, providers and webhooks",
  read: "Read everything that is shown",
};
/** Seconds after which a new key ends. */
const ENDS = [["", "Never"], ["86400", "In a day"], ["2592000", "In 30 days"], ["7776000", "In 90 days"], ["31536000", "In a year"]];
/** Seconds after which older keys end when one is replaced. */
const OVERLAP = 3600;

/** The list of a tenant's keys with a form for another one. `path`: that of the tenant. */
export class Keys {
  element = element("div", { class: "stack" });
  #path;
  #message;

  /** `message`: where it is said what became of an action. */
  constructor(path, keys, message) {
    [this.#path, this.#message] = [`${path}/keys`, message];
    this.#show(keys);
  }

  #show(keys) {
    this.element.replaceChildren(
      keys.length > 0 ? element("ul", { class: "keys" }, ...keys.map((key) => this.#line(key))) : element("p", { class: "hint" }, "It has no key."),
      element("details", {}, element("summary", {}, "New key"), this.#form()),
    );
  }

  #line({ id, label, scopes, created, last_used: used, expires }) {
    const told = [
      scopes === null ? "may do everything" : `may ${scopes.join(", ")}`,
      `made ${day(new Date(created))}`,
      used ? `last used ${time(Date.parse(used) / 1000)}` : "not used yet",
      expires ? `ends ${time(Date.parse(expires) / 1000)}` : null,
    ];
    const revoke = button("Revoke", () => this.#revoke(id), { class: "quiet danger", "aria-label": `Revoke ${label ?? id}` });
    return element("li", {}, label ? element("strong", {}, label) : null, element("code", {}, id), hint(told.filter(Boolean).join(", ")), revoke);
  }

  #form() {
    const label = element("input", { name: "label", maxlength: 100, autocomplete: "off" });
    const scopes = choice("What it may do", "scopes", "Everything", Object.entries(SCOPES), null);
    const ends = element("select", { name: "ends" }, ...ENDS.map(([value, text]) => element("option", { value }, text)));
    const others = element("input", { type: "checkbox", name: "others" });
    const form = element(
      "form",
      { novalidate: true },
      element("div", { class: "halves" }, field("Label", label), field("Ends", ends)),
      scopes,
      element("label", { class: "check" }, others, " All older keys end in an hour"),
      element("button", { type: "submit" }, "Make the key"),
    );
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const wanted = chosen(scopes);
      if (wanted?.length === 0) return say(this.#message, "bad", "Choose what the key may do.");
      await this.#make({
        ...(label.value.trim() === "" ? {} : { label: label.value.trim() }),
        ...(wanted ? { scopes: wanted } : {}),
        ...(ends.value === "" ? {} : { expires_in: Number(ends.value) }),
        ...(others.checked ? { others_expire_in: OVERLAP } : {}),
      });
    });
    return form;
  }

  async #make(request) {
    await this.#try(async () => {
      const { api_key: key } = await post(this.#path, request);
      await this.#reload();
      this.element.prepend(onlyOnce("The new API key", key));
    });
  }

  async #revoke(id) {
    await this.#try(async () => {
      await remove(`${this.#path}/${segment(id)}`);
      await this.#reload();
      say(this.#message, "good", `The key ${id} is revoked.`);
    });
  }

  async #reload() {
    this.#show((await get(this.#path)).keys);
  }

  /** Calls the server; says what it answers if that is an error. */
  async #try(work) {
    say(this.#message, "", "");
    try {
      await work();
    } catch (refusal) {
      say(this.#message, "bad", told(refusal));
    }
  }
}
