/** Search among all labels: a box with a list under it, by keyboard or pointer. */

import { el, fill, labelled, said } from "./dom.js";
import { count } from "./format.js";

const MAX_SHOWN = 40; // more is not read; one types on
let made = 0;

/**
 * A box that finds a label.
 *
 * `labels()`: names and descriptions as `/v1/model` gives them. `choose(label)` is called with a name, or
 * with null for none of them where `none` allows it. `leave()` is called on Escape.
 */
export function picker({
  labels,
  choose,
  leave = () => {},
  none = true,
  hint = "Search all labels",
}) {
  made += 1;
  const list = el("ul", {
    class: "options",
    role: "listbox",
    id: `options-${made}`,
    "aria-label": "Labels",
  });
  const box = el("input", {
    type: "text",
    role: "combobox",
    autocomplete: "off",
    spellcheck: "false",
    placeholder: hint,
    "aria-label": hint,
    "aria-controls": list.id,
    "aria-expanded": "true",
    "aria-autocomplete": "list",
  });
  let found = [];
  let at = 0;

  function show() {
    const all = matching(labels(), box.value);
    found = all.slice(0, MAX_SHOWN).map((one) => one.label);
    if (none && !box.value.trim()) found.unshift(null);
    at = 0;
    const more = all.length - Math.min(all.length, MAX_SHOWN);
    fill(
      list,
      found.map((label, index) => option(label, index)),
      found.length
        ? null
        : el("li", { class: "option-note", role: "presentation" }, "No label has these words."),
      more
        ? el(
            "li",
            { class: "option-note", role: "presentation" },
            `and ${count(more)} more: type on`,
          )
        : null,
    );
    mark();
  }

  function option(label, index) {
    const about = label === null ? "" : labels().find((one) => one.label === label)?.description;
    return el(
      "li",
      {
        role: "option",
        id: `${list.id}-${index}`,
        pointerdown: (event) => event.preventDefault(),
        click: () => choose(label),
      },
      labelled(label),
      about ? said(about, "small") : null,
    );
  }

  function mark() {
    const options = [...list.querySelectorAll("[role=option]")];
    options.forEach((one, index) => one.setAttribute("aria-selected", String(index === at)));
    options[at]?.scrollIntoView({ block: "nearest" });
    options.length
      ? box.setAttribute("aria-activedescendant", options[at].id)
      : box.removeAttribute("aria-activedescendant");
  }

  box.addEventListener("input", show);
  box.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8 }[event.key];
    if (step && found.length) at = Math.min(found.length - 1, Math.max(0, at + step));
    else if (event.key === "Enter" && found.length) choose(found[at]);
    else if (event.key === "Escape") leave();
    else return;
    event.preventDefault();
    event.stopPropagation();
    if (step) mark();
  });
  show();
  const root = el("div", { class: "picker" }, box, list);
  return { root, focus: () => box.focus() };
}

/** Labels with all the words; where a name begins with them, first. */
function matching(labels, words) {
  const wanted = words
    .toLowerCase()
    .split(/[\s_]+/)
    .filter(Boolean);
  if (!wanted.length) return labels;
  const rank = ({ label }) =>
    label.toLowerCase().startsWith(wanted.join("_")) ||
    label.toLowerCase().startsWith(wanted.join(" "))
      ? 0
      : label.toLowerCase().includes(wanted[0])
        ? 1
        : 2;
  return labels
    .filter(({ label, description }) =>
      wanted.every((word) => `${label} ${description}`.toLowerCase().includes(word)),
    )
    .sort((a, b) => rank(a) - rank(b));
}
