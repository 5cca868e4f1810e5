/**
 * The last hour of the box, a small chart for each of its numbers.
 *
 * @typedef {object} Line
 * @property {string} series its name in /v1/box
 * @property {string} name what people call it
 * @property {string} colour of page.css
 *
 * @typedef {object} Subject
 * @property {string} title
 * @property {(value: number | null | undefined) => string} write
 * @property {Line[]} lines
 * @property {boolean} [isPeak] whether of each minute the greatest value is drawn: what rises and falls with each save
 */

import uPlot from "../uplot/uPlot.esm.js";

import { make } from "./dom.js";
import { colour, onTheme } from "./theme.js";
import { bytes, duration, quantity, whole } from "./units.js";

const HOUR_S = 3_600;
const MINUTE_S = 60;
const LEAST_S = 600; // a box that runs for minutes has no empty hour to show
const HEIGHT_PX = 132;
const FONT = "11px system-ui, sans-serif";
const WASH = "26"; // the last two digits of a colour with alpha

const perSecond = (value) => quantity(value, "/s");
const milliseconds = (value) => quantity(value, " ms");

/** @type {Subject[]} */
const SUBJECTS = [
  { title: "Accepted", write: perSecond, lines: [{ series: "accepted_per_s", name: "records", colour: "accent" }] },
  { title: "Refused", write: perSecond, lines: [{ series: "refused_per_s", name: "refused", colour: "bad" }] },
  {
    title: "Until it is on disk",
    write: milliseconds,
    lines: [
      { series: "ack_p50_ms", name: "half within", colour: "accent" },
      { series: "ack_p99_ms", name: "99 % within", colour: "silent" },
    ],
  },
  { title: "Not saved yet, peaks", write: whole, isPeak: true, lines: [{ series: "unsaved_records", name: "records", colour: "accent" }] },
  {
    title: "Oldest not saved yet, peaks",
    write: duration,
    isPeak: true,
    lines: [{ series: "unsaved_age_s", name: "age", colour: "accent" }],
  },
  { title: "Files of the open day", write: whole, lines: [{ series: "open_day_files", name: "files", colour: "accent" }] },
  { title: "Redis memory", write: bytes, lines: [{ series: "redis_memory_bytes", name: "used", colour: "accent" }] },
  { title: "Free on disk", write: bytes, lines: [{ series: "disk_free_bytes", name: "free", colour: "accent" }] },
];

/** All charts. They fit their frames and are drawn anew when those, the numbers or the colours change. */
export class Hour {
  #charts = SUBJECTS.map((subject) => new Chart(subject));

  /** The element to be shown. */
  element = make("div", { className: "hour" }, ...this.#charts.map((chart) => chart.element));

  constructor() {
    onTheme(() => this.#charts.forEach((chart) => chart.repaint()));
    new ResizeObserver(() => this.#charts.forEach((chart) => chart.fit())).observe(this.element);
  }

  /** @param {import("./box.js").Box} box */
  draw({ times, series, interval_s: intervalS }) {
    const seconds = times.map((time) => Date.parse(time) / 1000);
    for (const chart of this.#charts) chart.draw(seconds, series, intervalS);
  }
}

class Chart {
  #subject;
  #plot = null;
  /** @type {Array<Array<number | null>>} */
  #data = [];
  #values = make("p", { className: "values" });
  #frame = make("div", { className: "plot", role: "img" });

  /** @param {Subject} subject */
  constructor(subject) {
    this.#subject = subject;
    this.element = make("section", { className: "card" }, make("h3", {}, subject.title), this.#values, this.#frame);
  }

  draw(seconds, series, intervalS) {
    const values = this.#subject.lines.map((line) => series[line.series]);
    const columns = [seconds, ...values];
    this.#data = this.#subject.isPeak ? withGaps(peaks(columns), 2.5 * MINUTE_S) : withGaps(columns, 2.5 * intervalS);
    if (this.#plot) this.#plot.setData(this.#data);
    else this.fit();
    this.#say(this.#data[0].length - 1);
  }

  /** Take the width that there is. */
  fit() {
    const width = this.#frame.clientWidth;
    if (!width || !this.#data.length) return;
    if (this.#plot) this.#plot.setSize({ width, height: HEIGHT_PX });
    else this.repaint();
  }

  /** Make the chart anew, in the colours that are now. */
  repaint() {
    const width = this.#frame.clientWidth;
    if (!width || !this.#data.length) return;
    this.#plot?.destroy();
    this.#plot = new uPlot(this.#options(width), this.#data, this.#frame);
  }

  #options(width) {
    const { lines, write } = this.#subject;
    const axis = { stroke: colour("soft"), font: FONT, ticks: { show: false }, grid: { stroke: colour("line"), width: 1 } };
    return {
      width,
      height: HEIGHT_PX,
      padding: [8, 14, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
      scales: {
        x: { range: (_, first, last) => [Math.max(last - HOUR_S, Math.min(first ?? 0, last - LEAST_S)), last ?? 0] },
        y: { range: (_, __, most) => [0, most > 0 ? most * 1.15 : 1] },
      },
      axes: [
        { ...axis, grid: { show: false }, values: (_, found) => found.map(clock), space: 70, size: 22 },
        { ...axis, values: (_, found) => found.map(write), space: 36, size: 54 },
      ],
      series: [{}, ...lines.map((line, at) => look(line, at))],
      hooks: { setCursor: [(plot) => this.#say(plot.cursor.idx ?? this.#data[0].length - 1)] },
    };
  }

  /** The values at a moment, in words: those under the pointer, else the last. */
  #say(at) {
    const { lines, write, title } = this.#subject;
    const parts = lines.map((line, number) => ({ line, text: write(this.#data[number + 1][at]) }));
    this.#values.replaceChildren(
      ...parts.map(({ line, text }) =>
        make("span", { "data-colour": line.colour }, make("strong", {}, text), lines.length > 1 ? ` ${line.name}` : null),
      ),
    );
    const isLast = at === this.#data[0].length - 1;
    if (!isLast) this.#values.append(make("time", { className: "soft" }, clock(this.#data[0][at])));
    if (isLast) {
      const said = parts.map(({ line, text }) => `${line.name} ${text}`).join(", ");
      this.#frame.setAttribute("aria-label", `${title} in the last hour; now ${said}`);
    }
  }
}

/** How a line looks; the first one has an area below it. */
function look(line, at) {
  const stroke = colour(line.colour);
  return { stroke, width: 1.75, fill: at === 0 ? stroke + WASH : undefined, points: { show: false }, spanGaps: false };
}

/** Of each minute the last moment and the greatest value. */
function peaks([seconds, values]) {
  /** @type {Map<number, [number, number | null]>} */
  const byMinute = new Map();
  seconds.forEach((at, place) => {
    const minute = Math.floor(at / MINUTE_S);
    const before = byMinute.get(minute)?.[1] ?? null;
    const value = values[place];
    byMinute.set(minute, [at, before === null || value === null ? (before ?? value) : Math.max(before, value)]);
  });
  const found = [...byMinute.values()];
  return [found.map(([at]) => at), found.map(([, value]) => value)];
}

/** Columns with a moment of nothing where the box said nothing for so long, so that no line leads over it. */
function withGaps([seconds, ...columns], longestS) {
  const found = [[], ...columns.map(() => [])];
  seconds.forEach((at, place) => {
    if (place > 0 && at - seconds[place - 1] > longestS) {
      found[0].push(at - 1);
      columns.forEach((_, number) => found[number + 1].push(null));
    }
    found[0].push(at);
    columns.forEach((column, number) => found[number + 1].push(column[place]));
  });
  return found;
}

const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
