/** The view that classifies: texts in, decisions out. */

import { post } from "./api.js";
import { column, csv } from "./csv.js";
import { announce, byId, copyable, el, fill } from "./dom.js";
import { count, percent, plural, setShare, short, usd, ms } from "./format.js";
import { known } from "./known.js";
import { card } from "./result.js";
import * as review from "./review.js";
import { DECISIONS } from "./words.js";

const FALLBACK = { texts_per_call: Infinity, chars_per_text: Infinity, body_bytes: Infinity }; // the server tells
const MAX_LINES_NAMED = 3;
const QUEUED_MS = 1500; // then what nobody answered stands in the queue

let running = null;
let answer = null;

export function start() {
  const form = byId("classify-form");
  const texts = byId("texts");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  texts.addEventListener("input", () => {
    note(null);
    check();
  });
  texts.addEventListener("paste", pasted);
  byId("top-k").addEventListener("input", () => topK());
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      submit();
    }
  });
  form.addEventListener("change", hintEscalate);
  byId("cancel").addEventListener("click", () => running?.abort());
  known.addEventListener("change", () => {
    hintEscalate();
    check();
    if (answer === null) showMeaning();
  });
  hintEscalate();
  check();
  showMeaning();
}

export function show() {
  // On a touch screen it would bring up the keyboard.
  if (matchMedia("(hover: hover)").matches) byId("texts").focus({ preventScroll: true });
}

/** The texts of the field: a line each, blank ones left out. */
const linesOf = (value) =>
  value
    .split("\n")
    .map((text, index) => ({ text, line: index + 1 }))
    .filter(({ text }) => text.trim());

/** Unicode characters, as the server counts them; only worked out where it may matter. */
const lengthOf = (text, limit) => (text.length <= limit ? text.length : [...text].length);

/** What the server would refuse, in one line; else an empty string. */
function problem(lines, body) {
  const limits = known.info?.limits ?? FALLBACK;
  if (lines.length > limits.texts_per_call)
    return `${plural(lines.length, "text")}; one call takes at most ${count(limits.texts_per_call)}. Leave some out, or use red-ray classify for a whole table.`;
  const long = lines.filter(
    ({ text }) => lengthOf(text, limits.chars_per_text) > limits.chars_per_text,
  );
  if (long.length) {
    const which = long
      .slice(0, MAX_LINES_NAMED)
      .map(({ text, line }) => `line ${line} has ${count(lengthOf(text, 0))}`)
      .join(", ");
    const more =
      long.length > MAX_LINES_NAMED
        ? `, and ${long.length - MAX_LINES_NAMED} more are too long`
        : "";
    return `At most ${count(limits.chars_per_text)} characters a text: ${which}${more}.`;
  }
  const bytes = new TextEncoder().encode(JSON.stringify(body)).length;
  if (bytes > limits.body_bytes)
    return `Together the texts are ${count(bytes)} bytes; one call takes at most ${count(limits.body_bytes)}.`;
  return "";
}

function topK() {
  const box = byId("top-k");
  const value = Number(box.value);
  const isFine = Number.isInteger(value) && value >= 1 && value <= 100 && box.value !== "";
  byId("top-k-problem").textContent = isFine ? "" : "A whole number from 1 to 100.";
  box.setAttribute("aria-invalid", String(!isFine));
  return isFine ? value : null;
}

/** Say how many texts there are and what is wrong with them; the lines. */
function check() {
  const box = byId("texts");
  const lines = linesOf(box.value);
  const blank = box.value.split("\n").length - lines.length;
  const longest = lines.reduce((most, { text }) => Math.max(most, text.length), 0);
  const limit = known.info?.limits.chars_per_text;
  byId("texts-count").textContent = !lines.length
    ? "One line is one text."
    : `${plural(lines.length, "text")} · longest ${count(longest)}${limit ? ` of ${count(limit)}` : ""} characters${blank > 1 ? ` · ${plural(blank, "empty line")} left out` : ""}`;
  complain(lines.length ? problem(lines, { texts: lines.map(({ text }) => text) }) : "");
  return lines;
}

function complain(words) {
  byId("texts-problem").textContent = words;
  byId("texts").setAttribute("aria-invalid", String(words !== ""));
}

/** Say what became of a paste; null: nothing. */
function note(words, undo) {
  const place = byId("texts-note");
  place.hidden = words === null;
  if (words !== null)
    fill(
      place,
      `${words} `,
      el("button", { type: "button", class: "link", click: undo }, "Paste as it was"),
    );
}

function pasted(event) {
  const plain = event.clipboardData?.getData("text/plain") ?? "";
  const found = column(plain);
  if (found === null) return;
  event.preventDefault();
  const box = byId("texts");
  const before = { value: box.value, start: box.selectionStart, end: box.selectionEnd };
  type(box, found.texts.join("\n"));
  note(`${plural(found.texts.length, "text")} from a table: ${found.taken}.`, () => {
    box.focus();
    box.setSelectionRange(0, box.value.length);
    type(
      box,
      before.value.slice(0, before.start) +
        plain.replace(/\r\n?/g, "\n") +
        before.value.slice(before.end),
    );
  });
}

/** Replace what is selected, so that the browser's undo knows of it. */
function type(box, text) {
  if (!document.execCommand("insertText", false, text)) {
    box.setRangeText(text, box.selectionStart, box.selectionEnd, "end");
    box.dispatchEvent(new Event("input", { bubbles: true }));
  }
}

function hintEscalate() {
  const { info } = known;
  const ways = byId("classify-form").elements.escalate;
  const [always] = [...ways].filter((way) => way.value === "always");
  always.disabled = info?.judge === null; // the endpoint refuses it
  if (always.disabled && always.checked) ways.value = "auto";
  const chosen = ways.value;
  const words = {
    auto: "The judge answers what the model would not answer alone.",
    always: "The judge answers every text; each question may cost.",
    never: "The model alone; what it would escalate stays open.",
  };
  if (info?.judge === null)
    byId("escalate-hint").textContent =
      "This endpoint has no judge: what is escalated waits in Review.";
  else if (info?.judge.simulated)
    fill(
      byId("escalate-hint"),
      `${words[chosen]} The judge is `,
      el("strong", {}, "simulated"),
      ": no language model is asked.",
    );
  else byId("escalate-hint").textContent = words[chosen];
}

async function submit() {
  if (running) return;
  const lines = check();
  const top_k = topK();
  if (!lines.length) complain("There is no text yet.");
  if (!lines.length || byId("texts-problem").textContent) return byId("texts").focus();
  if (top_k === null) return byId("top-k").focus();
  const asked = {
    texts: lines.map(({ text }) => text),
    top_k,
    escalate: byId("classify-form").elements.escalate.value,
    explain: true,
  };
  running = new AbortController();
  busy(true);
  const began = performance.now();
  try {
    const found = await post("v1/classify", asked, { signal: running.signal, tell: status });
    known.answeredBy(found.bundle);
    answer = { ...found, asked, took: performance.now() - began };
    showAnswer();
    setTimeout(review.count, QUEUED_MS);
  } catch (error) {
    if (error.name !== "AbortError") byId("classify-problem").textContent = told(error);
  } finally {
    running = null;
    busy(false);
  }
}

const told = (error) => `${error.message}${error.requestId ? ` (request ${error.requestId})` : ""}`;

function status(words) {
  byId("classify-status").textContent = words;
}

function busy(isBusy) {
  if (isBusy) byId("classify-problem").textContent = "";
  byId("cancel").hidden = !isBusy;
  byId("results").setAttribute("aria-busy", String(isBusy));
  byId("classify-form").querySelector("[type=submit]").toggleAttribute("data-busy", isBusy);
}

/** Before there is an answer: what the decisions will mean. */
function showMeaning() {
  const { info } = known;
  const thresholds = info?.thresholds;
  const more = {
    accept:
      thresholds?.escalate == null
        ? ""
        : `Its risk of an error is below ${percent(thresholds.escalate)}.`,
    none: thresholds
      ? `The probability of that is at least ${setShare(Number(thresholds.none.toPrecision(4)))}.`
      : "",
    escalate: info?.judge === null ? "This endpoint has no judge." : "",
  };
  fill(
    byId("results"),
    el(
      "div",
      { class: "meaning" },
      el("h2", {}, "What you get"),
      el(
        "p",
        { class: "hint" },
        "For each text a decision, the labels that came near, and, when you open it, why.",
      ),
      el(
        "dl",
        {},
        Object.entries(DECISIONS).map(([kind, [name, words]]) => [
          el("dt", {}, el("span", { class: `pill ${kind}` }, name)),
          el("dd", {}, `${words} ${more[kind] ?? ""}`),
        ]),
      ),
    ),
  );
}

function showAnswer() {
  const { results, asked, bundle, took } = answer;
  const kinds = Object.keys(DECISIONS).filter((kind) =>
    results.some((one) => one.decision === kind),
  );
  const cards = results.map((result, index) =>
    card(asked.texts[index], result, {
      asked,
      bundle,
      number: results.length > 1 ? index + 1 : null,
    }),
  );
  const list = el("ol", { class: "cards" }, cards);
  const cost = results.reduce(
    (sum, one) =>
      sum + (one.explanation?.steps ?? []).reduce((all, step) => all + (step.cost_usd ?? 0), 0),
    0,
  );
  fill(
    byId("results"),
    el(
      "header",
      { class: "results-head" },
      el("h2", { id: "results-title", tabindex: "-1" }, plural(results.length, "text")),
      el(
        "p",
        { class: "facts" },
        el("span", {}, ms(took)),
        el("span", {}, usd(cost)),
        el("span", {}, "bundle ", copyable(short(bundle), bundle, "bundle id")),
      ),
      el("button", { type: "button", class: "plain", click: save }, "Save as CSV"),
    ),
    results.length > 1 ? filters(kinds, results, cards) : null,
    list,
  );
  const words = kinds.map(
    (kind) =>
      `${results.filter((one) => one.decision === kind).length} ${DECISIONS[kind][0].toLowerCase()}`,
  );
  announce(`${plural(results.length, "text")}: ${words.join(", ")}`);
  if (matchMedia("(max-width: 67.5rem)").matches)
    byId("results").scrollIntoView({ block: "start" });
}

/** Buttons that leave the results of one decision. */
function filters(kinds, results, cards) {
  const button = (kind, name, n) =>
    el(
      "button",
      {
        type: "button",
        class: "filter",
        "data-kind": kind,
        "aria-pressed": String(kind === "all"),
        click: (event) => choose(event.currentTarget),
      },
      name,
      el("span", { class: "n" }, count(n)),
    );
  const group = el(
    "div",
    { class: "filters", role: "group", "aria-label": "Show" },
    button("all", "All", results.length),
    kinds.map((kind) =>
      button(kind, DECISIONS[kind][0], results.filter((one) => one.decision === kind).length),
    ),
  );
  const choose = (chosen) => {
    for (const one of group.children) one.setAttribute("aria-pressed", String(one === chosen));
    const { kind } = chosen.dataset;
    cards.forEach(
      (one, index) => (one.hidden = kind !== "all" && results[index].decision !== kind),
    );
  };
  return group;
}

/** The columns that `red-ray classify` writes. */
function save() {
  const rows = answer.results.map((one, index) => [
    answer.asked.texts[index],
    one.label,
    one.confidence,
    one.decision,
    one.source,
    JSON.stringify(one.alternatives),
    one.expert,
  ]);
  const table = csv([
    ["text", "label", "confidence", "decision", "source", "alternatives", "expert"],
    ...rows,
  ]);
  const address = URL.createObjectURL(new Blob([table], { type: "text/csv" }));
  el("a", { href: address, download: "classified.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
