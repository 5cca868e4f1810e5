/** The state of the connection to the box: two words at the top and, when it has been lost for some seconds, a banner. */

import { element } from "./dom.js";
import { timeOfDay } from "./times.js";

/** A program that is restarted answers within this, so a banner would only flash. */
const BANNER_MS = 4_000;

/** When the box answered last, by this browser's clock, ms; 0: never. */
let answeredMs = 0;
let bannerTimer = 0;
let problem = "";

/** Note that the box has answered just now. */
export function noteAnswer() {
  answeredMs = Date.now();
}

/** @param {"live" | "paused" | "refused"} state */
export function showConnection(state) {
  clearTimeout(bannerTimer);
  bannerTimer = 0;
  element("banner").hidden = true;
  const words = { live: "Live", paused: "Paused", refused: "Refused" };
  showWords(state === "paused" ? "waiting" : state, words[state]);
}

/**
 * Show that the connection is lost, and is being tried again.
 *
 * @param {string} reason a sentence; empty: the box ended the stream, as when it is restarted
 */
export function showLost(reason) {
  problem = reason;
  showWords("waiting", "Reconnecting");
  if (!element("banner").hidden) showBanner();
  else bannerTimer ||= setTimeout(showBanner, BANNER_MS);
}

function showBanner() {
  const banner = element("banner");
  const since = answeredMs ? ` What is shown is of ${timeOfDay(answeredMs)}.` : "";
  const text = `${problem || "The box does not answer."}${since} This page keeps trying.`;
  if (banner.textContent !== text) banner.textContent = text;
  banner.hidden = false;
}

function showWords(state, words) {
  const shown = element("link-state");
  shown.dataset.state = state;
  shown.textContent = words;
}
