/**
 * What devices did in a range, read from the box page by page, with as many records as a browser holds at ease.
 *
 * @typedef {object} Past
 * @property {import("./course.js").Course[]} courses of the devices that were asked for, in that order
 * @property {import("./api.js").Parameters} asked what /v1/export has the same records for
 * @property {number} startMs
 * @property {number} endMs of what is shown: where reading was stopped, if it was
 * @property {string} every which stretch of time has one record; empty if all are shown
 * @property {number} total how many records there are
 * @property {number} shown how many are shown
 * @property {boolean} isStopped
 *
 * @typedef {object} Reading
 * @property {AbortSignal} signal gives all up
 * @property {AbortSignal} stop ends with what there is by then
 * @property {(read: number, of: number) => void} progress
 */

import { Course } from "./course.js";

/** So many records of all devices together: some 20 MB of columns. Of more, some are left out. */
export const MOST_RECORDS = 100_000;

const PAGE = 10_000;
const STRETCHES = /** @type {const} */ ([
  ["1s", 1], ["2s", 2], ["5s", 5], ["10s", 10], ["30s", 30], ["1m", 60], ["2m", 120], ["5m", 300],
  ["10m", 600], ["30m", 1_800], ["1h", 3_600], ["6h", 21_600], ["24h", 86_400],
]);

/**
 * Read it. Raises `ApiError`, and `AbortError` when `signal` says so.
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
  let [shown, cursor, last] = [0, "", ""];
  const expected = every ? sum(summaries.map((one) => stays(one, everyS))) : total;
  progress(0, expected);
  do {
    if (stop.aborted) return cutAt(last, { courses: [...courses.values()], asked, startMs, endMs, every, total, shown, isStopped: true });
    const page = await api.json("/v1/records", { ...asked, limit: PAGE, cursor: cursor || null }, { signal });
    for (const record of page.records) courses.get(record.device_id)?.add(record);
    shown += page.records.length;
    last = page.records.at(-1)?.timestamp ?? last;
    cursor = page.next_cursor;
    progress(shown, Math.max(expected, shown));
  } while (cursor);
  return { courses: [...courses.values()], asked, startMs, endMs, every, total, shown, isStopped: false };
}

/** What was read until its last moment, of which perhaps not all was read. */
function cutAt(last, past) {
  if (!last) return { ...past, endMs: past.startMs, asked: { ...past.asked, end: past.asked.start } };
  const endMs = Date.parse(last);
  for (const course of past.courses) course.cut(endMs);
  const shown = sum(past.courses.map((course) => course.times.length));
  return { ...past, shown, endMs, asked: { ...past.asked, end: new Date(endMs).toISOString() } };
}

/** The least stretch of time with which there are few enough records. */
function stretch(summaries) {
  const fits = ([, seconds]) => sum(summaries.map((one) => stays(one, seconds))) <= MOST_RECORDS;
  return STRETCHES.find(fits) ?? STRETCHES.at(-1);
}

/** How many records of a device stay at most if each stretch has one. */
function stays({ count, first, last }, seconds) {
  return Math.min(count, Math.floor((Date.parse(last) - Date.parse(first)) / 1_000 / seconds) + 2);
}

const sum = (numbers) => numbers.reduce((all, one) => all + one, 0);
