/**
 * The records of one device in a range, as columns, and its position at a time. Independent of the map and the API.
 *
 * @typedef {object} Whereabouts
 * @property {number} longitude
 * @property {number} latitude
 * @property {number | null} headingDeg
 * @property {boolean} isKnown false in a gap and after the last record
 * @property {number} sinceMs the time of the previous record
 */

/** Defaults of /v1/trips: a longer time between two records is a gap, unless both are this near. */
export const MAX_GAP_MS = 600_000;
export const REST_M = 200;

/** Default of /v1/records: no device moves faster between two positions. */
const MAX_JUMP_KMH = 1_200;

/** Maximum number of attributes that can be drawn. */
const MOST_ATTRIBUTES = 100;

const EARTH_M = 6_371_008.8;
const LEAST_MOVED_M = 5;
const FIELDS = /** @type {const} */ (["speed_kmh", "altitude_m", "heading_deg", "accuracy_m"]);
const radians = (/** @type {number} */ degrees) => (degrees * Math.PI) / 180;

export class Course {
  /** @type {number[]} times of the records, ascending, ms */
  times = [];
  /** @type {number[]} for each record, NaN without a position */
  longitudes = [];
  /** @type {number[]} */
  latitudes = [];
  /** @type {number[]} indexes of the records with a position */
  placed = [];
  /** Number of records that arrived more than `MAX_GAP_MS` after they were measured. */
  late = 0;
  /** @type {Map<string, number[]>} by name, NaN for records without a value */
  #columns = new Map();
  #gapMs;

  /**
   * @param {string} id
   * @param {number} everyMs interval with one record each; 0 if all records are there
   */
  constructor(id, everyMs) {
    this.id = id;
    this.#gapMs = MAX_GAP_MS + everyMs;
  }

  /**
   * Add the next record.
   *
   * @param {any} record as /v1/records has it
   */
  add(record) {
    const index = this.times.length;
    const atMs = Date.parse(record.timestamp);
    const { latitude, longitude, attributes } = record;
    this.times.push(atMs);
    this.longitudes.push(longitude ?? NaN);
    this.latitudes.push(latitude ?? NaN);
    if (longitude !== null && latitude !== null && attributes?.fix !== false) this.placed.push(index);
    if (Date.parse(record.received_at) - atMs > MAX_GAP_MS) this.late += 1;
    for (const name of FIELDS) this.#put(index, name, record[name]);
    this.#putAll(index, "", attributes);
  }

  /** Remove the records from a time on, from the last page of a set that was not read completely. */
  cut(fromMs) {
    const length = firstAbove(this.times, fromMs - 1);
    for (const column of [this.times, this.longitudes, this.latitudes, ...this.#columns.values()]) {
      column.length = Math.min(column.length, length);
    }
    this.placed = this.placed.filter((index) => index < length);
  }

  /** Names of values that can be drawn, in addition to the speed, which every course has. */
  get names() {
    return [...this.#columns.keys()].filter((name) => name !== "speed_kmh");
  }

  /** True if a record has a sent speed. */
  get tellsSpeed() {
    return this.#columns.has("speed_kmh");
  }

  /**
   * The speed at a record: the sent one or, without it, the speed from the previous position; NaN in or after a gap.
   *
   * @param {number} index
   */
  speedAt(index) {
    const told = this.value("speed_kmh", index);
    if (!Number.isNaN(told)) return told;
    const place = firstAbove(this.placed, index) - 1;
    if (place < 1 || this.placed[place] !== index || this.isGap(place)) return NaN;
    const before = this.placed[place - 1];
    const hours = (this.times[index] - this.times[before]) / 3_600_000;
    return hours > 0 ? this.#metres(before, index) / 1_000 / hours : NaN;
  }

  /**
   * The value of an attribute, a field or `speed` in a record.
   *
   * @param {string} name
   * @param {number} index
   */
  value(name, index) {
    return name === "speed" ? this.speedAt(index) : (this.#columns.get(name)?.[index] ?? NaN);
  }

  /**
   * The last value at a time; NaN in a gap.
   *
   * @param {string} name
   * @param {number} atMs
   */
  valueAt(name, atMs) {
    const next = firstAbove(this.times, atMs);
    for (let index = next - 1; index >= 0; index -= 1) {
      const isOver = next < this.times.length ? this.#isSilent(index, next) : atMs - this.times[index] > this.#gapMs;
      if (isOver && atMs !== this.times[index]) return NaN;
      const found = this.value(name, index);
      if (!Number.isNaN(found)) return found;
    }
    return NaN;
  }

  /**
   * The values of a name: times in seconds, and values, null in gaps.
   *
   * @param {string} name
   * @returns {[number[], Array<number | null>]}
   */
  series(name) {
    const [times, values] = [/** @type {number[]} */ ([]), /** @type {Array<number | null>} */ ([])];
    let before = -1;
    for (let index = 0; index < this.times.length; index += 1) {
      const value = this.value(name, index);
      if (Number.isNaN(value)) continue;
      const at = this.times[index] / 1_000;
      if (at === times.at(-1)) {
        values[values.length - 1] = value; // the time axis has one value per time
      } else {
        if (before >= 0 && this.#isSilent(before, index)) {
          times.push((times.at(-1) + at) / 2);
          values.push(null);
        }
        times.push(at);
        values.push(value);
      }
      before = index;
    }
    return [times, values];
  }

  /**
   * True if a gap lies before a position.
   *
   * @param {number} place which of `placed`
   */
  isGap(place) {
    if (place <= 0) return false;
    const [before, after] = [this.placed[place - 1], this.placed[place]];
    return this.#isSilent(before, after) || this.#isJump(before, after);
  }

  /** The device cannot have gone from one to the other; a shorter time counts as a second, as in /v1/records. */
  #isJump(before, after) {
    const seconds = Math.max((this.times[after] - this.times[before]) / 1_000, 1);
    return this.#metres(before, after) * 3.6 > MAX_JUMP_KMH * seconds;
  }

  /**
   * The position at a time, interpolated between two records; null before the first one.
   *
   * @param {number} atMs
   * @returns {Whereabouts | null}
   */
  at(atMs) {
    const next = this.#firstPlaceAfter(atMs);
    if (next === 0) return null;
    const [before, after] = [this.placed[next - 1], this.placed[next]];
    const sinceMs = this.times[before];
    if (after === undefined || this.isGap(next)) {
      return { ...this.#place(before), headingDeg: this.#heading(next - 1), isKnown: atMs === sinceMs, sinceMs };
    }
    const share = (atMs - sinceMs) / (this.times[after] - sinceMs);
    const [from, to] = [this.#place(before), this.#place(after)];
    return {
      longitude: from.longitude + turn(from.longitude, to.longitude) * share,
      latitude: from.latitude + (to.latitude - from.latitude) * share,
      headingDeg: this.#heading(next - 1),
      isKnown: true,
      sinceMs,
    };
  }

  #firstPlaceAfter(atMs) {
    let [low, high] = [0, this.placed.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.times[this.placed[middle]] <= atMs) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #place(index) {
    return { longitude: this.longitudes[index], latitude: this.latitudes[index] };
  }

  /** The sent heading or, without it, the direction to the next position; null if the device stands still. */
  #heading(place) {
    const index = this.placed[place];
    const told = this.value("heading_deg", index);
    if (!Number.isNaN(told)) return told;
    const [from, to] = this.isGap(place + 1) || place + 1 >= this.placed.length ? [this.placed[place - 1], index] : [index, this.placed[place + 1]];
    if (from === undefined || this.#metres(from, to) < LEAST_MOVED_M) return null;
    return this.#bearing(from, to);
  }

  #bearing(from, to) {
    const [north, south] = [radians(this.latitudes[to]), radians(this.latitudes[from])];
    const east = radians(turn(this.longitudes[from], this.longitudes[to]));
    const x = Math.cos(south) * Math.sin(north) - Math.sin(south) * Math.cos(north) * Math.cos(east);
    return ((Math.atan2(Math.sin(east) * Math.cos(north), x) * 180) / Math.PI + 360) % 360;
  }

  /** Along the surface of a sphere (haversine). */
  #metres(one, other) {
    const [south, north] = [radians(this.latitudes[one]), radians(this.latitudes[other])];
    const east = radians(this.longitudes[other] - this.longitudes[one]);
    const chord = Math.sin((north - south) / 2) ** 2 + Math.cos(south) * Math.cos(north) * Math.sin(east / 2) ** 2;
    return 2 * EARTH_M * Math.asin(Math.min(1, Math.sqrt(chord)));
  }

  #isSilent(before, index) {
    if (this.times[index] - this.times[before] <= this.#gapMs) return false;
    return !(this.#metres(before, index) <= REST_M); // also if one of them has no position
  }

  #putAll(index, prefix, attributes) {
    for (const [name, value] of Object.entries(attributes ?? {})) {
      if (typeof value === "number") this.#put(index, prefix + name, value);
      else if (value && typeof value === "object" && !Array.isArray(value)) this.#putAll(index, `${prefix}${name}.`, value);
    }
  }

  #put(index, name, value) {
    if (typeof value !== "number") return;
    let column = this.#columns.get(name);
    if (!column) {
      if (this.#columns.size >= MOST_ATTRIBUTES) return;
      this.#columns.set(name, (column = []));
    }
    while (column.length < index) column.push(NaN);
    column[index] = value;
  }
}

/**
 * The index of the first of ascending numbers above a limit.
 *
 * @param {number[]} numbers
 * @param {number} limit
 */
export function firstAbove(numbers, limit) {
  let [low, high] = [0, numbers.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (numbers[middle] <= limit) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Difference of two longitudes, the shorter way round, in degrees. */
export const turn = (from, to) => ((to - from + 540) % 360) - 180;
