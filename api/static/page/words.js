/** Numbers and times as people read them. */

const AGES = /** @type {const} */ ([
  ["days", 2 * 86_400],
  ["h", 2 * 3_600],
  ["min", 2 * 60],
]);
const WINDS = ["N", "NE", "E", "SE", "S", "SW", "W", "NW"];

const time = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 6 });

/**
 * How long something takes or is ago: `12 s`, `3 min`, `2 h`, `5 days`.
 *
 * @param {number} seconds
 */
export function duration(seconds) {
  for (const [unit, leastS] of AGES) {
    if (seconds >= leastS) return `${Math.floor(seconds / (leastS / 2))} ${unit}`;
  }
  return `${Math.max(Math.floor(seconds), 0)} s`;
}

/** @param {number} seconds */
export const ago = (seconds) => (seconds < 1 ? "now" : `${duration(seconds)} ago`);

/** @param {number | null} kmh */
export const speed = (kmh) => (kmh === null ? "–" : `${Math.round(kmh)} km/h`);

/**
 * `45° NE`
 *
 * @param {number} degrees
 */
export const heading = (degrees) => `${Math.round(degrees)}° ${WINDS[Math.round(degrees / 45) % 8]}`;

/**
 * A moment in the time of whoever looks.
 *
 * @param {string | number | Date} moment
 */
export const moment = (moment) => time.format(new Date(moment));

/** @param {number} value */
export const number = (value) => grouped.format(value);

const MOST_NAME = 48;

/**
 * A device's id in a sentence: a long one is cut in its middle, as ids differ at their ends.
 *
 * @param {string} id
 */
export function inSentence(id) {
  const half = MOST_NAME / 2;
  return id.length <= MOST_NAME ? id : `${id.slice(0, half)}…${id.slice(-half)}`;
}
