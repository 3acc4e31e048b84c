// Made by tests/js/build.mjs, not by hand, of
//   common/dom.js
//   common/plot.js
// sha256 of these: 0303c9bc04c33d2b3458b5201a0d4f5df552cb5f24866ffbe7b716857656a0d4

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
var SOURCE = /* @__PURE__ */ Symbol.for("qatexplorer.plotly.source");
var shared = (
  /** @type {Shared} */
  /** @type {unknown} */
  globalThis
);
function source() {
  const text = shared[SOURCE];
  if (text) return Promise.resolve(text);
  return new Promise((resolve) => {
    const arrived = () => resolve(shared[SOURCE] ?? "");
    globalThis.addEventListener("qatexplorer-plotly-source", arrived, { once: true });
  });
}
async function load() {
  const text = await source();
  const head = "const holder = {exports: {}};\n(function (module, exports, define) {\n";
  const tail = "\n}).call(globalThis, holder, holder.exports, undefined);\nexport default holder.exports;\n";
  const url = URL.createObjectURL(new Blob([head, text, tail], { type: "text/javascript" }));
  try {
    const library2 = (await import(url)).default;
    shared[LIBRARY] = library2;
    return library2;
  } finally {
    URL.revokeObjectURL(url);
  }
}
function library() {
  shared[LOADING] ??= load();
  return shared[LOADING];
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
      const plotly = await library();
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
    const unlisten = listen(model, { "change:figure": later });
    later();
    return () => {
      gone = true;
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
