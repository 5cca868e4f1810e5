/** The signed-in user, and signing out. */

import { element } from "./dom.js";

/**
 * The URL of the login page; empty if sign-in is off, or if the user chose on the login page to use a key.
 *
 * @returns {string}
 */
export function loginPage() {
  if (new URLSearchParams(location.search).get("with") !== "key") return document.body.dataset.login ?? "";
  history.replaceState(null, "", `${location.pathname}${location.hash}`);
  return "";
}

/**
 * Show the signed-in user, if any.
 *
 * @param {import("./main.js").Context} context
 */
export async function showWho({ api, notice }) {
  const found = await api.whoIsThere().catch(() => null); // the box does not respond: other parts report it
  if (found === null) return;
  element("who").hidden = false;
  element("who-name").textContent = found.user;
  element("who-name").title = `Signed in as ${found.user}: ${found.scopes.join(", ")}`;
  element("sign-out").addEventListener("click", () => {
    api.signOut().catch((/** @type {Error} */ error) => notice(error.message));
  });
}
