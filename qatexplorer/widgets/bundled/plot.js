// Made by tests/js/build.mjs, not by hand, of
//   common/dom.js
//   common/plot.js
// sha256 of these: 301c017df659109f0a53779b94285a9f015885155f68106b6a34ede42e09f583

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
function unpacked(value) {
  return ArrayBuffer.isView(value) ? JSON.parse(new TextDecoder().decode(value)) : value;
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
var CONFIG = {
  displaylogo: false,
  displayModeBar: "hover",
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"]
};
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
function withoutHeading(layout) {
  const meta = layout.meta;
  if (!meta?.head) return { ...layout, autosize: true };
  const { title, ...rest } = layout;
  const margin = { ...layout.margin, t: Math.max(8, (layout.margin?.t ?? 76) - meta.head) };
  return { ...rest, margin, height: layout.height - meta.head, autosize: true };
}
function breakable(text) {
  return text.split(/(?<=[._])/).flatMap((part) => [part, html("wbr")]);
}
function numbers({ head, rows }) {
  const cells = (texts, tag) => html(
    "tr",
    {},
    texts.map((text) => html(tag, tag === "th" ? { text, scope: "col" } : { text }))
  );
  return html("table", {}, [
    html("thead", {}, [cells(head, "th")]),
    html(
      "tbody",
      {},
      rows.map((row) => cells(row, "td"))
    )
  ]);
}
function ask(model) {
  const now = performance.now();
  if (now - (shared[ASKED] ?? Number.NEGATIVE_INFINITY) >= PATIENCE_MS) {
    shared[ASKED] = now;
    model.send({ kind: "plotly" });
  }
}
function pickedOf(points) {
  const [point] = points;
  const found = [point?.id, point?.customdata].find((one) => typeof one === "string" && one);
  return (
    /** @type {string | undefined} */
    found
  );
}
function hearPicks(box, model) {
  if (box.dataset.picks) return;
  box.dataset.picks = "heard";
  /** @type {unknown} */
  box.on?.("plotly_click", ({ points }) => {
    const picked = pickedOf(points);
    if (picked) model.send({ kind: "picked", picked });
  });
}
function reader(model) {
  let read = null;
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
function wanting(model) {
  let timer = 0;
  const now = () => {
    clearTimeout(timer);
    if (shared[LIBRARY]) return;
    ask(model);
    timer = setTimeout(now, PATIENCE_MS);
  };
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
var plot_default = {
  /** @param {import("@anywidget/types").RenderProps<Traits>} props */
  render({ model, el }) {
    const title = html("b");
    const subtitle = html("span");
    const caption = html("figcaption", { class: "qx-plot-caption" }, [title, subtitle]);
    const box = html("div", { class: "qx-plot-box" });
    const fold = html("details", { class: "qx-plot-numbers" }, [
      html("summary", { ...OWN_KEYS, text: "Numbers" })
    ]);
    const figure = html("figure", { class: "qx qx-plot" }, [caption, box, fold]);
    el.append(figure);
    let gone = false;
    let drawing = Promise.resolve();
    let queued = false;
    let width = 0;
    const newest = reader(model);
    const wanted = wanting(model);
    const write = (meta) => {
      title.replaceChildren(...breakable(meta?.title ?? ""));
      subtitle.textContent = meta?.subtitle ?? "";
      caption.hidden = !meta?.head;
      box.setAttribute("role", "group");
      box.setAttribute("aria-label", model.get("label"));
      const table = meta?.table;
      fold.hidden = !table?.rows.length;
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
      if (drawn.height) box.style.height = `${drawn.height}px`;
      width = box.offsetWidth;
      await plotly.react(box, data, drawn, CONFIG).then(() => hearPicks(box, model));
      figure.dataset.drawn = String(Number(figure.dataset.drawn ?? 0) + 1);
    };
    const later = () => {
      if (queued) return;
      queued = true;
      drawing = drawing.then(draw, draw);
    };
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
  }
};
export {
  plot_default as default,
  pickedOf,
  withoutHeading
};
