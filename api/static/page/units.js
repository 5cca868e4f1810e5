/** Numbers as people read them, with their units. What is not known is a dash. */

const UNKNOWN = "–";
const BYTES = ["B", "kB", "MB", "GB", "TB", "PB"];

/** @param {number | null | undefined} value */
const isKnown = (value) => value !== null && value !== undefined && Number.isFinite(value);

/**
 * Three digits at most, and no fraction of hundreds: 0.25, 7.5, 120, 12,400.
 *
 * @param {number | null | undefined} value
 */
export function number(value) {
  if (!isKnown(value)) return UNKNOWN;
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}

/**
 * A number with what stands behind it: 7.5 ms.
 *
 * @param {number | null | undefined} value
 * @param {string} unit
 */
export const quantity = (value, unit) => (isKnown(value) ? number(value) + unit : UNKNOWN);

/** @param {number | null | undefined} value */
export const whole = (value) => (isKnown(value) ? Math.round(value).toLocaleString("en") : UNKNOWN);

/** @param {number | null | undefined} value */
export function bytes(value) {
  if (!isKnown(value)) return UNKNOWN;
  const step = value < 1 ? 0 : Math.min(Math.floor(Math.log10(value) / 3), BYTES.length - 1);
  return `${number(value / 1000 ** step)} ${BYTES[step]}`;
}

/**
 * Seconds in the largest two units that say something: 17 s, 5 min, 3 h 20 min, 12 d 4 h.
 *
 * @param {number | null | undefined} seconds
 */
export function duration(seconds) {
  if (!isKnown(seconds)) return UNKNOWN;
  if (seconds < 120) return `${number(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 120) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}
