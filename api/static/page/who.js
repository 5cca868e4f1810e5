/** The person who signed in, and signing out. */

import { element } from "./dom.js";

/**
 * The address of the login page; empty where nobody can sign in, and where the login page sent somebody who has a key.
 *
 * @returns {string}
 */
export function loginPage() {
  if (new URLSearchParams(location.search).get("with") !== "key") return document.body.dataset.login ?? "";
  history.replaceState(null, "", `${location.pathname}${location.hash}`);
  return "";
}

/**
 * Show who is signed in, if anybody is.
 *
 * @param {import("./main.js").Context} context
 */
export async function showWho({ api, notice }) {
  const found = await api.whoIsThere().catch(() => null); // the box does not answer: other parts say so
  if (found === null) return;
  element("who").hidden = false;
  element("who-name").textContent = found.user;
  element("who-name").title = `Signed in as ${found.user}: ${found.scopes.join(", ")}`;
  element("sign-out").addEventListener("click", () => {
    api.signOut().catch((/** @type {Error} */ error) => notice(error.message));
  });
}
