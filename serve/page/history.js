/** The last minutes as drawings. */

import { fitted, linear, path, ticks, words } from "./chart.js";
import { el, svg } from "./dom.js";
import { wordsOf } from "./promise.js";

const HEIGHT = 150;

const chart = (name, about, draw) =>
  el(
    "figure",
    { class: "card chart" },
    el("h3", {}, name),
    fitted(draw),
    el("figcaption", { class: "hint" }, about),
  );

/** Axes of time and of values up to `most`, around what is drawn on them. */
function frame(history, width, most, label, content) {
  const [left, right, top, bottom] = [46, 8, 8, 24];
  const steps = ticks(most, 3);
  const from = new Date(history[0].at).getTime();
  const to = Math.max(new Date(history.at(-1).at).getTime(), from + 1);
  const x = linear([from, to], [left, width - right]);
  const y = linear([0, steps.at(-1) || 1], [HEIGHT - bottom, top]);
  const time = (at) =>
    new Date(at).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  return svg(
    "svg",
    { width, height: HEIGHT, role: "img", "aria-label": label.summary },
    steps.map((value) => [
      svg("line", { class: "grid", x1: left, x2: width - right, y1: y(value), y2: y(value) }),
      words(left - 8, y(value) + 4, label.tick(value), { "text-anchor": "end" }),
    ]),
    content(x, y, left, width - right),
    words(left, HEIGHT - 4, time(from)),
    words(width - right, HEIGHT - 4, time(to), { "text-anchor": "end" }),
  );
}

/** Texts a second, with the spans in which calls failed. */
export function throughput(history) {
  const span = spanOf(history);
  const rates = history.map((one) => one.texts / span);
  const most = Math.max(...rates, 1);
  const failed = history.filter((one) => one.errors);
  const draw = (width) =>
    frame(
      history,
      width,
      most,
      {
        summary: `Texts a second, at most ${most.toFixed(0)}`,
        tick: (value) => String(Number(value.toPrecision(3))),
      },
      (x, y) => {
        const points = history.map((one, index) => [x(new Date(one.at)), y(rates[index])]);
        return [
          svg("path", {
            class: "area",
            d: `${path(points)}L${points.at(-1)[0]} ${y(0)}L${points[0][0]} ${y(0)}Z`,
          }),
          svg("path", { class: "line caught", d: path(points) }),
          failed.map((one) =>
            svg("circle", { class: "error-mark", cx: x(new Date(one.at)), cy: y(0), r: 4 }),
          ),
        ];
      },
    );
  return chart("Texts a second", failed.length ? "Dots: errors." : "The last minutes.", draw);
}

/** The share of texts escalated, beside what was promised. */
export function escalated(history, rate) {
  const shares = history.map((one) => (one.texts ? one.escalated / one.texts : null));
  const most = Math.min(1, Math.max(...shares.map((one) => one ?? 0), rate.high ?? 0, 0.1));
  const draw = (width) =>
    frame(
      history,
      width,
      most,
      {
        summary: "Share of texts escalated",
        tick: (value) => `${Number((100 * value).toPrecision(3))} %`,
      },
      (x, y, left, right) => [
        rate.low === null
          ? null
          : svg("rect", {
              class: "band",
              x: left,
              y: y(rate.high),
              width: right - left,
              height: Math.max(1, y(rate.low) - y(rate.high)),
            }),
        rate.promised === null
          ? null
          : svg("line", {
              class: "promised",
              x1: left,
              x2: right,
              y1: y(rate.promised),
              y2: y(rate.promised),
            }),
        svg("path", {
          class: "line right",
          d: path(
            history.map((one, index) => [
              x(new Date(one.at)),
              shares[index] === null ? null : y(shares[index]),
            ]),
          ),
        }),
      ],
    );
  return chart(
    "Share escalated",
    rate.promised === null
      ? "The last minutes."
      : `Line: ${wordsOf(rate).said}. Band: ordinary for the whole window; single points swing more.`,
    draw,
  );
}

/** Seconds that a point of the history stands for. */
function spanOf(history) {
  return history.length > 1
    ? Math.max(1, (new Date(history[1].at) - new Date(history[0].at)) / 1000)
    : 10;
}
