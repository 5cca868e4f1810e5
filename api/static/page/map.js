/** The map that Fleet and History share: MapLibre with the base map of base.js; its view is in the state. */

import { AttributionControl, Map as GlMap, NavigationControl, ScaleControl } from "../maplibre-gl/maplibre-gl.mjs";
import { loadBase, paintBase, style } from "./base.js";
import { make } from "./dom.js";
import { notice } from "./notice.js";
import { onTheme } from "./theme.js";
import { addTiles } from "./tiles.js";

const SOURCES = "Natural Earth · GeoNames";
const WORLD = { center: /** @type {[number, number]} */ ([12, 28]), zoom: 1.4 };
const FIT = { padding: 56, maxZoom: 14 };

export class WorldMap {
  /**
   * MapLibre's map object, available after `ready`; parts of the page add permanent sources and layers to it.
   *
   * @type {any}
   */
  gl = null;
  /** @type {Promise<any>} settled with `gl` once layers can be added to it; never where there is no WebGL */
  ready;
  #container;
  #state;
  #isReady = (/** @type {any} */ _gl) => {};

  /**
   * @param {HTMLElement} container
   * @param {import("./state.js").State} state
   */
  constructor(container, state) {
    this.#container = container;
    this.#state = state;
    this.ready = new Promise((settle) => {
      this.#isReady = settle;
    });
  }

  /** Draw the map. Throws MapLibre's error if the browser does not support it. */
  async start() {
    const { at } = this.#state.shown;
    const gl = new GlMap({
      container: this.#container,
      style: style(),
      ...(at ? { center: [at[0], at[1]], zoom: at[2] } : WORLD),
      attributionControl: false,
      dragRotate: false,
      pitchWithRotate: false,
      touchPitch: false,
      renderWorldCopies: true,
      fadeDuration: 0,
      maxZoom: 19,
    });
    gl.touchZoomRotate.disableRotation();
    gl.keyboard.disableRotation();
    gl.addControl(new NavigationControl({ showCompass: false }), "top-right");
    gl.addControl(new ScaleControl({}), "bottom-left");
    gl.addControl(new AttributionControl({ compact: false, customAttribution: SOURCES }), "bottom-right");
    gl.on("moveend", (event) => event.originalEvent !== undefined && this.#tell());
    gl.on("zoomend", (event) => event.originalEvent !== undefined && this.#tell());
    this.gl = gl;
    this.#state.on(["at"], (shown) => this.#show(shown.at));
    await gl.once("load");
    onTheme(() => paintBase(gl));
    this.#isReady(gl);
    gl.on("error", () => {}); // a tile that is missing, or whose host is away: the base map is below
    await addTiles(gl, this.#container.dataset);
    await loadBase(gl).catch(() => notice("The map can't be loaded whole. Reload this page to try again."));
    gl.triggerRepaint(); // it may be idle already
    gl.once("idle", () => this.#container.setAttribute("aria-busy", "false"));
  }

  /**
   * Show the reason in place of the map if there is none.
   *
   * @param {string} sentence
   */
  fail(sentence) {
    this.#container.replaceChildren(make("p", { className: "soft" }, sentence));
    this.#container.setAttribute("aria-busy", "false");
  }

  /**
   * Show a place, moving there.
   *
   * @param {number} longitude
   * @param {number} latitude
   * @param {number} [zoom] at least
   */
  async show(longitude, latitude, zoom = 12) {
    const gl = await this.ready;
    gl.easeTo({ center: [longitude, latitude], zoom: Math.max(gl.getZoom(), zoom) });
    gl.once("moveend", () => this.#tell());
  }

  /**
   * Show all of these places at once.
   *
   * @param {Iterable<[longitude: number, latitude: number]>} places
   * @param {{isTold?: boolean}} [how] `isTold`: write the view to the URL
   */
  async fit(places, { isTold = false } = {}) {
    const gl = await this.ready;
    const box = boxOf(places);
    if (!box) return;
    gl.fitBounds(box, { ...FIT, animate: false });
    if (isTold) this.#tell();
  }

  #tell() {
    const { lng, lat } = this.gl.getCenter().wrap();
    this.#state.set({ at: [lng, lat, this.gl.getZoom()] });
  }

  #show(at) {
    if (!at) return;
    const { lng, lat } = this.gl.getCenter().wrap();
    const isThere = Math.hypot(lng - at[0], lat - at[1]) < 1e-5 && Math.abs(this.gl.getZoom() - at[2]) < 0.01;
    if (!isThere) this.gl.jumpTo({ center: [at[0], at[1]], zoom: at[2] });
  }
}

/** The box around places; round the 180th meridian, if that is narrower. */
function boxOf(places) {
  const all = [...places];
  if (!all.length) return null;
  const latitudes = all.map(([, latitude]) => latitude);
  const plain = edges(all.map(([longitude]) => longitude));
  const shifted = edges(all.map(([longitude]) => (longitude < 0 ? longitude + 360 : longitude)));
  const [west, east] = shifted[1] - shifted[0] < plain[1] - plain[0] ? shifted : plain;
  const [south, north] = edges(latitudes);
  return [
    [west, south],
    [east, north],
  ];
}

/** The least and the greatest of any number of numbers. */
const edges = (numbers) =>
  numbers.reduce(([least, most], one) => [Math.min(least, one), Math.max(most, one)], [Infinity, -Infinity]);
