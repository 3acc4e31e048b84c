// A plotly figure that is state, not a stream of changes: whatever was missed, the newest figure is
// drawn. The library comes once for the whole page, from the widget PlotlySource.

const LIBRARY = Symbol.for("qatexplorer.plotly");
const LOADING = Symbol.for("qatexplorer.plotly.loading");
const SOURCE = Symbol.for("qatexplorer.plotly.source");

function source() {
  if (globalThis[SOURCE]) return Promise.resolve(globalThis[SOURCE]);
  return new Promise((resolve) => {
    globalThis.addEventListener("qatexplorer-plotly-source", () => resolve(globalThis[SOURCE]), {
      once: true,
    });
  });
}

// The library is written for <script> and for loaders; as a module it gets neither.
async function load() {
  const text = await source();
  const head = "const holder = {exports: {}};\n(function (module, exports, define) {\n";
  const tail =
    "\n}).call(globalThis, holder, holder.exports, undefined);\nexport default holder.exports;\n";
  const url = URL.createObjectURL(new Blob([head, text, tail], { type: "text/javascript" }));
  try {
    globalThis[LIBRARY] = (await import(url)).default;
  } finally {
    URL.revokeObjectURL(url);
  }
  return globalThis[LIBRARY];
}

function library() {
  globalThis[LOADING] ??= load();
  return globalThis[LOADING];
}

export default {
  render({ model, el }) {
    const box = document.createElement("div");
    box.className = "qx qx-plot";
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
      const { data, layout } = model.get("figure");
      if (gone || !Array.isArray(data)) return;
      // A resize takes the size of the box, its height too.
      if (layout.height) box.style.height = `${layout.height}px`;
      box.setAttribute("role", "img");
      box.setAttribute("aria-label", model.get("label"));
      await plotly.react(box, data, { ...layout, autosize: true }, {
        responsive: true,
        displaylogo: false,
        displayModeBar: "hover",
        modeBarButtonsToRemove: ["select2d", "lasso2d"],
      });
      box.dataset.drawn = String(Number(box.dataset.drawn ?? 0) + 1);
    };
    const later = () => {
      if (queued) return;
      queued = true;
      drawing = drawing.then(draw, draw);
    };
    const resize = new ResizeObserver(() => {
      if (box.classList.contains("js-plotly-plot") && box.offsetWidth > 0) {
        globalThis[LIBRARY]?.Plots.resize(box);
      }
    });
    resize.observe(el);
    model.on("change:figure", later);
    later();
    return () => {
      gone = true;
      resize.disconnect();
      model.off("change:figure", later);
      globalThis[LIBRARY]?.purge(box);
      box.remove();
    };
  },
};
