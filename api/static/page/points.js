/**
 * The devices on the map, drawn by MapLibre from one source, however many they are. What changed meanwhile is drawn at
 * once, and not before the map is done with what it was given last.
 */

import { STATES } from "./fleet.js";
import { colour, onTheme } from "./theme.js";
import { isWanted } from "./wanted.js";

const SOURCE = "devices";
const CHOSEN = "chosen";
const CLUSTER_PX = 44;
const CLUSTER_MAX_ZOOM = 12;
const LEAST_IN_CLUSTER = 4;
const ICON_PX = 22;
const SHARPNESS = 3;

/** Of the time that drawing takes, so many times as much is left for all else. */
const REST = 2;

const sumOf = (state) => ["+", ["case", ["==", ["get", "state"], state], 1, 0]];
const collection = (features) => ({ type: "FeatureCollection", features });

/** @param {import("./main.js").Context} context */
export async function start({ state, fleet, map, tabs }) {
  const gl = await map.ready;
  add(gl);
  onTheme(() => paint(gl));

  let isDirty = false;
  let isDrawing = false;
  const draw = async () => {
    isDirty = true;
    if (isDrawing) return;
    isDrawing = true;
    while (isDirty) {
      isDirty = false;
      const beganMs = performance.now();
      await gl.getSource(SOURCE).setData(collection(features(fleet, state.shown)));
      await rest((performance.now() - beganMs) * REST);
    }
    isDrawing = false;
  };
  const drawChosen = () => gl.getSource(CHOSEN).setData(collection(chosen(fleet, state.shown)));
  const showLayers = () => {
    const visibility = tabs.open === "fleet" ? "visible" : "none";
    for (const layer of LAYERS) gl.setLayoutProperty(layer, "visibility", visibility);
  };

  let isFitted = state.shown.at !== null;
  fleet.on((changed) => {
    draw();
    if (changed.has(state.shown.device)) drawChosen();
    if (!isFitted) map.fit(places(fleet));
    isFitted ||= fleet.devices.size > 0;
  });
  state.on(["search", "only"], draw);
  state.on(["device"], drawChosen);
  state.on(["tab"], showLayers);
  drawChosen();
  showLayers();
  listen(gl, state);
}

const LAYERS = ["clusters", "cluster-counts", "devices", "chosen", "chosen-sign"];

const SIGN = {
  "icon-image": ["get", "icon"],
  "icon-rotate": ["get", "heading"],
  "icon-rotation-alignment": "map",
  "icon-allow-overlap": true,
  "icon-ignore-placement": true,
};

function add(gl) {
  const clusterProperties = Object.fromEntries(STATES.map((name) => [name, sumOf(name)]));
  gl.addSource(SOURCE, {
    type: "geojson",
    data: collection([]),
    cluster: true,
    clusterRadius: CLUSTER_PX,
    clusterMaxZoom: CLUSTER_MAX_ZOOM,
    clusterMinPoints: LEAST_IN_CLUSTER,
    clusterProperties,
    maxzoom: CLUSTER_MAX_ZOOM + 4,
  });
  gl.addSource(CHOSEN, { type: "geojson", data: collection([]) });
  gl.addLayer({
    id: "clusters",
    type: "circle",
    source: SOURCE,
    filter: ["has", "point_count"],
    paint: {
      "circle-radius": ["interpolate", ["linear"], ["log10", ["get", "point_count"]], 0.6, 13, 4, 32],
      "circle-opacity": 0.9,
      "circle-stroke-width": 3,
      "circle-stroke-opacity": 0.35,
    },
  });
  gl.addLayer({
    id: "cluster-counts",
    type: "symbol",
    source: SOURCE,
    filter: ["has", "point_count"],
    layout: {
      "text-field": ["get", "point_count_abbreviated"],
      "text-font": ["system-ui", "sans-serif"],
      "text-size": 12,
      "text-allow-overlap": true,
      "text-ignore-placement": true,
    },
  });
  gl.addLayer({
    id: "devices",
    type: "symbol",
    source: SOURCE,
    filter: ["!", ["has", "point_count"]],
    layout: SIGN,
  });
  // The device that is chosen is seen, also where it is one of a group.
  gl.addLayer({
    id: "chosen",
    type: "circle",
    source: CHOSEN,
    paint: { "circle-radius": 16, "circle-opacity": 0.9, "circle-stroke-width": 2.5 },
  });
  gl.addLayer({ id: "chosen-sign", type: "symbol", source: CHOSEN, layout: SIGN });
}

function paint(gl) {
  for (const state of STATES) {
    setImage(gl, state, icon(colour(state), colour("surface"), state, false));
    setImage(gl, `${state}-heading`, icon(colour(state), colour("surface"), state, true));
  }
  const most = (state) => ["all", ...STATES.map((other) => [">=", ["get", state], ["get", other]])];
  const ofMost = ["case", ...STATES.flatMap((state) => [most(state), colour(state)]), colour("offline")];
  gl.setPaintProperty("clusters", "circle-color", ofMost);
  gl.setPaintProperty("clusters", "circle-stroke-color", ofMost);
  gl.setPaintProperty("cluster-counts", "text-color", colour("on-state"));
  gl.setPaintProperty("chosen", "circle-color", colour("surface"));
  gl.setPaintProperty("chosen", "circle-stroke-color", colour("accent"));
}

function setImage(gl, name, image) {
  if (gl.hasImage(name)) gl.updateImage(name, image);
  else gl.addImage(name, image, { pixelRatio: SHARPNESS });
}

/** A device's sign: states differ in form, too. One that is heard is full, and points where it heads, if that is known. */
function icon(fill, edge, state, hasHeading) {
  const size = ICON_PX * SHARPNESS;
  const canvas = new OffscreenCanvas(size, size);
  const c = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
  c.scale(SHARPNESS, SHARPNESS);
  c.translate(ICON_PX / 2, ICON_PX / 2);
  c.lineJoin = "round";
  c.beginPath();
  if (state === "moving" && hasHeading) {
    c.moveTo(0, -9);
    c.lineTo(7, 8);
    c.lineTo(0, 4.5);
    c.lineTo(-7, 8);
    c.closePath();
  } else {
    if (hasHeading) {
      c.moveTo(-3.4, -5);
      c.lineTo(0, -10);
      c.lineTo(3.4, -5);
    }
    c.moveTo(6, 0);
    c.arc(0, 0, 6, 0, 2 * Math.PI);
  }
  c.lineWidth = 3;
  c.strokeStyle = edge;
  c.stroke();
  c.fillStyle = fill;
  c.fill();
  if (state === "silent" || state === "offline") {
    c.beginPath();
    c.arc(0, 0, state === "silent" ? 2.6 : 4.2, 0, 2 * Math.PI);
    c.fillStyle = edge;
    c.fill();
  }
  return c.getImageData(0, 0, size, size);
}

function features(fleet, shown) {
  return [...fleet.devices.values()].filter((device) => device.longitude !== null && isWanted(device, shown)).map(feature);
}

function chosen(fleet, shown) {
  const device = fleet.devices.get(shown.device);
  return device && device.longitude !== null ? [feature(device)] : [];
}

function feature({ id, state, longitude, latitude, headingDeg }) {
  const icon = headingDeg === null ? state : `${state}-heading`;
  return {
    type: "Feature",
    geometry: { type: "Point", coordinates: [longitude, latitude] },
    properties: { id, state, icon, heading: headingDeg ?? 0 },
  };
}

function* places(fleet) {
  for (const { longitude, latitude } of fleet.devices.values()) {
    if (longitude !== null) yield /** @type {[number, number]} */ ([longitude, latitude]);
  }
}

function listen(gl, state) {
  gl.on("click", "devices", (event) => state.set({ device: event.features[0].properties.id }, { isStep: true }));
  gl.on("click", "clusters", async (event) => {
    const [cluster] = event.features;
    const zoom = await gl.getSource(SOURCE).getClusterExpansionZoom(cluster.properties.cluster_id);
    gl.easeTo({ center: cluster.geometry.coordinates, zoom: zoom + 0.5 }, { originalEvent: event.originalEvent });
  });
  for (const layer of ["devices", "clusters"]) {
    gl.on("mouseenter", layer, () => {
      gl.getCanvas().style.cursor = "pointer";
    });
    gl.on("mouseleave", layer, () => {
      gl.getCanvas().style.cursor = "";
    });
  }
}

const rest = (ms) => new Promise((go) => setTimeout(() => requestAnimationFrame(go), ms));
