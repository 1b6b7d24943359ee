/** What each escalation threshold would do: a curve, and a slider over it. */

import { fitted, linear, path, words } from "./chart.js";
import { el, svg } from "./dom.js";
import { percent } from "./format.js";

const HEIGHT = 300;

/** The curve of `/v1/model` with the threshold in use, and what another would do. */
export function curve(points, chosen) {
  // A threshold that nothing reaches is infinite, which JSON does not hold.
  const finite = points.map((one) => ({ ...one, threshold: one.threshold ?? Infinity }));
  const sorted = finite.sort((a, b) => a.escalated - b.escalated);
  const inUse = chosen === null ? -1 : nearest(sorted, (one) => Math.abs(one.threshold - chosen));
  let at = Math.max(inUse, 0);
  const drawing = fitted((width) => draw(width, sorted, inUse, at), { class: "drawing curve" });
  const slider = el("input", {
    type: "range",
    min: "0",
    max: String(sorted.length - 1),
    value: String(at),
    "aria-label": "Share of texts escalated",
  });
  const readout = el("p", { class: "readout", "aria-live": "polite" });
  const show = () => {
    const point = sorted[at];
    slider.setAttribute("aria-valuetext", `${percent(point.escalated)} escalated`);
    readout.replaceChildren(
      el("span", {}, el("strong", {}, percent(point.escalated)), " escalated"),
      el(
        "span",
        { class: "caught" },
        el("strong", {}, percent(point.recall)),
        " of the errors caught",
      ),
      el(
        "span",
        { class: "right" },
        el("strong", {}, percent(point.precision)),
        " right where it answers alone",
      ),
      el(
        "span",
        { class: "soft" },
        at === inUse
          ? "the threshold in use"
          : point.threshold > 1
            ? "nothing is escalated"
            : `from a risk of ${percent(point.threshold, 2)}`,
      ),
    );
    drawing.again();
  };
  slider.addEventListener("input", () => {
    at = Number(slider.value);
    show();
  });
  show();
  return el(
    "figure",
    { class: "card chart" },
    el(
      "p",
      { class: "key" },
      el("span", { class: "caught" }, "errors that are escalated"),
      el("span", { class: "right" }, "right where answered alone"),
    ),
    drawing,
    slider,
    readout,
    el(
      "figcaption",
      { class: "hint" },
      "Counted on the rows that the threshold comes from, not on test rows: a threshold read off here carries no promise.",
    ),
  );
}

function draw(width, points, inUse, at) {
  const [left, right, top, bottom] = [44, 12, 10, 40];
  const x = linear([0, 1], [left, width - right]);
  const y = linear([0, 1], [HEIGHT - bottom, top]);
  const grid = [0, 0.25, 0.5, 0.75, 1];
  const step = width < 420 ? [0, 0.5, 1] : grid;
  const line = (kind, key) =>
    svg("path", {
      class: `line ${kind}`,
      d: path(points.map((one) => [x(one.escalated), one[key] === null ? null : y(one[key])])),
    });
  const dot = (kind, key) =>
    points[at][key] === null
      ? null
      : svg("circle", {
          class: `dot ${kind}`,
          cx: x(points[at].escalated),
          cy: y(points[at][key]),
          r: 5,
        });
  const used = inUse < 0 ? null : x(points[inUse].escalated);
  return svg(
    "svg",
    {
      width,
      height: HEIGHT,
      role: "img",
      "aria-label": "Errors caught and precision against the share of texts escalated",
    },
    grid.map((share) => [
      svg("line", { class: "grid", x1: left, x2: width - right, y1: y(share), y2: y(share) }),
      words(left - 8, y(share) + 4, `${100 * share} %`, { "text-anchor": "end" }),
    ]),
    step.map((share) =>
      words(x(share), HEIGHT - bottom + 18, `${100 * share} %`, {
        "text-anchor": share === 1 ? "end" : share ? "middle" : "start",
      }),
    ),
    words(left, HEIGHT - 4, "share of texts escalated"),
    used === null
      ? null
      : [
          svg("line", { class: "in-use", x1: used, x2: used, y1: top, y2: HEIGHT - bottom }),
          words(used + (used > width - 90 ? -6 : 6), HEIGHT - bottom - 8, "in use", {
            class: "strong",
            "text-anchor": used > width - 90 ? "end" : "start",
          }),
        ],
    line("caught", "recall"),
    line("right", "precision"),
    svg("line", {
      class: "looked-at",
      x1: x(points[at].escalated),
      x2: x(points[at].escalated),
      y1: top,
      y2: HEIGHT - bottom,
    }),
    dot("caught", "recall"),
    dot("right", "precision"),
  );
}

function nearest(list, distance) {
  return list.reduce(
    (best, one, index) => (distance(one) < distance(list[best]) ? index : best),
    0,
  );
}
