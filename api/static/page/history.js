/** History: what devices did, back in time. */

/** @param {import("./main.js").Context} _context */
export function start(_context) {
  // context.tabs.show("history") once there is something in it
}
