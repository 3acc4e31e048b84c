// What every widget's front end does with the page: make elements, hear its model, know the theme.

/**
 * @typedef {string | number | boolean | null | undefined} Value
 * @typedef {Record<string, Value>} Attributes
 * @typedef {(Node | string | false | null | undefined | "")[]} Children
 */

export const SVG_NS = "http://www.w3.org/2000/svg";

// JupyterLab's shortcuts would act on the cell ("m" makes it Markdown). They ask the focused
// element itself first, so this belongs on everything that takes the focus, not only around it.
export const OWN_KEYS = { "data-lm-suppress-shortcuts": "true" };

/**
 * Gives `node` attributes and children. The attribute `text` is the text inside; one that is
 * null, undefined or false is left out. Text goes in as text nodes, so no name becomes markup.
 * @template {Element} E
 * @param {E} node
 * @param {Attributes} attributes
 * @param {Children} children
 * @returns {E}
 */
function complete(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") node.textContent = String(value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children) if (child) node.append(child);
  return node;
}

/**
 * An HTML element; buttons and inputs keep their keys from JupyterLab.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Attributes} [attributes]
 * @param {Children} [children]
 */
export function html(tag, attributes = {}, children = []) {
  const node = document.createElement(tag);
  if (tag === "button") complete(node, { type: "button", ...OWN_KEYS }, []);
  if (tag === "input") complete(node, OWN_KEYS, []);
  return complete(node, attributes, children);
}

/**
 * An SVG element.
 * @template {keyof SVGElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Attributes} [attributes]
 * @param {Children} [children]
 */
export function svg(tag, attributes = {}, children = []) {
  return complete(document.createElementNS(SVG_NS, tag), attributes, children);
}

/**
 * The nearest element at or around the target of an event that matches `selector`.
 * @param {EventTarget | null} target
 * @param {string} selector
 * @returns {HTMLElement | SVGElement | null}
 */
export function closest(target, selector) {
  return target instanceof Element ? target.closest(selector) : null;
}

/**
 * Hears events of a model. Returns what ends that.
 * @param {{ on: (event: string, f: (...args: any[]) => void) => void,
 *   off: (event: any, f: (...args: any[]) => void) => void }} model
 * @param {Record<string, (...args: any[]) => void>} handlers
 */
export function listen(model, handlers) {
  const pairs = Object.entries(handlers);
  for (const [event, handler] of pairs) model.on(event, handler);
  return () => {
    for (const [event, handler] of pairs) model.off(event, handler);
  };
}

/**
 * Sets traits and sends them to Python.
 * @template {Record<string, any>} Traits
 * @param {import("@anywidget/types").AnyModel<Traits>} model
 * @param {Partial<Traits>} changes
 */
export function save(model, changes) {
  for (const name of Object.keys(changes)) {
    model.set(name, /** @type {Traits[string]} */ (changes[name]));
  }
  model.save_changes();
}

/**
 * The theme that a widget forces on itself: null follows the page, see base.css.
 * @param {HTMLElement} root
 * @param {boolean | null} dark
 */
export function forceTheme(root, dark) {
  root.classList.toggle("qx-dark", dark === true);
  root.classList.toggle("qx-light", dark === false);
}

/** Whether the page is dark: Jupyter says so itself; elsewhere its colours or the system do. */
export function pageIsDark() {
  const { body } = document;
  if (body.dataset.jpThemeLight !== undefined) return body.dataset.jpThemeLight === "false";
  if (document.querySelector(".jp-theme-dark")) return true;
  const colour = getComputedStyle(body).getPropertyValue("--jp-layout-color1").trim();
  const hex = /^#([0-9a-f]{3}|[0-9a-f]{6})$/i.exec(colour)?.[1];
  if (hex) {
    const full = hex.length === 3 ? [...hex].map((c) => c + c).join("") : hex;
    const [r, g, b] = [0, 2, 4].map((i) => Number.parseInt(full.slice(i, i + 2), 16));
    return 0.3 * r + 0.59 * g + 0.11 * b < 110;
  }
  if (colour === "white") return false;
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

/**
 * Calls `onChange` when the page or the system may have changed its theme. Returns what ends that.
 * @param {() => void} onChange
 */
export function watchPageTheme(onChange) {
  const watcher = new MutationObserver(onChange);
  const names = ["class", "data-jp-theme-light", "data-jp-theme-name"];
  watcher.observe(document.body, { attributes: true, attributeFilter: names });
  const system = matchMedia("(prefers-color-scheme: dark)");
  system.addEventListener("change", onChange);
  return () => {
    watcher.disconnect();
    system.removeEventListener("change", onChange);
  };
}

/**
 * Whether a key is held that makes an event a shortcut of the browser or the system.
 * @param {KeyboardEvent} event
 */
export function isShortcut(event) {
  return event.ctrlKey || event.metaKey || event.altKey;
}

/**
 * Plain data that Python may have sent as the bytes of its JSON (see packed.py).
 * @param {any} value
 */
export function unpacked(value) {
  return ArrayBuffer.isView(value) ? JSON.parse(new TextDecoder().decode(value)) : value;
}
