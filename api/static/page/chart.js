/** The chart below the map: speed or an attribute of the devices over time. A click sets the moment, a drag zooms. */

import uPlot from "../uplot/uPlot.esm.js";
import { SERIES } from "./lines.js";
import { make } from "./dom.js";
import { colour, onTheme } from "./theme.js";
import { tick } from "./times.js";

const CLICK_PX = 3;
const AXIS_FONT = "11px system-ui, sans-serif";
const AXIS_PX = 46;

/** A single moment stands in the middle of twice as many seconds: an axis of uPlot's own would have 1,000 days. */
const LONE_S = 300;

/** How uPlot joins series: a gap reaches over moments at which only other devices have records. */
const [KEEP, WIDEN] = [1, 2];

export class Chart {
  /** @type {any} uPlot's own chart, null while there is nothing to draw */
  plot = null;
  #container;
  #now = make("div", { className: "now", "aria-hidden": "true" });
  #seek;
  #zoomed;
  #hovered;
  #atMs = 0;

  /**
   * @param {HTMLElement} container
   * @param {object} told
   * @param {(atMs: number) => void} told.seek a moment was clicked
   * @param {(isZoomed: boolean) => void} told.zoomed
   * @param {(atMs: number | null) => void} told.hovered the pointer is at a moment, or gone
   */
  constructor(container, { seek, zoomed, hovered }) {
    this.#container = container;
    this.#seek = seek;
    this.#zoomed = zoomed;
    this.#hovered = hovered;
    new ResizeObserver(() => this.plot?.setSize(this.#size())).observe(container);
    onTheme(() => this.plot?.redraw(false));
  }

  /**
   * Draw what courses say of a name, as `Course.series` has it.
   *
   * @param {import("./course.js").Course[]} courses
   * @param {string} name
   * @param {string} title what people call it
   * @param {{startMs: number, endMs: number}} range
   */
  show(courses, name, title, { startMs, endMs }) {
    this.plot?.destroy();
    this.plot = null;
    const drawn = courses.map((course, order) => ({ order, id: course.id, data: course.series(name) })).filter(({ data }) => data[0].length);
    this.#zoomed(false);
    this.#container.setAttribute("aria-label", `Chart: ${title} of ${drawn.map(({ id }) => id).join(", ") || "no device"}`);
    if (!drawn.length) return;
    const [from, to] = [startMs / 1_000, endMs / 1_000];
    const data = drawn.length > 1 ? uPlot.join(drawn.map((one) => one.data), drawn.map(() => [KEEP, WIDEN])) : drawn[0].data;
    const options = {
      ...this.#size(),
      legend: { show: false },
      padding: [8, 12, 0, 0],
      cursor: { y: false, drag: { x: true, y: false }, points: { size: 7 } },
      scales: { x: { range: (plot, least, most) => (least === null || plot.data[0].length < 2 ? [from - LONE_S, to + LONE_S] : [least, most]) } },
      axes: [axis({ size: 26, values: (_plot, at, _axis, _space, stepS) => at.map((s) => tick(s * 1_000, stepS)) }), axis({ size: AXIS_PX })],
      series: [{}, ...drawn.map((one, place) => series(one, lone(data[place + 1])))],
      hooks: {
        draw: [() => this.#place()],
        setScale: [(plot, key) => key === "x" && this.#zoomed(isZoomed(plot))],
        setCursor: [(plot) => this.#hovered(plot.cursor.left >= 0 ? plot.posToVal(plot.cursor.left, "x") * 1_000 : null)],
      },
    };
    this.plot = new uPlot(options, data, this.#container);
    this.plot.over.append(this.#now);
    this.#listen();
  }

  /** Show the whole range again. */
  showAll() {
    const { plot } = this;
    if (plot) plot.setScale("x", { min: plot.data[0][0], max: plot.data[0].at(-1) });
  }

  /** @param {number} atMs */
  setMoment(atMs) {
    this.#atMs = atMs;
    this.#place();
  }

  #place() {
    if (!this.plot) return;
    const leftPx = this.plot.valToPos(this.#atMs / 1_000, "x");
    const isInside = leftPx >= 0 && leftPx <= this.plot.over.clientWidth;
    this.#now.hidden = !isInside;
    if (isInside) this.#now.style.transform = `translateX(${leftPx}px)`;
  }

  #listen() {
    const { over } = this.plot;
    let downPx = 0;
    over.addEventListener("pointerdown", (event) => (downPx = event.clientX));
    over.addEventListener("click", (event) => {
      if (Math.abs(event.clientX - downPx) > CLICK_PX) return;
      this.#seek(this.plot.posToVal(event.clientX - over.getBoundingClientRect().left, "x") * 1_000);
    });
  }

  #size() {
    return { width: Math.max(this.#container.clientWidth, 100), height: Math.max(this.#container.clientHeight, 60) };
  }
}

const isZoomed = ({ data: [times], scales: { x } }) => x.min > times[0] + 0.001 || x.max < times.at(-1) - 0.001;

const axis = (more) => ({
  stroke: () => colour("soft"),
  grid: { stroke: () => colour("line"), width: 1 },
  ticks: { stroke: () => colour("line"), width: 1, size: 4 },
  font: AXIS_FONT,
  ...more,
});

const series = ({ order, id }, alone) => ({
  label: id,
  stroke: () => colour(`device-${order % SERIES}`),
  width: 1.5,
  points: { show: true, size: 4, fill: () => colour(`device-${order % SERIES}`), filter: () => alone },
  spanGaps: false,
});

/** Where values stand between two gaps, of which no line can be drawn. */
function lone(values) {
  const found = [];
  let [isBehindGap, last] = [true, -1];
  const end = () => last >= 0 && isBehindGap && found.push(last);
  values.forEach((value, index) => {
    if (value === undefined) return; // another device's moment
    if (value === null) {
      end();
      [isBehindGap, last] = [true, -1];
    } else {
      isBehindGap &&= last < 0;
      last = index;
    }
  });
  end();
  return found;
}
