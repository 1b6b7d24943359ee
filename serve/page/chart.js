/** Drawings that fit the width they have, so that their words keep their size. */

import { el, svg } from "./dom.js";

/** A place that is drawn anew when its width changes; `draw(width)` gives an SVG. */
export function fitted(draw, props = {}) {
  const place = el("div", { class: "drawing", ...props });
  let width = 0;
  const again = () => {
    if (width > 0) place.replaceChildren(draw(width));
  };
  new ResizeObserver(([{ contentRect }]) => {
    const now = Math.floor(contentRect.width);
    if (now === width) return;
    width = now;
    again();
  }).observe(place);
  return Object.assign(place, { again });
}

/** From values to pixels. */
export const linear =
  ([from, to], [start, end]) =>
  (value) =>
    start + ((value - from) / (to - from || 1)) * (end - start);

/** A path through points; one without a second coordinate is a gap. */
export function path(points) {
  let pen = "M";
  return points
    .map(([x, y]) => {
      if (y === null || Number.isNaN(y)) {
        pen = "M";
        return "";
      }
      const step = `${pen}${x.toFixed(1)} ${y.toFixed(1)}`;
      pen = "L";
      return step;
    })
    .join("");
}

/** Words at a place of a drawing. */
export const words = (x, y, text, props = {}) => svg("text", { x, y, ...props }, text);

/** Steps of 1, 2 or 5 times a power of ten, about `n` of them, from 0 to the first beyond `most`. */
export function ticks(most, n = 4) {
  const rough = Math.max(most, 1e-9) / n;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough * 0.999);
  return Array.from({ length: Math.ceil(most / step - 1e-9) + 1 }, (_, index) => index * step);
}
