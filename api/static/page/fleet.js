/**
 * All devices as they are now, and in which state each is. Who wants to know is told at most once a frame.
 *
 * @typedef {"moving" | "stopped" | "silent" | "offline"} DeviceState
 *
 * @typedef {object} Device
 * @property {string} id
 * @property {any} record the newest, as /v1/latest has it
 * @property {number} seenMs when it was heard last, by the box's clock
 * @property {DeviceState} state
 * @property {number | null} longitude where it was last; null if that isn't known
 * @property {number | null} latitude
 * @property {number | null} headingDeg
 * @property {number | null} speedKmh as it was told
 * @property {number} paceKmh the same or, of a device that tells none, from its last two positions: what its state goes by
 */

/** As /v1/devices has them unless asked otherwise: silence up to which a device is online, and silent. */
export const SILENT_AFTER_S = 300;
export const OFFLINE_AFTER_S = 86_400;

/** As /v1/trips has it: the greatest speed of a device that stands still. */
export const STOPPED_KMH = 3;

/** @type {DeviceState[]} */
export const STATES = ["moving", "stopped", "silent", "offline"];

const LOOK_MS = 5_000;
const METRES_PER_DEGREE = 111_195;

export class Fleet {
  /** @type {Map<string, Device>} */
  devices = new Map();
  /** Whether the box has said which devices there are; of many it says it bit by bit. */
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
   * Take the newest records of devices.
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
   * Forget devices that were deleted.
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
   * Be told the ids of devices that changed; returns what ends that.
   *
   * @param {(changed: ReadonlySet<string>) => void} listener
   */
  on(listener) {
    this.#listeners.add(listener);
    if (this.devices.size) listener(new Set(this.devices.keys()));
    return () => this.#listeners.delete(listener);
  }

  /** How many devices are in each state. */
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

  /** Silence grows without a record. */
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

/** How fast a device went from one position to the next; null where they are the same or unknown. */
function paceBetween(before, now) {
  if (!before || !now || before.timestamp === now.timestamp) return null;
  const hours = (Date.parse(now.timestamp) - Date.parse(before.timestamp)) / 3_600_000;
  const northM = (now.latitude - before.latitude) * METRES_PER_DEGREE;
  const eastM = (now.longitude - before.longitude) * METRES_PER_DEGREE * Math.cos((now.latitude * Math.PI) / 180);
  return hours > 0 ? Math.hypot(northM, eastM) / 1_000 / hours : null;
}
