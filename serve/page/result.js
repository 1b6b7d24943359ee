/** One result: the decision, the candidates, why, and what a person says to it. */

import { post } from "./api.js";
import { bars } from "./bars.js";
import { el, fill, labelled, said } from "./dom.js";
import { explanation } from "./explain.js";
import { short } from "./format.js";
import { known } from "./known.js";
import { picker } from "./picker.js";
import * as review from "./review.js";
import { DECISIONS, because } from "./words.js";

const LONG_CHARS = 420; // a longer text is cut until one asks for all of it
const BY = { model: "by the model", judge: "by the judge", human: "by a person" };

/** A list item about one text. */
export function card(text, result, { asked, bundle, number }) {
  return el(
    "li",
    { class: "card result", "data-decision": result.decision },
    el(
      "div",
      { class: "result-text" },
      number === null ? null : el("span", { class: "number" }, `${number}`),
      whole(text),
    ),
    verdict(result),
    el("p", { class: "because" }, because(result, asked)),
    candidates(result),
    feedback(text, result),
    result.explanation ? why(result, bundle) : null,
  );
}

/** The text, a long one cut. */
function whole(text) {
  if (text.length <= LONG_CHARS) return said(text, "p");
  const part = said(`${text.slice(0, LONG_CHARS)}…`, "p");
  const more = el(
    "button",
    { type: "button", class: "link", "aria-expanded": "false" },
    "Show all of it",
  );
  more.addEventListener("click", () => {
    const open = more.getAttribute("aria-expanded") === "false";
    fill(part, ...said(open ? text : `${text.slice(0, LONG_CHARS)}…`).childNodes);
    more.setAttribute("aria-expanded", String(open));
    more.textContent = open ? "Show less" : "Show all of it";
  });
  return el("div", {}, part, more);
}

function verdict(result) {
  const [name] = DECISIONS[result.decision];
  const guess = result.decision === "escalate";
  return el(
    "p",
    { class: "verdict" },
    el("span", { class: `pill ${result.decision}` }, name),
    result.label === null && !guess
      ? null
      : el(
          "span",
          { class: guess ? "verdict-label guess" : "verdict-label" },
          labelled(result.label),
        ),
    el("span", { class: "verdict-by" }, guess ? "best guess of the model" : BY[result.source]),
  );
}

function candidates(result) {
  const hasAnswer = result.decision !== "abstain";
  const own = { label: result.label, confidence: result.confidence };
  return bars(hasAnswer ? [own, ...result.alternatives] : result.alternatives, {
    chosen: hasAnswer,
  });
}

function why(result, bundle) {
  const body = el("div", { class: "why-body" });
  const opened = el("details", { class: "why" }, el("summary", {}, "Why this decision"), body);
  opened.addEventListener("toggle", () => {
    if (opened.open && !body.childElementCount)
      fill(
        body,
        explanation(result),
        el("p", { class: "hint" }, `Answered by bundle ${short(bundle)}.`),
      );
  });
  return opened;
}

/** Whether the answer is right; what is said goes to the endpoint at once. */
function feedback(text, result) {
  const place = el("div", { class: "feedback" });
  const hasAnswer = result.decision !== "abstain";
  const ask = () => {
    fill(
      place,
      hasAnswer
        ? el(
            "button",
            { type: "button", class: "plain yes", click: () => send(result.label) },
            "Right",
          )
        : null,
      el(
        "button",
        {
          type: "button",
          class: hasAnswer ? "plain no" : "plain",
          "aria-expanded": "false",
          click: correct,
        },
        hasAnswer ? "Wrong" : "Choose the label",
      ),
    );
  };
  const correct = () => {
    const others = result.alternatives
      .map((one) => one.label)
      .filter((label) => label !== result.label);
    const back = () => {
      ask();
      place.querySelector("button:last-of-type").focus();
    };
    const box = picker({ labels: () => known.labels, choose: send, leave: back });
    fill(
      place,
      el(
        "p",
        { class: "feedback-ask" },
        "Which label is right?",
        el("button", { type: "button", class: "link", click: back }, "Back"),
      ),
      el(
        "div",
        { class: "chips" },
        others.map((label) =>
          el(
            "button",
            { type: "button", class: "chip", click: () => send(label) },
            labelled(label),
          ),
        ),
        hasAnswer && result.label === null
          ? null
          : el(
              "button",
              { type: "button", class: "chip", click: () => send(null) },
              labelled(null),
            ),
      ),
      box.root,
    );
    box.focus();
  };
  const send = async (label) => {
    fill(place, el("p", { class: "status", role: "status" }, "Sending."));
    const status = (words) => (place.firstChild.textContent = words || "Sending.");
    try {
      await post("v1/feedback", { answers: [{ text, label }] }, { tell: status });
      thanks(label);
      review.count();
    } catch (error) {
      ask();
      place.append(el("p", { class: "problem", role: "alert" }, error.message));
    }
  };
  const thanks = (label) => {
    const change = el("button", { type: "button", class: "link", click: correct }, "Change");
    fill(
      place,
      el(
        "p",
        { class: "kept", role: "status" },
        "Kept for the next training: ",
        labelled(label),
        ". ",
      ),
      change,
    );
    change.focus({ preventScroll: true });
  };
  ask();
  return place;
}
