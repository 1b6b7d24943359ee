/** The view of what happens now: rates of all replicas, and whether the promise holds. */

import { get } from "./api.js";
import { byId, el, fill, said } from "./dom.js";
import { count, duration, ms, percent, plural, usd } from "./format.js";
import { escalated, throughput } from "./history.js";
import { known } from "./known.js";
import { drawPromise } from "./promise.js";
import { DECISIONS, judgeName } from "./words.js";

const EVERY_MS = 2000;

let isHere = false;
let isPaused = false;
let timer = null;
let asking = false;
let stats = null;

export function start() {
  fill(
    byId("live"),
    el(
      "header",
      { class: "live-head" },
      el("h1", { id: "live-title", tabindex: "-1" }, "Live"),
      el("p", { id: "live-facts", class: "facts" }),
      el("button", { id: "live-pause", type: "button", class: "plain", click: pause }, "Pause"),
    ),
    el("div", { id: "live-problem" }),
    el("div", { id: "live-alarm" }),
    el("div", { id: "live-body", class: "live-body" }),
  );
  document.addEventListener("visibilitychange", poll);
  known.addEventListener("change", () => {
    if (isHere && stats) draw();
  });
}

export function show() {
  isHere = true;
  poll();
}

export function hide() {
  isHere = false;
  clearTimeout(timer);
}

function pause() {
  isPaused = !isPaused;
  byId("live-pause").textContent = isPaused ? "Go on" : "Pause";
  poll();
}

/** Ask, and again and again, as long as somebody looks. */
async function poll() {
  clearTimeout(timer);
  if (!isHere || isPaused || document.hidden || asking) return;
  asking = true;
  try {
    // The first call may wait, for a token too; the next ones miss a turn.
    stats = await get("v1/stats", { patient: stats === null });
    problem(null);
    draw();
  } catch (error) {
    problem(error);
  }
  asking = false;
  if (isHere && !isPaused) timer = setTimeout(poll, EVERY_MS);
}

function problem(error) {
  const place = byId("live-problem");
  if (error === null) return fill(place);
  const what = stats === null ? "The figures cannot be read" : "These figures are not new";
  fill(place, el("p", { class: "notice" }, `${what}: ${error.message}.`));
  if (error.status !== 401) return;
  stats = null; // to go on asks for a token
  if (!isPaused) pause();
  byId("live-pause").textContent = "Give a token";
}

function draw() {
  fill(
    byId("live-facts"),
    [
      plural(stats.replicas, "replica"),
      `up for ${duration((Date.now() - new Date(stats.started_at)) / 1000)}`,
      `${count(stats.texts)} texts in ${plural(stats.requests, "request")} since then`,
    ].map((one) => el("span", {}, one)),
  );
  drawPromise(byId("live-alarm"), stats.escalation);
  const rates = stats.history.length ? stats.history : null;
  fill(
    byId("live-body"),
    tiles(),
    rates
      ? el("div", { class: "charts" }, throughput(rates), escalated(rates, stats.escalation))
      : null,
    el(
      "div",
      { class: "two" },
      split("Decisions", stats.decisions, (kind) => DECISIONS[kind]?.[0] ?? kind),
      split(
        "Who answered",
        stats.sources,
        (who) => ({ model: "The model", judge: "The judge", human: "A person" })[who] ?? who,
      ),
    ),
    // Whether it is simulated is known from the model alone, and never left open.
    stats.judge && known.info?.judge ? judge(stats.judge, known.info.judge) : null,
  );
}

function tiles() {
  const tile = (name, value, about, kind = "") =>
    el(
      "div",
      { class: `tile card ${kind}` },
      el("dt", {}, name),
      el("dd", {}, el("span", { class: "value" }, value), el("span", { class: "about" }, about)),
    );
  return el(
    "dl",
    { class: "tiles six" },
    tile("Texts a second", stats.texts_per_s.toFixed(stats.texts_per_s < 10 ? 1 : 0), "of late"),
    tile("Median time", ms(stats.p50_ms), "p50: half are faster"),
    tile("Slowest 1 %", ms(stats.p99_ms), "p99: 99 of 100 are faster"),
    tile("Requests", count(stats.requests), "since the start"),
    tile("Refused", count(stats.refused), "overload; told when to come back"),
    tile(
      "Errors",
      count(stats.errors),
      stats.errors ? "their request ids are in the logs" : "since the start",
      stats.errors ? "bad" : "",
    ),
  );
}

/** Shares of a whole as one bar, with their numbers. */
function split(name, counts, called) {
  const entries = Object.entries(counts).filter(([, n]) => n > 0);
  const total = entries.reduce((sum, [, n]) => sum + n, 0);
  return el(
    "section",
    { class: "split" },
    el("h3", {}, name),
    total
      ? [
          el(
            "div",
            { class: "stack", "aria-hidden": "true" },
            entries.map(([kind, n]) =>
              el("span", { class: `seg ${kind}`, "--share": String(n / total) }),
            ),
          ),
          el(
            "ul",
            {},
            entries.map(([kind, n]) =>
              el(
                "li",
                {},
                el("span", { class: `swatch ${kind}` }),
                el("span", {}, called(kind)),
                el("span", { class: "number" }, percent(n / total)),
                el("span", { class: "number soft" }, count(n)),
              ),
            ),
          ),
        ]
      : el("p", { class: "hint" }, "Nothing yet."),
  );
}

const latency = (one) => (one ? ms(one) : "–"); // 0 before the first
const JUDGE = [
  ["answered", "Answered", count],
  ["cached", "Known before", count],
  ["requests", "Requests", count],
  ["in_flight", "Under way", count],
  ["waiting", "Waiting", count],
  ["unreadable", "Unreadable", count],
  ["timeouts", "Out of time", count],
  ["errors", "Errors", count],
  ["latency_p50_ms", "Median time", latency],
  ["latency_p95_ms", "Slowest 5 %", latency],
  ["tokens", "Tokens", count],
  ["cost_usd", "Price", usd],
];

function judge(facts, about) {
  const rows = JUDGE.filter(([key]) => facts[key] !== undefined);
  return el(
    "section",
    { class: "block" },
    el("h3", {}, "Judge ", judgeName(about)),
    facts.notice
      ? el("p", { class: "notice" }, el("strong", {}, "The judge is paused. "), said(facts.notice))
      : null,
    el(
      "dl",
      { class: "what" },
      rows.map(([key, name, shown]) =>
        el("div", {}, el("dt", {}, name), el("dd", {}, shown(facts[key]))),
      ),
    ),
  );
}
