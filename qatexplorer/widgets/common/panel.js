// Shows HTML of a view (escaped by the view that made it) and hands clicks on [data-select] to
// Python as the selection, those on [data-ask] as a message.

import { closest, forceTheme, html, listen, OWN_KEYS, save } from "./dom.js";

/**
 * @typedef {object} Traits see panel.py
 * @property {string} html
 * @property {string} selected
 * @property {boolean | null} dark
 */

/** What a fold is called, without the count behind its name. @param {Element} details */
function title(details) {
  const summary = details.querySelector("summary")?.textContent ?? "";
  return summary.replace(/\(.*$/, "").trim();
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
      if (!fromHere) return;
      fromHere = false;
      if (heading) {
        heading.tabIndex = -1;
        heading.focus({ preventScroll: true });
      }
    };
    root.addEventListener("click", (event) => {
      const wanted = closest(event.target, "[data-ask]")?.dataset.ask;
      if (wanted !== undefined) model.send({ ask: wanted });
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
