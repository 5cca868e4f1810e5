/** Which devices the list and the map are narrowed to. */

/**
 * Whether a device is shown.
 *
 * @param {import("./fleet.js").Device} device
 * @param {Readonly<import("./state.js").Shown>} shown
 */
export function isWanted(device, { search, only }) {
  return (!only || device.state === only) && (!search || device.id.toLowerCase().includes(search.toLowerCase()));
}
