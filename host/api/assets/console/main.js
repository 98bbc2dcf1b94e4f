// Who is signed in, and what is asked for how often.

import * as activity from "./activity.js";
import * as api from "./api.js";
import { byId } from "./dom.js";
import * as inventory from "./inventory.js";
import * as send from "./send.js";
import { duration } from "./words.js";

/** Milliseconds between two questions. */
const PAUSE = 2000;
/** Every how many of them everything is asked for. */
const EVERYTHING = 8;

const form = byId("sign-in-form");
let round = 0;

form.addEventListener("submit", (event) => {
  event.preventDefault();
  signIn();
});
form.addEventListener("change", showFields);
byId("sign-out").addEventListener("click", () => leave(""));
byId("tenants-load").addEventListener("click", inventory.showTenants);
byId("applications-more").addEventListener("click", () => {
  inventory.wantMore();
  round = 0;
});
start();

/** A server that asks for no credentials needs no form; nor does somebody who stayed signed in. */
async function start() {
  form.reset();
  showFields();
  try {
    await enter();
  } catch (refusal) {
    api.signOut();
    byId("sign-in").hidden = false;
    refuse(refusal.status === 401 ? (history.state?.why ?? "") : refusal.message, form.elements.username);
    history.replaceState(null, "");
  }
}

async function signIn() {
  const { kind, username, password, key, keep } = form.elements;
  const isBasic = kind.value === "basic";
  const given = isBasic ? username.value : key.value.trim();
  if (given === "" || (!isBasic && !/^[\x20-\x7e]+$/.test(given))) {
    const field = isBasic ? username : key;
    refuse(given === "" ? `Type your ${isBasic ? "name" : "API key"}.` : "An API key has no such characters.", field);
    return;
  }
  api.signIn(isBasic ? api.basic(given, password.value) : api.bearer(given), keep.checked);
  refuse("", null);
  try {
    await enter();
    form.reset();
    byId("board-title").focus();
  } catch (refusal) {
    api.signOut();
    const wrong = isBasic ? "The name or the password is wrong." : "The key is wrong, or was revoked.";
    refuse(refusal.status === 401 ? wrong : refusal.message, isBasic ? password : key);
  }
}

/** Shows the board, if the server lets us in, and keeps it up to date. */
async function enter() {
  await show(await ask());
  byId("sign-in").hidden = true;
  for (const id of ["board", "sections", "session"]) byId(id).hidden = false;
  byId("sign-out").hidden = !api.hasCredentials();
  poll();
}

/** Back to the form. The page is loaded anew, so that nothing is left of what was shown. */
function leave(why) {
  api.signOut();
  history.replaceState({ why }, "", location.pathname);
  location.reload();
}

async function poll() {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
    try {
      await show(await ask());
    } catch (refusal) {
      if (refusal.status === 401) {
        leave("You are not signed in any more: the key or the password was changed.");
        return;
      }
      connection("bad", refusal.status === 0 ? "No connection" : "Not live");
      trouble(`${refusal.message} What you see is older; trying again.`);
    }
  }
}

/** The answer of /v1/status; null for the operator, who is no tenant and has nothing but tenants. */
async function ask() {
  try {
    return await api.get("status");
  } catch (refusal) {
    if (refusal.code === "tenant_required") return null;
    throw refusal;
  }
}

async function show(status) {
  if (status === null) await showOperator();
  else await showTenant(status);
  connection("good", "Live");
  trouble("");
}

async function showOperator() {
  document.body.classList.add("operator");
  byId("server").textContent = "Signed in with the operator's key.";
  if (round % EVERYTHING === 0) await inventory.showTenants();
  round += 1;
}

async function showTenant(status) {
  if (round % EVERYTHING === 0) send.offer(await inventory.load());
  round += 1;
  activity.show(status);
  inventory.show(status);
  byId("server").textContent =
    `Tenant ${status.tenant}. Pushlet ${status.version}, up for ${duration(status.uptime)}.`;
}

function connection(tone, words) {
  const shown = byId("connection");
  shown.className = `badge ${tone}`;
  // Set only if it changes: it is read out.
  if (shown.textContent !== words) shown.textContent = words;
}

function trouble(why) {
  const shown = byId("trouble");
  shown.hidden = why === "";
  if (shown.textContent !== why) shown.textContent = why;
}

/** Says what is wrong with the form, and goes to where it is. */
function refuse(why, field) {
  byId("sign-in-message").textContent = why;
  for (const input of form.elements) input.removeAttribute("aria-invalid");
  if (field === null) return;
  if (why !== "") field.setAttribute("aria-invalid", "true");
  field.focus();
}

function showFields() {
  const isBasic = form.elements.kind.value === "basic";
  byId("basic-fields").hidden = !isBasic;
  byId("key-fields").hidden = isBasic;
}
