/**
 * The current record and state of each device. Listeners are notified at most once per frame.
 *
 * @typedef {"moving" | "stopped" | "silent" | "offline"} DeviceState
 *
 * @typedef {object} Device
 * @property {string} id
 * @property {any} record the newest, as /v1/latest has it
 * @property {number} seenMs when it was last seen, by the box's clock
 * @property {DeviceState} state
 * @property {number | null} longitude last known position; null if unknown
 * @property {number | null} latitude
 * @property {number | null} headingDeg
 * @property {number | null} speedKmh the sent speed
 * @property {number} paceKmh the sent speed or, without one, the speed between the last two positions; determines the state
 */

/** Defaults of /v1/devices: maximum age of the last record of an online device, and of a silent one. */
export const SILENT_AFTER_S = 300;
export const OFFLINE_AFTER_S = 86_400;

/** Default of /v1/trips: maximum speed of a stopped device. */
export const STOPPED_KMH = 3;

/** @type {DeviceState[]} */
export const STATES = ["moving", "stopped", "silent", "offline"];

const LOOK_MS = 5_000;
const METRES_PER_DEGREE = 111_195;

export class Fleet {
  /** @type {Map<string, Device>} */
  devices = new Map();
  /** True when all devices are loaded; many devices arrive in several events. */
  isLoaded = false;
  #now;
  /** @type {Set<(changed: ReadonlySet<string>) => void>} */
  #listeners = new Set();
  /** @type {Set<string>} */
  #changed = new Set();
  #isDue = false;

  /** @param {() => number} now the time by the box's clock, in milliseconds */
  constructor(now) {
    this.#now = now;
    setInterval(() => this.#look(), LOOK_MS);
  }

  /**
   * Store the newest records of devices.
   *
   * @param {any[]} records as /v1/latest has them
   */
  take(records) {
    for (const record of records) {
      this.devices.set(record.device_id, this.#device(record, this.devices.get(record.device_id)));
      this.#changed.add(record.device_id);
    }
    if (records.length || !this.isLoaded) this.#tell();
    this.isLoaded = true;
  }

  /**
   * Remove deleted devices.
   *
   * @param {string[]} ids
   */
  forget(ids) {
    for (const id of ids) {
      if (this.devices.delete(id)) this.#changed.add(id);
    }
    if (ids.length) this.#tell();
  }

  /**
   * Subscribe to the ids of changed devices; returns a function that unsubscribes.
   *
   * @param {(changed: ReadonlySet<string>) => void} listener
   */
  on(listener) {
    this.#listeners.add(listener);
    if (this.devices.size) listener(new Set(this.devices.keys()));
    return () => this.#listeners.delete(listener);
  }

  /** Number of devices in each state. */
  counts() {
    const found = { moving: 0, stopped: 0, silent: 0, offline: 0 };
    for (const device of this.devices.values()) found[device.state] += 1;
    return found;
  }

  /** @returns {Device} */
  #device(record, before) {
    const { position } = record;
    const device = {
      id: record.device_id,
      record,
      seenMs: Date.parse(record.last_seen),
      state: /** @type {DeviceState} */ ("stopped"),
      longitude: position?.longitude ?? null,
      latitude: position?.latitude ?? null,
      headingDeg: position?.heading_deg ?? null,
      speedKmh: position?.speed_kmh ?? null,
      paceKmh: position?.speed_kmh ?? paceBetween(before?.record.position, position) ?? before?.paceKmh ?? 0,
    };
    device.state = this.#stateOf(device);
    return device;
  }

  /** @returns {DeviceState} */
  #stateOf(device) {
    const silenceS = (this.#now() - device.seenMs) / 1_000;
    if (silenceS > OFFLINE_AFTER_S) return "offline";
    if (silenceS > SILENT_AFTER_S) return "silent";
    return device.paceKmh > STOPPED_KMH ? "moving" : "stopped";
  }

  /** States change with time, without a new record. */
  #look() {
    for (const device of this.devices.values()) {
      const state = this.#stateOf(device);
      if (state === device.state) continue;
      device.state = state;
      this.#changed.add(device.id);
    }
    if (this.#changed.size) this.#tell();
  }

  #tell() {
    if (this.#isDue) return;
    this.#isDue = true;
    requestAnimationFrame(() => {
      const changed = this.#changed;
      this.#changed = new Set();
      this.#isDue = false;
      for (const listener of this.#listeners) listener(changed);
    });
  }
}

/** Speed of a device between two positions; null if they are equal or unknown. */
function paceBetween(before, now) {
  if (!before || !now || before.timestamp === now.timestamp) return null;
  const hours = (Date.parse(now.timestamp) - Date.parse(before.timestamp)) / 3_600_000;
  const northM = (now.latitude - before.latitude) * METRES_PER_DEGREE;
  const eastM = (now.longitude - before.longitude) * METRES_PER_DEGREE * Math.cos((now.latitude * Math.PI) / 180);
  return hours > 0 ? Math.hypot(northM, eastM) / 1_000 / hours : null;
}
