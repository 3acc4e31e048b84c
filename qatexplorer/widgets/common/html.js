// A block of HTML that Python's views made (and escaped).

import { html, listen } from "./dom.js";

/**
 * @typedef {object} Traits see controls.py
 * @property {string} html
 * @property {string} kind
 * @property {string} role
 */

export default {
  /** @param {import("@anywidget/types").RenderProps<Traits>} props */
  render({ model, el }) {
    const root = html("div");
    el.append(root);
    const draw = () => {
      root.className = `qx ${model.get("kind")}`;
      const role = model.get("role");
      if (role) root.setAttribute("role", role);
      root.innerHTML = model.get("html");
      root.hidden = model.get("html") === "";
    };
    draw();
    return listen(model, { "change:html": draw, "change:kind": draw, "change:role": draw });
  },
};
