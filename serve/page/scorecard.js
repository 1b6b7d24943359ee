/** The scorecard: what a test on rows that training never saw has found. */

import { el } from "./dom.js";
import { count, interval, percent, plural, usd } from "./format.js";

const TILES = [
  ["accuracy", "Accuracy", "test texts whose most probable label is true"],
  ["macro_f1", "Macro F1", "every label counts the same, rare ones too"],
  [
    "answered_share",
    "Answered alone",
    "test texts that get a label; the others are escalated or fit none",
  ],
  ["accuracy_decided", "Right when it answers", "accuracy among the texts that get a label"],
];

const BASELINES = [
  ["flat", "Flat classifier", "logistic regression over all labels, on the same rows"],
  ["flat_seed_rows", "Flat, initial rows", "the same, on the rows it all began with"],
  ["experts_only", "Experts only", "the surest expert answers; no router"],
  ["majority", "Majority", "always the most frequent label"],
];

/** Parts of a page about `/v1/model`'s scorecard. */
export function scorecard({ scorecard: card }) {
  if (!card) {
    return [
      el("p", { class: "lead" }, "Nobody knows yet: this run was never tested."),
      el(
        "p",
        {},
        "Score it on labelled rows that training never saw: ",
        el("code", {}, "red-ray evaluate RUN --test F"),
      ),
    ];
  }
  const has = ([key]) => typeof card[key] === "number";
  const isWhole = [["accuracy"], ["n_test"], ["n_labels"]].every(has);
  return [
    isWhole &&
      el(
        "p",
        { class: "lead" },
        `${percent(card.accuracy)} of ${count(card.n_test)} test texts get the right label among ${count(card.n_labels)}.`,
      ),
    card.leaks?.train_test
      ? el(
          "p",
          { class: "notice bad" },
          `${plural(card.leaks.train_test, "test row")} also stood in the training rows: these figures are too good.`,
        )
      : null,
    el(
      "dl",
      { class: "tiles" },
      TILES.filter(has).map(([key, name, about]) =>
        tile(name, percent(card[key]), card[`${key}_ci`], about),
      ),
    ),
    el("h3", {}, "Beside baselines"),
    baselines(card),
    details(card),
  ];
}

const tile = (name, value, ci, about) =>
  el(
    "div",
    { class: "tile card" },
    el("dt", {}, name),
    el(
      "dd",
      {},
      el("span", { class: "value" }, value),
      ci ? el("span", { class: "ci" }, interval(ci)) : null,
      el("span", { class: "about" }, about),
    ),
  );

function baselines(card) {
  const found = card.baselines ?? {};
  const rows = BASELINES.filter(([key]) => typeof found[key] === "number").map(
    ([key, name, about]) => whisker(name, about, found[key], found[`${key}_ci`], ""),
  );
  const ceiling =
    typeof found.oracle_routed === "number"
      ? whisker(
          "Oracle-routed",
          "a ceiling, not a result: the true label names the expert",
          found.oracle_routed,
          found.oracle_routed_ci,
          "ceiling",
        )
      : null;
  return el(
    "ul",
    { class: "compare" },
    whisker("This model", "experts and router together", card.accuracy, card.accuracy_ci, "model"),
    rows,
    ceiling,
  );
}

function whisker(name, about, value, ci, kind) {
  return el(
    "li",
    { class: kind },
    el("span", { class: "compare-name" }, name, el("small", {}, about)),
    el(
      "span",
      { class: "compare-track", "aria-hidden": "true" },
      el("span", { class: "fill", "--share": String(value) }),
      ci ? el("span", { class: "ends", "--from": String(ci[0]), "--to": String(ci[1]) }) : null,
    ),
    el(
      "span",
      { class: "compare-value" },
      percent(value),
      ci ? el("small", {}, interval(ci)) : null,
    ),
  );
}

/** What else was measured, as far as it was. */
function details(card) {
  const rate = (part, key) =>
    typeof part?.[key] === "number"
      ? [percent(part[key]), part[`${key}_ci`] ? interval(part[`${key}_ci`]) : ""]
      : null;
  const row = (name, found) =>
    found
      ? el(
          "tr",
          {},
          el("th", { scope: "row" }, name),
          el("td", { class: "number" }, found[0]),
          el("td", { class: "number" }, found[1] ?? ""),
        )
      : null;
  const { router, calibration, none, judge } = card;
  const money = typeof judge?.cost_usd === "number" ? [usd(judge.cost_usd), ""] : null;
  const rows = [
    row("Errors escalated", rate(router, "recall")),
    row("Texts escalated", rate(router, "positive_rate")),
    row("Right where it answered alone", rate(router, "accept_precision")),
    row("Calibration error", rate(calibration, "ece")),
    row("Weighted F1", rate(card, "f1_weighted")),
    row("None: area under the curve", rate(none, "auroc")),
    row("None: false alarms at 95 % found", rate(none, "fpr_at_95")),
    row("Judge: labels right", rate(judge, "label_precision")),
    row("Judge: labels per call", rate(judge, "labels_per_call")),
    row("Judge: price of training", money),
  ].filter(Boolean);
  const dropped = card.leaks?.train_test_dropped;
  return el(
    "details",
    { class: "more-figures" },
    el("summary", {}, "All figures of the test"),
    el(
      "div",
      { class: "scroll card" },
      el(
        "table",
        {},
        el(
          "thead",
          {},
          el(
            "tr",
            {},
            el("th", { scope: "col" }, "On the test rows"),
            el("th", { scope: "col", class: "number" }, "Value"),
            el("th", { scope: "col", class: "number" }, "95 % interval"),
          ),
        ),
        el("tbody", {}, rows),
      ),
    ),
    dropped
      ? el(
          "p",
          { class: "hint" },
          `${plural(dropped, "test row")} also stood in the training rows and did not count.`,
        )
      : null,
  );
}
