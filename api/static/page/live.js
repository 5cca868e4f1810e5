/**
 * Reads /v1/live: first the newest state of all devices, then changes.
 *
 * EventSource cannot send a key, so the stream is read with fetch, by the rules of server-sent events (WHATWG HTML, 9.2).
 */

import { noteAnswer, showConnection, showLost } from "./connection.js";
import { element } from "./dom.js";

const INTERVAL_MS = 500;
const SILENCE_MS = 40_000; // the box sends a heartbeat every 15 s
const HIDDEN_MS = 10_000;
const LEAST_WAIT_MS = 1_000;
const MOST_WAIT_MS = 30_000;

/**
 * Read changes as long as the page is open.
 *
 * @param {import("./main.js").Context} context
 */
export async function follow({ api, fleet }) {
  let seen = "";
  let waitMs = LEAST_WAIT_MS;
  for (;;) {
    await visible();
    let problem = "";
    const opened = () => learnWhetherEmpty(api, fleet);
    try {
      await read(api, seen, opened, (event) => {
        waitMs = LEAST_WAIT_MS;
        seen = event.id || seen;
        if (!event.data) return;
        const { records, gone } = JSON.parse(event.data);
        fleet.take(records);
        if (gone) fleet.forget(gone);
      });
    } catch (error) {
      if (error.status === 403) {
        showConnection("refused");
        await api.askForAnother(error);
        continue;
      }
      if (error.name === "ApiError") problem = error.message;
    }
    showLost(problem);
    await new Promise((go) => setTimeout(go, waitMs * (0.75 + Math.random() / 2)));
    waitMs = Math.min(waitMs * 2, MOST_WAIT_MS);
  }
}

/** Read one stream until it ends, fails, or sends nothing for too long. */
async function read(api, seen, opened, take) {
  const ending = new AbortController();
  const stay = leaveWhenUnseen(() => ending.abort());
  let silence = 0;
  const heard = () => {
    noteAnswer();
    clearTimeout(silence);
    silence = setTimeout(() => ending.abort(), SILENCE_MS);
  };
  try {
    const headers = { Accept: "text/event-stream", ...(seen && { "Last-Event-ID": seen }) };
    const response = await api.get("/v1/live", { interval_ms: INTERVAL_MS }, { headers, signal: ending.signal });
    element("forget-key").hidden = !api.hasKey;
    showConnection("live");
    heard();
    opened();
    for await (const event of events(response.body, heard)) take(event);
  } finally {
    clearTimeout(silence);
    stay();
  }
}

/** Ask the box whether it has devices: without devices, the stream sends nothing. */
async function learnWhetherEmpty(api, fleet) {
  if (fleet.isLoaded) return;
  try {
    const { records } = await api.json("/v1/latest", { limit: 1 });
    if (!records.length) fleet.take([]);
  } catch {
    // the stream reports the error, or is opened again
  }
}

/**
 * Of one box a browser keeps six connections, however many tabs it has: a page that nobody sees leaves its own to others,
 * and one that is kept for Back has none. Returns what ends that.
 */
function leaveWhenUnseen(leave) {
  let leaving = 0;
  const look = () => {
    clearTimeout(leaving);
    if (document.hidden) leaving = setTimeout(leave, HIDDEN_MS);
  };
  document.addEventListener("visibilitychange", look);
  addEventListener("pagehide", leave);
  return () => {
    clearTimeout(leaving);
    document.removeEventListener("visibilitychange", look);
    removeEventListener("pagehide", leave);
  };
}

/** Resolves when the page is visible. */
async function visible() {
  while (document.hidden) {
    showConnection("paused");
    await new Promise((seen) => document.addEventListener("visibilitychange", seen, { once: true }));
  }
}

/** The events of a stream. */
async function* events(body, heard) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    heard();
    const parts = (rest + value).split("\n\n");
    rest = parts.pop() ?? "";
    for (const part of parts) yield event(part);
  }
}

/** @param {string} part the lines of one event */
function event(part) {
  const found = { id: "", data: "" };
  for (const line of part.split("\n")) {
    if (line.startsWith("data: ")) found.data += line.slice(6);
    else if (line.startsWith("id: ")) found.id = line.slice(4);
  }
  return found;
}
