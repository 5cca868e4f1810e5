/**
 * Map tiles over the base map, if an operator wants some (`page.tile_url`, `page.tile_file`): pictures of another host, or
 * a PMTiles file of the box with pictures or with vector tiles, of which water, roads and borders are drawn.
 */

import { addProtocol } from "../maplibre-gl/maplibre-gl.mjs";
import { Tiles, VECTOR } from "./pmtiles.js";
import { colour, onTheme } from "./theme.js";

const SOURCE = "tiles";
const BELOW = "countries";
const PICTURE_PX = 256;
const dark = matchMedia("(prefers-color-scheme: dark)");

/** How the layers of vector tiles are called, by Protomaps' scheme and by OpenMapTiles'. */
const LINES = /** @type {const} */ ([
  ["roads", "map-border"],
  ["transportation", "map-border"],
  ["boundaries", "map-countries"],
  ["boundary", "map-countries"],
]);

/** Add them to the map. The data of the map's element say which. */
export async function addTiles(gl, { tileUrl, tileFile, tileCredit }) {
  if (tileUrl) addPictures(gl, { tiles: [tileUrl], attribution: text(tileCredit) });
  if (!tileFile) return;
  const tiles = new Tiles(tileFile);
  const header = await tiles.header();
  addProtocol("box", async ({ url }) => {
    const [z, x, y] = url.split("/").slice(-3).map(Number);
    const data = await tiles.tile(z, x, y);
    if (data === null && header.tileType !== VECTOR) throw new Error("there is no such tile");
    return { data: data ?? new ArrayBuffer(0) };
  });
  const source = {
    tiles: ["box://tiles/{z}/{x}/{y}"],
    minzoom: header.minZoom,
    maxzoom: header.maxZoom,
    bounds: header.bounds,
    attribution: text(tileCredit),
  };
  if (header.tileType === VECTOR) addVector(gl, source);
  else addPictures(gl, source);
}

function addPictures(gl, source) {
  gl.addSource(SOURCE, { type: "raster", tileSize: PICTURE_PX, ...source });
  gl.addLayer({ id: SOURCE, type: "raster", source: SOURCE }, BELOW);
  onTheme(() => gl.setPaintProperty(SOURCE, "raster-brightness-max", dark.matches ? 0.7 : 1));
  // Pictures have names of their own; while none comes, as from a host that is away, ours stay.
  gl.on("sourcedata", function hide(event) {
    if (event.sourceId !== SOURCE || !event.tile) return;
    gl.off("sourcedata", hide);
    for (const layer of ["countries", "towns"]) gl.setLayoutProperty(layer, "visibility", "none");
  });
}

function addVector(gl, source) {
  gl.addSource(SOURCE, { type: "vector", ...source });
  gl.addLayer({ id: `${SOURCE}-water`, type: "fill", source: SOURCE, "source-layer": "water", filter: ["==", ["geometry-type"], "Polygon"] }, BELOW);
  for (const [name] of LINES) {
    const width = ["interpolate", ["exponential", 1.5], ["zoom"], 6, 0.4, 14, 2, 18, 10];
    gl.addLayer({ id: `${SOURCE}-${name}`, type: "line", source: SOURCE, "source-layer": name, paint: { "line-width": width } }, BELOW);
  }
  onTheme(() => {
    gl.setPaintProperty(`${SOURCE}-water`, "fill-color", colour("map-water"));
    for (const [name, tone] of LINES) gl.setPaintProperty(`${SOURCE}-${name}`, "line-color", colour(tone));
  });
}

/** MapLibre takes credits as markup. */
const text = (credit) => Object.assign(document.createElement("p"), { textContent: credit }).innerHTML;
