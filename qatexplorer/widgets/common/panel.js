// Shows HTML of a view (escaped by the view that made it) and hands clicks on [data-select] to
// Python as the selection, those on [data-ask] as a message (of a field with what is typed into it
// behind it); [data-copy] copies what it says.

import { closest, forceTheme, html, listen, OWN_KEYS, save } from "./dom.js";

/**
 * @typedef {object} Traits see panel.py
 * @property {string} html
 * @property {string} selected
 * @property {boolean | null} dark
 */

/** How long a button says that it has copied. */
const SAID_MS = 1600;

/** What a fold is called, without the count behind its name. @param {Element} details */
function title(details) {
  const summary = details.querySelector("summary")?.textContent ?? "";
  return summary.replace(/\(.*$/, "").trim();
}

/**
 * Copies a text, and says so on the button that asked for it.
 * @param {HTMLElement | SVGElement} button
 * @param {string} text
 */
async function copy(button, text) {
  const before = button.textContent;
  const done = await navigator.clipboard?.writeText(text).then(
    () => true,
    () => false,
  );
  button.textContent = done || copyBySelection(button, text) ? "Copied" : "Select and copy it";
  setTimeout(() => {
    button.textContent = before;
  }, SAID_MS);
}

/**
 * Where a page may not use the clipboard: over plain http, or in a frame.
 * @param {HTMLElement | SVGElement} button takes the focus again
 * @param {string} text
 */
function copyBySelection(button, text) {
  const field = html("textarea", { class: "qx-sr", "aria-hidden": "true" });
  field.value = text;
  button.parentElement?.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  button.focus();
  return done;
}

/**
 * What the button that has the focus asks for.
 * @param {HTMLElement} root
 */
function askedBy(root) {
  const focused = root.contains(document.activeElement) ? document.activeElement : null;
  return focused instanceof HTMLElement ? focused.dataset.ask : undefined;
}

/**
 * Gives the focus to the button that asks for the same; false if there is none.
 * @param {HTMLElement} root
 * @param {string} asked
 */
function focusAsking(root, asked) {
  /** @type {HTMLElement[]} */
  const buttons = [...root.querySelectorAll("[data-ask]")].filter((e) => e instanceof HTMLElement);
  const again = buttons.find((button) => button.dataset.ask === asked);
  again?.focus({ preventScroll: true });
  return again !== undefined;
}

/**
 * The number in a field, or the nearest one that it may hold; the one that it held for none.
 * @param {HTMLInputElement} field
 */
function within(field) {
  const value = field.value === "" ? Number.NaN : Math.round(Number(field.value));
  if (Number.isNaN(value)) return field.defaultValue;
  return String(Math.min(Math.max(value, Number(field.min)), Number(field.max)));
}

export default {
  /** @param {import("@anywidget/types").RenderProps<Traits>} props */
  render({ model, el }) {
    const root = html("div", { class: "qx qx-inspector", ...OWN_KEYS });
    /** Titles of what is folded out. @type {Set<string>} */
    const open = new Set();
    let fromHere = false;
    let about = "";

    const look = () => forceTheme(root, model.get("dark"));
    const draw = () => {
      // What a user folded out for one module they want to see for the next one too.
      for (const details of root.querySelectorAll("details")) {
        if (details.open) open.add(title(details));
        else open.delete(title(details));
      }
      const asked = askedBy(root);
      root.innerHTML = model.get("html");
      for (const details of root.querySelectorAll("details")) {
        if (open.has(title(details))) details.open = true;
      }
      const heading = root.querySelector("h3");
      // Another thing is read from its top; the same one, drawn again, stays where it was.
      if (heading && heading.textContent !== about) {
        about = heading.textContent ?? "";
        root.closest(".qx-part-inspector")?.scrollTo(0, 0);
      }
      // Who works by keys goes on from where they were, or from the top.
      if (asked !== undefined && !focusAsking(root, asked)) fromHere = true;
      if (!fromHere) return;
      fromHere = false;
      if (heading) {
        heading.tabIndex = -1;
        heading.focus({ preventScroll: true });
      }
    };
    /** What is typed, once: pressing Enter may or may not count as a change. @param {Event} event */
    const typed = (event) => {
      const field = event.target;
      if (!(field instanceof HTMLInputElement) || field.dataset.ask === undefined) return;
      if (event instanceof KeyboardEvent && event.key !== "Enter") return;
      field.value = within(field);
      if (field.value === (field.dataset.sent ?? field.defaultValue)) return;
      field.dataset.sent = field.value;
      model.send({ ask: `${field.dataset.ask}:${field.value}` });
    };
    root.addEventListener("change", typed);
    root.addEventListener("keydown", typed);
    root.addEventListener("click", (event) => {
      const wanted = closest(event.target, "[data-ask]:not(input)")?.dataset.ask;
      if (wanted !== undefined) model.send({ ask: wanted });
      const copied = closest(event.target, "[data-copy]");
      if (copied?.dataset.copy !== undefined) copy(copied, copied.dataset.copy);
      const selected = closest(event.target, "[data-select]")?.dataset.select;
      if (selected === undefined) return;
      fromHere = true;
      save(model, { selected });
    });
    const unlisten = listen(model, { "change:html": draw, "change:dark": look });
    look();
    draw();
    el.append(root);
    return () => {
      unlisten();
      root.remove();
    };
  },
};
