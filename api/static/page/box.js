/** Box: how the box itself is. */

/** @param {import("./main.js").Context} _context */
export function start(_context) {
  // context.tabs.show("box") once there is something in it
}
