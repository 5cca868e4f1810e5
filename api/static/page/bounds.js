/**
 * What of the box is bounded, as bars with the limit drawn in.
 *
 * @typedef {object} Bounded as /v1/box has it
 * @property {string} name
 * @property {number} value
 * @property {number} limit
 * @property {number | null} whole
 */

import { make } from "./dom.js";
import { bytes, number, whole } from "./units.js";

const NEAR = 0.8;

/** @type {Record<string, {title: string, write: (value: number) => string, beyond: string}>} */
const KNOWN = {
  redis_memory_bytes: { title: "Redis memory", write: bytes, beyond: "records are refused" },
  disk_used_bytes: { title: "Disk", write: bytes, beyond: "records are refused" },
  devices: { title: "Devices", write: whole, beyond: "further ones are refused" },
  tcp_connections: { title: "TCP connections", write: whole, beyond: "further ones are closed" },
  pending_bytes: { title: "Waiting for Redis", write: bytes, beyond: "beyond, senders wait" },
  open_day_files: { title: "Files of the open day", write: whole, beyond: "beyond, the smallest are merged" },
  quarantine_bytes: { title: "Quarantine", write: bytes, beyond: "beyond, the oldest are dropped" },
  query_memory_bytes: { title: "Memory of queries", write: bytes, beyond: "beyond, they spill to disk" },
};

/**
 * A bar for each of those that this page knows.
 *
 * @param {Bounded[]} found
 */
export function bars(found) {
  const byName = new Map(found.map((one) => [one.name, one]));
  return Object.entries(KNOWN)
    .filter(([name]) => byName.has(name))
    .map(([name, known]) => bar(known, byName.get(name)));
}

function bar({ title, write, beyond }, { value, limit, whole: all }) {
  const scale = Math.max(all ?? limit, limit, 1);
  const share = limit > 0 ? value / limit : 1;
  const percent = (100 * value) / scale;
  const state = share >= 1 ? "full" : share >= NEAR ? "near" : "fine";
  const words = `${write(value)} of ${write(all ?? limit)}`;
  const until = all === null ? "" : `${border(limit, scale, write)}, `;
  const filled = make("span", { className: "filled" });
  filled.style.width = `${Math.min(100, (100 * value) / scale)}%`;
  const mark = make("span", { className: "mark" });
  mark.style.left = `${Math.min(100, (100 * limit) / scale)}%`;
  const meter = make(
    "div",
    { className: "meter", role: "meter", "aria-label": title, "aria-valuemin": 0, "aria-valuemax": scale, "aria-valuenow": Math.min(value, scale), "aria-valuetext": words },
    filled,
    mark,
  );
  const sign = state === "fine" ? `${percent < 1 ? "below 1" : below100(percent)} %` : state === "near" ? `near: ${below100(percent)} %` : "full";
  return make(
    "li",
    { "data-state": state },
    make("p", {}, make("strong", {}, title), make("span", { className: "sign-text" }, sign)),
    meter,
    make("p", { className: "soft" }, `${words}; ${until}${beyond}`),
  );
}

/**
 * Where the limit lies, in words. A limit close to the whole is said by what must stay free: no bar can be above 100 %.
 *
 * @param {number} limit
 * @param {number} scale
 * @param {(value: number) => string} write
 */
function border(limit, scale, write) {
  const percent = (100 * limit) / scale;
  return percent > 99 && limit < scale ? `with less than ${write(scale - limit)} free` : `above ${number(percent)} %`;
}

/** @param {number} percent of what is not full, so never 100 */
const below100 = (percent) => Math.min(99, Math.round(percent));
