// Schemas in words.

import { element } from "../console/dom.js";

/** Levels of schemas within each other that are searched. */
const DEPTH = 5;

let api = null;

/** The document that references lead into. */
export function use(document) {
  api = document;
}

/** Paragraphs, and `code` between backticks. */
export function prose(text) {
  return String(text ?? "").split("\n\n").filter(Boolean).map((part) => element("p", {}, ...inline(part)));
}

export function inline(text) {
  return String(text).split(/`([^`]*)`/).map((part, at) => (at % 2 ? element("code", {}, part) : part));
}

export function resolve(schema) {
  if (!schema?.$ref) return schema ?? {};
  return schema.$ref.slice(2).split("/").reduce((at, key) => (at ?? {})[key.replaceAll("~1", "/")], api) ?? {};
}

const choicesOf = (schema) => schema?.oneOf ?? schema?.anyOf ?? schema?.allOf ?? [];

function nameOf(schema) {
  return schema?.$ref ? schema.$ref.split("/").pop() : (schema?.title ?? "");
}

/** One line about a schema's kind. */
export function kindOf(schema) {
  if (!schema) return "";
  if (schema.$ref) return nameOf(schema);
  const types = [schema.type ?? []].flat().filter((type) => type !== "null");
  const choices = choicesOf(schema).filter((one) => one.type !== "null");
  let kind = types.join(" or ") || [...new Set(choices.map(kindOf))].join(" or ") || "any";
  if (types.includes("array") && schema.items) kind = `list of ${kindOf(schema.items)}`;
  if (schema.enum) kind += `: ${schema.enum.map((value) => JSON.stringify(value)).join(", ")}`;
  const bounds = [["minimum", "at least"], ["exclusiveMinimum", "more than"], ["maximum", "at most"], ["minLength", "shortest"], ["maxLength", "longest"]];
  for (const [key, word] of bounds) if (schema[key] !== undefined) kind += `, ${word} ${schema[key]}`;
  return schema.format === "binary" ? "file" : kind;
}

/** The schemas below this one that have properties of their own. */
function parts(schema) {
  const below = [schema, schema?.items, ...choicesOf(schema), ...choicesOf(schema?.items)];
  if (typeof schema?.additionalProperties === "object") below.push(schema.additionalProperties);
  return below.filter((one) => one && (one.$ref || one.properties));
}

/** Opens when it is asked to: schemas may be long, or hold themselves. */
export function unfolding(title, fill) {
  const inside = element("div", {});
  const made = element("details", { class: "schema" }, element("summary", {}, title), inside);
  made.addEventListener("toggle", () => {
    if (made.open && !inside.hasChildNodes()) inside.append(...fill());
  });
  return made;
}

/** The fields of a schema, to be opened. */
export function shapes(schema) {
  const isWorthIt = (one) => {
    const whole = resolve(one);
    return whole.properties || whole["x-lines"] || whole.enum || parts(whole).length > 0;
  };
  return parts(schema).filter(isWorthIt).map((one) => unfolding(nameOf(one) || "Fields", () => properties(one)));
}

function properties(reference) {
  const schema = resolve(reference);
  const required = schema.required ?? [];
  const rows = Object.entries(schema.properties ?? {}).flatMap(([name, property]) => {
    const whose = property["x-providers"] ? ` (${property["x-providers"].join(", ")})` : "";
    const need = required.includes(name) ? ", required" : "";
    return [
      element("dt", {}, element("code", {}, name), " ", element("span", { class: "soft" }, kindOf(property) + need + whose)),
      element("dd", {}, ...inline(property.description ?? resolve(property).description ?? ""), ...shapes(property)),
    ];
  });
  const inner = parts(schema).filter((one) => one !== schema).flatMap(shapes);
  const lines = (schema["x-lines"] ?? []).flatMap(shapes);
  return [...prose(schema.description), ...(rows.length > 0 ? [element("dl", {}, ...rows)] : []), ...inner, ...lines];
}

/** All fields of a schema, with those within: { name, text }. */
export function fieldsOf(schema, depth = DEPTH, seen = new Set()) {
  const whole = resolve(schema);
  if (depth === 0 || seen.has(whole)) return [];
  seen.add(whole);
  const inner = (one) => fieldsOf(one, depth - 1, seen);
  const own = Object.entries(whole.properties ?? {}).flatMap(([name, property]) => {
    const text = `${property.description ?? resolve(property).description ?? ""} ${(property.enum ?? []).join(" ")}`;
    return [{ name, text }, ...inner(property)];
  });
  const below = [whole.items, ...choicesOf(whole), ...(whole["x-lines"] ?? [])];
  if (typeof whole.additionalProperties === "object") below.push(whole.additionalProperties);
  return [...own, ...below.filter(Boolean).flatMap(inner)];
}
