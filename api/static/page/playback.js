/**
 * The time that History shows, and playback. Listeners are notified for each frame; state.js updates the URL at most four
 * times per second.
 *
 * @typedef {{atMs: number, isPlaying: boolean, speed: number, startMs: number, endMs: number}} Played
 */

import { firstAbove } from "./course.js";

/** Speeds relative to real time. */
export const SPEEDS = [1, 10, 60, 100, 300, 1_000];

const USUAL_SPEED = 60;
const TELL_MS = 500;

/** A hidden tab draws no frames; after such a pause, playback continues where it was. */
const MOST_STEP_MS = 1_000;

export class Playback {
  /** @type {Played} */
  now = { atMs: 0, isPlaying: false, speed: USUAL_SPEED, startMs: 0, endMs: 0 };
  /** @type {Set<(now: Played) => void>} */
  #listeners = new Set();
  /** @type {number[][]} times of records, of each device */
  #times = [];
  #tell;
  #frame = 0;
  #beforeMs = 0;
  #toldMs = 0;

  /** @param {(atMs: number) => void} tell updates the URL: when playback stops, and periodically while it runs */
  constructor(tell) {
    this.#tell = tell;
  }

  /** @param {(now: Played) => void} listener */
  on(listener) {
    this.#listeners.add(listener);
    listener(this.now);
  }

  /**
   * Set the range and records for playback.
   *
   * @param {{startMs: number, endMs: number, times: number[][]}} range
   * @param {number} atMs
   */
  open({ startMs, endMs, times }, atMs) {
    this.pause();
    this.#times = times;
    this.#change({ startMs, endMs, atMs: Math.min(Math.max(atMs, startMs), endMs) });
  }

  /** @param {number} atMs */
  seek(atMs) {
    const { startMs, endMs } = this.now;
    this.#change({ atMs: Math.min(Math.max(Math.round(atMs), startMs), endMs) });
    this.#say();
  }

  /**
   * Go to the next or previous record of any device.
   *
   * @param {1 | -1} by
   */
  step(by) {
    const { atMs } = this.now;
    const found = this.#times.map((times) => (by > 0 ? times[firstAbove(times, atMs)] : times[firstAbove(times, atMs - 1) - 1]));
    const known = found.filter((one) => one !== undefined);
    if (known.length) this.seek(by > 0 ? Math.min(...known) : Math.max(...known));
  }

  /** @param {number} speed */
  setSpeed(speed) {
    this.#change({ speed });
  }

  /** Start playback, from the start of the range if it is at the end; or pause. */
  toggle() {
    if (this.now.isPlaying) {
      this.pause();
      return;
    }
    const { atMs, startMs, endMs } = this.now;
    if (endMs <= startMs) return;
    this.#change({ isPlaying: true, atMs: atMs >= endMs ? startMs : atMs });
    this.#beforeMs = performance.now();
    this.#frame = requestAnimationFrame((nowMs) => this.#play(nowMs));
  }

  pause() {
    if (!this.now.isPlaying) return;
    cancelAnimationFrame(this.#frame);
    this.#change({ isPlaying: false });
    this.#say();
  }

  #play(nowMs) {
    const { atMs, speed, endMs } = this.now;
    const next = atMs + Math.min(Math.max(nowMs - this.#beforeMs, 0), MOST_STEP_MS) * speed;
    this.#beforeMs = nowMs;
    if (next >= endMs) {
      this.#change({ atMs: endMs });
      this.pause();
      return;
    }
    this.#change({ atMs: next });
    if (nowMs - this.#toldMs > TELL_MS) this.#say();
    this.#frame = requestAnimationFrame((laterMs) => this.#play(laterMs));
  }

  #say() {
    this.#toldMs = performance.now();
    this.#tell(this.now.atMs);
  }

  #change(changes) {
    this.now = { ...this.now, ...changes };
    for (const listener of this.#listeners) listener(this.now);
  }
}
