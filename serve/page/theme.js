// A script of its own, before anything is drawn: the page must not flash in the other scheme.
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("red_ray.theme");
  } catch {
    // A browser that keeps nothing for us follows the system.
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
