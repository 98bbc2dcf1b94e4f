// Who is signed in: the same form on all pages of this server.

import * as api from "./api.js";
import { byId, element, field } from "./dom.js";

let enter = null;
let form = null;

/** Calls `show`, which throws a Refusal if the server lets nobody in without credentials; then asks for them. */
export async function start(show) {
  enter = show;
  byId("sign-in").replaceChildren(...ask());
  for (const link of document.querySelectorAll("[data-page]")) link.addEventListener("click", follow);
  byId("sign-out").addEventListener("click", () => leave(""));
  showFields();
  try {
    await open();
  } catch (refusal) {
    api.signOut();
    byId("sign-in").hidden = false;
    refuse(refusal.status === 401 ? (history.state?.why ?? "") : refusal.message, form.elements.username);
    history.replaceState(null, "");
  }
}

/** Back to the form. The page is loaded anew, so that nothing is left of what was shown. */
export function leave(why) {
  api.signOut();
  history.replaceState({ why }, "", location.pathname);
  location.reload();
}

async function open() {
  await enter();
  byId("sign-in").hidden = true;
  for (const part of document.querySelectorAll("[data-signed-in]")) part.hidden = false;
  byId("sign-out").hidden = !api.hasCredentials();
}

/** A page in this tab needs no second sign-in. */
function follow(event) {
  if (event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey && !event.altKey) api.handOver();
}

function ask() {
  const radio = (value, text, checked) =>
    element("label", {}, element("input", { type: "radio", name: "kind", value, checked }), ` ${text}`);
  const plain = { autocapitalize: "none", spellcheck: "false" };
  form = element(
    "form",
    { id: "sign-in-form", novalidate: true },
    element(
      "fieldset",
      { class: "choice" },
      element("legend", {}, "How do you call the API?"),
      radio("basic", "Name and password", true),
      radio("key", "API key", false),
    ),
    element(
      "div",
      { id: "basic-fields" },
      field("Name", element("input", { name: "username", autocomplete: "username", ...plain })),
      field("Password", element("input", { name: "password", type: "password", autocomplete: "current-password" })),
    ),
    element(
      "div",
      { id: "key-fields" },
      field("API key", element("input", { name: "key", type: "password", autocomplete: "off", ...plain })),
    ),
    element("label", { class: "check" }, element("input", { type: "checkbox", name: "keep" }), " Stay signed in until this tab is closed"),
    element("p", { class: "message", id: "sign-in-message", role: "alert" }),
    element("button", { type: "submit" }, "Sign in"),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    signIn();
  });
  form.addEventListener("change", showFields);
  const why = "Use the credentials that you call the API with. They stay in this tab and go to this server alone.";
  return [element("h1", { id: "sign-in-title" }, "Sign in"), element("p", { class: "hint" }, why), form];
}

async function signIn() {
  const { kind, username, password, key, keep } = form.elements;
  const isBasic = kind.value === "basic";
  const given = isBasic ? username.value : key.value.trim();
  if (given === "" || (!isBasic && !/^[\x20-\x7e]+$/.test(given))) {
    const wrong = isBasic ? username : key;
    refuse(given === "" ? `Type your ${isBasic ? "name" : "API key"}.` : "An API key has no such characters.", wrong);
    return;
  }
  api.signIn(isBasic ? api.basic(given, password.value) : api.bearer(given), keep.checked);
  refuse("", null);
  try {
    await open();
    form.reset();
    document.querySelector("main h1[tabindex]:not([hidden])")?.focus();
  } catch (refusal) {
    api.signOut();
    const wrong = isBasic ? "The name or the password is wrong." : "The key is wrong, or was revoked.";
    refuse(refusal.status === 401 ? wrong : refusal.message, isBasic ? password : key);
  }
}

/** Says what is wrong with the form, and goes to where it is. */
function refuse(why, wrong) {
  byId("sign-in-message").textContent = why;
  for (const input of form.elements) input.removeAttribute("aria-invalid");
  if (wrong === null) return;
  if (why !== "") wrong.setAttribute("aria-invalid", "true");
  wrong.focus();
}

function showFields() {
  const isBasic = form.elements.kind.value === "basic";
  byId("basic-fields").hidden = !isBasic;
  byId("key-fields").hidden = isBasic;
}
