/**
 * The page, wired from the bottom up.
 *
 * @typedef {object} Context objects that each part of the page uses
 * @property {import("./state.js").State} state the state of the page
 * @property {import("./api.js").Api} api requests
 * @property {import("./fleet.js").Fleet} fleet all devices, now
 * @property {import("./map.js").WorldMap} map the one map, which Fleet and History share
 * @property {import("./tabs.js").Tabs} tabs
 * @property {(sentence: string) => void} notice shows a message for some seconds
 */

import { Api } from "./api.js";
import * as box from "./box.js";
import * as device from "./device.js";
import { element } from "./dom.js";
import { Fleet } from "./fleet.js";
import * as history from "./history.js";
import { askForKey } from "./key.js";
import * as list from "./list.js";
import { follow } from "./live.js";
import { WorldMap } from "./map.js";
import { notice } from "./notice.js";
import * as points from "./points.js";
import { State } from "./state.js";
import { Tabs } from "./tabs.js";
import { loginPage, showWho } from "./who.js";

const state = new State();
const api = new Api(askForKey, loginPage());
const fleet = new Fleet(() => api.now());
const map = new WorldMap(element("map"), state);
const tabs = new Tabs(state);

/** @type {Context} exported for tests, too */
export const context = { state, api, fleet, map, tabs, notice };

for (const part of [list, points, device, history, box]) part.start(context);
tabs.start();
map.start().catch(() => map.fail("This browser can't draw the map: it has no WebGL. The list works without."));
follow(context);
showWho(context);

element("forget-key").addEventListener("click", () => {
  api.forgetKey();
  location.reload();
});
