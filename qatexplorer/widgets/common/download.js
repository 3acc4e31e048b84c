// A button that saves a text which Python has made ready.

import { html, listen } from "./dom.js";
import { download } from "./file.js";

/**
 * @typedef {object} Traits see download.py
 * @property {string} label
 * @property {string} tip
 * @property {string} filename
 * @property {string} type
 * @property {string} text
 */

export default {
  /** @param {import("@anywidget/types").RenderProps<Traits>} props */
  render({ model, el }) {
    const button = html("button", { class: "qx-button" });
    const root = html("div", { class: "qx qx-download" }, [button]);
    el.append(root);
    button.addEventListener("click", () =>
      download(model.get("text"), model.get("filename"), model.get("type")),
    );
    const draw = () => {
      button.textContent = model.get("label");
      button.title = model.get("tip");
      button.disabled = model.get("text") === "";
    };
    draw();
    return listen(model, { "change:label": draw, "change:tip": draw, "change:text": draw });
  },
};
