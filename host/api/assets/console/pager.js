// Pages of a list that the server keeps: which one is looked at, and the buttons.

import { button, element, update } from "./dom.js";
import { number } from "./words.js";

export class Pager {
  size;
  /** The `after` of each page up to this one; the first page has none. */
  #pages = [null];
  #next = null;
  #load;
  #wait = 0;
  #words = element("span", { class: "hint", role: "status" });
  #previous = button("Previous", () => this.#go(() => this.back()), { class: "quiet" });
  #following = button("Next", () => this.#go(() => this.#pages.push(this.#next)), { class: "quiet" });

  /** `load`: asks for the page of `size` after `after`, and calls `show`. */
  constructor(parent, size, load) {
    this.size = size;
    this.#load = load;
    parent.append(this.#words, element("span", { class: "actions" }, this.#previous, this.#following));
  }

  get after() {
    return this.#pages.at(-1);
  }

  /** The first page again, for other words or another order; after a pause, in milliseconds. */
  restart(pause = 0) {
    clearTimeout(this.#wait);
    this.#wait = setTimeout(() => this.#go(() => { this.#pages = [null]; }), pause);
  }

  /** False: this is the first page. */
  back() {
    if (this.#pages.length === 1) return false;
    this.#pages.pop();
    return true;
  }

  show(count, total, next) {
    this.#next = next;
    const before = this.size * (this.#pages.length - 1);
    const words = total === 0 ? "" : `${number(before + 1)}–${number(before + count)} of ${number(total)}`;
    update(this.#words, words, () => [words]);
    this.#previous.hidden = this.#following.hidden = next === null && this.#pages.length === 1;
    this.#previous.disabled = this.#pages.length === 1;
    this.#following.disabled = next === null;
  }

  async #go(move) {
    move();
    // What is wrong is told by the next round of questions.
    await this.#load().catch(() => {});
  }
}
