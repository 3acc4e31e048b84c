// A plotly figure that is state, not a stream of changes: whatever was missed, the newest figure is
// drawn. The library comes once for the whole page, from the widget PlotlySource.

import { html, listen } from "./dom.js";

/**
 * @typedef {object} Traits see plot.py
 * @property {{ data?: object[], layout?: { height?: number } }} figure
 * @property {string} label
 */

/**
 * What is used of plotly.js.
 * @typedef {object} Plotly
 * @property {(box: HTMLElement, data: object[], layout: object, config: object) => Promise<void>} react
 * @property {(box: HTMLElement) => void} purge
 * @property {{ resize: (box: HTMLElement) => void }} Plots
 */

const LIBRARY = Symbol.for("qatexplorer.plotly");
const LOADING = Symbol.for("qatexplorer.plotly.loading");
const SOURCE = Symbol.for("qatexplorer.plotly.source");

/** @typedef {{ [LIBRARY]?: Plotly, [LOADING]?: Promise<Plotly>, [SOURCE]?: string }} Shared */

// What all figures of the page share, whichever notebook output they are in.
const shared = /** @type {Shared} */ (/** @type {unknown} */ (globalThis));

/** @returns {Promise<string>} */
function source() {
  const text = shared[SOURCE];
  if (text) return Promise.resolve(text);
  return new Promise((resolve) => {
    const arrived = () => resolve(shared[SOURCE] ?? "");
    globalThis.addEventListener("qatexplorer-plotly-source", arrived, { once: true });
  });
}

/**
 * The library is written for <script> and for loaders; as a module it gets neither.
 * @returns {Promise<Plotly>}
 */
async function load() {
  const text = await source();
  const head = "const holder = {exports: {}};\n(function (module, exports, define) {\n";
  const tail =
    "\n}).call(globalThis, holder, holder.exports, undefined);\nexport default holder.exports;\n";
  const url = URL.createObjectURL(new Blob([head, text, tail], { type: "text/javascript" }));
  try {
    const library = (await import(url)).default;
    shared[LIBRARY] = library;
    return library;
  } finally {
    URL.revokeObjectURL(url);
  }
}

function library() {
  shared[LOADING] ??= load();
  return shared[LOADING];
}

export default {
  /** @param {import("@anywidget/types").RenderProps<Traits>} props */
  render({ model, el }) {
    const box = html("div", { class: "qx qx-plot" });
    el.append(box);
    let gone = false;
    let drawing = Promise.resolve();
    let queued = false;

    const draw = async () => {
      queued = false;
      const shown = Array.isArray(model.get("figure").data);
      el.hidden = !shown;
      if (!shown) return;
      const plotly = await library();
      const { data, layout = {} } = model.get("figure");
      if (gone || !Array.isArray(data)) return;
      // A resize takes the size of the box, its height too.
      if (layout.height) box.style.height = `${layout.height}px`;
      box.setAttribute("role", "img");
      box.setAttribute("aria-label", model.get("label"));
      const config = {
        responsive: true,
        displaylogo: false,
        displayModeBar: "hover",
        modeBarButtonsToRemove: ["select2d", "lasso2d"],
      };
      await plotly.react(box, data, { ...layout, autosize: true }, config);
      box.dataset.drawn = String(Number(box.dataset.drawn ?? 0) + 1);
    };
    const later = () => {
      if (queued) return;
      queued = true;
      drawing = drawing.then(draw, draw);
    };
    const resize = new ResizeObserver(() => {
      if (box.classList.contains("js-plotly-plot") && box.offsetWidth > 0) {
        shared[LIBRARY]?.Plots.resize(box);
      }
    });
    resize.observe(el);
    const unlisten = listen(model, { "change:figure": later });
    later();
    return () => {
      gone = true;
      resize.disconnect();
      unlisten();
      shared[LIBRARY]?.purge(box);
      box.remove();
    };
  },
};
