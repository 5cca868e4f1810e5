/** Elements of the page. Text goes in as text alone: no part of the page makes elements of markup. */

/**
 * The element of the template with this id.
 *
 * @param {string} id
 * @returns {any}
 */
export const element = (id) => document.getElementById(id);

/**
 * A new element: `make("p", {className: "soft"}, "so", " many")`. Properties that are null are left out; those whose
 * name has a dash, and `role`, are attributes.
 *
 * @param {string} name
 * @param {Record<string, any>} [properties]
 * @param {...(Node | string | null)} children
 * @returns {any}
 */
export function make(name, properties = {}, ...children) {
  const found = document.createElement(name);
  for (const [property, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (property === "role" || property.includes("-")) found.setAttribute(property, String(value));
    else found[property] = value;
  }
  found.append(...children.filter((child) => child !== null));
  return found;
}
