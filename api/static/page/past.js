/**
 * Reads the records of devices in a range from the box, page by page, up to a limit that fits in a browser's memory.
 *
 * @typedef {object} Past
 * @property {import("./course.js").Course[]} courses of the requested devices, in their order
 * @property {import("./api.js").Parameters} asked parameters of /v1/export for the same records
 * @property {number} startMs
 * @property {number} endMs end of the shown range; earlier than requested if reading was stopped
 * @property {string} every interval with one record each; empty if all are shown
 * @property {number} total number of records in the range
 * @property {number} shown number of shown records
 * @property {number} implausible number of positions that are not shown
 * @property {boolean} isStopped
 *
 * @typedef {object} Reading
 * @property {AbortSignal} signal cancels reading
 * @property {AbortSignal} stop ends reading and keeps the records read so far
 * @property {(read: number, of: number) => void} progress
 */

import { Course } from "./course.js";

/** Maximum records of all devices together; of more, some are omitted. */
export const MOST_RECORDS = 100_000;

const PAGE = 10_000;
const STRETCHES = /** @type {const} */ ([
  ["1s", 1], ["2s", 2], ["5s", 5], ["10s", 10], ["30s", 30], ["1m", 60], ["2m", 120], ["5m", 300],
  ["10m", 600], ["30m", 1_800], ["1h", 3_600], ["6h", 21_600], ["24h", 86_400],
]);

/**
 * Read the records. Throws `ApiError`, and `AbortError` when `signal` is aborted.
 *
 * @param {import("./api.js").Api} api
 * @param {{devices: string[], startMs: number, endMs: number}} wanted
 * @param {Reading} reading
 * @returns {Promise<Past>}
 */
export async function read(api, { devices, startMs, endMs }, { signal, stop, progress }) {
  const range = { device_id: devices, start: new Date(startMs).toISOString(), end: new Date(endMs).toISOString() };
  const { summaries } = await api.json("/v1/summary", { ...range, fields: "count,first,last" }, { signal });
  const total = sum(summaries.map(({ count }) => count));
  const [every, everyS] = total > MOST_RECORDS ? stretch(summaries) : ["", 0];
  const asked = { ...range, every: every || null };
  const courses = new Map(devices.map((id) => [id, new Course(id, everyS * 1_000)]));
  let [shown, implausible, cursor, last] = [0, 0, "", ""];
  const expected = every ? sum(summaries.map((one) => stays(one, everyS))) : total;
  progress(0, expected);
  do {
    if (stop.aborted) return cutAt(last, { courses: [...courses.values()], asked, startMs, endMs, every, total, shown, implausible, isStopped: true });
    const page = await api.json("/v1/records", { ...asked, plausible: "true", limit: PAGE, cursor: cursor || null }, { signal });
    for (const record of page.records) courses.get(record.device_id)?.add(record);
    shown += page.records.length;
    implausible += page.implausible;
    last = page.records.at(-1)?.timestamp ?? last;
    cursor = page.next_cursor;
    progress(shown, Math.max(expected, shown));
  } while (cursor);
  return { courses: [...courses.values()], asked, startMs, endMs, every, total, shown, implausible, isStopped: false };
}

/** The records before the time of the last one, of which some may not be read yet. */
function cutAt(last, past) {
  if (!last) return { ...past, endMs: past.startMs, asked: { ...past.asked, end: past.asked.start } };
  const endMs = Date.parse(last);
  for (const course of past.courses) course.cut(endMs);
  const shown = sum(past.courses.map((course) => course.times.length));
  return { ...past, shown, endMs, asked: { ...past.asked, end: new Date(endMs).toISOString() } };
}

/** The shortest interval for which the number of records is within the limit. */
function stretch(summaries) {
  const fits = ([, seconds]) => sum(summaries.map((one) => stays(one, seconds))) <= MOST_RECORDS;
  return STRETCHES.find(fits) ?? STRETCHES.at(-1);
}

/** Maximum records of a device with one record per interval. */
function stays({ count, first, last }, seconds) {
  return Math.min(count, Math.floor((Date.parse(last) - Date.parse(first)) / 1_000 / seconds) + 2);
}

const sum = (numbers) => numbers.reduce((all, one) => all + one, 0);
