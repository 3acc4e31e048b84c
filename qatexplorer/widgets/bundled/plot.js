// Made by tests/js/build.mjs, not by hand, of
//   common/dom.js
//   common/plot.js
// sha256 of these: 109c72c40aa28c7fc166fc4a229261e59f89691ff5ccbe0ee785c3b9421dde4b

// common/dom.js
var OWN_KEYS = { "data-lm-suppress-shortcuts": "true" };
function complete(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === void 0 || value === false) continue;
    if (name === "text") node.textContent = String(value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children) if (child) node.append(child);
  return node;
}
function html(tag, attributes = {}, children = []) {
  const node = document.createElement(tag);
  if (tag === "button") complete(node, { type: "button", ...OWN_KEYS }, []);
  if (tag === "input") complete(node, OWN_KEYS, []);
  return complete(node, attributes, children);
}
function listen(model, handlers) {
  const pairs = Object.entries(handlers);
  for (const [event, handler] of pairs) model.on(event, handler);
  return () => {
    for (const [event, handler] of pairs) model.off(event, handler);
  };
}

// common/plot.js
var LIBRARY = /* @__PURE__ */ Symbol.for("qatexplorer.plotly");
var LOADING = /* @__PURE__ */ Symbol.for("qatexplorer.plotly.loading");
var ASKED = /* @__PURE__ */ Symbol.for("qatexplorer.plotly.asked");
var shared = (
  /** @type {Shared} */
  /** @type {unknown} */
  globalThis
);
var PATIENCE_MS = 2e4;
var AHEAD_MS = 1500;
async function load(bytes) {
  const packed = new Blob([
    /** @type {DataView<ArrayBuffer>} */
    bytes
  ]);
  const text = new Response(packed.stream().pipeThrough(new DecompressionStream("gzip")));
  const head = "const holder = {exports: {}};\n(function (module, exports, define) {\n";
  const tail = "\n}).call(globalThis, holder, holder.exports, undefined);\nexport default holder.exports;\n";
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
function loading() {
  if (!shared[LOADING]) {
    let arrived = () => {
    };
    const bytes = new Promise((resolve) => {
      arrived = resolve;
    });
    shared[LOADING] = { library: bytes.then(load), arrived };
  }
  return shared[LOADING];
}
function ask(model) {
  const now = performance.now();
  if (now - (shared[ASKED] ?? Number.NEGATIVE_INFINITY) >= PATIENCE_MS) {
    shared[ASKED] = now;
    model.send({ kind: "plotly" });
  }
}
var plot_default = {
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
      if (layout.height) box.style.height = `${layout.height}px`;
      box.setAttribute("role", "img");
      box.setAttribute("aria-label", model.get("label"));
      const config = {
        responsive: true,
        displaylogo: false,
        displayModeBar: "hover",
        modeBarButtonsToRemove: ["select2d", "lasso2d"]
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
  }
};
export {
  plot_default as default
};
