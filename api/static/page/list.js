/**
 * The list beside the map: search, states, order, and one row a device. Rows are made for what is in sight alone, so
 * that ten thousand devices cost what twenty do. The keyboard moves through it as through a list box (ARIA practices).
 */

import { element, make } from "./dom.js";
import { STATES } from "./fleet.js";
import { isWanted } from "./wanted.js";
import { ago, number, speed } from "./words.js";

const ROW_PX = 54;
const SPARE_ROWS = 4;
const ORDER_MS = 1_500;
const ROWS_MS = 250;

/** Devices that were heard within this are ordered by name: an order by seconds would never stand still. */
const EVEN_AGE_S = 60;

const byName = new Intl.Collator("en", { numeric: true }).compare;

/** @type {Record<import("./fleet.js").DeviceState, string>} */
const MEANINGS = {
  moving: "Heard within 5 minutes, faster than 3 km/h",
  stopped: "Heard within 5 minutes, at most 3 km/h",
  silent: "Not heard for 5 minutes",
  offline: "Not heard for a day",
};

const ORDERS = { name: "Name", age: "Last heard", speed: "Speed" };

/** @param {import("./main.js").Context} context */
export function start(context) {
  new List(context).start();
}

class List {
  #context;
  /** @type {string[]} the ids of all devices, by name */
  #names = [];
  /** @type {import("./fleet.js").Device[]} those that are listed, in order */
  #listed = [];
  /** Which row the keyboard is at. */
  #at = -1;
  #orderedMs = 0;
  #drawing = 0;
  #search = make("input", { type: "search", id: "search", placeholder: "Search devices", autocomplete: "off", spellcheck: false, "aria-label": "Search devices", "aria-keyshortcuts": "/" });
  #chips = new Map(STATES.map((name) => [name, chip(name)]));
  #total = make("span", { className: "soft", role: "status" });
  #order = make("select", { "aria-label": "Order" }, ...Object.entries(ORDERS).map(([value, text]) => make("option", { value }, text)));
  #space = make("div", { className: "space", role: "presentation" });
  #box = make("div", { className: "rows", id: "devices", role: "listbox", tabIndex: 0, "aria-label": "Devices" }, this.#space);
  #empty = make("p", { className: "empty soft", hidden: true });

  /** @param {import("./main.js").Context} context */
  constructor(context) {
    this.#context = context;
  }

  start() {
    const { fleet, state } = this.#context;
    element("panel-fleet").append(
      make("div", { className: "search" }, this.#search, make("kbd", { "aria-hidden": "true" }, "/")),
      make("div", { className: "chips", role: "group", "aria-label": "Show only" }, ...[...this.#chips.values()].map(({ button }) => button)),
      make("div", { className: "order" }, this.#total, this.#order),
      this.#empty,
      this.#box,
    );
    this.#listen();
    fleet.on(() => this.#draw());
    state.on(["search", "only", "sort"], () => this.#reorder());
    state.on(["device"], () => this.#reach());
    setInterval(() => this.#draw(), 1_000); // ages grow
    new ResizeObserver(() => this.#drawRows()).observe(this.#box);
    this.#reorder();
  }

  #listen() {
    const { state } = this.#context;
    this.#search.addEventListener("input", () => state.set({ search: this.#search.value.trim() }));
    this.#search.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowDown" && event.key !== "Enter") return;
      event.preventDefault();
      this.#box.focus();
      this.#go(Math.max(this.#at, 0));
    });
    this.#order.addEventListener("change", () => state.set({ sort: this.#order.value }));
    for (const [name, { button }] of this.#chips) {
      button.addEventListener("click", () => state.set({ only: state.shown.only === name ? "" : name }));
    }
    this.#box.addEventListener("scroll", () => this.#drawRows(), { passive: true });
    this.#box.addEventListener("keydown", (event) => this.#press(event));
    this.#box.addEventListener("click", (event) => {
      const row = event.target.closest("[role=option]");
      if (row) this.#choose(Number(row.dataset.row));
    });
    addEventListener("keydown", (event) => {
      const isTyping = event.target.closest("input, select, textarea, dialog") || event.ctrlKey || event.metaKey || event.altKey;
      if (event.key !== "/" || isTyping || this.#context.tabs.open !== "fleet") return;
      event.preventDefault();
      this.#search.focus();
      this.#search.select();
    });
  }

  #press(event) {
    const page = Math.max(Math.floor(this.#box.clientHeight / ROW_PX) - 1, 1);
    const last = this.#listed.length - 1;
    const to = {
      ArrowDown: this.#at + 1,
      ArrowUp: this.#at - 1,
      PageDown: this.#at + page,
      PageUp: this.#at - page,
      Home: 0,
      End: last,
    }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      this.#go(to);
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.#choose(this.#at);
    }
  }

  /** Move the keyboard's place to a row, and that into sight. */
  #go(row) {
    this.#at = Math.min(Math.max(row, 0), this.#listed.length - 1);
    const top = this.#at * ROW_PX;
    if (top < this.#box.scrollTop) this.#box.scrollTop = top;
    const missing = top + ROW_PX - this.#box.clientHeight;
    if (missing > this.#box.scrollTop) this.#box.scrollTop = missing;
    this.#drawRows();
  }

  #choose(row) {
    const device = this.#listed[row];
    if (!device) return;
    this.#at = row;
    const { state, map } = this.#context;
    state.set({ device: device.id }, { isStep: true });
    if (device.longitude !== null && device.latitude !== null) map.show(device.longitude, device.latitude);
  }

  /** The device that is chosen, perhaps on the map, comes into sight. */
  #reach() {
    const row = this.#listed.findIndex((device) => device.id === this.#context.state.shown.device);
    if (row >= 0) this.#go(row);
    else this.#drawRows();
  }

  #draw() {
    this.#drawing ||= setTimeout(() => {
      this.#drawing = 0;
      if (performance.now() - this.#orderedMs > ORDER_MS) this.#reorder();
      else this.#drawRows();
    }, ROWS_MS);
  }

  #reorder() {
    const { fleet, state } = this.#context;
    const { shown } = state;
    const at = this.#listed[this.#at]?.id;
    const isAsListed = this.#names.length === fleet.devices.size && this.#names.every((id) => fleet.devices.has(id));
    if (!isAsListed) this.#names = [...fleet.devices.keys()].sort(byName);
    this.#listed = this.#names.map((id) => /** @type {any} */ (fleet.devices.get(id))).filter((device) => isWanted(device, shown));
    const now = this.#context.api.now();
    const age = (device) => Math.max((now - device.seenMs) / 1_000, EVEN_AGE_S);
    if (shown.sort === "age") this.#listed.sort((one, other) => age(one) - age(other));
    if (shown.sort === "speed") this.#listed.sort((one, other) => paceOf(other) - paceOf(one));
    this.#at = at === undefined ? -1 : this.#listed.findIndex((device) => device.id === at);
    this.#orderedMs = performance.now();
    this.#drawHead();
    this.#drawRows();
  }

  #drawHead() {
    const { fleet, state } = this.#context;
    const counts = fleet.counts();
    for (const [name, { button, count }] of this.#chips) {
      write(count, fleet.isLoaded ? number(counts[name]) : "–");
      button.setAttribute("aria-pressed", String(state.shown.only === name));
    }
    if (document.activeElement !== this.#search) this.#search.value = state.shown.search;
    this.#order.value = state.shown.sort;
    const [listed, all] = [this.#listed.length, fleet.devices.size];
    const total = listed === all ? `${number(all)} device${all === 1 ? "" : "s"}` : `${number(listed)} of ${number(all)}`;
    write(this.#total, fleet.isLoaded ? total : "Loading…");
    this.#empty.hidden = listed > 0;
    this.#box.hidden = listed === 0;
    const none = all ? "No device matches." : "No device has sent a record yet.";
    write(this.#empty, fleet.isLoaded ? none : "Loading devices…");
  }

  #drawRows() {
    const first = Math.max(Math.floor(this.#box.scrollTop / ROW_PX) - SPARE_ROWS, 0);
    const count = Math.ceil(this.#box.clientHeight / ROW_PX) + 2 * SPARE_ROWS;
    const shown = this.#listed.slice(first, first + count);
    this.#space.style.height = `${this.#listed.length * ROW_PX}px`;
    while (this.#space.childElementCount < shown.length) this.#space.append(newRow());
    while (this.#space.childElementCount > shown.length) this.#space.lastElementChild?.remove();
    shown.forEach((device, index) => this.#drawRow(this.#space.children[index], device, first + index));
    const active = this.#space.querySelector(".at");
    if (active) this.#box.setAttribute("aria-activedescendant", active.id);
    else this.#box.removeAttribute("aria-activedescendant");
  }

  #drawRow(element, device, row) {
    const [sign, name, told, age] = element.parts;
    element.id = `row-${row}`;
    element.dataset.row = row;
    element.style.transform = `translateY(${row * ROW_PX}px)`;
    element.classList.toggle("at", row === this.#at);
    element.setAttribute("aria-selected", String(device.id === this.#context.state.shown.device));
    element.setAttribute("aria-posinset", String(row + 1));
    element.setAttribute("aria-setsize", String(this.#listed.length));
    sign.dataset.state = device.state;
    write(name, device.id);
    if (name.title !== device.id) name.title = device.id;
    write(told, device.state === "moving" && device.speedKmh !== null ? speed(device.speedKmh) : device.state);
    write(age, ago((this.#context.api.now() - device.seenMs) / 1_000));
  }
}

/** What an order by speed goes by: the last speed of a device that isn't heard says little. */
const paceOf = ({ state, paceKmh }) => (state === "silent" || state === "offline" ? -1 : Math.round(paceKmh));

function newRow() {
  const parts = [make("span", { className: "sign" }), make("bdi", { className: "name" }), make("span", { className: "told" }), make("span", { className: "age" })];
  return Object.assign(make("div", { className: "row", role: "option" }, ...parts), { parts });
}

function chip(name) {
  const count = make("strong", {}, "0");
  const sign = make("span", { className: "sign", "data-state": name });
  const button = make("button", { type: "button", title: MEANINGS[name], "aria-pressed": "false" }, count, make("span", {}, sign, name));
  return { button, count };
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
