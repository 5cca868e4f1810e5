/** Colours of what is drawn on canvases; they stand in page.css, light and dark, and nowhere else. */

const dark = matchMedia("(prefers-color-scheme: dark)");

/**
 * A colour of page.css: `colour("moving")` is `--moving`.
 *
 * @param {string} name
 */
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/**
 * Draw now, and again when the colours change.
 *
 * @param {() => void} draw
 */
export function onTheme(draw) {
  dark.addEventListener("change", draw);
  draw();
}
