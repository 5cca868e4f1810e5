/**
 * The base map that needs no other host: land and borders of Natural Earth, names of countries and, by their size, of
 * towns of GeoNames. Names are drawn in the system's fonts: a style without `glyphs` asks for none.
 */

import feature from "/static/topojson-client/feature.js";
import mesh from "/static/topojson-client/mesh.js";
import { colour } from "./theme.js";

const WORLD = "/static/world";
const FINE_ZOOM = 4.5;
const FONT = ["system-ui", "sans-serif"];

/** From this zoom on towns with so many inhabitants are named. */
const TOWNS = [0, 8e6, 3, 3e6, 4, 1.5e6, 5, 6e5, 6, 2.5e5, 7, 1e5, 8, 4e4, 9, 0];

const EMPTY = { type: "FeatureCollection", features: [] };
const source = (more = {}) => ({ type: "geojson", data: EMPTY, ...more });
const opacity = (/** @type {[number, number, number, number]} */ [from, low, to, high]) => ["interpolate", ["linear"], ["zoom"], from, low, to, high];

/** MapLibre's style of the base map, empty until `loadBase`. */
export function style() {
  const land = (name, range) => [
    { id: `land-${name}`, type: "fill", source: `land-${name}`, ...range, paint: { "fill-antialias": true } },
    { id: `borders-${name}`, type: "line", source: `borders-${name}`, ...range, paint: { "line-width": 0.8 } },
  ];
  return {
    version: 8,
    sources: {
      "land-coarse": source({ maxzoom: 6 }),
      "borders-coarse": source({ maxzoom: 6 }),
      "land-fine": source({ maxzoom: 10 }),
      "borders-fine": source({ maxzoom: 10 }),
      countries: source({ maxzoom: 6 }),
      towns: source({ maxzoom: 9 }),
    },
    layers: [
      { id: "water", type: "background" },
      ...land("coarse", { maxzoom: FINE_ZOOM }),
      ...land("fine", { minzoom: FINE_ZOOM }),
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

/** Give the base map the colours of page.css. */
export function paintBase(gl) {
  gl.setPaintProperty("water", "background-color", colour("map-water"));
  for (const name of ["coarse", "fine"]) {
    gl.setPaintProperty(`land-${name}`, "fill-color", colour("map-land"));
    gl.setPaintProperty(`borders-${name}`, "line-color", colour("map-border"));
  }
  for (const name of ["countries", "towns"]) {
    gl.setPaintProperty(name, "text-color", colour(`map-${name}`));
    gl.setPaintProperty(name, "text-halo-color", colour("map-land"));
  }
}

/** Load what the base map shows: the fine coast only when somebody is near enough to see it. */
export async function loadBase(gl) {
  const coarse = await json("countries-50m.json");
  fill(gl, "coarse", coarse);
  gl.getSource("countries").setData(collection(feature(coarse, coarse.objects.countries).features.map(countryName)));
  const loadFine = async () => {
    if (gl.getZoom() < FINE_ZOOM - 1) return;
    gl.off("zoom", loadFine);
    fill(gl, "fine", await json("countries-10m.json"));
  };
  gl.on("zoom", loadFine);
  const towns = json("cities.json").then((found) => gl.getSource("towns").setData(collection(found.map(town))));
  await Promise.all([towns, loadFine()]);
}

function fill(gl, name, topology) {
  const { land, countries } = topology.objects;
  const polygons = feature(topology, land).features[0].geometry.coordinates.map(polygon);
  gl.getSource(`land-${name}`).setData(collection(polygons));
  gl.getSource(`borders-${name}`).setData(mesh(topology, countries, (one, other) => one !== other));
}

/** A part of the land. */
function polygon(rings) {
  return { type: "Feature", geometry: { type: "Polygon", coordinates: rings.map(unrolled) }, properties: {} };
}

/**
 * A ring on a sphere as one on the plane: it runs on beyond the 180th meridian, where the topology's jumps to the other
 * side, and one around a pole is closed along that.
 */
function unrolled(ring) {
  let turns = 0;
  const found = ring.map(([longitude, latitude], index) => {
    const step = index ? longitude - ring[index - 1][0] : 0;
    if (Math.abs(step) > 180) turns -= Math.sign(step);
    return [longitude + turns * 360, latitude];
  });
  if (!turns) return found;
  const pole = Math.sign(ring[0][1]) * 90;
  return [...found, [found.at(-1)[0], pole], [found[0][0], pole], found[0]];
}

async function json(file) {
  const response = await fetch(`${WORLD}/${file}`);
  if (!response.ok) throw new Error(`${file} can't be loaded`);
  return response.json();
}

const collection = (features) => ({ type: "FeatureCollection", features });
const point = (coordinates, properties) => ({ type: "Feature", geometry: { type: "Point", coordinates }, properties });

const town = ([name, longitude, latitude, inhabitants]) => point([longitude, latitude], { name, inhabitants });

/** A country's name in the middle of its largest part; `size` is that part's, in square degrees. */
function countryName({ geometry, properties }) {
  const parts = geometry.type === "MultiPolygon" ? geometry.coordinates : [geometry.coordinates];
  const rings = parts.map(([ring]) => middle(unrolled(ring))).sort((one, other) => other.size - one.size);
  return point(rings[0].at, { name: properties.name, size: rings[0].size });
}

/** The centroid of a ring, and its size. */
function middle(ring) {
  let [area, x, y] = [0, 0, 0];
  for (let next = 1; next < ring.length; next += 1) {
    const [[x0, y0], [x1, y1]] = [ring[next - 1], ring[next]];
    const cross = x0 * y1 - x1 * y0;
    area += cross / 2;
    x += ((x0 + x1) * cross) / 6;
    y += ((y0 + y1) * cross) / 6;
  }
  return { at: area ? [x / area, y / area] : ring[0], size: Math.abs(area) };
}
