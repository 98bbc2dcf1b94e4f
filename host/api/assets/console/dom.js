// Building elements. Text from elsewhere only ever becomes a text node.

/** An element with attributes; null and false ones are left out. Children are nodes and texts. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  set(made, attributes);
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

/** The same in SVG. */
export function drawn(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  set(made, attributes);
  made.append(...children);
  return made;
}

export function byId(id) {
  return document.getElementById(id);
}

/** A state in words, with a colour. Tones: good, note, warn, bad. */
export function badge(tone, text) {
  return element("span", { class: `badge ${tone}` }, text);
}

export function hint(...children) {
  return element("span", { class: "hint" }, ...children);
}

/** A button that calls `action`, once at a time. */
export function button(text, action, attributes = {}) {
  const made = element("button", { type: "button", ...attributes }, text);
  let isRunning = false;
  made.addEventListener("click", async () => {
    if (isRunning) return;
    isRunning = true;
    made.setAttribute("aria-disabled", "true");
    await action(made);
    made.removeAttribute("aria-disabled");
    isRunning = false;
  });
  return made;
}

/** A button that copies a text. */
export function copyButton(text, what) {
  return button("Copy", async (self) => {
    const said = await navigator.clipboard.writeText(text).then(() => "Copied", () => "Not allowed");
    self.textContent = said;
  }, { class: "quiet", "aria-label": what ? `Copy ${what}` : null });
}

let hints = 0;

/** A label with a field; `about` is read out after it. */
export function field(title, input, about = null) {
  const label = element("label", { class: "field" }, element("span", {}, title), input);
  if (about === null) return label;
  hints += 1;
  about.id = `hint-${hints}`;
  input.setAttribute("aria-describedby", about.id);
  return element("div", { class: "field" }, label, about);
}

/** Names with values; those without a value are left out. */
export function facts(pairs) {
  const given = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  const fact = ([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value));
  return element("dl", { class: "facts" }, ...given.map(fact));
}

/** All or some of `options`, which are [value, words]; `now`: the values that are chosen, null for all. */
export function choice(legend, name, all, options, now) {
  const radio = (value, text, checked) => element("label", {}, element("input", { type: "radio", name: `${name}-which`, value, checked }), ` ${text}`);
  const box = ([value, words]) => element("label", { class: "check" }, element("input", { type: "checkbox", name, value, checked: now?.includes(value) }), ` ${words}`);
  const boxes = element("div", { class: "boxes", hidden: now === null }, ...options.map(box));
  const made = element("fieldset", { class: "choice" }, element("legend", {}, legend), radio("all", all, now === null), radio("some", "Only these", now !== null), boxes);
  made.addEventListener("change", () => {
    boxes.hidden = made.querySelector("[value=all]").checked;
  });
  return made;
}

/** The values that are chosen; null: all. */
export function chosen(made) {
  if (made.querySelector("[value=all]").checked) return null;
  return [...made.querySelectorAll("[type=checkbox]:checked")].map(({ value }) => value);
}

/** A secret that is not shown again. */
export function onlyOnce(title, secret) {
  return element(
    "div",
    { class: "secret" },
    element("p", {}, element("strong", {}, `${title}. `), "It is shown only now."),
    element("div", { class: "actions" }, element("code", {}, secret), copyButton(secret, title.toLowerCase())),
  );
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
  const focused = parent.contains(document.activeElement) ? document.activeElement.dataset.focus : undefined;
  parent.replaceChildren(...children());
  if (focused === undefined) return;
  [...parent.querySelectorAll("[data-focus]")].find((one) => one.dataset.focus === focused)?.focus();
}

/** Shows a dialog that is gone when it is closed. `fill`: its children, made with the dialog. */
export function dialog(title, fill) {
  const heading = element("h2", { id: "dialog-title", tabindex: -1 }, title);
  const made = element("dialog", { "aria-labelledby": "dialog-title" });
  const close = button("Close", () => made.close(), { class: "quiet" });
  made.append(element("div", { class: "head" }, heading, close), ...[fill(made)].flat());
  made.addEventListener("close", () => made.remove());
  document.body.append(made);
  made.showModal();
  return made;
}

/** Asks once more, in place of the actions. `work` is done if the answer is `yes`; it may throw a Refusal. */
export function confirm(actions, message, warning, yes, work) {
  const before = [...actions.children];
  const sure = button(yes, async () => {
    try {
      await work();
    } catch (refusal) {
      say(message, "bad", told(refusal));
    }
  }, { class: "danger" });
  const no = button("Keep it", () => {
    actions.replaceChildren(...before);
    say(message, "", "");
  }, { class: "quiet" });
  say(message, "warn", warning);
  actions.replaceChildren(sure, no);
  no.focus();
}

/** The words of a message, with its tone. */
export function say(message, tone, text) {
  message.className = `message ${tone}`;
  message.textContent = text;
}

/** A refusal in words. */
export function told(refusal) {
  return refusal.code ? `${refusal.message} (${refusal.code})` : refusal.message;
}

function set(made, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
}
