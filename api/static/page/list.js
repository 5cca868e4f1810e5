/** What is beside the map: how many devices are in which state. */

import { element, make } from "./dom.js";
import { STATES } from "./fleet.js";

/** @type {Record<import("./fleet.js").DeviceState, string>} */
const MEANINGS = {
  moving: "Heard within 5 minutes, faster than 3 km/h",
  stopped: "Heard within 5 minutes, at most 3 km/h",
  silent: "Not heard for 5 minutes",
  offline: "Not heard for a day",
};

/** @param {import("./main.js").Context} context */
export function start({ state, fleet }) {
  const buttons = new Map(STATES.map((name) => [name, chip(name, state)]));
  const chips = make("div", { className: "chips", role: "group", "aria-label": "Show only" }, ...[...buttons.values()].map(({ button }) => button));
  element("panel-fleet").append(chips);

  const draw = () => {
    const counts = fleet.counts();
    for (const [name, { button, count }] of buttons) {
      count.textContent = counts[name].toLocaleString("en");
      button.setAttribute("aria-pressed", String(state.shown.only === name));
    }
  };
  fleet.on(draw);
  state.on(["only"], draw);
  draw();
}

function chip(name, state) {
  const count = make("strong");
  const sign = make("span", { className: "sign", "data-state": name });
  const button = make("button", { type: "button", title: MEANINGS[name], "aria-pressed": "false" }, count, make("span", {}, sign, name));
  button.addEventListener("click", () => state.set({ only: state.shown.only === name ? "" : name }));
  return { button, count };
}
