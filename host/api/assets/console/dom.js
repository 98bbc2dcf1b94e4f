// Building elements. Text from elsewhere only ever becomes a text node.

/** An element with attributes; null and false ones are left out. Children are nodes and texts. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  set(made, attributes);
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

/** The same in SVG. */
export function drawn(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  set(made, attributes);
  return made;
}

export function byId(id) {
  return document.getElementById(id);
}

/** A state in words, with a colour. Tones: good, note, warn, bad. */
export function badge(tone, text) {
  return element("span", { class: `badge ${tone}` }, text);
}

/** A row of a table that becomes a card on narrow screens; `cells`: [label, content, class]. */
export function row(cells) {
  const cell = ([label, content, kind]) =>
    element("td", { role: "cell", "data-label": label, class: kind }, ...[content].flat());
  return element("tr", { role: "row" }, ...cells.map(cell));
}

const shown = new WeakMap();

/** Replaces the children only if `data` is not what was shown last, so that nobody's selection is lost. */
export function update(parent, data, children) {
  const now = JSON.stringify(data);
  if (shown.get(parent) === now) return;
  shown.set(parent, now);
  parent.replaceChildren(...children());
}

function set(made, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value);
  }
}
