/** The view of the model that answers: how good it is, what it promises, what it knows. */

import { track } from "./bars.js";
import { curve } from "./curve.js";
import { byId, copyable, el, fill, labelled, said, td, th } from "./dom.js";
import { count, moment, ms, percent, plural, setShare } from "./format.js";
import { known } from "./known.js";
import { scorecard } from "./scorecard.js";
import { goals, judgeName, worth } from "./words.js";

const LAYOUTS = {
  packed: "packed: one process holds all",
  sharded: "sharded: experts in processes of their own",
};

let drawn = null;
let isHere = false;

export function start() {
  fill(
    byId("model"),
    el("h1", { id: "model-title", tabindex: "-1" }, "Model"),
    el("div", { id: "model-body", class: "model-body" }),
  );
  known.addEventListener("change", () => {
    if (isHere) draw();
  });
}

export function show() {
  isHere = true;
  if (known.error) known.load();
  draw();
}

export function hide() {
  isHere = false;
}

function draw() {
  const { info, error } = known;
  const body = byId("model-body");
  if (info === null) {
    const retry = el(
      "button",
      { type: "button", class: "plain", click: () => known.load() },
      "Try again",
    );
    return fill(
      body,
      error
        ? el(
            "div",
            { class: "notice bad", role: "alert" },
            el("p", {}, `The model cannot be read: ${error.message}`),
            retry,
          )
        : el("p", { class: "status" }, "Asking the endpoint."),
    );
  }
  if (drawn === info) return;
  drawn = info;
  fill(
    body,
    info.failed_update
      ? el(
          "p",
          { class: "notice bad", role: "alert" },
          el("strong", {}, "A newer bundle was not taken over. "),
          `${info.failed_update.replace(/\.$/, "")}. This one goes on answering.`,
        )
      : null,
    what(info),
    part("How good it is", scorecard(info)),
    part("What it promises", promise(info)),
    el(
      "div",
      { class: "three" },
      part("Judge", judge(info.judge)),
      part("Limits of a call", limits(info.limits)),
      part("Versions", pairs(Object.entries(info.versions))),
    ),
    part("Labels", labels(info)),
  );
}

const part = (name, ...children) => el("section", { class: "block" }, el("h2", {}, name), children);

const pairs = (entries) =>
  el(
    "dl",
    { class: "pairs" },
    entries.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]),
  );

function what(info) {
  return el(
    "dl",
    { class: "what" },
    [
      ["Bundle", copyable(`${info.bundle.slice(0, 16)}…`, info.bundle, "bundle id")],
      ["Run", said(info.run)],
      ["Encoder", [said(info.encoder), el("small", {}, ` ${info.dtype}`)]],
      ["Knows", `${plural(info.labels.length, "label")} in ${plural(info.n_experts, "expert")}`],
      ["Layout", LAYOUTS[info.layout] ?? info.layout],
      ["Loaded", moment(info.loaded_at)],
    ].map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))),
  );
}

function promise(info) {
  const { thresholds, promised_share: share } = info;
  const list = goals(thresholds);
  const [value, about] = worth(thresholds);
  const none = `A text fits none of the labels from a probability of ${setShare(Number(thresholds.none.toPrecision(4)))} on.`;
  if (!list.length) {
    return [
      el(
        "p",
        { class: "lead" },
        "Nothing: no goal was set, or it could not be kept, so nothing is escalated.",
      ),
      el(
        "p",
        {},
        "Set one with ",
        el("code", {}, "red-ray thresholds RUN --goal catch_errors=0.95"),
        ". ",
        none,
      ),
    ];
  }
  const from =
    thresholds.escalate === null
      ? "Nothing is escalated."
      : `A text is escalated from a risk of ${percent(thresholds.escalate, 2)} on`;
  const expected =
    share == null || thresholds.escalate === null
      ? ""
      : `; of texts like those of calibration that is ${percent(share)}`;
  const told = [
    el("p", { class: "lead" }, `${list.join("; ").replace(/^./, (first) => first.toUpperCase())}.`),
    el("p", {}, "This is ", el("strong", {}, value), `${about}.`),
    el("p", {}, `${from}${expected}${thresholds.escalate === null ? "" : "."} ${none}`),
  ];
  return el(
    "div",
    { class: "promises" },
    el("div", {}, told),
    info.curve.length > 1 ? curve(info.curve, thresholds.escalate) : null,
  );
}

function judge(info) {
  if (info === null) return el("p", { class: "hint" }, "None: what is escalated waits in Review.");
  const failure = {
    abstain: "no answer; the text waits in Review",
    answer_best: "the model’s own answer stands",
  };
  return pairs([
    ["Who", judgeName(info)],
    [
      "Question",
      info.question === "verify"
        ? "does the best label fit, yes or no"
        : `which of ${plural(info.top_k, "candidate")}, or none`,
    ],
    ["Waits", ms(1000 * info.wait_s)],
    ["Without a result", failure[info.on_failure] ?? info.on_failure],
    ...(info.simulated
      ? [["Note", "It looks answers up and errs on purpose: for trials, not a language model."]]
      : []),
  ]);
}

function limits(info) {
  return pairs([
    ["Texts", count(info.texts_per_call)],
    ["Characters a text", count(info.chars_per_text)],
    ["Body", `${count(info.body_bytes)} bytes`],
    ["Longest wait", ms(1000 * info.wait_s)],
  ]);
}

/** A table of labels that can be searched and sorted. */
function labels(info) {
  const columns = [
    ["Label", (one) => one.label.toLowerCase()],
    ["Description", (one) => one.description.toLowerCase()],
    ["Expert", (one) => one.expert],
    ["Examples", (one) => one.n_examples],
  ];
  const most = Math.max(1, ...info.labels.map((one) => one.n_examples));
  const described = info.labels.some((one) => one.description);
  const shownColumns = columns.filter(([name]) => name !== "Description" || described);
  const rows = info.labels.map((one) => ({
    one,
    row: el(
      "tr",
      {},
      el("th", { scope: "row" }, labelled(one.label)),
      described ? td(said(one.description)) : null,
      td(one.expert),
      td([track(one.n_examples / most), el("span", {}, count(one.n_examples))], {
        class: "number",
      }),
    ),
  }));
  const body = el(
    "tbody",
    {},
    rows.map(({ row }) => row),
  );
  const told = el("p", { class: "hint", role: "status" });
  const box = el("input", {
    type: "search",
    id: "label-search",
    placeholder: "Label, description or expert",
    autocomplete: "off",
    spellcheck: "false",
  });
  const search = () => {
    const wanted = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    let n = 0;
    for (const { one, row } of rows) {
      const fits = wanted.every((word) =>
        `${one.label} ${one.description} ${one.expert}`.toLowerCase().includes(word),
      );
      row.hidden = !fits;
      n += fits;
    }
    told.textContent = wanted.length
      ? `${count(n)} of ${plural(rows.length, "label")}`
      : plural(rows.length, "label");
  };
  box.addEventListener("input", search);
  search();
  const heads = shownColumns.map(([name, key]) => {
    const head = th(el("button", { type: "button", click: () => sort(head, key) }, name), {
      class: name === "Examples" ? "number" : null,
    });
    return head;
  });
  const sort = (head, key) => {
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    rows.sort(
      (a, b) => (down ? -1 : 1) * (key(a.one) < key(b.one) ? -1 : key(a.one) > key(b.one) ? 1 : 0),
    );
    body.append(...rows.map(({ row }) => row));
  };
  sort(heads[0], columns[0][1]);
  return [
    el(
      "div",
      { class: "find" },
      el("label", { for: "label-search", class: "sr" }, "Search the labels"),
      box,
      told,
    ),
    el(
      "div",
      { class: "scroll tall card", tabindex: "0", role: "region", "aria-label": "Labels" },
      el("table", { class: "sortable" }, el("thead", {}, el("tr", {}, heads)), body),
    ),
  ];
}
