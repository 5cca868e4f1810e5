/** Moments in the time zone of whoever looks: as people read them, and as fields for dates have them. */

export const HOUR_MS = 3_600_000;
export const DAY_MS = 86_400_000;

const short = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const seconds = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });

/** @param {number} ms */
export const shortly = (ms) => short.format(ms);

/** @param {number} ms */
export const timeOfDay = (ms) => clock.format(ms);

/**
 * What stands at a tick of an axis whose ticks are so far apart: at midnight the day.
 *
 * @param {number} ms
 * @param {number} stepS
 */
export function tick(ms, stepS) {
  if (ms === midnight(ms)) return day.format(ms);
  return (stepS < 60 ? seconds : clock).format(ms);
}

/** The browser's time zone by name, and how far it is ahead of UTC now: `Europe/Berlin, UTC+1`. */
export function zone() {
  const { timeZone } = Intl.DateTimeFormat().resolvedOptions();
  const parts = new Intl.DateTimeFormat("en", { timeZoneName: "shortOffset" }).formatToParts();
  const offset = parts.find((part) => part.type === "timeZoneName")?.value.replace("GMT", "UTC") ?? "";
  return timeZone === "UTC" || !offset ? timeZone : `${timeZone}, ${offset}`;
}

/**
 * The midnight before a moment, some days later or, if negative, before.
 *
 * @param {number} ms
 * @param {number} [days]
 */
export function midnight(ms, days = 0) {
  const found = new Date(ms);
  found.setHours(0, 0, 0, 0);
  found.setDate(found.getDate() + days); // a day may have 23 hours
  return found.getTime();
}

/**
 * What an input of type `datetime-local` takes.
 *
 * @param {number} ms
 */
export function toField(ms) {
  const at = new Date(ms);
  const two = (/** @type {number} */ number) => String(number).padStart(2, "0");
  const date = `${String(at.getFullYear()).padStart(4, "0")}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${date}T${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

/**
 * A moment as the address has it; whole seconds without a fraction.
 *
 * @param {number} ms
 */
export const iso = (ms) => new Date(ms).toISOString().replace(".000Z", "Z");

/**
 * A moment of a field of a date, or as the address has it, in milliseconds; NaN if it is none.
 *
 * @param {string} text
 */
export const parse = (text) => (text ? Date.parse(text) : NaN);
