/** Trips and stops of a range, computed by the box: a list, and marks on the map. */

import { make } from "./dom.js";
import { SERIES } from "./lines.js";
import { shortly, timeOfDay } from "./times.js";
import { duration } from "./units.js";
import { moment } from "./words.js";

const MOST = 500;

/** @typedef {{kind: "trip" | "stop", startMs: number, endMs: number, of: any}} Move */

export class Moves {
  /** @type {Move[]} in the order of time */
  all = [];
  element = make("ol", { className: "moves", "aria-label": "Trips and stops" });
  #said = make("p", { className: "soft", role: "status" });
  #choose;

  /** @param {(move: Move | null) => void} choose called when a move is selected, or none */
  constructor(choose) {
    this.#choose = choose;
  }

  /** The list with its heading. */
  get parts() {
    return [make("h2", {}, "Trips and stops"), this.#said, this.element];
  }

  /**
   * Request the trips and stops of a range, and list them.
   *
   * @param {import("./api.js").Api} api
   * @param {import("./api.js").Parameters} range devices, start and end
   * @param {string[]} devices
   * @param {AbortSignal} signal
   */
  async load(api, { device_id, start, end }, devices, signal) {
    this.clear();
    this.#said.textContent = "Computing trips and stops…";
    try {
      const asked = { device_id, start, end, limit: MOST };
      const [trips, stops] = await Promise.all([
        api.json("/v1/trips", asked, { signal }),
        api.json("/v1/stops", asked, { signal }),
      ]);
      this.all = [...trips.trips.map((one) => move("trip", one)), ...stops.stops.map((one) => move("stop", one))];
      this.all.sort((one, other) => one.startMs - other.startMs || one.endMs - other.endMs);
      this.#say(trips, stops);
      this.element.replaceChildren(...this.all.map((one) => this.#row(one, devices)));
    } catch (error) {
      if (error.name === "AbortError") throw error;
      this.#said.textContent = `Cannot show trips and stops. ${error.message}`;
    }
  }

  clear() {
    this.all = [];
    this.element.replaceChildren();
    this.#said.textContent = "";
  }

  #say({ trips, next_cursor: moreTrips }, { stops, next_cursor: moreStops }) {
    const several = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
    const words = [several(trips.length, "trip"), several(stops.length, "stop")].join(", ");
    this.#said.textContent = moreTrips || moreStops ? `The first ${words}; choose a shorter range for all.` : `${words}.`;
    if (!this.all.length) this.#said.textContent = "No trip of 300 m, and no stop of 5 min, between two gaps.";
  }

  #row(one, devices) {
    const { kind, startMs, endMs, of } = one;
    const span = `${shortly(startMs)} – ${isSameDay(startMs, endMs) ? timeOfDay(endMs) : shortly(endMs)}`;
    const button = make("button", { type: "button", "data-kind": kind, "data-series": devices.indexOf(of.device_id) % SERIES, title: moment(startMs) },
      make("span", { className: "when" }, span),
      kind === "trip"
        ? make("span", { className: "soft" }, ofTrip(of))
        : make("span", { className: "soft" }, make("span", { className: "stop" }), `Stood ${duration((endMs - startMs) / 1_000)}`),
      devices.length > 1 ? make("span", { className: "whose" }, make("span", { className: "dot" }), make("span", { className: "name", title: of.device_id }, of.device_id)) : null);
    button.addEventListener("click", () => {
      const isChosen = button.getAttribute("aria-pressed") === "true";
      for (const other of this.element.querySelectorAll("[aria-pressed=true]")) other.setAttribute("aria-pressed", "false");
      button.setAttribute("aria-pressed", String(!isChosen));
      this.#choose(isChosen ? null : one);
    });
    button.setAttribute("aria-pressed", "false");
    return make("li", {}, button);
  }
}

/** @returns {Move} */
const move = (kind, of) => ({ kind, startMs: Date.parse(of.start), endMs: Date.parse(of.end), of });

function ofTrip({ distance_km, duration_s, speed_kmh_max }) {
  const km = distance_km.toLocaleString("en", { maximumFractionDigits: distance_km < 10 ? 2 : 1 });
  return `${km} km in ${duration(duration_s)}, ${Math.round(speed_kmh_max)} km/h at most`;
}

const isSameDay = (one, other) => new Date(one).toDateString() === new Date(other).toDateString();
