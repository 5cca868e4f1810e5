/** The bar below the map: play, how fast, the moment, and the slider. Space and arrows do the same. */

import { element, make } from "./dom.js";
import { SPEEDS } from "./playback.js";
import { shortly } from "./times.js";
import { moment } from "./words.js";

const STEPS = 2_000;

/**
 * Its elements, which follow the playback and lead it.
 *
 * @param {import("./playback.js").Playback} playback
 * @param {import("./tabs.js").Tabs} tabs
 */
export function controls(playback, tabs) {
  const play = make("button", { type: "button", className: "play", "aria-label": "Play", title: "Play (Space)" });
  const slider = make("input", { type: "range", id: "history-slider", min: 0, max: STEPS, step: 1, value: 0, "aria-label": "Moment" });
  const clock = make("time", { className: "clock" });
  const speed = make("select", { "aria-label": "Speed", title: "How many times faster than life" },
    ...SPEEDS.map((one) => make("option", { value: String(one) }, `${one.toLocaleString("en")}×`)));
  const [first, last] = [make("span"), make("span")];
  const steps = [[-1, "‹", "The record before (←)"], [1, "›", "The next record (→)"]].map(([by, sign, title]) => {
    const button = make("button", { type: "button", className: "step", title, "aria-label": title }, sign);
    button.addEventListener("click", () => playback.step(/** @type {1 | -1} */ (by)));
    return button;
  });

  play.addEventListener("click", () => playback.toggle());
  speed.addEventListener("change", () => playback.setSpeed(Number(speed.value)));
  slider.addEventListener("input", () => {
    const { startMs, endMs } = playback.now;
    playback.seek(startMs + ((endMs - startMs) * Number(slider.value)) / STEPS);
  });
  document.addEventListener("keydown", (event) => isForPlayback(event, tabs, slider) && lead(event, playback));
  playback.on(({ atMs, startMs, endMs, isPlaying, speed: times }) => {
    play.setAttribute("aria-label", isPlaying ? "Pause" : "Play");
    play.dataset.playing = String(isPlaying);
    speed.value = String(times);
    slider.value = String(endMs > startMs ? ((atMs - startMs) / (endMs - startMs)) * STEPS : 0);
    const text = moment(atMs);
    slider.setAttribute("aria-valuetext", text);
    clock.textContent = text;
    clock.dataset.ms = String(Math.round(atMs));
    [first.textContent, last.textContent] = [shortly(startMs), shortly(endMs)];
  });
  return [
    make("div", { className: "play-bar" }, play, ...steps, speed, clock),
    make("div", { className: "slide" }, slider, make("div", { className: "ends soft", "aria-hidden": "true" }, first, last)),
  ];
}

/** Whether a key is meant for the playback: not where somebody writes, chooses or moves the map. */
function isForPlayback(event, tabs, slider) {
  if (tabs.open !== "history" || element("timeline").hidden || event.ctrlKey || event.metaKey || event.altKey) return false;
  if (event.target === slider) return true;
  const isTaken = event.target.closest("input, select, textarea, dialog, [role=tablist]") !== null;
  const isPressed = event.key === " " && event.target.closest("button, summary, a") !== null;
  const isMap = event.key !== " " && event.target.closest("#map") !== null;
  return !isTaken && !isPressed && !isMap;
}

function lead(event, playback) {
  const act = { " ": () => playback.toggle(), ArrowRight: () => playback.step(1), ArrowLeft: () => playback.step(-1) }[event.key];
  if (!act) return;
  event.preventDefault();
  act();
}
