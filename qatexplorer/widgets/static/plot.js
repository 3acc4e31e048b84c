// A plotly figure that is state, not a stream of changes: whatever was missed, the newest figure is
// drawn. The library comes once for the whole page, from the widget PlotlySource.

const LIBRARY = Symbol.for("qatexplorer.plotly");

function library() {
  if (globalThis[LIBRARY]) return Promise.resolve(globalThis[LIBRARY]);
  return new Promise((resolve) => {
    globalThis.addEventListener("qatexplorer-plotly", () => resolve(globalThis[LIBRARY]), {
      once: true,
    });
  });
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
      const plotly = await library();
      if (gone) return;
      const { data, layout } = model.get("figure");
      const shown = Array.isArray(data);
      el.hidden = !shown;
      if (!shown) return;
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
