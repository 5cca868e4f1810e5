/** Messages of History: progress of reading, what is shown and what is omitted, and errors. */

import { MOST_DEVICES } from "./choice.js";
import { make } from "./dom.js";
import { midnight } from "./times.js";
import { inSentence, moment } from "./words.js";

const count = (number) => number.toLocaleString("en");

export class Said {
  element = make("div", { className: "said", role: "status" });
  #again;
  #show;
  #bar = make("progress", { max: 1, value: 0, "aria-label": "Records that are read" });
  #words = make("span");
  #heard = make("p", { hidden: true }, "New records have arrived. ");
  /** The time when each device was last seen before reading began, by the box's clock. */
  #seenMs = new Map();

  /**
   * @param {object} act
   * @param {() => void} act.again reads all again
   * @param {(startMs: number, endMs: number) => void} act.show shows another range
   */
  constructor({ again, show }) {
    this.#again = again;
    this.#show = show;
    this.#heard.append(button("Load again", again));
  }

  /** Ask for a device if none is selected. */
  ask() {
    this.element.replaceChildren(paragraph("Add a device above, or choose one in the tab Fleet, to see where it was."));
  }

  /** Show nothing; another part of the page shows the reason. */
  clear() {
    this.element.replaceChildren();
  }

  /**
   * @param {import("./fleet.js").Fleet} fleet
   * @param {string[]} devices
   * @param {() => void} stop
   */
  reading(fleet, devices, stop) {
    this.#seenMs.clear();
    this.#note(fleet, devices);
    this.progress(0, 0);
    this.element.replaceChildren(make("p", {}, this.#words), make("div", { className: "progress" }, this.#bar, button("Stop", stop)));
  }

  /**
   * @param {number} done
   * @param {number} of
   */
  progress(done, of) {
    this.#bar.value = of ? done / of : 0;
    this.#words.textContent = of ? `Reading ${count(done)} of ${count(of)} records…` : "Looking for records…";
  }

  /**
   * @param {import("./past.js").Past} past
   * @param {Map<string, number>} newest for devices without records in this range, the time of their newest record, ms
   * @param {number} wanted number of requested devices
   * @param {import("./fleet.js").Fleet} fleet
   */
  read(past, newest, wanted, fleet) {
    this.#heard.hidden = true;
    this.#note(fleet, past.courses.map(({ id }) => id)); // it may not have been known when reading began
    const without = past.courses.filter((course) => !course.times.length);
    const late = past.courses.reduce((all, course) => all + course.late, 0);
    this.element.replaceChildren(
      ...(past.shown ? [paragraph(shown(past))] : []),
      ...(past.isStopped ? [paragraph(`Stopped: only records before ${moment(past.endMs)} are shown, and downloaded.`)] : []),
      ...(late ? [paragraph(`${late === past.shown ? "All" : count(late)} arrived more than 10 min after they were measured.`)] : []),
      ...(past.implausible ? [paragraph(notDrawn(past.implausible))] : []),
      ...(wanted > MOST_DEVICES ? [paragraph(`The first ${MOST_DEVICES} of ${wanted} devices are shown.`)] : []),
      ...without.map((course) => this.#nothingOf(course.id, newest.get(course.id), past)),
      this.#heard,
    );
  }

  /** @param {Error} error */
  failed(error) {
    this.element.replaceChildren(paragraph(error.message, "bad"), button("Try again", this.#again));
  }

  /** Offer to load again if a shown device has sent new records. */
  heard(past, changed, fleet) {
    const ids = past.courses.map(({ id }) => id).filter((id) => changed.has(id));
    this.#note(fleet, ids);
    if (ids.some((id) => fleet.devices.get(id)?.seenMs > this.#seenMs.get(id))) this.#heard.hidden = false;
  }

  /** Store the time when each device was last seen, if it is not known yet. */
  #note(fleet, ids) {
    for (const id of ids) {
      const seenMs = fleet.devices.get(id)?.seenMs;
      if (seenMs !== undefined && !this.#seenMs.has(id)) this.#seenMs.set(id, seenMs);
    }
  }

  #nothingOf(id, newestMs, { isStopped }) {
    if (isStopped) return paragraph(`No records of ${inSentence(id)} were read yet.`);
    if (newestMs === undefined) return paragraph(`There is no device ${inSentence(id)}.`);
    const said = paragraph(`There are no records of ${inSentence(id)} in this range. Its newest record is from ${moment(newestMs)}. `);
    said.append(button("Show that day", () => this.#show(midnight(newestMs), midnight(newestMs, 1))));
    return said;
  }
}

function shown({ total, shown, every, courses }) {
  const devices = courses.filter((course) => course.times.length).length;
  const whose = devices === 1 ? "" : ` of ${devices} devices`;
  if (!every) return `${count(shown)} ${shown === 1 ? "record" : "records"}${whose}.`;
  return `${count(shown)} of ${count(total)} records${whose}: the first of each device in each ${every}. A shorter range shows all.`;
}

function notDrawn(implausible) {
  const positions = implausible === 1 ? "implausible position is" : "implausible positions are";
  return `${count(implausible)} ${positions} not drawn: jumps, bad accuracy, or 0/0. Downloads as CSV and Parquet have all.`;
}

const paragraph = (text, className = "") => make("p", { className }, text);

function button(text, act) {
  const found = make("button", { type: "button", className: "quiet" }, text);
  found.addEventListener("click", act);
  return found;
}
