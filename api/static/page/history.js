/**
 * History: past records of devices. The state contains the devices, the range and the time of playback; records from the
 * box are drawn on the map and in the chart below it.
 */

import { Chart } from "./chart.js";
import { MOST_DEVICES, choice, setRange } from "./choice.js";
import { element, make } from "./dom.js";
import { downloads } from "./download.js";
import { LEVELS, Lines, SERIES, scaleOf } from "./lines.js";
import { Moves } from "./moves.js";
import { read } from "./past.js";
import { Playback } from "./playback.js";
import { Said } from "./said.js";
import { controls } from "./timeline.js";
import { iso, midnight, parse } from "./times.js";

const UNITS = { speed: "km/h", altitude_m: "m", accuracy_m: "m", heading_deg: "°" };
const NAMES = { speed: "Speed", altitude_m: "Altitude", accuracy_m: "Accuracy", heading_deg: "Heading" };

/** @type {History | null} the open history, for tests */
export let view = null;

/** @param {import("./main.js").Context} context */
export function start(context) {
  view = new History(context);
  context.tabs.show("history");
  view.refresh();
}

class History {
  /** @type {import("./past.js").Past | null} */
  past = null;
  chart;
  playback;
  #context;
  #asked = "";
  #reading = new AbortController();
  #lines = /** @type {Lines | null} */ (null);
  #said;
  #moves;
  #loaded = make("div", { className: "loaded", hidden: true });
  #legend = make("div", { className: "legend" });
  #names = make("select", { "aria-label": "What the chart shows" });
  #all = make("button", { type: "button", className: "quiet", hidden: true }, "Whole range");
  #values = make("ul", { className: "values", "aria-label": "Values at this moment" });
  /** @type {any[]} the elements of the values, a device each */
  #texts = [];
  #fitted = "";
  /** True if the page's URL at its start contains the map's view of this history. */
  #isPlaceGiven;

  /** @param {import("./main.js").Context} context */
  constructor(context) {
    const { state, tabs, map, api, fleet } = context;
    this.#context = context;
    this.#isPlaceGiven = state.shown.at !== null && state.shown.tab === "history";
    this.playback = new Playback((atMs) => state.set({ moment: new Date(Math.round(atMs)).toISOString() }));
    this.#said = new Said({ again: () => this.#load(), show: (startMs, endMs) => setRange(state, startMs, endMs) });
    this.#moves = new Moves((move) => this.#choose(move));
    const plot = make("div", { className: "plot", role: "img" });
    element("timeline").append(
      ...controls(this.playback, tabs),
      make("div", { className: "chart-bar" }, this.#names, this.#values, this.#all),
      plot,
    );
    this.chart = new Chart(plot, {
      seek: (atMs) => this.playback.seek(atMs),
      zoomed: (isZoomed) => (this.#all.hidden = !isZoomed),
      hovered: (atMs) => this.#drawValues(atMs ?? this.playback.now.atMs),
    });
    this.#loaded.append(this.#legend, ...downloads(api, () => this.past?.asked ?? {}), ...this.#moves.parts);
    element("panel-history").append(...choice(context), this.#said.element, this.#loaded);

    this.#all.addEventListener("click", () => this.chart.showAll());
    this.#names.addEventListener("change", () => this.#drawChart());
    this.playback.on(({ atMs }) => this.#drawMoment(atMs));
    state.on(["devices", "start", "end", "tab"], () => this.refresh());
    state.on(["moment"], ({ moment }) => this.#follow(parse(moment)));
    fleet.on((changed) => this.past && this.#said.heard(this.past, changed, fleet));
    map.ready.then((gl) => {
      this.#lines = new Lines(gl);
      this.#lines.onClick((id, longitude, latitude) => this.#seekPlace(id, longitude, latitude));
      this.#lines.isShown = tabs.open === "history";
      this.#lines.showStops(this.#stops());
      this.#drawLines();
    });
  }

  /** Show the history of the state, if this tab is open. */
  async refresh() {
    const { state, tabs } = this.#context;
    const isOpen = tabs.open === "history";
    if (this.#lines) this.#lines.isShown = isOpen;
    if (!isOpen) {
      this.playback.pause();
      return;
    }
    const { devices, device, start, end } = state.shown;
    const wanted = !devices.length && device && !this.past ? [device] : [...new Set(devices)];
    if (wanted.length !== devices.length) {
      state.set({ devices: wanted });
      return;
    }
    if (!devices.length) {
      this.#show(null);
      this.#said.ask();
      return;
    }
    if (!start || !end) {
      await this.#setUsualRange();
      return;
    }
    if (this.#asked !== JSON.stringify([devices, start, end])) await this.#load();
  }

  /** The day of the newest record of these devices; today if there is none. */
  async #setUsualRange() {
    const { state, api } = this.#context;
    const { devices } = state.shown;
    try {
      const newest = [...(await this.#newest(devices)).values()];
      const atMs = newest.length ? Math.max(...newest) : api.now();
      const { start, end } = state.shown;
      if (!start || !end) state.set({ start: iso(midnight(atMs)), end: iso(midnight(atMs, 1)) });
    } catch (error) {
      this.#show(null);
      this.#said.failed(error);
    }
  }

  /**
   * The time of the newest record of each of these devices, ms, without unknown devices.
   *
   * @returns {Promise<Map<string, number>>}
   */
  async #newest(devices, more = {}) {
    const { records } = await this.#context.api.json("/v1/latest", { device_id: devices }, more);
    return new Map(records.map((record) => [record.device_id, parse(record.timestamp)]));
  }

  async #load() {
    const { state, api, fleet } = this.#context;
    const { devices, start, end } = state.shown;
    this.#asked = JSON.stringify([devices, start, end]);
    this.#reading.abort();
    this.#reading = new AbortController();
    const { signal } = this.#reading;
    const wanted = { devices: devices.slice(0, MOST_DEVICES), startMs: parse(start), endMs: parse(end) };
    if (!(wanted.endMs > wanted.startMs)) {
      this.#show(null);
      this.#said.clear(); // the form shows the error
      return;
    }
    this.playback.pause();
    try {
      const stop = new AbortController();
      this.#said.reading(fleet, wanted.devices, () => stop.abort());
      const past = await read(api, wanted, { signal, stop: stop.signal, progress: (done, of) => this.#said.progress(done, of) });
      const without = past.courses.filter((course) => !course.times.length).map(({ id }) => id);
      const newest = without.length ? await this.#newest(without, { signal }) : new Map();
      this.#show(past);
      this.#said.read(past, newest, devices.length, fleet);
      if (past.shown) await this.#moves.load(api, past.asked, wanted.devices, signal);
      this.#lines?.showStops(this.#stops());
    } catch (error) {
      if (signal.aborted) return;
      this.#show(null);
      this.#said.failed(error);
    }
  }

  #stops() {
    return this.#moves.all.filter(({ kind }) => kind === "stop").map(({ of }) => of);
  }

  /** Draw the records; nothing if null. */
  #show(past) {
    const { state, map } = this.#context;
    this.past = past;
    if (!past) this.#asked = "";
    const hasRecords = Boolean(past?.shown);
    element("timeline").hidden = !hasRecords;
    this.#loaded.hidden = !hasRecords;
    this.#moves.clear();
    this.#lines?.showStops([]);
    this.#lines?.mark(null);
    this.#drawLines();
    if (!past || !hasRecords) return;
    const courses = past.courses.filter((course) => course.times.length);
    const startMs = Math.min(...courses.map(({ times }) => times[0]));
    const endMs = Math.max(...courses.map(({ times }) => times.at(-1)));
    const moment = parse(state.shown.moment);
    this.playback.open({ startMs, endMs, times: courses.map(({ times }) => times) }, Number.isNaN(moment) ? startMs : moment);
    this.#offerNames(courses);
    this.#drawChart();
    map.gl?.resize(); // the timeline may have taken some of its height
    if (this.#fitted !== this.#asked && !this.#isPlaceGiven) map.fit(places(courses), { isTold: true });
    this.#isPlaceGiven = false;
    this.#fitted = this.#asked;
  }

  #drawLines() {
    const courses = this.past?.courses ?? [];
    const scaleKmh = scaleOf(courses);
    this.#lines?.show(courses, scaleKmh);
    this.#lines?.showSigns(courses, this.playback.now.atMs);
    const steps = Array.from({ length: LEVELS }, (_, level) => make("span", { "data-level": level }));
    const everyMs = this.past?.every ? ` plus ${this.past.every}` : "";
    this.#legend.replaceChildren(
      make("div", { className: "scale" }, "0", ...steps, `${scaleKmh}+ km/h`),
      make("p", { className: "soft" }, make("span", { className: "dashes" }),
        `Gap: more than 10 min${everyMs} without a record, and more than 200 m, as between trips.`),
    );
  }

  #offerNames(courses) {
    const names = ["speed", ...[...new Set(courses.flatMap((course) => course.names))].sort()];
    const { value } = this.#names;
    this.#names.replaceChildren(...names.map((name) => make("option", { value: name }, NAMES[name] ?? name)));
    this.#names.value = names.includes(value) ? value : "speed";
  }

  #drawChart() {
    const courses = this.past?.courses ?? [];
    const { startMs, endMs } = this.playback.now;
    this.chart.show(courses, this.#names.value, this.#names.selectedOptions[0]?.textContent ?? "", { startMs, endMs });
    this.#texts = courses.map(() => make("b"));
    this.#values.replaceChildren(...courses.map(({ id }, order) => make("li", { "data-series": order % SERIES },
      make("span", { className: "dot" }), make("span", { className: "name", title: id }, id), this.#texts[order])));
    this.#drawMoment(this.playback.now.atMs);
  }

  #drawMoment(atMs) {
    this.chart?.setMoment(atMs);
    this.#lines?.showSigns(this.past?.courses ?? [], atMs);
    this.#drawValues(atMs);
  }

  #drawValues(atMs) {
    const name = this.#names.value;
    this.#texts.forEach((shown, order) => {
      const value = this.past?.courses[order]?.valueAt(name, atMs) ?? NaN;
      const digits = Math.abs(value) < 100 ? 1 : 0;
      const text = `${value.toLocaleString("en", { maximumFractionDigits: digits })} ${UNITS[name] ?? ""}`.trim();
      shown.textContent = Number.isNaN(value) ? "–" : text;
    });
  }

  /** Go to a time from the URL, not from playback. */
  #follow(atMs) {
    if (!Number.isNaN(atMs) && Math.round(this.playback.now.atMs) !== atMs && !this.playback.now.isPlaying) this.playback.seek(atMs);
  }

  /** Go to the time when a device was nearest to a place. */
  #seekPlace(id, longitude, latitude) {
    const course = this.past?.courses.find((one) => one.id === id);
    if (!course) return;
    const shrink = Math.cos((latitude * Math.PI) / 180);
    let [nearest, least] = [course.placed[0], Infinity];
    for (const index of course.placed) {
      const far = Math.hypot((course.longitudes[index] - longitude) * shrink, course.latitudes[index] - latitude);
      if (far < least) [nearest, least] = [index, far];
    }
    this.playback.seek(course.times[nearest]);
  }

  #choose(move) {
    const { map } = this.#context;
    const course = this.past?.courses.find((one) => one.id === move?.of.device_id) ?? null;
    this.#lines?.mark(move?.kind === "trip" ? course : null, move?.startMs, move?.endMs);
    if (!move || !course) return;
    this.playback.seek(move.startMs);
    if (move.kind === "stop") map.show(move.of.longitude, move.of.latitude, 14);
    else map.fit(places([course], move.startMs, move.endMs));
  }
}

function* places(courses, startMs = -Infinity, endMs = Infinity) {
  for (const { placed, times, longitudes, latitudes } of courses) {
    for (const index of placed) {
      if (times[index] >= startMs && times[index] <= endMs) yield /** @type {[number, number]} */ ([longitudes[index], latitudes[index]]);
    }
  }
}
