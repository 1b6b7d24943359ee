/** Starts the page: views by address, the theme, what is said about the endpoint. */

import { endpoint } from "./api.js";
import * as classify from "./classify.js";
import { announce, byId, copyable, el, fill, svg } from "./dom.js";
import { short } from "./format.js";
import { known } from "./known.js";
import * as live from "./live.js";
import * as model from "./model.js";
import * as review from "./review.js";

const VIEWS = { classify, review, model, live };
const THEMES = {
  system: [
    "Theme: as the system",
    "M12 3.5a8.5 8.5 0 1 0 0 17a8.5 8.5 0 1 0 0-17Z M12 3.5v17a8.5 8.5 0 0 0 0-17Z",
  ],
  light: [
    "Theme: light",
    "M12 8a4 4 0 1 0 0 8a4 4 0 0 0 0-8Z M12 2v2.5 M12 19.5v2.5 M2 12h2.5 M19.5 12h2.5 M5 5l1.7 1.7 M17.3 17.3 19 19 M5 19l1.7-1.7 M17.3 6.7 19 5",
  ],
  dark: ["Theme: dark", "M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5Z"],
};
const THEME = "red_ray.theme";

let shown = null;

function route({ focus = true } = {}) {
  const isPlace = location.hash && !location.hash.startsWith("#/");
  if (isPlace && shown) return; // somewhere on the page: the view stays
  const wanted = location.hash.slice(2).split(/[/?]/)[0];
  const name = Object.hasOwn(VIEWS, wanted) ? wanted : "classify";
  if (name === shown) return;
  if (shown) {
    byId(shown).hidden = true;
    VIEWS[shown].hide?.();
  }
  shown = name;
  byId(name).hidden = false;
  for (const link of document.querySelectorAll(".top nav a")) {
    const here = link.hash === `#/${name}`;
    link.toggleAttribute("data-here", here);
    here ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
  }
  document.title = `${name[0].toUpperCase()}${name.slice(1)} · red_ray`;
  VIEWS[name].show();
  if (focus) {
    scrollTo(0, 0);
    byId(`${name}-title`).focus({ preventScroll: true });
  }
}

function showEndpoint() {
  const banner = byId("banner");
  banner.hidden = endpoint.state === "up";
  if (endpoint.state === "up") {
    announce("The endpoint answers.");
    known.load(); // it may have come back with another bundle
  }
  const words = {
    away: "The endpoint cannot be reached. What you typed stays; this page goes on by itself when it is back.",
    starting: `The endpoint is not ready yet${endpoint.detail ? `: ${endpoint.detail}` : ""}. This page goes on by itself.`,
  };
  fill(banner, el("span", { class: "pulse" }), el("span", {}, words[endpoint.state] ?? ""));
}

function showModel() {
  const place = byId("answering");
  const { info } = known;
  if (info === null) return fill(place);
  const name = info.run.split("/").filter(Boolean).at(-1) ?? "";
  fill(
    place,
    el("span", { class: "run", title: info.run }, name),
    copyable(short(info.bundle), info.bundle, "bundle id"),
  );
}

function theme() {
  try {
    return localStorage.getItem(THEME) ?? "system";
  } catch {
    return "system";
  }
}

function setTheme(name) {
  const root = document.documentElement;
  name === "system" ? delete root.dataset.theme : (root.dataset.theme = name);
  try {
    name === "system" ? localStorage.removeItem(THEME) : localStorage.setItem(THEME, name);
  } catch {
    // Then it lasts as long as the page.
  }
  showTheme(name);
}

function showTheme(name) {
  const [words, path] = THEMES[name] ?? THEMES.system;
  const button = byId("theme");
  button.title = words;
  button.setAttribute("aria-label", `${words}. Change it`);
  button.dataset.now = name;
  fill(
    button,
    svg("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, svg("path", { d: path })),
  );
}

function start() {
  showTheme(theme());
  byId("theme").addEventListener("click", () => {
    const names = Object.keys(THEMES);
    const now = names.indexOf(byId("theme").dataset.now);
    setTheme(names[(now + 1) % names.length]);
  });
  endpoint.addEventListener("change", showEndpoint);
  known.addEventListener("change", showModel);
  for (const view of Object.values(VIEWS)) view.start();
  addEventListener("hashchange", () => route());
  route({ focus: false });
  known.load();
}

start();
