/**
 * A worker that unpacks map data: given the name of a file, it answers with GeoJSON for the sources of base.js, as blobs,
 * or with the problem that it met.
 */

import feature from "../topojson-client/feature.js";
import mesh from "../topojson-client/mesh.js";

const WORLD = new URL("../world", import.meta.url);

/** @type {Record<string, (found: any) => Record<string, object>>} */
const FILES = {
  "countries-50m.json": (topology) => ({ ...fill("coarse", topology), countries: names(topology) }),
  "countries-10m.json": (topology) => fill("fine", topology),
  "waters.json": (topology) => ({ lakes: parts(topology, "lakes"), rivers: parts(topology, "rivers") }),
  "cities.json": (found) => ({ towns: collection(found.map(town)) }),
};

addEventListener("message", async ({ data: file }) => {
  try {
    const response = await fetch(`${WORLD}/${file}`);
    if (!response.ok) throw new Error(`status ${response.status}`);
    const unpacked = FILES[file](await response.json());
    const blobs = Object.entries(unpacked).map(([source, json]) => [source, new Blob([JSON.stringify(json)])]);
    postMessage({ file, blobs: Object.fromEntries(blobs) });
  } catch (error) {
    postMessage({ file, problem: `cannot load ${file}: ${error.message}` });
  }
});

function fill(name, topology) {
  const { land, countries } = topology.objects;
  const polygons = feature(topology, land).features[0].geometry.coordinates.map(polygon);
  const borders = mesh(topology, countries, (one, other) => one !== other);
  return { [`land-${name}`]: collection(polygons), [`borders-${name}`]: borders };
}

const parts = (topology, kind) => feature(topology, topology.objects[kind]);

const names = (topology) => collection(feature(topology, topology.objects.countries).features.map(countryName));

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
