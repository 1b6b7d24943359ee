/** Why a result is what it is: everything that was looked at on the way. */

import { bars, track } from "./bars.js";
import { fitted, linear, words } from "./chart.js";
import { el, labelled, said, svg, td, th } from "./dom.js";
import { count, ms, percent, plural, setShare, usd } from "./format.js";
import { goals, judgeName } from "./words.js";

const STEPS = {
  wait: "Waiting for a batch",
  encode: "Encoding",
  evidence: "Experts and neighbours",
  decide: "Deciding",
  explain: "Explaining",
  judge: "Judge",
};

const GIVEN_BY = {
  user: "labelled by you",
  judge: "labelled by the judge",
  name: "the label’s own name: it has no example",
};

/** Each column of the evidence: name, key, what it is. */
const EVIDENCE = [
  ["Gate", "gate", "probability by the flat model over all labels"],
  ["Expert", "expert", "probability by the label’s own expert"],
  ["Noise", "noise", "that expert’s probability of “none of mine”"],
  ["Centroid", "centroid", "cosine to the mean of the label’s examples"],
  ["Nearest", "nearest", "cosine to its nearest example"],
  ["Nearest 3", "nearest_3", "mean cosine to its three nearest examples"],
  ["Words", "lexical_centroid", "cosine to the label by words and letters"],
  ["Words near", "lexical_nearest", "the same to its nearest example"],
];

/** The parts of an explanation. */
export function explanation(result) {
  const why = result.explanation;
  return [
    part("Thresholds", thresholds(why)),
    part("Candidates and what speaks for them", evidence(why, result.label)),
    part("Experts that spoke", experts(why)),
    el(
      "div",
      { class: "two" },
      part("Nearest labelled texts", nearest(why)),
      why.gate.length ? part("The gate: one flat model over all labels", bars(why.gate)) : null,
    ),
    why.judge ? part("The judge’s question and answer", judge(why.judge)) : null,
    part("Time and price", steps(why.steps ?? [])),
  ];
}

const part = (name, ...children) => el("section", { class: "part" }, el("h4", {}, name), children);

function thresholds(why) {
  const set = why.thresholds;
  const list = goals(set);
  return [
    el(
      "div",
      { class: "scales" },
      scale(
        "Risk that the model’s own answer is wrong",
        why.risk,
        set.escalate,
        set.escalate === null ? "no goal: nothing is escalated" : "escalated",
      ),
      scale("Probability that no label fits", why.none, set.none, "none fits"),
    ),
    list.length
      ? el(
          "p",
          { class: "hint" },
          `The goal: ${list.join("; ")} (${set.source === "rows" ? "a guarantee" : "an estimate"}).`,
        )
      : null,
  ];
}

/** Where a value lies, and from where on things change. The root gives small risks room. */
function scale(name, value, threshold, beyond) {
  const at = Math.sqrt;
  const draw = (width) => {
    const x = linear([0, 1], [1, width - 1]);
    const [top, high] = [20, 12];
    const end = threshold === null ? null : x(at(threshold));
    const [mark, mid] = [x(at(value)), top + high / 2];
    const anchor = (place) => (place < 60 ? "start" : place > width - 60 ? "end" : "middle");
    return svg(
      "svg",
      {
        width,
        height: 52,
        role: "img",
        "aria-label": `${name}: ${percent(value)}${threshold === null ? "" : `; ${beyond} from ${percent(threshold)} on`}`,
      },
      svg("rect", { class: "scale-track", x: 0, y: top, width, height: high, rx: 3 }),
      end === null
        ? null
        : svg("rect", {
            class: "scale-beyond",
            x: end,
            y: top,
            width: Math.max(0, width - end),
            height: high,
            rx: 3,
          }),
      end === null
        ? null
        : svg("line", { class: "scale-limit", x1: end, x2: end, y1: top - 4, y2: top + high + 4 }),
      words(
        end ?? width - 1,
        top + high + 18,
        end === null ? beyond : `${beyond} from ${setShare(Number(threshold.toPrecision(3)))}`,
        { class: "soft", "text-anchor": anchor(end ?? width) },
      ),
      svg("circle", {
        class: end !== null && value >= threshold ? "scale-mark over" : "scale-mark",
        cx: Math.min(width - 7, Math.max(7, mark)),
        cy: mid,
        r: 6,
      }),
      words(Math.min(width - 7, Math.max(7, mark)), top - 7, percent(value), {
        class: "strong",
        "text-anchor": anchor(mark),
      }),
    );
  };
  return el("div", { class: "scale" }, el("p", { class: "scale-name" }, name), fitted(draw));
}

function evidence(why, chosen) {
  const columns = EVIDENCE.filter(([, key]) =>
    why.candidates.some((one) => one.evidence[key] != null),
  );
  const cell = (value) =>
    td(value == null ? "–" : value.toFixed(2), {
      class: "number heat",
      "--share": String(Math.min(1, Math.max(0, value ?? 0))),
    });
  return [
    scroll(
      "Evidence by candidate",
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          th("Label"),
          th("Confidence", { class: "number" }),
          columns.map(([name, , about]) => th(name, { class: "number", title: about })),
        ),
      ),
      el(
        "tbody",
        {},
        why.candidates.map((one) =>
          el(
            "tr",
            { class: one.label === chosen ? "chosen" : null },
            el("th", { scope: "row" }, labelled(one.label), el("small", {}, one.expert)),
            td(percent(one.confidence), { class: "number" }),
            columns.map(([, key]) => cell(one.evidence[key])),
          ),
        ),
      ),
    ),
    el(
      "details",
      { class: "terms" },
      el("summary", {}, "What the columns mean"),
      el(
        "dl",
        { class: "pairs" },
        columns.map(([name, , about]) => [el("dt", {}, name), el("dd", {}, about)]),
      ),
    ),
  ];
}

/** A table that scrolls sideways by itself where it must; a keyboard can scroll it too. */
function scroll(name, ...children) {
  return el(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": name },
    el("table", {}, children),
  );
}

function experts(why) {
  const rows = why.experts.map((one) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, one.expert, el("small", {}, plural(one.n_labels, "label"))),
      td(labelled(one.label)),
      td([track(one.score), el("span", {}, percent(one.score))], { class: "number" }),
      td([track(one.noise, "quiet"), el("span", {}, percent(one.noise))], { class: "number" }),
    ),
  );
  const others = why.n_experts - why.experts.length;
  return [
    scroll(
      "Experts that spoke",
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          th("Expert"),
          th("Says"),
          th("Score", { class: "number" }),
          th("None of mine", { class: "number" }),
        ),
      ),
      el("tbody", {}, rows),
    ),
    el(
      "p",
      { class: "hint" },
      others > 0
        ? `All ${count(why.n_experts)} were consulted; the other ${count(others)} say more surely that the text is none of theirs.`
        : `All ${count(why.n_experts)} were consulted.`,
    ),
  ];
}

function nearest(why) {
  if (!why.examples.length) return el("p", { class: "hint" }, "There are none.");
  return el(
    "ol",
    { class: "near" },
    why.examples.map((one) =>
      el(
        "li",
        {},
        el("span", { class: "near-value", title: "cosine" }, one.similarity.toFixed(2)),
        el(
          "div",
          {},
          said(one.text, "p"),
          el(
            "p",
            { class: "near-label" },
            labelled(one.label),
            el("span", {}, GIVEN_BY[one.given_by]),
          ),
        ),
      ),
    ),
  );
}

const OUTCOMES = {
  none: "None of them fits.",
  unreadable: "An answer that cannot be read.",
  timeout: "No answer in time.",
  error: "It could not be asked.",
  pending: "Not yet: the answer is kept when it comes.",
  not_asked: "It was not asked: a budget or a limit did not allow it.",
};

function judge(said_) {
  const question =
    said_.mode === "verify"
      ? "Does this label fit the text, yes or no?"
      : "Which of these labels fits the text, or none?";
  const facts = [
    said_.from_ledger ? "known from the ledger: it cost nothing now" : null,
    said_.requests ? plural(said_.requests, "request") : null,
    said_.latency_ms == null ? null : ms(said_.latency_ms),
    said_.from_ledger || !said_.requests ? null : usd(said_.cost_usd ?? null),
  ].filter(Boolean);
  return [
    el("p", {}, judgeName(said_), el("span", { class: "asked" }, question)),
    el(
      "ul",
      { class: "options-asked" },
      said_.candidates.map((one) =>
        el(
          "li",
          { class: said_.outcome === "label" && one.label === said_.label ? "chosen" : null },
          el(
            "p",
            {},
            labelled(one.label),
            said_.outcome === "label" && one.label === said_.label
              ? el("span", { class: "answer" }, "the answer")
              : null,
          ),
          one.description ? said(one.description, "p", { class: "about" }) : null,
          one.examples.map((text) => said(text, "p", { class: "example" })),
        ),
      ),
    ),
    OUTCOMES[said_.outcome]
      ? el(
          "p",
          { class: "outcome" },
          OUTCOMES[said_.outcome],
          said_.error ? [" ", said(said_.error)] : null,
        )
      : null,
    facts.length
      ? el(
          "p",
          { class: "facts" },
          facts.map((one) => el("span", {}, one)),
        )
      : null,
  ];
}

function steps(list) {
  const total = list.reduce((sum, one) => sum + one.ms, 0);
  if (!list.length) return el("p", { class: "hint" }, "Not measured.");
  return [
    el(
      "ul",
      { class: "steps" },
      list.map((one) =>
        el(
          "li",
          { class: one.step },
          el("span", { class: "step-name" }, STEPS[one.step] ?? one.step),
          el(
            "span",
            { class: "track", "aria-hidden": "true" },
            el("span", { class: "fill", "--share": String(total ? one.ms / total : 0) }),
          ),
          el("span", { class: "step-value" }, ms(one.ms)),
          el(
            "span",
            { class: "step-price" },
            one.cost_usd === 0 || one.cost_usd === undefined ? "" : usd(one.cost_usd),
          ),
        ),
      ),
    ),
    el("p", { class: "hint" }, "For all texts that went through a step together."),
  ];
}
