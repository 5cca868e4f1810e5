/** A sentence for whoever looks, which goes by itself. */

import { element } from "./dom.js";

const SHOWN_MS = 8_000;

let hiding = 0;

/** @param {string} sentence */
export function notice(sentence) {
  const shown = element("notice");
  shown.textContent = sentence;
  shown.hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => {
    shown.hidden = true;
  }, SHOWN_MS);
}
