/**
 * Box: the state of the box now and in the last hour.
 *
 * @typedef {object} Box as GET /v1/box answers
 * @property {string} version
 * @property {number} uptime_s
 * @property {number} interval_s
 * @property {string[]} times
 * @property {Record<string, Array<number | null>>} series
 * @property {import("./bounds.js").Bounded[]} bounded
 * @property {Array<{protocol: string, transport: string, records: number, rejected: number, last_hour_records: number,
 *   last_hour_rejected: number}>} decoders
 * @property {Record<string, number> | null} refused
 * @property {{quarantined: number, dropped: number, replayed: number, size_bytes: number} | null} quarantine
 * @property {Array<{program: string, process: number, is_up: boolean, uptime_s: number, memory_bytes: number | null}>} programs
 */

import { bars } from "./bounds.js";
import { element, make } from "./dom.js";
import { Hour } from "./hour.js";
import { decoders, programs, quarantine, refusals } from "./tables.js";
import { duration } from "./units.js";

const LOOK_MS = 10_000; // as often as the box takes a sample

/** @param {import("./main.js").Context} context */
export function start({ state, api, tabs }) {
  const view = new View();
  let isOffered = false;
  let looking = 0;
  const isOpen = () => tabs.open === "box" && !document.hidden;

  /** Request data only while the tab is visible; before that, only check whether the key may see it. */
  const look = () => {
    clearTimeout(looking);
    if (isOpen() || !isOffered) show();
  };

  async function show() {
    try {
      const box = await api.json("/v1/box");
      if (!isOffered) tabs.show("box");
      isOffered = true;
      if (isOpen()) {
        view.draw(box);
        view.drawReadiness(await readinessOf(api));
      }
    } catch (error) {
      if (error.status === 403) {
        tabs.hide("box", error.message);
        return;
      }
      view.fail(error.message);
    }
    clearTimeout(looking);
    looking = setTimeout(look, LOOK_MS);
  }

  state.on(["tab"], look);
  document.addEventListener("visibilitychange", look);
  look();
}

/** @param {import("./api.js").Api} api @returns {Promise<{status: string, reasons: string[]}>} */
async function readinessOf(api) {
  const response = await api.get("/readyz", {}, { alsoGood: [503] });
  return response.json();
}

/** Contents of the panel. */
class View {
  #state = make("div", { className: "state", role: "status" }, make("p", { className: "soft" }, "Loading…"));
  #about = make("p", { className: "soft" });
  #hour = new Hour();
  #bars = make("ul", { className: "bounds" });
  #tables = make("div", { className: "tables" });

  constructor() {
    element("panel-box").append(
      make(
        "div",
        { className: "box" },
        make("header", {}, this.#state, this.#about),
        make("h2", {}, "Limits"),
        this.#bars,
        make("h2", {}, "The last hour"),
        this.#hour.element,
        make("h2", {}, "Data and programs"),
        this.#tables,
      ),
    );
  }

  /** @param {Box} box */
  draw(box) {
    this.#about.textContent = `Whimbrel ${box.version}, running for ${duration(box.uptime_s)}`;
    this.#hour.draw(box);
    this.#bars.replaceChildren(...bars(box.bounded));
    this.#tables.replaceChildren(...[decoders, refusals, programs, quarantine].map((part) => make("section", { className: "card" }, part(box))));
  }

  /** @param {{status: string, reasons: string[]}} readiness */
  drawReadiness({ status, reasons }) {
    const isReady = status === "ready";
    this.#state.dataset.state = isReady ? "ready" : "bad";
    const said = reasons.map((reason) => make("li", {}, reason));
    this.#replace(this.#state, make("p", { className: "title" }, isReady ? "Ready" : "Not ready"), said.length ? make("ul", {}, ...said) : null);
  }

  /** @param {string} sentence the reason why no new data is shown */
  fail(sentence) {
    this.#state.dataset.state = "bad";
    this.#replace(this.#state, make("p", { className: "title" }, sentence));
  }

  /** Replace only changed elements, so that screen readers announce only changes. */
  #replace(parent, ...children) {
    const found = children.filter((child) => child !== null);
    if (parent.textContent !== found.map((child) => child.textContent).join("")) parent.replaceChildren(...found);
  }
}
