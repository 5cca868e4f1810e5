/** Where the device that is chosen was on the day of its newest record, as a line on the map that grows while it moves. */

import { colour, onTheme } from "./theme.js";

const SOURCE = "track";
const EVERY = "10s";
const MOST_RECORDS = 9_000; // a day has 8,640 stretches of 10 s

/** As /v1/trips has it: a longer time between two records is a gap. */
const MAX_GAP_MS = 600_000;

/** @typedef {{atMs: number, place: [longitude: number, latitude: number]}} Stop */

/** @param {import("./main.js").Context} context */
export async function startTrack({ state, api, fleet, map, notice, tabs }) {
  const gl = await map.ready;
  gl.addSource(SOURCE, { type: "geojson", data: lines([]) });
  gl.addLayer(
    {
      id: SOURCE,
      type: "line",
      source: SOURCE,
      layout: { "line-cap": "round", "line-join": "round" },
      paint: { "line-width": 3, "line-opacity": 0.75 },
    },
    "clusters",
  );
  onTheme(() => gl.setPaintProperty(SOURCE, "line-color", colour("accent")));

  /** @type {Stop[]} */
  let stops = [];
  let asking = new AbortController();
  const draw = () => gl.getSource(SOURCE).setData(lines(stops));
  const grow = () => {
    const { position } = fleet.devices.get(state.shown.device)?.record ?? {};
    const last = stops.at(-1);
    if (!position || !last || Date.parse(position.timestamp) <= last.atMs) return;
    stops.push(stop(position));
    draw();
  };
  const load = async () => {
    asking.abort();
    asking = new AbortController();
    stops = [];
    draw();
    const { device } = state.shown;
    if (!device) return;
    const newestMs = Date.parse(fleet.devices.get(device)?.record.timestamp ?? "");
    const start = new Date(Number.isNaN(newestMs) ? api.now() : Math.min(newestMs, api.now()));
    start.setHours(0, 0, 0, 0);
    const wanted = { device_id: device, start: start.toISOString(), every: EVERY, limit: MOST_RECORDS };
    try {
      const { records } = await api.json("/v1/records", wanted, { signal: asking.signal });
      stops = records.filter((record) => record.latitude !== null && record.longitude !== null).map(stop);
      draw();
    } catch (error) {
      if (error.name !== "AbortError") notice(`Cannot show today's track. ${error.message}`);
    }
  };
  const show = () => gl.setLayoutProperty(SOURCE, "visibility", tabs.open === "fleet" ? "visible" : "none");
  fleet.on((changed) => changed.has(state.shown.device) && grow());
  state.on(["device"], load);
  state.on(["tab"], show);
  show();
  await load();
}

/** @returns {Stop} */
const stop = (record) => ({ atMs: Date.parse(record.timestamp), place: [record.longitude, record.latitude] });

/** Lines between places, none over a gap. */
function lines(stops) {
  const parts = [];
  stops.forEach((one, index) => {
    const isNew = index === 0 || one.atMs - stops[index - 1].atMs > MAX_GAP_MS;
    if (isNew) parts.push([]);
    parts.at(-1).push(one.place);
  });
  const coordinates = parts.filter((part) => part.length > 1);
  return { type: "Feature", geometry: { type: "MultiLineString", coordinates }, properties: {} };
}
