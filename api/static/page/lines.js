/** Tracks of the past on the map: their speed as colour, gaps as dashes, stops, and a sign for each device at the moment. */

import { STOPPED_KMH } from "./fleet.js";
import { colour, onTheme } from "./theme.js";

/** As many colours there are for speeds, and for devices. */
export const LEVELS = 5;
export const SERIES = 8;

const SCALES_KMH = [5, 10, 20, 30, 50, 80, 100, 130, 200, 300, 500, 1_000];
const NEARLY_ALL = 0.98;
const NAMES = "countries";
const SHARPNESS = 3;
const ICON_PX = 26;
const SOURCES = ["past", "past-trip", "past-stops", "past-signs"];
const LAYERS = ["past-trip", "past-gaps", "past-edges", "past-ways", "past-lone", "past-stops", "past-signs"];

const collection = (features) => ({ type: "FeatureCollection", features });
const feature = (type, coordinates, properties = {}) => ({ type: "Feature", geometry: { type, coordinates }, properties });
const only = (kind) => ["==", ["get", "kind"], kind];

/**
 * The end of the scale of speeds: nearly all records that move are below it.
 *
 * @param {import("./course.js").Course[]} courses
 */
export function scaleOf(courses) {
  const speeds = [];
  for (const course of courses) {
    for (const index of course.placed) {
      const speed = course.speedAt(index);
      if (speed > STOPPED_KMH) speeds.push(speed);
    }
  }
  const most = Float64Array.from(speeds).sort()[Math.floor((speeds.length - 1) * NEARLY_ALL)] ?? 0;
  return SCALES_KMH.find((end) => end >= most) ?? SCALES_KMH.at(-1);
}

export class Lines {
  #gl;

  /** @param {any} gl MapLibre's map */
  constructor(gl) {
    this.#gl = gl;
    for (const source of SOURCES) gl.addSource(source, { type: "geojson", data: collection([]) });
    addLayers(gl);
    onTheme(() => paint(gl));
  }

  /** @param {boolean} isShown */
  set isShown(isShown) {
    for (const layer of LAYERS) this.#gl.setLayoutProperty(layer, "visibility", isShown ? "visible" : "none");
  }

  /**
   * Draw tracks.
   *
   * @param {import("./course.js").Course[]} courses
   * @param {number} scaleKmh what `scaleOf` says
   */
  show(courses, scaleKmh) {
    this.#set("past", courses.flatMap((course) => [...parts(course, scaleKmh)]));
  }

  /** @param {Array<{longitude: number, latitude: number}>} stops */
  showStops(stops) {
    this.#set("past-stops", stops.map(({ longitude, latitude }) => feature("Point", [longitude, latitude])));
  }

  /**
   * Mark a part of a track; none if `course` is null.
   *
   * @param {import("./course.js").Course | null} course
   * @param {number} startMs
   * @param {number} endMs
   */
  mark(course, startMs = 0, endMs = 0) {
    const places = course ? [...placesOf(course, startMs, endMs)] : [];
    this.#set("past-trip", places.length > 1 ? [feature("LineString", places)] : []);
  }

  /**
   * Draw each device where it was at a moment: full where that is known, hollow where it was last known.
   *
   * @param {import("./course.js").Course[]} courses
   * @param {number} atMs
   */
  showSigns(courses, atMs) {
    const found = [];
    courses.forEach((course, order) => {
      const where = course.at(atMs);
      if (!where) return;
      const { longitude, latitude, headingDeg, isKnown } = where;
      const form = isKnown ? (headingDeg === null ? "still" : "heading") : "lost";
      const properties = { id: course.id, icon: `past-${form}-${order % SERIES}`, heading: form === "heading" ? headingDeg : 0, isKnown };
      found.push(feature("Point", [longitude, latitude], properties));
    });
    this.#set("past-signs", found);
  }

  /**
   * Be told when a place on a track is clicked.
   *
   * @param {(id: string, longitude: number, latitude: number) => void} take
   */
  onClick(take) {
    this.#gl.on("click", "past-ways", (event) => take(event.features[0].properties.id, event.lngLat.lng, event.lngLat.lat));
    this.#gl.on("mouseenter", "past-ways", () => (this.#gl.getCanvas().style.cursor = "pointer"));
    this.#gl.on("mouseleave", "past-ways", () => (this.#gl.getCanvas().style.cursor = ""));
  }

  #set(source, features) {
    this.#gl.getSource(source).setData(collection(features));
  }
}

function addLayers(gl) {
  const below = gl.getLayer(NAMES) ? NAMES : undefined;
  const round = { "line-cap": "round", "line-join": "round" };
  const line = (id, source, kind, width, more = {}, layout = round) =>
    gl.addLayer({ id, type: "line", source, ...(kind && { filter: only(kind) }), layout, paint: { "line-width": width, ...more } }, below);
  line("past-trip", "past-trip", "", 11, { "line-opacity": 0.35 });
  line("past-gaps", "past", "gap", 1.6, { "line-dasharray": [2, 2.5] }, {});
  line("past-edges", "past", "way", 6);
  line("past-ways", "past", "way", 3.5);
  gl.addLayer({ id: "past-lone", type: "circle", source: "past", filter: only("lone"), paint: { "circle-radius": 3 } }, below);
  gl.addLayer({ id: "past-stops", type: "circle", source: "past-stops", paint: { "circle-radius": 5, "circle-stroke-width": 2.5 } });
  gl.addLayer({
    id: "past-signs",
    type: "symbol",
    source: "past-signs",
    layout: {
      "icon-image": ["get", "icon"],
      "icon-rotate": ["get", "heading"],
      "icon-rotation-alignment": "map",
      "icon-allow-overlap": true,
      "icon-ignore-placement": true,
      "text-field": ["get", "id"],
      "text-font": ["system-ui", "sans-serif"],
      "text-size": 12,
      "text-anchor": "left",
      "text-offset": [1.2, 0],
      "text-optional": true,
    },
    paint: { "text-halo-width": 1.5 },
  });
}

function paint(gl) {
  const byLevel = ["match", ["get", "level"], ...Array.from({ length: LEVELS - 1 }, (_, level) => [level, colour(`speed-${level}`)]).flat()];
  const ofSpeed = [...byLevel, colour(`speed-${LEVELS - 1}`)];
  gl.setPaintProperty("past-ways", "line-color", ofSpeed);
  gl.setPaintProperty("past-edges", "line-color", colour("surface"));
  gl.setPaintProperty("past-gaps", "line-color", colour("soft"));
  gl.setPaintProperty("past-trip", "line-color", colour("accent"));
  gl.setPaintProperty("past-lone", "circle-color", colour("soft"));
  gl.setPaintProperty("past-stops", "circle-color", colour("surface"));
  gl.setPaintProperty("past-stops", "circle-stroke-color", colour("stopped"));
  gl.setPaintProperty("past-signs", "text-color", colour("ink"));
  gl.setPaintProperty("past-signs", "text-halo-color", colour("surface"));
  for (let order = 0; order < SERIES; order += 1) {
    for (const form of ["heading", "still", "lost"]) setImage(gl, `past-${form}-${order}`, icon(form, colour(`device-${order}`), colour("surface")));
  }
}

function setImage(gl, name, image) {
  if (gl.hasImage(name)) gl.updateImage(name, image);
  else gl.addImage(name, image, { pixelRatio: SHARPNESS });
}

/** An arrow, a disc, or a ring where a device is not known to be any more. */
function icon(form, fill, edge) {
  const size = ICON_PX * SHARPNESS;
  const c = /** @type {OffscreenCanvasRenderingContext2D} */ (new OffscreenCanvas(size, size).getContext("2d"));
  c.scale(SHARPNESS, SHARPNESS);
  c.translate(ICON_PX / 2, ICON_PX / 2);
  c.lineJoin = "round";
  c.beginPath();
  if (form === "heading") {
    for (const [x, y] of [[0, -11], [8.5, 9], [0, 5], [-8.5, 9]]) c.lineTo(x, y);
    c.closePath();
  } else {
    c.arc(0, 0, 7, 0, 2 * Math.PI);
  }
  c.lineWidth = form === "lost" ? 6 : 3.5;
  c.strokeStyle = edge;
  c.stroke();
  if (form === "lost") {
    c.lineWidth = 2.5;
    c.strokeStyle = fill;
    c.stroke();
  } else {
    c.fillStyle = fill;
    c.fill();
  }
  return c.getImageData(0, 0, size, size);
}

/** A course as lines, one for each stretch of the same level of speed; gaps are lines of their own. */
function* parts(course, scaleKmh) {
  const { id, placed, times } = course;
  let [level, line] = [-1, /** @type {Array<[number, number]>} */ ([])];
  let place = /** @type {[number, number]} */ ([NaN, NaN]);
  let isLone = true;
  const way = () => feature("LineString", line, { kind: "way", level, id });
  for (let next = 0; next < placed.length; next += 1) {
    const before = place;
    place = placeAfter(before, course, placed[next]);
    if (next === 0) continue;
    if (course.isGap(next)) {
      if (line.length) yield way();
      if (isLone) yield feature("Point", before, { kind: "lone", id });
      yield feature("LineString", [before, place], { kind: "gap", id, startMs: times[placed[next - 1]], endMs: times[placed[next]] });
      [line, level, isLone] = [[], -1, true];
      continue;
    }
    isLone = false;
    const speed = course.speedAt(placed[next]);
    const now = Math.min(Math.max(Math.floor(((speed || 0) / scaleKmh) * LEVELS), 0), LEVELS - 1);
    if (now !== level) {
      if (line.length) yield way();
      [line, level] = [[before], now];
    }
    line.push(place);
  }
  if (line.length) yield way();
  if (isLone && placed.length) yield feature("Point", place, { kind: "lone", id });
}

function* placesOf(course, startMs, endMs) {
  let place = /** @type {[number, number]} */ ([NaN, NaN]);
  for (const index of course.placed) {
    place = placeAfter(place, course, index);
    if (course.times[index] >= startMs && course.times[index] <= endMs) yield place;
  }
}

/** A record's place, on the same side of the 180th meridian as the one before, beyond it if need be. */
function placeAfter([longitude], course, index) {
  const own = course.longitudes[index];
  const found = Number.isNaN(longitude) ? own : own + 360 * Math.round((longitude - own) / 360);
  return /** @type {[number, number]} */ ([found, course.latitudes[index]]);
}
