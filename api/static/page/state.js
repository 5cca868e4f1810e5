/**
 * State of the page, kept in the URL's fragment: a link or a reload shows the same.
 *
 * @typedef {object} Shown
 * @property {"fleet" | "history" | "box"} tab
 * @property {[longitude: number, latitude: number, zoom: number] | null} at the map's view; null until the user moves it
 * @property {string} device the selected device; empty if none
 * @property {string} search the text that ids in the list contain
 * @property {"" | "moving" | "stopped" | "silent" | "offline"} only the state by which the list and map are filtered
 * @property {"name" | "age" | "speed"} sort
 * @property {string[]} devices the devices in History
 * @property {string} start start of the range of History, ISO 8601
 * @property {string} end
 * @property {string} moment the time of playback
 *
 * @typedef {(shown: Readonly<Shown>, changed: ReadonlySet<string>) => void} Listener
 */

const WRITE_MS = 250;

const text = { read: (/** @type {string[]} */ [value]) => value ?? "", write: (/** @type {string} */ value) => (value ? [value] : []) };

/** @param {string[]} values the first one is the default */
const choice = (...values) => ({
  read: (/** @type {string[]} */ [value]) => (values.includes(value) ? value : values[0]),
  write: (/** @type {string} */ value) => (value === values[0] ? [] : [value]),
});

const list = { read: (/** @type {string[]} */ values) => values, write: (/** @type {string[]} */ values) => values };

const place = {
  read([value]) {
    const [longitude, latitude, zoom] = (value ?? "").split(",").map(Number);
    const isPlace = Math.abs(longitude) <= 540 && Math.abs(latitude) <= 90 && zoom >= 0 && zoom <= 24;
    return isPlace ? [longitude, latitude, zoom] : null;
  },
  write: (value) => (value ? [`${value[0].toFixed(5)},${value[1].toFixed(5)},${value[2].toFixed(2)}`] : []),
};

/** How each value is read from the fragment, and written there. */
const FIELDS = {
  tab: choice("fleet", "history", "box"),
  at: place,
  device: text,
  search: text,
  only: choice("", "moving", "stopped", "silent", "offline"),
  sort: choice("name", "age", "speed"),
  devices: list,
  start: text,
  end: text,
  moment: text,
};

/** @returns {Shown} */
function read(fragment) {
  const said = new URLSearchParams(fragment.replace(/^#/, ""));
  return Object.fromEntries(Object.entries(FIELDS).map(([name, field]) => [name, field.read(said.getAll(name))]));
}

function write(shown) {
  const said = new URLSearchParams();
  for (const [name, field] of Object.entries(FIELDS)) {
    for (const value of field.write(shown[name])) said.append(name, value);
  }
  return `#${said}`;
}

const isSame = (one, other) => JSON.stringify(one) === JSON.stringify(other);

export class State {
  #shown = read(location.hash);
  /** @type {Array<{names: string[], listener: Listener}>} */
  #listeners = [];
  #writing = 0;

  constructor() {
    addEventListener("popstate", () => this.#take(read(location.hash)));
    addEventListener("pagehide", () => this.#write());
  }

  /** @returns {Readonly<Shown>} */
  get shown() {
    return this.#shown;
  }

  /**
   * Change the state. With `isStep`, the browser's Back returns to the previous state.
   *
   * @param {Partial<Shown>} changes
   */
  set(changes, { isStep = false } = {}) {
    if (isStep) {
      this.#write();
      history.pushState(null, "", write({ ...this.#shown, ...changes }));
    }
    this.#take({ ...this.#shown, ...changes });
    this.#writing ||= setTimeout(() => this.#write(), WRITE_MS); // browsers limit changes of the URL per second
  }

  /**
   * Subscribe to changes of these values; returns a function that unsubscribes.
   *
   * @param {string[]} names
   * @param {Listener} listener
   */
  on(names, listener) {
    const one = { names, listener };
    this.#listeners.push(one);
    return () => {
      this.#listeners = this.#listeners.filter((other) => other !== one);
    };
  }

  #take(shown) {
    const changed = new Set(Object.keys(FIELDS).filter((name) => !isSame(shown[name], this.#shown[name])));
    this.#shown = shown;
    for (const { names, listener } of this.#listeners) {
      if (names.some((name) => changed.has(name))) listener(this.#shown, changed);
    }
  }

  #write() {
    clearTimeout(this.#writing);
    this.#writing = 0;
    const fragment = write(this.#shown);
    if (fragment !== location.hash && (fragment !== "#" || location.hash)) {
      history.replaceState(null, "", fragment);
    }
  }
}
