// The API reference: the server's own OpenAPI document, to be read and searched. Descriptions come from components that
// nobody trusts: everything is text, never markup.

import { openApi } from "../console/api.js";
import { byId, copyButton, element } from "../console/dom.js";
import * as session from "../console/session.js";
import { samples } from "./samples.js";
import { fieldsOf, kindOf, prose, inline, resolve, shapes, unfolding, use } from "./schema.js";

const METHODS = ["get", "put", "post", "delete", "patch"];
/** Places of the words that are shown for an operation. */
const MOST_HITS = 4;

/** { view, texts }: of each operation, what can be found in it. */
let all = [];

byId("find").addEventListener("submit", (event) => event.preventDefault());
byId("find").addEventListener("input", find);
byId("language").addEventListener("change", () => {
  document.body.className = `docs ${byId("language").elements.language.value}`;
});
window.addEventListener("hashchange", reveal);
session.start(async () => {
  const document = await openApi();
  use(document);
  show(document);
  // A download has no credentials of this page; the text is here already.
  const text = new Blob([JSON.stringify(document, null, 2)], { type: "application/json" });
  byId("document").href = URL.createObjectURL(text);
});

function show(api) {
  const operations = Object.entries(api.paths).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method]).map((method) => ({ path, method, operation: item[method] })),
  );
  all = [];
  byId("about").replaceChildren(...prose(api.info.description));
  const [sections, contents] = [[], []];
  for (const { name, description } of api.tags ?? []) {
    const own = operations.filter(({ operation }) => (operation.tags ?? []).includes(name));
    if (own.length === 0) continue;
    const id = name.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-");
    sections.push(element("section", { id }, element("h2", {}, name), ...prose(description), ...own.map(operationView)));
    const link = ({ operation }) => element("li", {}, element("a", { href: `#${operation.operationId}` }, operation.summary ?? operation.operationId));
    contents.push(element("div", {}, element("h2", {}, element("a", { href: `#${id}` }, name)), element("ul", {}, ...own.map(link))));
  }
  byId("operations").replaceChildren(...sections);
  byId("contents").replaceChildren(...contents);
  // Only now the page is shown, and there is something to go to.
  setTimeout(reveal);
}

function operationView({ path, method, operation }) {
  const inside = element("div", {});
  const hits = element("div", { class: "hits", hidden: true });
  const summary = element(
    "summary",
    {},
    element("span", { class: `method ${method}` }, method.toUpperCase()),
    element("span", { class: "path" }, path),
    element("span", { class: "soft" }, operation.summary ?? ""),
    hits,
  );
  const view = element("details", { class: "operation", id: operation.operationId }, summary, inside);
  view.addEventListener("toggle", () => {
    if (!view.open || inside.hasChildNodes()) return;
    inside.append(
      ...prose(operation.description),
      ...parameters(operation),
      ...body(path, method, operation),
      ...answers(operation),
    );
  });
  all.push({ view, hits, texts: textsOf(path, method, operation) });
  return view;
}

function parameters(operation) {
  const given = operation.parameters ?? [];
  if (given.length === 0) return [];
  const rows = given.flatMap((one) => [
    element("dt", {}, element("code", {}, one.name), " ", element("span", { class: "soft" }, `${one.in}, ${kindOf(resolve(one.schema))}${one.required ? ", required" : ""}`)),
    element("dd", {}, ...inline(one.description ?? "")),
  ]);
  return [element("h3", {}, "Parameters"), element("dl", {}, ...rows)];
}

function body(path, method, operation) {
  const given = operation.parameters ?? [];
  const content = Object.entries(operation.requestBody?.content ?? {});
  if (content.length === 0) return [element("h3", {}, "Example"), sample("", samples(method, path, given))];
  return content.flatMap(([type, media]) => {
    const known = Object.values(media.examples ?? {});
    const shown = known.length > 0 ? known : [{ summary: "", value: undefined }];
    const of = (one) => sample(one.summary ?? "", samples(method, path, given, type, one.value));
    const [first, ...others] = shown;
    const more = others.length > 0 ? [unfolding(`${others.length} more example${others.length > 1 ? "s" : ""}`, () => others.map(of))] : [];
    return [element("h3", {}, "Body: ", element("code", {}, type)), ...shapes(media.schema), of(first), ...more];
  });
}

/** One request in all languages; the page shows one of them. */
function sample(title, texts) {
  const languages = Object.entries(texts);
  const copy = languages.map(([language, text]) => {
    const made = copyButton(text, `the ${language} example`);
    made.classList.add(language);
    return made;
  });
  const listed = languages.map(([language, text]) => element("pre", { class: language, tabindex: 0, "aria-label": `${title} in ${language}` }, text));
  // A button for what is shown: the others are hidden with their language.
  const made = element("div", { class: "sample" }, element("div", { class: "head" }, element("span", { class: "soft" }, title), element("span", {}, ...copy)), ...listed);
  return made;
}

function answers(operation) {
  const all = Object.entries(operation.responses ?? {});
  const isError = ([status]) => Number(status) >= 400;
  const errors = all.filter(isError);
  const statuses = errors.map(([status]) => status).join(", ");
  return [
    element("h3", {}, "Answers"),
    answerList(all.filter((one) => !isError(one))),
    ...(errors.length > 0 ? [unfolding(`Errors: ${statuses}`, () => [answerList(errors)])] : []),
  ];
}

function answerList(responses) {
  const rows = responses.flatMap(([status, response]) => {
    const types = Object.entries(response.content ?? {});
    const headers = Object.keys(response.headers ?? {});
    return [
      element("dt", {}, element("strong", {}, status), " ", element("span", { class: "soft" }, types.map(([type]) => type).concat(headers).join(", "))),
      element("dd", {}, ...inline(response.description), ...types.flatMap(([, media]) => shapes(media.schema))),
    ];
  });
  return element("dl", {}, ...rows);
}

/** What can be found in an operation: { where, name, text }. */
function textsOf(path, method, operation) {
  const texts = [{ where: "", name: "", text: `${method} ${path} ${operation.operationId} ${operation.summary ?? ""} ${operation.description ?? ""} ${(operation.tags ?? []).join(" ")}` }];
  for (const { name, description } of operation.parameters ?? []) texts.push({ where: "parameter", name, text: description ?? "" });
  for (const [, media] of Object.entries(operation.requestBody?.content ?? {})) {
    for (const found of fieldsOf(media.schema)) texts.push({ where: "body", ...found });
    for (const one of Object.values(media.examples ?? {})) {
      texts.push({ where: "example", name: one.summary ?? "", text: typeof one.value === "string" ? one.value : JSON.stringify(one.value) });
    }
  }
  for (const [status, response] of Object.entries(operation.responses ?? {})) {
    texts.push({ where: "answer", name: status, text: response.description ?? "" });
    for (const [, media] of Object.entries(response.content ?? {})) {
      for (const found of fieldsOf(media.schema)) texts.push({ where: `answer ${status}`, ...found });
    }
  }
  return texts.map(({ text, ...one }) => ({ ...one, text: text.trim() })).map((one) => ({ ...one, plain: `${one.name} ${one.text}`.toLowerCase() }));
}

/** Shows the operations that have all words, and where. */
function find() {
  const words = byId("find").elements.words.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const { view, hits, texts } of all) {
    const isFound = words.every((word) => texts.some(({ plain }) => plain.includes(word)));
    view.hidden = !isFound;
    if (isFound) count += 1;
    const places = words.length > 0 && isFound ? texts.filter(({ where, plain }) => where !== "" && words.some((word) => plain.includes(word))) : [];
    const seen = new Set();
    const shown = places.sort((one, other) => worth(other, words) - worth(one, words)).filter(({ where, name }) => {
      const key = `${where} ${name}`;
      return !seen.has(key) && seen.add(key);
    });
    hits.replaceChildren(...shown.slice(0, MOST_HITS).map((hit) => hitView(hit, words)));
    hits.hidden = shown.length === 0;
  }
  for (const section of document.querySelectorAll("#operations section")) {
    section.hidden = section.querySelector(".operation:not([hidden])") === null;
  }
  for (const link of document.querySelectorAll("#contents li")) {
    link.hidden = byId(link.firstChild.hash.slice(1))?.hidden ?? false;
  }
  for (const group of byId("contents").children) group.hidden = group.querySelector("li:not([hidden])") === null;
  byId("found").textContent = words.length === 0 ? "" : `${count} operation${count === 1 ? "" : "s"}`;
}

/** The place with most of the words is shown first; a name before a description, for who looks for a field wants it. */
function worth({ name, plain }, words) {
  const has = (text) => words.filter((word) => text.includes(word)).length;
  return 2 * has(plain) + (has(name.toLowerCase()) > 0 ? 1 : 0);
}

function hitView({ where, name, text }, words) {
  return element("span", {}, `${where}: `, ...marked(name, words), name === "" || text === "" ? "" : " – ", ...marked(around(text, words), words));
}

/** The part of a text in which the first of the words is. */
function around(text, words) {
  const plain = text.toLowerCase();
  const places = words.map((word) => plain.indexOf(word)).filter((place) => place >= 0);
  const start = places.length === 0 ? 0 : Math.max(0, Math.min(...places) - 40);
  const cut = text.slice(start, start + 110);
  return `${start > 0 ? "…" : ""}${cut}${start + 110 < text.length ? "…" : ""}`;
}

function marked(text, words) {
  const plain = text.toLowerCase();
  for (const word of words) {
    const at = plain.indexOf(word);
    if (at >= 0) return [text.slice(0, at), element("mark", {}, text.slice(at, at + word.length)), text.slice(at + word.length)];
  }
  return [text];
}

function reveal() {
  const view = byId(decodeURIComponent(location.hash.slice(1)));
  if (view instanceof HTMLDetailsElement) view.open = true;
  view?.scrollIntoView();
}
