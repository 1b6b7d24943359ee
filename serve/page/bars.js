/** Bars of HTML: labels with their confidence. */

import { el, labelled } from "./dom.js";
import { percent } from "./format.js";

/** A track that is filled to a share. */
export const track = (share, kind = "") =>
  el(
    "span",
    { class: `track ${kind}`, "aria-hidden": "true" },
    el("span", { class: "fill", "--share": String(Math.min(1, Math.max(0, share))) }),
  );

/** Rows of label, bar and share; `chosen` marks the first. */
export function bars(entries, { chosen = false } = {}) {
  return el(
    "ul",
    { class: "bars" },
    entries.map(({ label, confidence }, index) =>
      el(
        "li",
        { class: chosen && index === 0 ? "bar chosen" : "bar" },
        el("span", { class: "bar-name" }, labelled(label)),
        track(confidence),
        el("span", { class: "bar-value" }, percent(confidence)),
      ),
    ),
  );
}
