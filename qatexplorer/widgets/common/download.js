// A button that saves a text which Python has made ready, on the page or in the kernel.

import { html, listen } from "./dom.js";
import { download } from "./file.js";

/**
 * @typedef {object} Traits see download.py
 * @property {string} label
 * @property {string} tip
 * @property {string} filename
 * @property {string} type
 * @property {string} text
 * @property {boolean} held
 */

/**
 * @param {DataView} bytes compressed by gzip
 * @returns {Promise<string>}
 */
function unzipped(bytes) {
  const packed = new Blob([/** @type {DataView<ArrayBuffer>} */ (bytes)]);
  return new Response(packed.stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

export default {
  /** @param {import("@anywidget/types").RenderProps<Traits>} props */
  render({ model, el }) {
    const button = html("button", { class: "qx-button" });
    const root = html("div", { class: "qx qx-download" }, [button]);
    el.append(root);
    let asked = "";
    /** @param {string} text */
    const save = (text) => download(text, model.get("filename"), model.get("type"));
    button.addEventListener("click", () => {
      if (!model.get("held")) return save(model.get("text"));
      asked = Math.random().toString(36).slice(2);
      model.send({ ask: asked });
    });
    /**
     * Another page that shows the same widget hears the answer too.
     * @param {any} message
     * @param {DataView[]} buffers
     */
    const receive = (message, buffers) => {
      if (message?.answers === asked && buffers[0]) unzipped(buffers[0]).then(save);
    };
    const draw = () => {
      button.textContent = model.get("label");
      button.title = model.get("tip");
      button.disabled = model.get("text") === "" && !model.get("held");
    };
    draw();
    return listen(model, {
      "change:label": draw,
      "change:tip": draw,
      "change:text": draw,
      "change:held": draw,
      "msg:custom": receive,
    });
  },
};
