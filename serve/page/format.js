/** Numbers as people read them. */

const NBSP = "\u00a0";
const whole = new Intl.NumberFormat("en");

/** 1234 -> 1,234 */
export const count = (value) => whole.format(value);

/** 1, "text" -> 1 text */
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

/** 0.9137 -> 91.4 %; a share that is not quite all or nothing never reads as if it were. */
export function percent(share, digits = 1) {
  if (share === null || share === undefined) return "–";
  const shown = (100 * share).toFixed(digits);
  if (share > 0 && Number(shown) === 0) return `<${NBSP}${(10 ** -digits).toFixed(digits)}${NBSP}%`;
  if (share < 1 && Number(shown) === 100)
    return `>${NBSP}${(100 - 10 ** -digits).toFixed(digits)}${NBSP}%`;
  return `${shown}${NBSP}%`;
}

/** A share that was set, not measured: 0.9 -> 90 % */
export const setShare = (share) => `${Number((100 * share).toFixed(4))}${NBSP}%`;

/** [0.905, 0.925] -> 90.5 – 92.5 % */
export const interval = ([low, high]) => `${(100 * low).toFixed(1)} – ${percent(high)}`;

/** Milliseconds: 0.41 -> 0.41 ms, 14.2 -> 14 ms, 2003 -> 2.0 s */
export function ms(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 1000) return `${(value / 1000).toFixed(1)}${NBSP}s`;
  return `${value < 1 ? value.toFixed(2) : value < 10 ? value.toFixed(1) : value.toFixed(0)}${NBSP}ms`;
}

/** US dollars, small ones too; null: nobody knows the price. */
export function usd(value) {
  if (value === null || value === undefined) return "price unknown";
  if (value === 0) return "$0";
  if (value < 0.0000005) return "< $0.000001";
  return `$${value >= 1 ? value.toFixed(2) : String(Number(value.toPrecision(2).slice(0, 12)))}`;
}

/** Seconds as a duration: 18720 -> 5 h 12 min */
export function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)}${NBSP}s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 120) return `${minutes}${NBSP}min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours}${NBSP}h ${minutes % 60}${NBSP}min`;
  return `${Math.round(hours / 24)}${NBSP}days`;
}

/** A moment as local date and time. */
export const moment = (iso) =>
  new Date(iso).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });

/** The first characters of a bundle's id. */
export const short = (bundle) => (bundle ? bundle.slice(0, 8) : "unnamed");
