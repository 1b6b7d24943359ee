/** Decisions, goals and reasons in words. */

import { el, labelled, said } from "./dom.js";
import { percent, setShare } from "./format.js";

/** What each decision is called, and what it means. */
export const DECISIONS = {
  accept: ["Accepted", "The label is sure enough to use."],
  none: ["None fits", "No label fits this text."],
  escalate: [
    "Escalated",
    "Too risky to answer alone, and nobody has answered yet. The label is the best guess.",
  ],
  abstain: ["No answer", "The judge was asked and gave no result. A person should look."],
};

/** What each goal promises of a share. */
const GOALS = {
  catch_errors: (share) => `at least ${setShare(share)} of the model’s errors are escalated`,
  precision: (share) => `at least ${setShare(share)} of what the model answers alone is right`,
  escalate_at_most: (share) => `at most ${setShare(share)} of the texts are escalated`,
  none_false_alarm: (share) =>
    `at most ${setShare(share)} of the texts that fit a label are said to fit none`,
  none_recall: (share) =>
    `at least ${setShare(share)} of the texts that fit no label are said to fit none`,
};

/** Goals as a list of sentences without their end. */
export const goals = (thresholds) =>
  Object.entries(thresholds.goals ?? {}).map(
    ([name, share]) => GOALS[name]?.(share) ?? `${name}: ${setShare(share)}`,
  );

/** What a promise is worth, in a word, and why. */
export function worth(thresholds) {
  const odds =
    thresholds.confidence == null
      ? ""
      : `, with a confidence of ${setShare(thresholds.confidence)}${Object.keys(thresholds.goals ?? {}).length > 1 ? " each" : ""}`;
  if (thresholds.source === "rows")
    return [
      "a guarantee",
      ` for texts like your calibration rows, which training never saw${odds}`,
    ];
  return [
    "an estimate",
    ` from the training rows, each scored by models that had not seen it${odds}. Calibration rows of your own would make it a guarantee`,
  ];
}

const NOT_LABELLED = {
  unreadable: "gave an answer that cannot be read",
  timeout: "did not answer in time",
  error: "could not be asked",
};

/** The judge's name; a simulated one is never called otherwise. */
export const judgeName = (judge) =>
  el(
    "span",
    { class: "judge-name" },
    said(judge.judge),
    judge.simulated ? [" ", el("span", { class: "tag" }, "simulated")] : null,
  );

/** Why a result is what it is, as parts of a sentence; `how` is what was asked for. */
export function because(result, how) {
  const why = result.explanation;
  const judge = why?.judge;
  if (result.source === "human") return ["A person has given this text its label."];
  if (judge) return [...occasion(why, how), ...judged(result, judge)];
  if (result.decision === "abstain") return ["The judge was asked and gave no result."];
  if (result.decision === "escalate")
    return [
      ...occasion(why, how),
      how.escalate === "never"
        ? "You asked not to ask the judge."
        : "Nobody was asked: this endpoint has no judge.",
    ];
  if (result.decision === "none")
    return [
      `That no label fits has a probability of ${percent(result.confidence)}${why ? `; from ${setShare(rounded(why.thresholds.none))} on the model says so` : ""}.`,
    ];
  return alone(why);
}

function alone(why) {
  if (!why) return ["The model answers alone."];
  if (why.thresholds.escalate === null)
    return [
      `The model answers alone; without a goal it escalates nothing. Risk of an error: ${percent(why.risk)}.`,
    ];
  return [
    `The model answers alone: the risk of an error is ${percent(why.risk)}, and it escalates from ${percent(why.thresholds.escalate)} on.`,
  ];
}

function occasion(why, how) {
  if (!why || why.thresholds.escalate === null || why.risk < why.thresholds.escalate)
    return how.escalate === "always" ? ["You asked for the judge. "] : [];
  return [
    `The risk of an error is ${percent(why.risk)}, and from ${percent(why.thresholds.escalate)} on the model does not answer alone. `,
  ];
}

function judged(result, judge) {
  const name = el("span", { class: "judge-name" }, said(judge.judge));
  const who = judge.simulated ? "The simulated judge " : "The judge ";
  const asked = judge.from_ledger ? "has answered this question before and " : "";
  if (judge.outcome === "pending")
    return [
      who,
      name,
      " had not answered when the endpoint stopped waiting. Its answer is kept when it comes: ask again.",
    ];
  if (judge.outcome === "not_asked")
    return [who, name, " was not asked: a budget or a limit did not allow it."];
  if (judge.outcome === "label")
    return [who, name, ` ${asked}chose `, labelled(judge.label ?? null), "."];
  const fits =
    judge.mode === "verify" ? "this label does not fit." : "none of its candidates fits.";
  const failed = ` ${NOT_LABELLED[judge.outcome]}${judge.error ? ` (${judge.error})` : ""}.`;
  return [
    who,
    name,
    judge.outcome === "none" ? ` ${asked}found that ${fits}` : failed,
    after(result),
  ];
}

function after({ decision, source }) {
  if (decision === "abstain") return " The text waits in Review.";
  return source === "model" ? " The model’s own best answer stands." : "";
}

const rounded = (share) => Number(share.toPrecision(4));

/** Why a text waits for a person. */
export const REASONS = {
  abstained: "The judge was asked and gave no result.",
  escalated: "Too risky for the model to answer alone, and no judge has answered.",
  disputed: "The labels that this text was given contradict each other.",
};
