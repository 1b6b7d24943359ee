/** Elements from plain values. A string is always text, never markup. */

const SVG = "http://www.w3.org/2000/svg";
const LONG_NAME = 40; // where a name may be cut, the rest shows under the pointer
const HIDDEN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/g;

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/**
 * An element.
 *
 * `props`: attributes by name; a function is a listener, `true` an attribute without a value, and
 * null, undefined or false is left out. Keys that begin with `--` are CSS variables.
 */
export function el(tag, props = {}, ...children) {
  return filled(document.createElement(tag), props, children);
}

/** As `el`, of SVG. */
export function svg(tag, props = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), props, children);
}

function filled(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else if (name.startsWith("--")) node.style.setProperty(name, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(
    ...children
      .flat(Infinity)
      .filter((child) => child !== null && child !== undefined && child !== false),
  );
  return node;
}

/** Put these in the place of what a node holds. */
export function fill(node, ...children) {
  node.replaceChildren(
    ...children
      .flat(Infinity)
      .filter((child) => child !== null && child !== undefined && child !== false),
  );
  return node;
}

/** A user's text in its own direction; control characters become their pictures. */
export function said(text, tag = "bdi", props = {}) {
  const visible = text.replace(HIDDEN, (one) =>
    String.fromCodePoint(one === "\u007f" ? 0x2421 : 0x2400 + one.charCodeAt(0)),
  );
  return el(tag, { dir: "auto", ...props }, visible);
}

/** A label's name, or words for none; a name may break after its dashes. */
export function labelled(label) {
  if (label === null) return el("em", { class: "none" }, "none of the labels");
  const name = said(label, "bdi", {
    class: "label",
    title: label.length > LONG_NAME ? label : null,
  });
  const parts = name.textContent.split(/(?<=[_\-/.:])(?=\w)/);
  return fill(
    name,
    parts.map((part, index) => (index ? [el("wbr"), part] : part)),
  );
}

/** Tell those who do not see the page. */
export function announce(words) {
  byId("announcer").textContent = words;
}

/** A button that copies `full` and shows `short`. */
export function copyable(short, full, what) {
  const button = el(
    "button",
    { type: "button", class: "copy", title: `${full}: copy`, "aria-label": `Copy ${what} ${full}` },
    short,
  );
  button.addEventListener("click", async () => {
    const done = await copied(full);
    button.textContent = done ? "copied" : short;
    announce(done ? `Copied ${what}` : "The browser does not let this page copy");
    setTimeout(() => (button.textContent = short), 1200);
  });
  return button;
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false; // no clipboard without TLS or localhost; the full id stands in the title
  }
}

/** A table's cell or heading. */
export const th = (words, props = {}) => el("th", { scope: "col", ...props }, words);
export const td = (words, props = {}) => el("td", props, words ?? "");
