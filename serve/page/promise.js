/** Whether what is escalated keeps to what calibration promised. */

import { fitted, linear, words } from "./chart.js";
import { announce, el, fill, svg } from "./dom.js";
import { percent, plural } from "./format.js";

const WIDE = 0.5; // a band that holds half of all shares says nothing

/** Say it in a place that stays; where it does not, what that means and what to do. */
export function drawPromise(place, rate) {
  const kind = rate.alarm
    ? rate.share > rate.promised
      ? "above"
      : "below"
    : isTelling(rate)
      ? "kept"
      : "unknown";
  if (place.dataset.kind !== kind) {
    // Its links are made once: a new one every two seconds would lose the keyboard's place.
    if (rate.alarm) announce("Alarm: the share of texts escalated left its band");
    else if (place.dataset.kind in REMEDY)
      announce("The share of texts escalated is back in its band");
    place.dataset.kind = kind;
    fill(
      place,
      el(
        "section",
        { class: `promise ${rate.alarm ? "alarm" : `is-${kind}`}` },
        el("div", { class: "promise-now" }),
        el("div", { class: "promise-band" }),
        rate.alarm ? el("div", { class: "promise-do" }, REMEDY[kind]()) : null,
      ),
    );
  }
  fill(place.querySelector(".promise-now"), promiseWords(rate));
  fill(place.querySelector(".promise-band"), isTelling(rate) ? band(rate) : null);
}

/** Whether there are enough texts, and a promise, to compare. */
const isTelling = (rate) =>
  rate.promised !== null &&
  rate.share !== null &&
  rate.low !== null &&
  rate.high - rate.low <= WIDE;

function promiseWords(rate) {
  const now = `${percent(rate.share)} of the last ${plural(rate.n_texts, "text")}`;
  if (rate.promised === null)
    return [
      el("h2", {}, rate.share === null ? "Nothing was asked yet" : `${now} were escalated`),
      el("p", {}, "Calibration promised nothing: no goal is set, so there is no band to leave."),
    ];
  const { said, from } = wordsOf(rate);
  if (!isTelling(rate))
    return [
      el("h2", {}, "Too few texts to tell"),
      el(
        "p",
        {},
        `${from} ${percent(rate.promised)} escalated. Once there are enough texts, this says whether that holds.`,
      ),
    ];
  const range = `${percent(rate.low)} to ${percent(rate.high)}`;
  if (!rate.alarm)
    return [
      el("h2", {}, `As ${said}`),
      el(
        "p",
        {},
        `${now} were escalated. ${from} ${percent(rate.promised)}, and for so many texts anything from ${range} is ordinary.`,
      ),
    ];
  return [
    el(
      "h2",
      {},
      rate.share > rate.promised
        ? `More is escalated than ${said}`
        : `Less is escalated than ${said}`,
    ),
    el(
      "p",
      {},
      `${now} were escalated. ${from} ${percent(rate.promised)}, and only one window in a hundred falls outside ${range}.`,
    ),
  ];
}

/** A promise that rests on training rows is called an estimate. */
export const wordsOf = (rate) =>
  rate.estimate
    ? { said: "expected", from: "An estimate from training rows, no guarantee, expects" }
    : { said: "promised", from: "Calibration promised" };

const KIND = "The texts are probably no longer of the kind that the model was calibrated on";
const AGAIN = () =>
  el(
    "p",
    {},
    el("strong", {}, "What to do: "),
    "look at ",
    el("a", { href: "#/review" }, "what waits in Review"),
    ", label a few hundred recent texts, and set the thresholds on them: ",
    el("code", {}, "red-ray thresholds RUN --goal … --calibration recent.csv"),
    "; or train again with their labels.",
  );

/** What an alarm means and what to do about it. */
const REMEDY = {
  above: () => [
    el(
      "p",
      {},
      `${KIND}: new subjects, another language, another channel. The judge costs more, and what is answered alone may be wrong more often than promised.`,
    ),
    AGAIN(),
  ],
  below: () => [
    el(
      "p",
      {},
      `${KIND}; many that are alike do this too. Errors may pass that calibration would have caught.`,
    ),
    AGAIN(),
  ],
};

/** The share of late in its band. */
function band(rate) {
  const most = Math.min(1, Math.max(rate.share, rate.high ?? 0, rate.promised) * 1.25 + 0.02);
  const draw = (width) => {
    const x = linear([0, most], [6, width - 6]);
    const anchor = (at) => (at < 50 ? "start" : at > width - 50 ? "end" : "middle");
    return svg(
      "svg",
      {
        width,
        height: 74,
        role: "img",
        "aria-label": `${percent(rate.share)} escalated, ${percent(rate.promised)} ${wordsOf(rate).said}`,
      },
      svg("rect", { class: "scale-track", x: 0, y: 28, width, height: 14, rx: 4 }),
      rate.low === null
        ? null
        : svg("rect", {
            class: "band",
            x: x(rate.low),
            y: 28,
            width: Math.max(2, x(rate.high) - x(rate.low)),
            height: 14,
          }),
      svg("line", {
        class: "promised",
        x1: x(rate.promised),
        x2: x(rate.promised),
        y1: 24,
        y2: 46,
      }),
      words(x(rate.promised), 62, `${wordsOf(rate).said} ${percent(rate.promised)}`, {
        "text-anchor": anchor(x(rate.promised)),
      }),
      svg("circle", {
        class: rate.alarm ? "scale-mark bad" : "scale-mark",
        cx: x(rate.share),
        cy: 35,
        r: 7,
      }),
      words(x(rate.share), 16, `now ${percent(rate.share)}`, {
        class: "strong",
        "text-anchor": anchor(x(rate.share)),
      }),
    );
  };
  return fitted(draw);
}
