// A plotly figure that is state, not a stream of changes: whatever was missed, the newest figure is
// drawn. The library comes once for the whole page, in a message of the first kernel that is asked.

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
const ASKED = Symbol.for("qatexplorer.plotly.asked");

/** @typedef {{ [LIBRARY]?: Plotly, [LOADING]?: Loading, [ASKED]?: number }} Shared */

/**
 * The library, and what to call with its compressed text when that arrives.
 * @typedef {{ library: Promise<Plotly>, arrived: (bytes: DataView) => void }} Loading
 */

// What all figures of the page share, whichever notebook output they are in.
const shared = /** @type {Shared} */ (/** @type {unknown} */ (globalThis));

// A kernel that has been asked for the library and does not answer may have ended.
const PATIENCE_MS = 20_000;
// What is asked for before a figure needs it must not hold up the first picture.
const AHEAD_MS = 1_500;

/**
 * The library is written for <script> and for loaders; as a module it gets neither.
 * @param {DataView} bytes
 * @returns {Promise<Plotly>}
 */
async function load(bytes) {
  const packed = new Blob([/** @type {DataView<ArrayBuffer>} */ (bytes)]);
  const text = new Response(packed.stream().pipeThrough(new DecompressionStream("gzip")));
  const head = "const holder = {exports: {}};\n(function (module, exports, define) {\n";
  const tail =
    "\n}).call(globalThis, holder, holder.exports, undefined);\nexport default holder.exports;\n";
  const parts = [head, await text.blob(), tail];
  const url = URL.createObjectURL(new Blob(parts, { type: "text/javascript" }));
  try {
    const library = (await import(url)).default;
    shared[LIBRARY] = library;
    return library;
  } finally {
    URL.revokeObjectURL(url);
  }
}

/** @returns {Loading} */
function loading() {
  if (!shared[LOADING]) {
    /** @type {(bytes: DataView) => void} */
    let arrived = () => {};
    /** @type {Promise<DataView>} */
    const bytes = new Promise((resolve) => {
      arrived = resolve;
    });
    shared[LOADING] = { library: bytes.then(load), arrived };
  }
  return shared[LOADING];
}

/**
 * Asks the kernel of a figure for the library, unless that of another was asked a moment ago.
 * @param {{ send: (message: object) => void }} model
 */
function ask(model) {
  const now = performance.now();
  if (now - (shared[ASKED] ?? Number.NEGATIVE_INFINITY) >= PATIENCE_MS) {
    shared[ASKED] = now;
    model.send({ kind: "plotly" });
  }
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
      if (!shared[LIBRARY]) want();
      const plotly = await loading().library;
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
    let timer = 0;
    const want = () => {
      clearTimeout(timer);
      if (gone || shared[LIBRARY]) return;
      ask(model);
      timer = setTimeout(want, PATIENCE_MS);
    };
    /** @type {(message: any, buffers: DataView[]) => void} */
    const received = (message, buffers) => {
      const [bytes] = buffers;
      if (message?.kind === "plotly" && bytes) loading().arrived(bytes);
    };
    timer = setTimeout(want, AHEAD_MS);
    const unlisten = listen(model, { "change:figure": later, "msg:custom": received });
    later();
    return () => {
      gone = true;
      clearTimeout(timer);
      resize.disconnect();
      unlisten();
      shared[LIBRARY]?.purge(box);
      box.remove();
    };
  },
};
