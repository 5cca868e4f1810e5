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
    const take = () => {
      const key = input.value.trim();
      input.value = "";
      if (!key) return dialog.showModal(); // closed without: there is nothing to see
      dialog.removeEventListener("close", take);
      return given(key);
    };
    dialog.addEventListener("close", take);
    dialog.addEventListener("cancel", () => {
      input.value = "";
    });
  });
}
