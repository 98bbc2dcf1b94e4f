// One request in several languages, to be copied.

import { kindOfCredentials } from "../console/api.js";

/** What a file needs in Node. */
const BLOBS = `import { openAsBlob } from ${JSON.stringify("node:fs")};\n\n`;

/** { curl, python, node }. `type` and `value`: of the body; a body without a value is a file. */
export function samples(method, path, parameters, type, value) {
  const request = { method: method.toUpperCase(), url: urlOf(path, parameters), type, value, credentials: kindOfCredentials() };
  return { curl: shell(request), python: python(request), node: node(request) };
}

function urlOf(path, parameters) {
  const filled = path.replaceAll(/\{(\w+)\}/g, (whole, name) => {
    const known = parameters.find((one) => one.in === "path" && one.name === name);
    return known?.example === undefined ? name.toUpperCase() : encodeURIComponent(known.example);
  });
  return new URL(`.${filled}`, location.href).href;
}

const plain = (value) => (typeof value === "string" ? value : JSON.stringify(value));
/** Of a shell. */
const quoted = (text) => `'${String(text).replaceAll("'", "'\\''")}'`;
/** A part of a form that stands for a file, as in curl's options: its name. */
const fileOf = (part) => (typeof part === "string" && part.startsWith("@") ? part.slice(1) : null);
const isJson = (type, value) => type === "application/json" && typeof value !== "string";

function shell({ method, url, type, value, credentials }) {
  const words = ["curl"];
  if (credentials === "basic") words.push("-u NAME:PASSWORD");
  if (credentials === "bearer") words.push("-H 'authorization: Bearer KEY'");
  if (method !== (type ? "POST" : "GET")) words.push(`-X ${method}`);
  words.push(quoted(url));
  if (type === "multipart/form-data") {
    for (const [key, part] of Object.entries(value ?? {})) words.push(`-F ${quoted(`${key}=${plain(part)}`)}`);
  } else if (type === "application/x-www-form-urlencoded") {
    for (const [key, part] of Object.entries(value ?? {})) words.push(`--data-urlencode ${quoted(`${key}=${plain(part)}`)}`);
  } else if (type) {
    words.push(`-H ${quoted(`content-type: ${type}`)}`, `--data-binary ${value === undefined ? "@FILE" : quoted(plain(value))}`);
  }
  return words.join(" ");
}

function python({ method, url, type, value, credentials }) {
  const lines = [`    ${JSON.stringify(url)},`];
  if (credentials === "basic") lines.push('    auth=("NAME", "PASSWORD"),');
  const headers = [];
  if (credentials === "bearer") headers.push('"authorization": "Bearer KEY"');
  const isForm = type === "multipart/form-data" || type === "application/x-www-form-urlencoded";
  if (type && !isForm && !isJson(type, value)) headers.push(`"content-type": ${JSON.stringify(type)}`);
  if (headers.length > 0) lines.push(`    headers={${headers.join(", ")}},`);
  if (type === "multipart/form-data") {
    const part = ([key, one]) => `"${key}": ${fileOf(one) === null ? `(None, ${pythonic(plain(one))})` : `open(${pythonic(fileOf(one))}, "rb")`}`;
    lines.push(`    files={${Object.entries(value ?? {}).map(part).join(", ")}},`);
  } else if (isForm) {
    lines.push(`    data={${Object.entries(value ?? {}).map(([key, one]) => `"${key}": ${pythonic(plain(one))}`).join(", ")}},`);
  } else if (type && value === undefined) {
    lines.push('    data=open("FILE", "rb"),');
  } else if (isJson(type, value)) {
    lines.push(`    json=${pythonic(value, "    ")},`);
  } else if (type) {
    lines.push(`    data=${pythonic(value)},`);
  }
  return `import requests\n\nresponse = requests.${method.toLowerCase()}(\n${lines.join("\n")}\n)\nprint(response.status_code, response.text)`;
}

/** A value as Python writes it. */
function pythonic(value, indent = "") {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const deeper = `${indent}    `;
  const items = Array.isArray(value)
    ? value.map((one) => pythonic(one, deeper))
    : Object.entries(value).map(([key, one]) => `${JSON.stringify(key)}: ${pythonic(one, deeper)}`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  return items.length === 0 ? open + close : `${open}\n${items.map((item) => `${deeper}${item},`).join("\n")}\n${indent}${close}`;
}

function node({ method, url, type, value, credentials }) {
  const [imports, before, options] = [[], [], []];
  const headers = [];
  if (method !== "GET") options.push(`  method: "${method}",`);
  if (credentials === "basic") headers.push('authorization: `Basic ${btoa("NAME:PASSWORD")}`');
  if (credentials === "bearer") headers.push('authorization: "Bearer KEY"');
  const isForm = type === "multipart/form-data" || type === "application/x-www-form-urlencoded";
  if (type && !isForm) headers.push(`"content-type": ${JSON.stringify(type)}`);
  if (headers.length > 0) options.push(`  headers: { ${headers.join(", ")} },`);
  if (type === "multipart/form-data") {
    before.push("const body = new FormData();");
    for (const [key, one] of Object.entries(value ?? {})) {
      const file = fileOf(one);
      if (file !== null) imports[0] = BLOBS;
      before.push(`body.set("${key}", ${file === null ? JSON.stringify(plain(one)) : `await openAsBlob(${JSON.stringify(file)})`});`);
    }
    options.push("  body,");
  } else if (isForm) {
    const parts = Object.fromEntries(Object.entries(value ?? {}).map(([key, one]) => [key, plain(one)]));
    options.push(`  body: new URLSearchParams(${indented(parts)}),`);
  } else if (type && value === undefined) {
    imports[0] = BLOBS;
    options.push('  body: await openAsBlob("FILE"),');
  } else if (isJson(type, value)) {
    options.push(`  body: JSON.stringify(${indented(value)}),`);
  } else if (type) {
    options.push(`  body: ${JSON.stringify(value)},`);
  }
  const call = options.length > 0 ? `fetch(${JSON.stringify(url)}, {\n${options.join("\n")}\n})` : `fetch(${JSON.stringify(url)})`;
  const lines = [...before, `const response = await ${call};`, "console.log(response.status, await response.text());"];
  return `${imports.join("")}${lines.join("\n")}`;
}

const indented = (value) => JSON.stringify(value, null, 2).replaceAll("\n", "\n  ");
