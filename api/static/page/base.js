/**
 * The base map that needs no other host: land, borders, rivers and lakes of Natural Earth, names of countries and, by
 * their size, of towns of GeoNames. Names are drawn in the system's fonts: a style without `glyphs` asks for none. What is half a million
 * points is unpacked in a worker (unpack.js) and goes as a file from there to MapLibre's, past the page.
 */

import { CANALS } from "./canals.js";
import { colour } from "./theme.js";

const FINE_ZOOM = 4.5;

/** Both coasts are drawn for so many zoom levels, so that one is there while the other's tiles are cut. */
const OVERLAP = 0.5;
const FONT = ["system-ui", "sans-serif"];

/** From this zoom on towns with so many inhabitants are named. */
const TOWNS = [0, 8e6, 3, 3e6, 4, 1.5e6, 5, 6e5, 6, 2.5e5, 7, 1e5, 8, 4e4, 9, 0];

/** From a zoom on rivers as long as this, in km, and lakes as large, in km², are drawn. */
const RIVERS = [1_500, 3, 800, 4, 400, 5, 0];
const LAKES = [5_000, 3, 1_000, 4, 300, 5, 0];

const EMPTY = { type: "FeatureCollection", features: [] };
const source = (more = {}) => ({ type: "geojson", data: EMPTY, ...more });
const opacity = (/** @type {[number, number, number, number]} */ [from, low, to, high]) => ["interpolate", ["linear"], ["zoom"], from, low, to, high];

let isLandKnown = false;

/** MapLibre's style of the base map, empty until `loadBase`. */
export function style() {
  const land = (name, range) => [
    { id: `land-${name}`, type: "fill", source: `land-${name}`, ...range, paint: { "fill-antialias": true } },
    { id: `borders-${name}`, type: "line", source: `borders-${name}`, ...range, paint: { "line-width": 0.8 } },
  ];
  const [landFine, bordersFine] = land("fine", { minzoom: FINE_ZOOM });
  const large = (size, steps) => [">=", ["get", size], ["step", ["zoom"], ...steps]];
  return {
    version: 8,
    sources: {
      "land-coarse": source({ maxzoom: 6 }),
      "borders-coarse": source({ maxzoom: 6 }),
      "land-fine": source({ maxzoom: 10 }),
      "borders-fine": source({ maxzoom: 10 }),
      lakes: source({ maxzoom: 8 }),
      rivers: source({ maxzoom: 8 }),
      canals: source({ data: CANALS }),
      countries: source({ maxzoom: 6 }),
      towns: source({ maxzoom: 9 }),
    },
    layers: [
      { id: "water", type: "background" },
      ...land("coarse", {}), // at every zoom, until the fine coast is there
      landFine,
      { id: "lakes", type: "fill", source: "lakes", filter: large("size_km2", LAKES), paint: { "fill-antialias": true } },
      {
        id: "rivers",
        type: "line",
        source: "rivers",
        minzoom: 2,
        filter: large("length_km", RIVERS),
        layout: { "line-cap": "round", "line-join": "round" },
        paint: { "line-width": ["interpolate", ["linear"], ["zoom"], 2, 0.6, 5, 1.1, 9, 2] },
      },
      { id: "canal-lakes", type: "fill", source: "canals", minzoom: 5, filter: ["==", ["geometry-type"], "Polygon"] },
      {
        id: "canals",
        type: "line",
        source: "canals",
        minzoom: 5,
        layout: { "line-cap": "round", "line-join": "round" },
        paint: { "line-width": ["interpolate", ["exponential", 2], ["zoom"], 5, 1, 8, 2.5, 12, 6, 15, 20] },
      },
      bordersFine,
      {
        id: "countries",
        type: "symbol",
        source: "countries",
        minzoom: 1.5,
        maxzoom: 7,
        filter: [">", ["get", "size"], ["step", ["zoom"], 120, 3, 20, 4, 3, 5, 0]],
        layout: {
          "text-field": ["get", "name"],
          "text-font": FONT,
          "text-size": ["interpolate", ["linear"], ["zoom"], 2, 10, 6, 14],
          "text-letter-spacing": 0.12,
          "text-max-width": 7,
          "symbol-sort-key": ["-", ["get", "size"]],
        },
        paint: { "text-opacity": opacity([1.5, 0, 2, 1]), "text-halo-width": 1.2 },
      },
      {
        id: "towns",
        type: "symbol",
        source: "towns",
        minzoom: 3,
        filter: [">=", ["get", "inhabitants"], ["step", ["zoom"], ...TOWNS.slice(1)]],
        layout: {
          "text-field": ["get", "name"],
          "text-font": FONT,
          "text-size": ["interpolate", ["linear"], ["zoom"], 3, 10, 12, 14],
          "text-max-width": 8,
          "symbol-sort-key": ["-", ["get", "inhabitants"]],
        },
        paint: { "text-halo-width": 1.2 },
      },
    ],
  };
}

/** Give the base map the colours of page.css: what is not land is water only once the land is known. */
export function paintBase(gl) {
  gl.setPaintProperty("water", "background-color", colour(isLandKnown ? "map-water" : "map-unknown"));
  for (const name of ["coarse", "fine"]) {
    gl.setPaintProperty(`land-${name}`, "fill-color", colour("map-land"));
    gl.setPaintProperty(`borders-${name}`, "line-color", colour("map-border"));
  }
  for (const name of ["lakes", "canal-lakes"]) gl.setPaintProperty(name, "fill-color", colour("map-water"));
  for (const name of ["rivers", "canals"]) gl.setPaintProperty(name, "line-color", colour("map-water"));
  for (const name of ["countries", "towns"]) {
    gl.setPaintProperty(name, "text-color", colour(`map-${name}`));
    gl.setPaintProperty(name, "text-halo-color", colour("map-land"));
  }
}

/** Load what the base map shows: the fine coast only when somebody is near enough to see it. */
export async function loadBase(gl) {
  const unpacker = new Worker(new URL("unpack.js", import.meta.url), { type: "module" });
  /** @type {Record<string, {done: () => void, fail: (error: Error) => void}>} */
  const waiting = {};
  unpacker.addEventListener("message", async ({ data: { file, blobs, problem } }) => {
    if (problem) {
      waiting[file].fail(new Error(problem));
      return;
    }
    await Promise.all(Object.entries(blobs).map(([source, blob]) => gl.getSource(source).setData(URL.createObjectURL(blob))));
    waiting[file].done();
  });
  const load = (file) => {
    unpacker.postMessage(file);
    return new Promise((done, fail) => {
      waiting[file] = { done: () => done(undefined), fail };
    });
  };
  const loadFine = async () => {
    if (gl.getZoom() < FINE_ZOOM - 1) return;
    gl.off("zoom", loadFine);
    await load("countries-10m.json");
    await drawn(gl, "land-fine");
    for (const kind of ["land", "borders"]) gl.setLayerZoomRange(`${kind}-coarse`, 0, FINE_ZOOM + OVERLAP);
  };
  gl.on("zoom", loadFine);
  await load("countries-50m.json");
  await drawn(gl, "land-coarse");
  isLandKnown = true;
  paintBase(gl);
  await Promise.all([loadFine(), load("waters.json"), load("cities.json")]);
}

/** Settled once the map shows what a source has where it is looked at. */
function drawn(gl, source) {
  return new Promise((done) => {
    gl.on("render", function look() {
      if (!gl.isSourceLoaded(source)) return;
      gl.off("render", look);
      done(undefined);
    });
    gl.triggerRepaint(); // it may be idle already
  });
}
