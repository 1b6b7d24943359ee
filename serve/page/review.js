/** The view that asks a person: one text at a time, answered by key. */

import { get, post } from "./api.js";
import { end, legend, options, question } from "./ask.js";
import { announce, byId, el, fill } from "./dom.js";
import { count as counted, plural } from "./format.js";
import { known } from "./known.js";

const AT_A_TIME = 50;
const MOST = 1000; // that the endpoint gives at once
const KEYS = "red_ray.keys";

/** What happened to a text: `label` is a name or null for none, undefined where it was skipped. */
const past = [];
const handled = new Map();
let items = [];
let nOpen = null;
let pending = 0;
let sending = Promise.resolve();
let searching = false;
let error = null;
let loading = false;
let isHere = false;
let usesKeys = stored() !== "off";

/** Refresh the number beside the view's name. */
export async function count() {
  try {
    nOpen = (await get("v1/queue?limit=1", { patient: false })).n_open;
    showCount();
  } catch {
    // The views say what is wrong; a number that is not there says nothing wrong.
  }
}

export function start() {
  fill(
    byId("review"),
    el(
      "header",
      { class: "review-head" },
      el("h1", { id: "review-title", tabindex: "-1" }, "Review"),
      el("p", { id: "review-left", class: "facts" }),
      el("p", { id: "review-sent", class: "status", role: "status" }),
    ),
    el("div", { id: "review-body", class: "review-body" }),
  );
  document.addEventListener("keydown", pressed);
  addEventListener("beforeunload", (event) => {
    if (pending) event.preventDefault();
  });
  known.addEventListener("change", () => {
    if (isHere && !searching && items.length) draw();
    if (nOpen === null) count();
  });
}

export function show() {
  isHere = true;
  searching = false;
  items = [];
  load();
}

export function hide() {
  isHere = false;
}

async function load() {
  if (loading) return;
  loading = true;
  error = null;
  draw();
  try {
    await sending; // what was just answered must not come again
    const limit = Math.min(MOST, AT_A_TIME + tally().nSkipped); // they come again
    const queue = await get(`v1/queue?limit=${limit}`, { tell });
    nOpen = queue.n_open;
    // What was refused meanwhile stands first, with the reason.
    const seen = new Set([...handled.keys(), ...items.map((one) => one.text)]);
    items = [...items, ...queue.items.filter((one) => !seen.has(one.text))];
  } catch (caught) {
    error = caught;
  }
  loading = false;
  draw();
}

/** Note a person's word and go on; the endpoint is told at once, in order. */
function answer(label) {
  const item = items.shift();
  const before = handled.get(item.text);
  past.push({ item, label, before });
  handled.set(item.text, label);
  if (before === undefined && nOpen) nOpen -= 1;
  pending += 1;
  sending = sending.then(() => send(item, label, before));
  next();
}

async function send(item, label, before) {
  let refusal = "";
  try {
    showSending();
    const answers = [{ text: item.text, label }];
    const { bundle } = await post("v1/feedback", { answers }, { tell });
    known.answeredBy(bundle);
  } catch (caught) {
    takeBack(item, before, caught.message);
    refusal = `Not kept: ${caught.message}. The text comes again.`;
  }
  pending -= 1;
  showSending(refusal);
}

/** An answer that was not kept: its text comes next, and never under the fingers of who types. */
function takeBack(item, before, problem) {
  before === undefined ? handled.delete(item.text) : handled.set(item.text, before);
  const at = past.findLastIndex((one) => one.item === item);
  if (at >= 0) past.splice(at, 1);
  if (before === undefined) nOpen += 1;
  const others = items.filter((one) => one.text !== item.text);
  items = [...others.slice(0, 1), { ...item, problem }, ...others.slice(1)];
  if (others.length) showCount();
  else draw();
}

function skip() {
  const item = items.shift();
  const before = handled.get(item.text);
  past.push({ item, label: undefined, before });
  handled.set(item.text, before);
  next();
}

/** Show the last text again. What was said of it stands until something else is said. */
function undo() {
  const last = past.pop();
  if (!last) return announce("There is nothing to take back.");
  const { item, label, before } = last;
  const earlier = label === undefined ? before : label;
  if (earlier === undefined) handled.delete(item.text);
  const again = { ...item, problem: undefined, earlier, isAgain: earlier !== undefined };
  items = [again, ...items.filter((one) => one.text !== item.text)];
  searching = false;
  draw();
}

function next() {
  searching = false;
  if (!items.length) return load();
  draw();
}

function restart() {
  for (const [text, label] of handled) if (label === undefined) handled.delete(text);
  load();
}

function pressed(event) {
  const isOurs = isHere && usesKeys && !byId("token-dialog").open;
  if (!isOurs || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.target.closest?.("input:not([type=checkbox]), textarea")) return;
  const item = items[0];
  const key = event.key.toLowerCase();
  if (loading || searching) return;
  if (key === "z") undo();
  else if (!item) return;
  else if (key === "0" || key === "n") answer(null);
  else if (key === "s") skip();
  else if (key === "/") search();
  else if (/^[1-9]$/.test(key) && options(item)[key - 1]) answer(options(item)[key - 1].label);
  else return;
  event.preventDefault();
}

function search() {
  searching = true;
  draw();
}

function leave() {
  searching = false;
  draw();
}

function draw() {
  if (!isHere) return;
  showCount();
  const body = byId("review-body");
  const item = items[0];
  const back = past.length ? undo : null;
  if (error) fill(body, failed());
  else if (item) {
    const acts = { answer, skip, search, leave, undo: back };
    fill(body, question(item, searching, acts), legend(usesKeys, setKeys));
    const place = searching ? body.querySelector(".picker input") : byId("review-text");
    place.focus({ preventScroll: true });
  } else if (loading) fill(body, el("p", { class: "status" }, "Looking for texts."));
  else {
    fill(body, end({ ...tally(), nOpen }, { restart, load, undo: back }));
    byId("review-end").focus({ preventScroll: true });
  }
}

/** How many texts were answered, with none of the labels, and skipped. */
function tally() {
  const answered = [...handled.values()].filter((label) => label !== undefined);
  const nNone = answered.filter((label) => label === null).length;
  return { nAnswered: answered.length, nNone, nSkipped: handled.size - answered.length };
}

function setKeys(on) {
  usesKeys = on;
  try {
    on ? localStorage.removeItem(KEYS) : localStorage.setItem(KEYS, "off");
  } catch {
    // Then it lasts as long as the page.
  }
  draw();
}

function stored() {
  try {
    return localStorage.getItem(KEYS);
  } catch {
    return null;
  }
}

function failed() {
  return el(
    "div",
    { class: "notice bad", role: "alert" },
    el("p", {}, `The queue cannot be read: ${error.message}`),
    el("button", { type: "button", class: "plain", click: load }, "Try again"),
  );
}

function showCount() {
  const badge = byId("queue-count");
  badge.hidden = !nOpen;
  badge.textContent = nOpen > 999 ? "999+" : String(nOpen ?? "");
  badge.setAttribute("aria-label", `, ${nOpen ?? 0} waiting`);
  const { nAnswered, nSkipped } = tally();
  const facts = [
    nOpen === null ? null : `${counted(nOpen)} left`,
    nAnswered ? `${counted(nAnswered)} answered` : null,
    nSkipped ? `${counted(nSkipped)} skipped` : null,
  ].filter(Boolean);
  fill(
    byId("review-left"),
    facts.map((one) => el("span", {}, one)),
  );
}

/** Say what a call waits for, or why an answer was refused. */
function tell(what) {
  byId("review-sent").textContent = what;
}

function showSending(refusal = "") {
  tell(refusal || (pending > 1 ? `${plural(pending, "answer")} on the way.` : ""));
}
