// A plotly figure that is state, not a stream of changes: whatever was missed, the newest figure is
// drawn. The library comes once for the whole page, in a message of the first kernel that is asked.

import { html, listen, OWN_KEYS, unpacked } from "./dom.js";

/**
 * @typedef {object} Traits see plot.py
 * @property {DataView | Figure} figure bytes of its JSON, see packed.py
 * @property {string} label
 */

/** @typedef {{ data?: object[], layout?: Record<string, any> }} Figure */

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

/** @typedef {{ on?: (name: string, heard: (event: { points: Point[] }) => void) => void }} Drawn */

/** @typedef {{ id?: unknown, customdata?: unknown }} Point */

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

const CONFIG = {
  displaylogo: false,
  displayModeBar: "hover",
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"],
};

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
 * What a page writes itself: see `make_figure` in theme.py of the views.
 * @typedef {object} Meta
 * @property {string} title
 * @property {string} subtitle
 * @property {number} head px of the top margin that title and subtitle have in the figure
 * @property {string} alt
 * @property {{ head: string[], rows: string[][] } | null} table
 */

/**
 * The layout without the heading that the page writes above it, and without its room.
 * @param {Record<string, any>} layout
 * @returns {Record<string, any>}
 */
export function withoutHeading(layout) {
  /** @type {Meta | undefined} */
  const meta = layout.meta;
  if (!meta?.head) return { ...layout, autosize: true };
  const { title, ...rest } = layout;
  const margin = { ...layout.margin, t: Math.max(8, (layout.margin?.t ?? 76) - meta.head) };
  return { ...rest, margin, height: layout.height - meta.head, autosize: true };
}

/**
 * A path may break where its parts meet, and not in the middle of a word.
 * @param {string} text
 */
function breakable(text) {
  return text.split(/(?<=[._])/).flatMap((part) => [part, html("wbr")]);
}

/** @param {NonNullable<Meta["table"]>} table */
function numbers({ head, rows }) {
  const cells = (/** @type {string[]} */ texts, /** @type {"th" | "td"} */ tag) =>
    html(
      "tr",
      {},
      texts.map((text) => html(tag, tag === "th" ? { text, scope: "col" } : { text })),
    );
  return html("table", {}, [
    html("thead", {}, [cells(head, "th")]),
    html(
      "tbody",
      {},
      rows.map((row) => cells(row, "td")),
    ),
  ]);
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

/**
 * What a click on a point of a figure picks: its id, or what a heat map's cell has in its place.
 * @param {Point[]} points
 */
export function pickedOf(points) {
  const [point] = points;
  const found = [point?.id, point?.customdata].find((one) => typeof one === "string" && one);
  return /** @type {string | undefined} */ (found);
}

/**
 * Tells Python of clicks on points. Plotly gives the box events when it first draws in it.
 * @param {HTMLElement} box
 * @param {{ send: (message: object) => void }} model
 */
function hearPicks(box, model) {
  if (box.dataset.picks) return;
  box.dataset.picks = "heard";
  /** @type {Drawn} */ (/** @type {unknown} */ (box)).on?.("plotly_click", ({ points }) => {
    const picked = pickedOf(points);
    if (picked) model.send({ kind: "picked", picked });
  });
}

/**
 * Gives the newest figure of a model; its text is read once.
 * @param {import("@anywidget/types").AnyModel<Traits>} model
 * @returns {() => Figure}
 */
function reader(model) {
  /** @type {unknown} */
  let read = null;
  /** @type {Figure} */
  let figure = {};
  return () => {
    const sent = model.get("figure");
    if (sent !== read) {
      read = sent;
      figure = unpacked(sent);
    }
    return figure;
  };
}

/**
 * Has the library come to the page: `now` asks for it, and so does some time after the first
 * picture; `stop` ends that.
 * @param {import("@anywidget/types").AnyModel<Traits>} model
 */
function wanting(model) {
  let timer = 0;
  const now = () => {
    clearTimeout(timer);
    if (shared[LIBRARY]) return;
    ask(model);
    timer = setTimeout(now, PATIENCE_MS);
  };
  /** @type {(message: any, buffers: DataView[]) => void} */
  const received = (message, buffers) => {
    const [bytes] = buffers;
    if (message?.kind === "plotly" && bytes) loading().arrived(bytes);
  };
  const unlisten = listen(model, { "msg:custom": received });
  timer = setTimeout(now, AHEAD_MS);
  const stop = () => {
    clearTimeout(timer);
    unlisten();
  };
  return { now, stop };
}

export default {
  /** @param {import("@anywidget/types").RenderProps<Traits>} props */
  render({ model, el }) {
    const title = html("b");
    const subtitle = html("span");
    const caption = html("figcaption", { class: "qx-plot-caption" }, [title, subtitle]);
    const box = html("div", { class: "qx-plot-box" });
    const fold = html("details", { class: "qx-plot-numbers" }, [
      html("summary", { ...OWN_KEYS, text: "Numbers" }),
    ]);
    const figure = html("figure", { class: "qx qx-plot" }, [caption, box, fold]);
    el.append(figure);
    let gone = false;
    let drawing = Promise.resolve();
    let queued = false;
    let width = 0;
    const newest = reader(model);
    const wanted = wanting(model);

    /** @param {Meta | undefined} meta */
    const write = (meta) => {
      title.replaceChildren(...breakable(meta?.title ?? ""));
      subtitle.textContent = meta?.subtitle ?? "";
      caption.hidden = !meta?.head;
      // A group and no image: the tool bar of plotly in it takes the focus.
      box.setAttribute("role", "group");
      box.setAttribute("aria-label", model.get("label"));
      const table = meta?.table;
      fold.hidden = !table?.rows.length;
      // Of a closed fold nothing is made: a figure that follows a training changes each second.
      fold.querySelector("table")?.remove();
      if (table && fold.open) fold.append(numbers(table));
    };
    const draw = async () => {
      queued = false;
      const shown = Array.isArray(newest().data);
      el.hidden = !shown;
      if (!shown) return;
      if (!shared[LIBRARY]) wanted.now();
      const plotly = await loading().library;
      const { data, layout = {} } = newest();
      if (gone || !Array.isArray(data)) return;
      const drawn = withoutHeading(layout);
      write(layout.meta);
      // A resize takes the size of the box, its height too.
      if (drawn.height) box.style.height = `${drawn.height}px`;
      // Before it is drawn: asked for afterwards, the width costs another layout of the page.
      width = box.offsetWidth;
      await plotly.react(box, data, drawn, CONFIG).then(() => hearPicks(box, model));
      figure.dataset.drawn = String(Number(figure.dataset.drawn ?? 0) + 1);
    };
    const later = () => {
      if (queued) return;
      queued = true;
      drawing = drawing.then(draw, draw);
    };
    // Of its own box, not the window's: a splitter or a drawer changes that alone. A box that is
    // hidden has no width; it is drawn in its own when it is shown again.
    const resize = new ResizeObserver(() => {
      const now = box.offsetWidth;
      if (now > 0 && now !== width && box.classList.contains("js-plotly-plot")) {
        width = now;
        shared[LIBRARY]?.Plots.resize(box);
      }
    });
    resize.observe(box);
    fold.addEventListener("toggle", () => write(newest().layout?.meta));
    const unlisten = listen(model, { "change:figure": later });
    later();
    return () => {
      gone = true;
      wanted.stop();
      resize.disconnect();
      unlisten();
      shared[LIBRARY]?.purge(box);
      figure.remove();
    };
  },
};
