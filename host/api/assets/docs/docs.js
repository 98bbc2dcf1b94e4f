// Shows /openapi.json. Descriptions come from components that nobody trusts: everything is text, never markup.
'use strict';

const METHODS = ['get', 'put', 'post', 'delete', 'patch'];
let api = null;
let login = null;

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (typeof value === 'function') made.addEventListener(key, value);
    else if (value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// Paragraphs, and `code` between backticks.
function prose(text) {
  return String(text || '').split('\n\n').filter(Boolean).map((part) => element('p', {}, ...inline(part)));
}

function inline(text) {
  return String(text).split(/`([^`]*)`/).map((part, at) => (at % 2 ? element('code', {}, part) : part));
}

function resolve(schema) {
  if (!schema || !schema.$ref) return schema || {};
  const found = schema.$ref.slice(2).split('/').reduce((at, key) => (at || {})[key.replace(/~1/g, '/')], api);
  return found || {};
}

function nameOf(schema) {
  return schema && schema.$ref ? schema.$ref.split('/').pop() : '';
}

// One line about a schema's kind.
function kindOf(schema) {
  if (!schema) return '';
  if (schema.$ref) return nameOf(schema);
  const types = [].concat(schema.type || []).filter((type) => type !== 'null');
  const choices = schema.oneOf || schema.anyOf;
  let kind = types.join(' or ') || (choices ? choices.filter((one) => one.type !== 'null').map(kindOf).join(' or ') : 'any');
  if (types.includes('array') && schema.items) kind = `list of ${kindOf(schema.items)}`;
  if (schema.enum) kind += `: ${schema.enum.map((value) => JSON.stringify(value)).join(', ')}`;
  const bounds = [['minimum', 'at least'], ['exclusiveMinimum', 'more than'], ['maximum', 'at most'],
    ['minLength', 'shortest'], ['maxLength', 'longest']];
  for (const [key, word] of bounds) if (schema[key] !== undefined) kind += `, ${word} ${schema[key]}`;
  if (schema.format === 'binary') kind = 'file';
  return kind;
}

// The schemas below this one that have properties of their own.
function parts(schema) {
  const below = [schema, schema && schema.items, ...((schema && (schema.oneOf || schema.anyOf || schema.allOf)) || [])];
  if (schema && typeof schema.additionalProperties === 'object') below.push(schema.additionalProperties);
  const more = (schema && schema.items && (schema.items.oneOf || schema.items.anyOf)) || [];
  return below.concat(more).filter((one) => one && (one.$ref || one.properties));
}

// Opens when it is asked to: schemas may be long, or hold themselves.
function unfolding(title, fill) {
  const inside = element('div', {});
  const details = element('details', { class: 'schema' }, element('summary', {}, title), inside);
  details.addEventListener('toggle', () => {
    if (details.open && !inside.hasChildNodes()) inside.append(...fill());
  });
  return details;
}

function properties(reference) {
  const schema = resolve(reference);
  const required = schema.required || [];
  const rows = Object.entries(schema.properties || {}).flatMap(([name, property]) => {
    const whose = property['x-providers'] ? ` (${property['x-providers'].join(', ')})` : '';
    const need = required.includes(name) ? ' required' : '';
    const said = property.description || resolve(property).description;
    return [
      element('dt', {}, element('code', {}, name), ' ',
        element('span', { class: 'quiet' }, kindOf(property) + need + whose)),
      element('dd', {}, ...inline(said || ''), ...shapes(property)),
    ];
  });
  const inner = parts(schema).filter((one) => one !== schema).flatMap(shapes);
  const lines = (schema['x-lines'] || []).flatMap(shapes);
  return [...prose(schema.description), rows.length ? element('dl', {}, ...rows) : null, ...inner, ...lines].filter(Boolean);
}

function shapes(schema) {
  return parts(schema).filter((one) => {
    const whole = resolve(one);
    return whole.properties || whole['x-lines'] || whole.enum || parts(whole).length;
  }).map((one) => unfolding(nameOf(one) || 'fields', () => properties(one)));
}

function quoted(text) {
  return `'${String(text).replace(/'/g, "'\\''")}'`;
}

function plain(value) {
  return typeof value === 'string' ? value : JSON.stringify(value);
}

// The command that sends an example.
function curl(method, path, parameters, type, value) {
  const filled = path.replace(/\{(\w+)\}/g, (whole, name) => {
    const known = parameters.find((one) => one.in === 'path' && one.name === name);
    return known && known.example !== undefined ? encodeURIComponent(known.example) : name.toUpperCase();
  });
  const words = ['curl'];
  if (login) words.push(login.startsWith('Basic') ? '-u NAME:PASSWORD' : "-H 'authorization: Bearer KEY'");
  if (method !== (type ? 'post' : 'get')) words.push('-X', method.toUpperCase());
  words.push(quoted(location.origin + filled));
  if (type === 'multipart/form-data') {
    for (const [key, part] of Object.entries(value)) words.push('-F', quoted(`${key}=${plain(part)}`));
  } else if (type === 'application/x-www-form-urlencoded') {
    for (const [key, part] of Object.entries(value)) words.push('--data-urlencode', quoted(`${key}=${plain(part)}`));
  } else if (type) {
    words.push('-H', quoted(`content-type: ${type}`));
    words.push('--data-binary', value === undefined ? '@FILE' : quoted(plain(value)));
  }
  return words.join(' ');
}

function command(title, text) {
  const copy = element('button', { type: 'button', click: async () => {
    try {
      await navigator.clipboard.writeText(text);
      copy.textContent = 'Copied';
    } catch {
      copy.textContent = 'Not allowed';
    }
  } }, 'Copy');
  return [element('div', { class: 'example' }, element('span', { class: 'quiet' }, title), copy), element('pre', {}, text)];
}

function body(method, path, operation) {
  const parameters = operation.parameters || [];
  const content = Object.entries((operation.requestBody && operation.requestBody.content) || {});
  if (!content.length) return [element('h3', {}, 'Try it'), ...command('', curl(method, path, parameters))];
  const sections = content.flatMap(([type, media]) => {
    const examples = Object.values(media.examples || {});
    const shown = examples.length ? examples : [{ summary: '', value: undefined }];
    const commands = shown.flatMap((one) => command(one.summary || '', curl(method, path, parameters, type, one.value)));
    return [element('h3', {}, 'Body: ', element('code', {}, type)), ...shapes(media.schema),
      unfolding(`curl (${shown.length})`, () => commands)];
  });
  return sections;
}

function answers(operation) {
  const rows = Object.entries(operation.responses || {}).flatMap(([status, response]) => {
    const types = Object.entries(response.content || {});
    const headers = Object.keys(response.headers || {});
    return [
      element('dt', {}, element('strong', {}, status), ' ', element('span', { class: 'quiet' },
        types.map(([type]) => type).concat(headers).join(', '))),
      element('dd', {}, ...inline(response.description), ...types.flatMap(([, media]) => shapes(media.schema))),
    ];
  });
  return [element('h3', {}, 'Answers'), element('dl', {}, ...rows)];
}

function parametersOf(operation) {
  const all = operation.parameters || [];
  if (!all.length) return [];
  const rows = all.flatMap((one) => [
    element('dt', {}, element('code', {}, one.name), ' ',
      element('span', { class: 'quiet' }, `${one.in}, ${kindOf(resolve(one.schema))}${one.required ? ', required' : ''}`)),
    element('dd', {}, ...inline(one.description || '')),
  ]);
  return [element('h3', {}, 'Parameters'), element('dl', {}, ...rows)];
}

function operationView(path, method, operation) {
  const inside = element('div', {});
  const summary = element('summary', {}, element('span', { class: `method ${method}` }, method.toUpperCase()),
    element('span', { class: 'path' }, path), ' ', element('span', { class: 'quiet' }, operation.summary || ''));
  const view = element('details', { class: 'operation', id: operation.operationId }, summary, inside);
  view.dataset.words = `${path} ${method} ${operation.summary} ${operation.description || ''}`.toLowerCase();
  view.addEventListener('toggle', () => {
    if (view.open && !inside.hasChildNodes()) {
      inside.append(...prose(operation.description), ...parametersOf(operation), ...body(method, path, operation),
        ...answers(operation));
    }
  });
  return view;
}

function show() {
  const main = document.getElementById('main');
  const contents = document.getElementById('contents');
  const all = Object.entries(api.paths).flatMap(([path, item]) => METHODS.filter((method) => item[method])
    .map((method) => ({ path, method, operation: item[method] })));
  main.replaceChildren(...prose(api.info.description));
  contents.replaceChildren();
  for (const tag of api.tags || []) {
    const own = all.filter(({ operation }) => (operation.tags || []).includes(tag.name));
    const views = own.map(({ path, method, operation }) => operationView(path, method, operation));
    main.append(element('section', {}, element('h2', {}, tag.name), ...prose(tag.description), ...views));
    const links = own.map(({ operation }) => element('li', {}, element('a', { href: `#${operation.operationId}` },
      operation.summary || operation.operationId)));
    contents.append(element('h2', {}, tag.name), element('ul', {}, ...links));
  }
  document.getElementById('filter').addEventListener('input', (event) => filter(event.target.value.toLowerCase().trim()));
  window.addEventListener('hashchange', reveal);
  reveal();
}

function filter(words) {
  for (const view of document.querySelectorAll('.operation')) {
    view.hidden = !words.split(/\s+/).every((word) => view.dataset.words.includes(word));
  }
}

function reveal() {
  const view = document.getElementById(location.hash.slice(1));
  if (!(view instanceof HTMLDetailsElement)) return;
  view.open = true;
  view.scrollIntoView();
}

function field(title, type, name) {
  return element('label', {}, title, element('input', { type, name, autocomplete: 'off' }));
}

function askForLogin() {
  const form = element('form', { class: 'login', submit: (event) => {
    event.preventDefault();
    const given = new FormData(form);
    const pair = new TextEncoder().encode(`${given.get('name')}:${given.get('password')}`);
    login = given.get('key') ? `Bearer ${given.get('key')}` : `Basic ${btoa(String.fromCharCode(...pair))}`;
    load();
  } }, element('p', {}, 'This server asks who you are. What you write here stays in this page.'),
  field('Name', 'text', 'name'), field('Password', 'password', 'password'), field('or the key of a tenant', 'password', 'key'),
  element('button', { type: 'submit' }, 'Show the document'));
  document.getElementById('main').replaceChildren(form);
}

async function load() {
  const main = document.getElementById('main');
  try {
    // Without the browser's own question for a name and password: a tenant has neither.
    const headers = login ? { authorization: login } : {};
    const answer = await fetch(`${location.origin}/openapi.json`, { credentials: 'omit', headers });
    if (answer.status === 401) return askForLogin();
    if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
    api = await answer.json();
    show();
  } catch (error) {
    main.replaceChildren(element('p', {}, `The document can not be read: ${error.message}`));
  }
}

load();
