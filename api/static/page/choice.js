/** Whose history is shown, and of which range: fields and buttons, which write into the state. */

import { make } from "./dom.js";
import { DAY_MS, HOUR_MS, iso, midnight, parse, toField, zone } from "./times.js";

/** So many devices at once: more lines can't be told from one another. */
export const MOST_DEVICES = 8;

const MOST_OFFERED = 8;
const collator = new Intl.Collator("en", { numeric: true });

/** @type {Array<[string, (nowMs: number) => [startMs: number, endMs: number]]>} */
const PRESETS = [
  ["Last hour", (now) => [now - HOUR_MS, now]],
  ["Today", (now) => [midnight(now), midnight(now, 1)]],
  ["Yesterday", (now) => [midnight(now, -1), midnight(now)]],
  ["7 days", (now) => [midnight(now, -6), midnight(now, 1)]],
];

/**
 * The form above what is shown of the past.
 *
 * @param {import("./main.js").Context} context
 */
export function choice({ state, fleet, api }) {
  return [picker(state, fleet), range(state, () => api.now())];
}

/** Set a range; moments are whole seconds, as the fields for them have it. */
export function setRange(state, startMs, endMs) {
  const whole = (ms) => iso(Math.floor(ms / 1_000) * 1_000);
  state.set({ start: whole(startMs), end: whole(endMs), moment: "" }, { isStep: true });
}

function picker(state, fleet) {
  const chips = make("ul", { className: "chosen", "aria-label": "Devices that are shown" });
  const input = make("input", {
    type: "text", id: "history-device", autocomplete: "off", spellcheck: false, placeholder: "Add a device…",
    role: "combobox", "aria-expanded": "false", "aria-controls": "history-offered", "aria-autocomplete": "list",
  });
  const offered = make("ul", { id: "history-offered", role: "listbox", hidden: true, "aria-label": "Devices" });
  const full = make("p", { className: "soft", hidden: true }, `${MOST_DEVICES} devices are shown at most.`);

  const add = (id) => {
    const { devices } = state.shown;
    input.value = "";
    close();
    if (id && !devices.includes(id) && devices.length < MOST_DEVICES) state.set({ devices: [...devices, id] }, { isStep: true });
  };
  const close = () => {
    offered.hidden = true;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const activate = (option) => {
    for (const other of offered.children) other.setAttribute("aria-selected", String(other === option));
    input.setAttribute("aria-activedescendant", option.id);
    option.scrollIntoView({ block: "nearest" });
  };
  const active = () => offered.querySelector('[aria-selected="true"]');
  let isWaiting = false;
  const offer = () => {
    isWaiting = !fleet.devices.size;
    const found = matching(fleet, input.value, state.shown);
    offered.replaceChildren(...found.map((id, order) => option(id, order, add)));
    offered.hidden = !found.length;
    input.setAttribute("aria-expanded", String(found.length > 0));
    input.removeAttribute("aria-activedescendant");
  };
  const step = (by) => {
    if (offered.hidden) offer();
    const all = [...offered.children];
    if (all.length) activate(all[(all.indexOf(active()) + by + all.length + (by < 0 && !active() ? 1 : 0)) % all.length]);
  };
  fleet.on(() => isWaiting && document.activeElement === input && offer());
  input.addEventListener("input", offer);
  input.addEventListener("focus", offer);
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    const act = { ArrowDown: () => step(1), ArrowUp: () => step(-1), Escape: close, Enter: () => add(active()?.textContent ?? input.value.trim()) }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });

  const draw = () => {
    const { devices } = state.shown;
    chips.replaceChildren(...devices.map((id, order) => chip(id, order, () => state.set({ devices: devices.filter((one) => one !== id) }, { isStep: true }))));
    chips.hidden = !devices.length;
    full.hidden = devices.length < MOST_DEVICES;
    input.disabled = devices.length >= MOST_DEVICES;
  };
  state.on(["devices"], draw);
  draw();
  const label = make("label", { htmlFor: "history-device" }, "Devices");
  return make("div", { className: "field" }, label, chips, make("div", { className: "combo" }, input, offered), full);
}

/** Ids that contain a text: first the device that is chosen in the list, then those that begin with it. */
function matching(fleet, text, { devices, device }) {
  const wanted = text.trim().toLowerCase();
  const found = [...fleet.devices.keys()].filter((id) => id.toLowerCase().includes(wanted) && !devices.includes(id));
  const place = (id) => (id === device ? 0 : id.toLowerCase().startsWith(wanted) ? 1 : 2);
  return found.sort((one, other) => place(one) - place(other) || collator.compare(one, other)).slice(0, MOST_OFFERED);
}

function option(id, order, add) {
  const found = make("li", { id: `history-offered-${order}`, role: "option", "aria-selected": "false" }, id);
  found.addEventListener("pointerdown", (event) => {
    event.preventDefault(); // the field keeps the focus
    add(id);
  });
  return found;
}

function chip(id, order, remove) {
  const button = make("button", { type: "button", title: "Leave out", "aria-label": `Leave out ${id}` }, "×");
  button.addEventListener("click", remove);
  return make("li", { "data-series": order % MOST_DEVICES }, make("span", { className: "dot" }), make("span", { className: "name", title: id }, id), button);
}

function range(state, now) {
  const from = make("input", { type: "datetime-local", id: "history-from", step: 1, required: true });
  const to = make("input", { type: "datetime-local", id: "history-to", step: 1, required: true });
  const wrong = make("p", { className: "bad", role: "alert", hidden: true }, "The range needs a start, and an end after it.");
  const take = () => {
    const [startMs, endMs] = [parse(from.value), parse(to.value)];
    wrong.hidden = endMs > startMs;
    if (endMs > startMs && toField(parse(state.shown.start)) + toField(parse(state.shown.end)) !== toField(startMs) + toField(endMs)) {
      setRange(state, startMs, endMs);
    }
  };
  for (const field of [from, to]) field.addEventListener("change", take);

  const presets = PRESETS.map(([name, of]) => {
    const button = make("button", { type: "button", "aria-pressed": "false" }, name);
    button.addEventListener("click", () => setRange(state, ...of(now())));
    return { button, of };
  });
  const draw = () => {
    const [startMs, endMs] = [parse(state.shown.start), parse(state.shown.end)];
    from.value = Number.isNaN(startMs) ? "" : toField(startMs);
    to.value = Number.isNaN(endMs) ? "" : toField(endMs);
    const isEmpty = !state.shown.start && !state.shown.end;
    wrong.hidden = isEmpty || endMs > startMs;
    for (const { button, of } of presets) {
      const [first, last] = of(now());
      const isIt = endMs - startMs >= DAY_MS / 2 && first === startMs && last === endMs;
      button.setAttribute("aria-pressed", String(isIt));
    }
  };
  state.on(["start", "end"], draw);
  draw();
  return make("div", { className: "field" },
    make("div", { className: "presets", role: "group", "aria-label": "Range" }, ...presets.map(({ button }) => button)),
    make("div", { className: "range" },
      make("label", { htmlFor: "history-from" }, "From"), from,
      make("label", { htmlFor: "history-to" }, "To"), to),
    wrong,
    make("p", { className: "soft" }, `Times are those of this browser: ${zone()}.`));
}
