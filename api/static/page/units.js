/** Numbers as people read them, with their units. What is not known is a dash. */

const UNKNOWN = "–";
const BYTES = ["bytes", "KiB", "MiB", "GiB", "TiB"];
const WITH_DECIMAL = BYTES.indexOf("GiB");
const FEW = 10;

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

/**
 * A size in units of 1,024, each of the one before: 10.6 GiB. `telemetry/disk.py: in_words` rounds in the same way.
 *
 * @param {number | null | undefined} value
 */
export function bytes(value) {
  if (!isKnown(value)) return UNKNOWN;
  let step = 0;
  while (step < BYTES.length - 1 && rounded(value / 1024 ** step, step) >= 1024) step += 1;
  const size = value / 1024 ** step;
  return `${rounded(size, step).toFixed(decimals(size, step))} ${BYTES[step]}`;
}

function rounded(size, step) {
  const scale = 10 ** decimals(size, step);
  return Math.floor(size * scale + 0.5) / scale;
}

const decimals = (size, step) => (step >= WITH_DECIMAL || (step > 0 && size < FEW) ? 1 : 0);

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
