/** What a person is shown in Review: a text with its candidates, the keys, the end. */

import { track } from "./bars.js";
import { el, labelled, said } from "./dom.js";
import { moment, percent, plural } from "./format.js";
import { known } from "./known.js";
import { picker } from "./picker.js";
import { REASONS } from "./words.js";

const MAX_KEYS = 9;
const WHO = { user: "You", judge: "The judge", model: "The model" };
const LEGEND = [
  [["1–9"], "a candidate"],
  [["0", "n"], "none of the labels"],
  [["/"], "search all labels"],
  [["s"], "skip"],
  [["z"], "back to the last"],
];

/** The labels that a key chooses: candidates, then what else was said. */
export function options(item) {
  const named = new Set(item.candidates.map((one) => one.label));
  const others = item.said.filter(
    (one) => one.label !== null && !named.has(one.label) && named.add(one.label),
  );
  return [
    ...item.candidates,
    ...others.map((one) => ({ label: one.label, confidence: null })),
  ].slice(0, MAX_KEYS);
}

/**
 * A text that waits for a word.
 *
 * `acts`: `answer(label)`, `skip()`, `search()`, `leave()` the search, and `undo()` or null.
 */
export function question(item, isSearching, acts) {
  return el(
    "article",
    { class: "card review-card", "aria-labelledby": "review-text" },
    reason(item),
    said(item.text, "p", { class: "review-text", tabindex: "-1", id: "review-text" }),
    words(item),
    isSearching ? searchBox(acts) : [choices(item, acts), more(acts)],
  );
}

function reason(item) {
  return el(
    "div",
    { class: "reason" },
    item.problem ? el("p", { class: "problem", role: "alert" }, `Not kept: ${item.problem}`) : null,
    item.isAgain
      ? el(
          "p",
          { class: "again" },
          "You said ",
          item.earlier === undefined ? "something" : labelled(item.earlier),
          ". That is kept; another answer replaces it, and ",
          el("kbd", {}, "s"),
          " leaves it.",
        )
      : null,
    el(
      "p",
      { class: "hint" },
      el("span", {}, REASONS[item.reason], item.note ? [" ", said(item.note)] : null),
      item.at ? el("time", { datetime: item.at }, moment(item.at)) : null,
    ),
  );
}

function words(item) {
  if (!item.said.length) return null;
  return el(
    "ul",
    { class: "said" },
    item.said.map((one) =>
      el(
        "li",
        {},
        el("span", {}, `${WHO[one.by] ?? one.by} ${one.by === "user" ? "said" : "says"}`),
        labelled(one.label),
      ),
    ),
  );
}

function choices(item, { answer }) {
  const row = (key, label, ...rest) =>
    el(
      "li",
      {},
      el(
        "button",
        {
          type: "button",
          class: item.isAgain && item.earlier === label ? "choice earlier" : "choice",
          click: () => answer(label),
        },
        el("kbd", {}, key),
        rest,
      ),
    );
  const rows = options(item).map(({ label, confidence }, index) => {
    const about = known.label(label)?.description;
    const by = item.said.filter((one) => one.label === label).map((one) => WHO[one.by]);
    return row(
      String(index + 1),
      label,
      el("span", { class: "choice-name" }, labelled(label), about ? said(about, "small") : null),
      el("span", { class: "choice-by" }, by.join(", ").toLowerCase()),
      confidence === null ? el("span", { class: "track empty" }) : track(confidence),
      el("span", { class: "bar-value" }, confidence === null ? "" : percent(confidence)),
    );
  });
  const none = row("0", null, el("span", { class: "choice-name" }, labelled(null)));
  return el("ol", { class: "choices" }, rows, none);
}

const plain = (name, key, act) =>
  el("button", { type: "button", class: "plain", click: act }, name, el("kbd", {}, key));

function more({ search, skip, undo }) {
  return el(
    "div",
    { class: "more" },
    plain("Another label ", "/", search),
    plain("Skip ", "s", skip),
    undo && plain("Back to the last ", "z", undo),
  );
}

function searchBox({ answer, leave }) {
  const box = picker({ labels: () => known.labels, choose: answer, leave });
  return el(
    "div",
    { class: "search" },
    box.root,
    el(
      "p",
      { class: "hint" },
      el("kbd", {}, "Enter"),
      " takes the marked label, ",
      el("kbd", {}, "Esc"),
      " goes back. ",
    ),
    el("button", { type: "button", class: "link", click: leave }, "Back to the candidates"),
  );
}

/** Which key does what, and whether they do. */
export function legend(usesKeys, setKeys) {
  const box = el("input", {
    type: "checkbox",
    checked: usesKeys,
    change: () => setKeys(box.checked),
  });
  return el(
    "aside",
    { class: "legend", "aria-label": "Keys" },
    el("label", {}, box, "Answer by key"),
    usesKeys
      ? el(
          "ul",
          {},
          LEGEND.map(([keys, does]) =>
            el(
              "li",
              {},
              el(
                "span",
                {},
                keys.map((one) => el("kbd", {}, one)),
              ),
              does,
            ),
          ),
        )
      : null,
  );
}

/** Nothing waits, or only what was skipped; `acts`: `restart()`, `load()`, and `undo()` or null. */
export function end({ nAnswered, nNone, nSkipped, nOpen }, { restart, load, undo }) {
  const isDone = nAnswered > 0 && !nOpen;
  const none =
    nNone === 0 ? "" : `, ${nNone === nAnswered ? "all" : nNone} with none of the labels`;
  return el(
    "div",
    { class: "finished" },
    el("span", { class: "seal", "aria-hidden": "true" }, isDone ? "✓" : "·"),
    el(
      "h2",
      { tabindex: "-1", id: "review-end" },
      isDone
        ? "All done"
        : nSkipped
          ? "Only what you skipped is left"
          : "Nothing waits for a person",
    ),
    el(
      "p",
      {},
      nAnswered
        ? `You answered ${plural(nAnswered, "text")}${none}. The answers are in the ledger, and the next training takes them.`
        : "Texts come here when the judge gives no result, when nobody was asked, and when labels of training contradict each other.",
    ),
    el(
      "div",
      { class: "send" },
      nSkipped
        ? el(
            "button",
            { type: "button", class: "primary", click: restart },
            `Look at ${plural(nSkipped, "skipped text")} again`,
          )
        : null,
      el("button", { type: "button", class: "plain", click: load }, "Look for new texts"),
      undo && plain("Back to the last ", "z", undo),
    ),
  );
}
