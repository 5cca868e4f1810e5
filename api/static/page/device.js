/** The selected device: all fields of its last record, and today's track on the map. */

import { element, make } from "./dom.js";
import { startTrack } from "./track.js";
import { ago, heading, moment, number, speed } from "./words.js";

/** @param {import("./main.js").Context} context */
export function start(context) {
  const { state, fleet, tabs } = context;
  const panel = new Panel(context);
  fleet.on((changed) => changed.has(state.shown.device) && panel.open());
  state.on(["device"], () => panel.open());
  setInterval(() => panel.drawAge(), 1_000);
  addEventListener("keydown", (event) => {
    const isElsewhere = /** @type {Element} */ (event.target).closest("dialog, select");
    if (event.key === "Escape" && !isElsewhere && tabs.open === "fleet" && state.shown.device) panel.close();
  });
  panel.open();
  startTrack(context);
}

class Panel {
  #context;
  #root = element("device");
  #sign = make("span", { className: "sign" });
  #state = make("span");
  #name = make("bdi");
  #age = make("strong");
  #speed = make("strong");
  #heading = make("strong");
  #told = make("dl");
  #attributes = make("dl");
  #attributesTitle = make("h3", {}, "Attributes");
  #history = make("button", { type: "button", className: "main" }, "Show its history");
  #centre = make("button", { type: "button", className: "quiet" }, "Show on map");
  #missing = make("p", { className: "soft", role: "status" });
  /** The device that does not exist according to the box; empty if none. */
  #unknown = "";
  #body = make("div", { className: "known" });

  /** @param {import("./main.js").Context} context */
  constructor(context) {
    this.#context = context;
    const close = make("button", { type: "button", className: "close", "aria-label": "Close", title: "Close (Esc)" }, "×");
    close.addEventListener("click", () => this.close());
    this.#centre.addEventListener("click", () => this.#show());
    this.#history.addEventListener("click", () => {
      const { state } = context;
      state.set({ tab: "history", devices: [state.shown.device] }, { isStep: true });
    });
    const figure = (label, value) => make("div", {}, value, make("span", { className: "soft" }, label));
    this.#body.append(
      make("div", { className: "figures" }, figure("heard", this.#age), figure("speed", this.#speed), figure("heading", this.#heading)),
      make("div", { className: "actions" }, this.#centre, this.#history),
      this.#told,
      this.#attributesTitle,
      this.#attributes,
    );
    this.#root.append(
      make("header", {}, make("p", { className: "state" }, this.#sign, this.#state), close, make("h2", {}, this.#name)),
      this.#missing,
      this.#body,
    );
  }

  /** Show the selected device, or nothing. */
  open() {
    const id = this.#context.state.shown.device;
    this.#root.hidden = !id;
    document.body.classList.toggle("has-device", Boolean(id));
    if (id) this.draw();
    this.#look(id);
  }

  /** Request a device that was not in the stream yet: it may arrive later, or not exist. */
  async #look(id) {
    this.#unknown = "";
    if (!id || this.#context.fleet.devices.has(id)) return;
    try {
      const { records } = await this.#context.api.json("/v1/latest", { device_id: [id] });
      if (records.length) return;
    } catch (error) {
      if (error.status !== 403) return; // the stream fails, too, and the banner reports it
    }
    if (id !== this.#context.state.shown.device) return;
    this.#unknown = id;
    this.draw();
  }

  close() {
    this.#context.state.set({ device: "" }, { isStep: true });
    element("devices").focus();
  }

  draw() {
    const id = this.#context.state.shown.device;
    const device = this.#context.fleet.devices.get(id);
    [this.#name.textContent, this.#name.title] = [id, id];
    this.#missing.hidden = device !== undefined;
    this.#body.hidden = device === undefined;
    if (device === undefined) {
      this.#missing.textContent = this.#unknown === id ? "The box knows no device of this name, or this key may not see it." : "Loading…";
      this.#state.textContent = "";
      this.#sign.hidden = true;
      return;
    }
    this.#sign.hidden = false;
    this.#speed.textContent = speed(device.speedKmh);
    this.#heading.textContent = device.headingDeg === null ? "–" : heading(device.headingDeg);
    this.#centre.hidden = device.longitude === null;
    this.#history.hidden = !this.#context.tabs.isOffered("history");
    fill(this.#told, told(device.record));
    const attributes = flat(device.record.attributes ?? {});
    this.#attributesTitle.hidden = attributes.length === 0;
    fill(this.#attributes, attributes);
    this.drawAge();
  }

  /** Ages and states change with time, without a new record. */
  drawAge() {
    const device = this.#context.fleet.devices.get(this.#context.state.shown.device);
    if (device === undefined) return;
    this.#sign.dataset.state = device.state;
    this.#state.textContent = device.state;
    this.#age.textContent = ago((this.#context.api.now() - device.seenMs) / 1_000);
  }

  #show() {
    const device = this.#context.fleet.devices.get(this.#context.state.shown.device);
    if (device?.longitude != null && device.latitude !== null) this.#context.map.show(device.longitude, device.latitude);
  }
}

/** The fields of a record without its attributes, as pairs of label and text. */
function told(record) {
  const { position } = record;
  const degrees = (value) => value.toFixed(5);
  /** @type {Array<[string, string | null]>} */
  const pairs = [
    ["Time", moment(record.timestamp)],
    ["Received", moment(record.received_at)],
    ["Position", position && `${degrees(position.latitude)}, ${degrees(position.longitude)}`],
    ["Position of", position && position.timestamp !== record.timestamp ? moment(position.timestamp) : null],
    ["Place", record.location],
    ["Altitude", record.altitude_m === null ? null : `${number(record.altitude_m)} m`],
    ["Accuracy", record.accuracy_m === null ? null : `${number(record.accuracy_m)} m`],
    ["Source", `${record.source} over ${record.transport}`],
  ];
  return pairs.filter((pair) => pair[1] !== null);
}

/** Flattened attributes; names within an object are prefixed with its name. */
function flat(attributes, before = "") {
  return Object.entries(attributes).flatMap(([name, value]) => {
    const isObject = value !== null && typeof value === "object" && !Array.isArray(value);
    if (isObject && Object.keys(value).length) return flat(value, `${before}${name}.`);
    return [[before + name, typeof value === "string" ? value : typeof value === "number" ? number(value) : JSON.stringify(value)]];
  });
}

/** Write pairs into a list. Changes only modified elements, so that a text selection is kept. */
function fill(list, pairs) {
  while (list.childElementCount > pairs.length) list.lastElementChild.remove();
  while (list.childElementCount < pairs.length) list.append(make("div", {}, make("dt"), make("dd")));
  pairs.forEach((pair, index) => {
    const cells = list.children[index].children;
    pair.forEach((text, cell) => {
      if (cells[cell].textContent !== text) cells[cell].textContent = text;
    });
  });
}
