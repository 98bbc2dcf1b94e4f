// What is asked for how often, and whether the server answers.

import * as activity from "./activity.js";
import * as api from "./api.js";
import * as applications from "./applications.js";
import { byId, update } from "./dom.js";
import * as operator from "./operator.js";
import * as providers from "./providers.js";
import * as send from "./send.js";
import * as session from "./session.js";
import * as webhooks from "./webhooks.js";
import { duration } from "./words.js";

/** Milliseconds between two questions. */
const PAUSE = 2000;
/** Every how many of them everything is asked for. */
const EVERYTHING = 8;
/** Milliseconds without an answer after which nothing here is live any more. */
const PATIENCE = 5000;

let round = 0;
let answered = 0;
let isOperator = false;
/** The pages that listen to their fields. */
const started = new Set();

session.start(enter);

/** Shows the page, if the server lets us in, and keeps it up to date. */
async function enter() {
  const status = await ask();
  isOperator = status === null;
  byId("board").classList.toggle("operator", isOperator);
  document.body.classList.toggle("operator", isOperator);
  begin();
  await show(status);
  setInterval(watch, 500);
  poll();
}

function begin() {
  if (started.has(isOperator)) return;
  started.add(isOperator);
  if (isOperator) {
    operator.start();
  } else {
    activity.start();
    applications.start();
    send.start();
    webhooks.start();
  }
}

async function poll() {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
    try {
      await show(await ask());
    } catch (refusal) {
      if (refusal.status === 401) {
        session.leave("You are not signed in any more: the key or the password was changed.");
        return;
      }
      connection("bad", refusal.status === 0 ? "No connection" : "Not live");
      trouble(`${refusal.message} What you see is older; trying again.`);
    }
  }
}

/** A server that hangs gives no error. */
function watch() {
  const silence = performance.now() - answered;
  if (silence < PATIENCE || byId("connection").classList.contains("bad")) return;
  connection("bad", "No answer");
  trouble("The server has not answered for some seconds. What you see is older; waiting for it.");
}

/** The answer of /v1/status; null for the operator, who is no tenant, and is asked once whether he is one. */
async function ask() {
  if (isOperator) return null;
  try {
    return await api.get("status?applications=false");
  } catch (refusal) {
    if (refusal.code === "tenant_required") return null;
    throw refusal;
  }
}

async function show(status) {
  answered = performance.now();
  if (status === null) await operator.load();
  else await showTenant(status);
  round += 1;
  answered = performance.now();
  connection("good", "Live");
  trouble("");
}

async function showTenant(status) {
  activity.show(status);
  if (round % EVERYTHING === 0) {
    const usage = await api.get(`tenants/${api.segment(status.tenant)}/usage`);
    update(byId("limits-list"), usage.limits, () => [operator.usage(usage.limits)]);
    await Promise.all([applications.loadSoon(), providers.load(), webhooks.load()]);
  }
  await applications.load();
  providers.show(status.providers);
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
