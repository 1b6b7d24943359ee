/** Asks the person for the endpoint's token: once, however many calls wait for it. */

import { byId } from "./dom.js";

let asking = null;

/** The token, or null where the person has none; `words` stand above the field. */
export function askToken(words) {
  asking ??= asked(words).finally(() => (asking = null));
  return asking;
}

function asked(words) {
  const dialog = byId("token-dialog");
  const [form, box] = [dialog.querySelector("form"), byId("token")];
  byId("token-detail").textContent = words;
  box.value = "";
  return new Promise((done) => {
    const end = (token) => {
      form.onsubmit = dialog.onclose = null;
      dialog.close();
      box.value = "";
      done(token);
    };
    form.onsubmit = (event) => {
      event.preventDefault();
      const token = box.value.trim();
      if (token) end(token);
    };
    dialog.querySelector("[value=cancel]").onclick = () => end(null);
    dialog.onclose = () => end(null);
    dialog.showModal();
    box.focus();
  });
}
