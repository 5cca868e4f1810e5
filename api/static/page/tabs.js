/**
 * The tabs. A tab appears when its part of the page calls `show`, and disappears if the key may not see it.
 *
 * @typedef {"fleet" | "history" | "box"} Tab
 */

import { element } from "./dom.js";
import { notice } from "./notice.js";

/** @type {Tab[]} */
const NAMES = ["fleet", "history", "box"];

export class Tabs {
  #state;

  /** @param {import("./state.js").State} state */
  constructor(state) {
    this.#state = state;
  }

  /** Show the tab that the state names, from now on. */
  start() {
    for (const name of NAMES) {
      element(`tab-${name}`).addEventListener("click", () => this.#state.set({ tab: name }, { isStep: true }));
    }
    element("tab-fleet").parentElement.addEventListener("keydown", (event) => this.#step(event));
    this.#state.on(["tab"], () => this.#draw());
    this.#draw();
  }

  /**
   * The tab that is open.
   *
   * @returns {Tab}
   */
  get open() {
    const { tab } = this.#state.shown;
    return this.isOffered(tab) ? tab : "fleet";
  }

  /**
   * Whether a tab can be opened.
   *
   * @param {Tab} name
   */
  isOffered(name) {
    return !element(`tab-${name}`).hidden;
  }

  /**
   * Offer a tab.
   *
   * @param {Tab} name
   */
  show(name) {
    element(`tab-${name}`).hidden = false;
    this.#draw();
  }

  /**
   * Remove a tab because the box rejected its request; show the reason if the tab was open.
   *
   * @param {Tab} name
   * @param {string} sentence
   */
  hide(name, sentence) {
    element(`tab-${name}`).hidden = true;
    if (this.#state.shown.tab === name) notice(sentence);
    this.#draw();
  }

  #draw() {
    const { open } = this;
    document.body.dataset.tab = open;
    for (const name of NAMES) {
      const tab = element(`tab-${name}`);
      tab.setAttribute("aria-selected", String(name === open));
      tab.tabIndex = name === open ? 0 : -1;
      element(`panel-${name}`).hidden = name !== open;
    }
  }

  #step(event) {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    const offered = NAMES.filter((name) => this.isOffered(name));
    const next = offered[(offered.indexOf(this.open) + by + offered.length) % offered.length];
    this.#state.set({ tab: next });
    element(`tab-${next}`).focus();
  }
}
