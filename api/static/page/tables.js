/** The box's decoders, refusals and programs, as tables. */

import { make } from "./dom.js";
import { bytes, duration, whole } from "./units.js";

/**
 * A table. The first cell of a row is its header; numbers are aligned right.
 *
 * @param {string} caption
 * @param {string[]} head
 * @param {Array<Array<string | Node>>} rows
 * @param {number} texts number of columns with text
 */
function table(caption, head, rows, texts) {
  const cell = (name, value, at) => make(name, { className: at < texts ? null : "number", scope: name === "th" ? "row" : null }, value);
  const body = rows.map((row) => make("tr", {}, ...row.map((value, at) => cell(at === 0 ? "th" : "td", value, at))));
  const heads = head.map((text, at) => make("th", { scope: "col", className: at < texts ? null : "number" }, text));
  return make(
    "div",
    { className: "scroll", tabIndex: 0, role: "region", "aria-label": caption },
    make("table", {}, make("caption", {}, caption), make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...body)),
  );
}

const nothing = (title, words) => make("div", {}, make("h3", {}, title), make("p", { className: "soft" }, words));

/** @param {import("./box.js").Box} box */
export function decoders({ decoders: found }) {
  if (!found.length) return nothing("Records by decoder", "No data since the programs started.");
  const count = (value) => make("span", { className: value ? "some" : null }, whole(value));
  const rows = found.map((one) => [
    one.protocol,
    one.transport,
    whole(one.last_hour_records),
    count(one.last_hour_rejected),
    whole(one.records),
    count(one.rejected),
  ]);
  return table("Records by decoder", ["Protocol", "Over", "Last hour", "Refused", "Since start", "Refused"], rows, 2);
}

/** @param {import("./box.js").Box} box */
export function refusals({ refused }) {
  if (refused === null) return nothing("Refused", "Not known: Redis does not answer.");
  const found = Object.entries(refused).sort(([, a], [, b]) => b - a);
  if (!found.length) return nothing("Refused", "Nothing was refused yet.");
  return table("Refused, since the box was set up", ["Reason", "Times"], found.map(([reason, times]) => [reason, whole(times)]), 1);
}

/** @param {import("./box.js").Box} box */
export function programs({ programs: found }) {
  const rows = found.map((one) => [
    found.some((other) => other.program === one.program && other.process) ? `${one.program} ${one.process}` : one.program,
    make("span", { className: one.is_up ? "up" : "down" }, one.is_up ? "up" : "silent"),
    duration(one.uptime_s),
    bytes(one.memory_bytes),
  ]);
  return table("Programs", ["Program", "State", "Runs for", "Memory"], rows, 2);
}

/** @param {import("./box.js").Box} box */
export function quarantine({ quarantine: found }) {
  if (found === null) return nothing("Quarantine", "Not known: Redis does not answer.");
  if (!found.quarantined) return nothing("Quarantine", "Empty: all data could be saved.");
  const { quarantined, replayed, dropped, size_bytes: size } = found;
  const words = `${whole(quarantined)} could not be saved; ${whole(replayed)} of them were tried again, ${whole(dropped)} dropped. ${bytes(size)} are there: whimbrel quarantine list.`;
  return nothing("Quarantine", words);
}
