// The form that registers an application, or gives one a new credential.

import { base64, get, put, segment } from "./api.js";
import { dialog, element, field, hint, say, told } from "./dom.js";
import { providers } from "./providers.js";

/** Bytes: no credential is larger. */
const LARGEST = 256 * 1024;

/** Accepted names of files, by format. */
const FILES = {
  "pkcs12-identity": ".p12,.pfx",
  "pem-identity": ".pem,.crt,.cer",
  "pkcs8-key": ".p8,.pem,.key",
  "service-account": ".json",
};

/** `known`: the application to renew; null: a new one. Calls `done` with words and the id. */
export async function register(known, done) {
  const all = (await providers()).filter(({ manifest }) => manifest !== undefined);
  dialog(known ? "Renew the credential" : "Register an application", (opened) => new Form(opened, known, all, done).element);
}

class Form {
  #known;
  #all;
  #done;
  #opened;
  #fields = element("div", { class: "stack" });
  #message = element("p", { class: "message", role: "alert" });

  constructor(opened, known, all, done) {
    [this.#opened, this.#known, this.#all, this.#done] = [opened, known, all, done];
    const id = element("input", {
      name: "id", required: true, maxlength: 256, autocomplete: "off", autocapitalize: "none", spellcheck: "false",
      value: known?.id, readonly: known !== null,
    });
    const names = all.map(({ name, manifest }) => option(name, manifest.title, name === known?.provider));
    this.element = element(
      "form",
      { novalidate: true },
      field("Application id", id, known ? null : hint("Of your choice; it is named in every send.")),
      field("Push service", element("select", { name: "provider" }, ...names)),
      field("Kind of credential", element("select", { name: "kind" })),
      this.#fields,
      this.#message,
      element("button", { type: "submit" }, known ? "Renew" : "Register"),
    );
    const { provider, kind } = this.element.elements;
    provider.addEventListener("change", () => this.#kinds());
    kind.addEventListener("change", () => this.#ask());
    this.element.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.#kinds();
  }

  get #manifest() {
    const { provider } = this.element.elements;
    return this.#all.find(({ name }) => name === provider.value)?.manifest;
  }

  get #form() {
    return this.#manifest.credential_forms.find(({ name }) => name === this.element.elements.kind.value);
  }

  #kinds() {
    const forms = this.#manifest?.credential_forms ?? [];
    const now = this.#known?.credential?.credential;
    this.element.elements.kind.replaceChildren(...forms.map(({ name }) => option(name, name, name === now)));
    this.#ask();
  }

  /** The fields of the kind of credential that is chosen. */
  #ask() {
    const form = this.#form;
    if (form === undefined) return this.#fields.replaceChildren();
    const secrets = form.secrets.map((secret) => [secret, this.#secret(secret, form.secrets.length > 1)]);
    const passwords = [...new Set(form.secrets.map(({ password }) => password).filter(Boolean))];
    const setting = (name) => this.#setting(name, form.required_settings.includes(name));
    const names = Object.keys(this.#manifest.settings);
    const needed = names.filter((name) => form.required_settings.includes(name));
    const others = names.filter((name) => !needed.includes(name));
    this.#fields.replaceChildren(
      ...secrets.map(([, made]) => made),
      ...passwords.map((name) => field("Password of the file", element("input", { type: "password", autocomplete: "off", "data-secret": name }), hint("If it has one."))),
      ...needed.map(setting),
      this.#environment(),
      ...(others.length > 0 ? [element("details", {}, element("summary", {}, "More settings"), element("div", { class: "stack" }, ...others.map(setting)))] : []),
    );
  }

  #secret({ name, format, description }, isOneOf) {
    const title = isOneOf ? `${description.replace(/\.$/, "")} (one of these)` : description.replace(/\.$/, "");
    if (format === "text") return field(title, element("input", { type: "password", autocomplete: "off", "data-secret": name }));
    return field(title, element("input", { type: "file", accept: FILES[format], "data-secret": name, "data-format": format }));
  }

  #setting(name, isRequired) {
    const isDerived = this.#form.derived_settings.includes(name);
    const now = this.#known?.settings[name];
    // What was read from the old credential may be wrong for the new one.
    const [value, placeholder] = isDerived ? [undefined, now] : [now, undefined];
    const input = element("input", { "data-setting": name, value, placeholder, autocomplete: "off", autocapitalize: "none", spellcheck: "false", required: isRequired });
    const derived = isDerived ? " Read from the credential if left empty." : "";
    return field(name, input, hint(`${this.#manifest.settings[name]}${derived}`));
  }

  #environment() {
    const now = this.#known?.environment ?? "production";
    const choices = [["production", "Production"], ["development", "Development (sandbox)"]];
    return field("Environment", element("select", { name: "environment" }, ...choices.map(([value, text]) => option(value, text, value === now))));
  }

  async #submit() {
    const { id, provider, environment } = this.element.elements;
    for (const input of this.element.elements) input.removeAttribute("aria-invalid");
    if (id.value.trim() === "") return this.#refuse("Type an id for the application.", id);
    try {
      const credentials = await this.#credentials();
      if (Object.keys(credentials).length === 0) return this.#refuse("Choose the file of the credential.", this.element.querySelector("[data-secret]"));
      const settings = {};
      for (const input of this.element.querySelectorAll("[data-setting]")) {
        if (input.value.trim() !== "") settings[input.dataset.setting] = input.value.trim();
      }
      say(this.#message, "", "Checking…");
      const body = { provider: provider.value, environment: environment.value, settings, credentials };
      const isNew = this.#known === null && (await isFree(id.value.trim()));
      if (this.#known === null && !isNew) return this.#refuse("There is an application with this id already.", id);
      await put(`applications/${segment(id.value.trim())}`, body);
      this.#opened.close();
      await this.#done(`${id.value.trim()} ${this.#known ? "has its new credential" : "is registered"}.`, id.value.trim());
    } catch (refusal) {
      this.#refuse(told(refusal), this.#named(refusal.field));
    }
  }

  /** What was typed and chosen. A binary file is written in base64. */
  async #credentials() {
    const credentials = {};
    for (const input of this.element.querySelectorAll("[data-secret]")) {
      const file = input.files?.[0];
      if (file === undefined) {
        if (input.type !== "file" && input.value !== "") credentials[input.dataset.secret] = input.value;
        continue;
      }
      if (file.size > LARGEST) throw new Error(`${file.name} is too large to be a credential.`);
      const isBinary = input.dataset.format === "pkcs12-identity";
      credentials[input.dataset.secret] = isBinary ? { base64: base64(new Uint8Array(await file.arrayBuffer())) } : await file.text();
    }
    const isSecret = (name) => this.#form.secrets.some((secret) => secret.name === name);
    return Object.keys(credentials).some(isSecret) ? credentials : {};
  }

  /** The input that the server's error names. */
  #named(name) {
    const last = String(name ?? "").split(".").at(-1);
    const inputs = [...this.element.querySelectorAll("[data-secret], [data-setting]")];
    return inputs.find(({ dataset }) => last !== "" && [dataset.secret, dataset.setting].includes(last)) ?? null;
  }

  #refuse(why, input) {
    say(this.#message, "bad", why);
    if (!input) return;
    input.closest("details")?.setAttribute("open", "");
    input.setAttribute("aria-invalid", "true");
    input.focus();
  }
}

/** A registration replaces an application of the same id: here that is only wanted for a renewal. */
async function isFree(id) {
  try {
    await get(`applications/${segment(id)}`);
    return false;
  } catch (refusal) {
    if (refusal.status === 404) return true;
    throw refusal;
  }
}

function option(value, text, selected) {
  return element("option", { value, selected }, text);
}
