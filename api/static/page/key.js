/** The dialog that asks for a key. */

import { element } from "./dom.js";

/**
 * Ask until a key is given.
 *
 * @param {string} why what was wrong with the last one; empty if there was none
 * @returns {Promise<string>}
 */
export function askForKey(why) {
  const dialog = element("key");
  const input = element("key-text");
  element("key-why").textContent = why || "Whoever runs it makes keys: whimbrel keys create --scope read";
  input.value = "";
  dialog.showModal();
  return new Promise((given) => {
    const form = dialog.querySelector("form");
    const refuse = (event) => event.preventDefault(); // Escape: without a key there is nothing to see
    dialog.addEventListener("cancel", refuse);
    form.addEventListener("submit", function take() {
      const key = input.value.trim();
      if (!key) return;
      form.removeEventListener("submit", take);
      dialog.removeEventListener("cancel", refuse);
      input.value = "";
      given(key);
    });
  });
}
