/**
 * Files of what is shown: the same devices, range and thinning, written by the box. They are fetched, as a link could
 * carry no key, into a Blob, which the browser keeps on disk if it is big; the page never sees the bytes.
 */

import { make } from "./dom.js";

const FORMATS = /** @type {const} */ ([
  ["GPX", "gpx", "Tracks, for maps and watches: records with a place", {}],
  // Senders choose texts: none of them may be run as a formula.
  ["CSV", "csv", "A table, for spreadsheets", { csv_safe: "true" }],
  ["GeoJSON", "geojson", "Points with all their values, for maps", {}],
  ["Parquet", "parquet", "Typed columns, for DuckDB, pandas and QGIS", {}],
]);
const KEPT_MS = 60_000;

/**
 * A button for each format.
 *
 * @param {import("./api.js").Api} api
 * @param {() => import("./api.js").Parameters} asked parameters of the shown records
 */
export function downloads(api, asked) {
  const said = make("p", { className: "soft", role: "status" });
  const buttons = FORMATS.map(([name, format, title, more]) => {
    const button = make("button", { type: "button", className: "quiet", title, "data-format": format }, name);
    button.addEventListener("click", async () => {
      for (const one of buttons) one.disabled = true;
      said.textContent = `The box writes ${name}…`;
      try {
        said.textContent = `${await download(api, { ...asked(), format, ...more })} is downloaded.`;
      } catch (error) {
        said.textContent = `There is no ${name}. ${error.message}`;
      }
      for (const one of buttons) one.disabled = false;
    });
    return button;
  });
  return [
    make("h2", {}, "Download"),
    make("div", { className: "formats", role: "group", "aria-label": "Download what is shown" }, ...buttons),
    said,
  ];
}

/** Download one file; returns its name. */
async function download(api, parameters) {
  const response = await api.get("/v1/export", parameters);
  const name = /filename="([^"]+)"/.exec(response.headers.get("Content-Disposition") ?? "")?.[1] ?? `whimbrel.${parameters.format}`;
  const href = URL.createObjectURL(await whole(response));
  make("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), KEPT_MS);
  return name;
}

async function whole(response) {
  try {
    return await response.blob();
  } catch {
    throw new Error("The box broke the file off: try again, or choose a shorter range.");
  }
}
