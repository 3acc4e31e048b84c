// The widget: one model (traits), one view. Contract: see graph.py.

/** Whether the page is dark: Jupyter says so itself; elsewhere its colours or the system do. */
function pageIsDark() {
  const { body } = document;
  if (body.dataset.jpThemeLight !== undefined) return body.dataset.jpThemeLight === "false";
  if (document.querySelector(".jp-theme-dark")) return true;
  const colour = getComputedStyle(body).getPropertyValue("--jp-layout-color1").trim();
  const hex = /^#([0-9a-f]{3}|[0-9a-f]{6})$/i.exec(colour);
  if (hex) {
    const full = hex[1].length === 3 ? [...hex[1]].map((c) => c + c).join("") : hex[1];
    const [r, g, b] = [0, 2, 4].map((i) => parseInt(full.slice(i, i + 2), 16));
    return 0.3 * r + 0.59 * g + 0.11 * b < 110;
  }
  if (colour === "white") return false;
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

/** Drag to pan, wheel to zoom, click to select, double click to open. Returns what undoes it. */
function pointer(view, stage, tooltip) {
  let drag = null;
  const place = (e) => {
    const box = stage.getBoundingClientRect();
    return [e.clientX - box.left, e.clientY - box.top];
  };
  const down = (e) => {
    if (e.button !== 0 || !view.svg.contains(e.target)) return;
    drag = { x: e.clientX, y: e.clientY, moved: false, target: e.target };
    view.svg.focus({ preventScroll: true });
  };
  const move = (e) => {
    if (drag) {
      const [dx, dy] = [e.clientX - drag.x, e.clientY - drag.y];
      if (!drag.moved && Math.hypot(dx, dy) < 4) return;
      drag.moved = true;
      stage.classList.add("qxg-dragging");
      view.panBy(dx, dy);
      Object.assign(drag, { x: e.clientX, y: e.clientY });
      tooltip.hide();
      return;
    }
    const tip = view.svg.contains(e.target) && tipOf(view.index, e.target);
    if (tip) tooltip.show(...tip, ...place(e));
    else tooltip.hide();
  };
  const up = () => {
    const was = drag;
    drag = null;
    stage.classList.remove("qxg-dragging");
    if (was && !was.moved) click(was.target);
  };
  const click = (target) => {
    const item = target.closest("[data-item]");
    if (target.closest("[data-toggle]") && item) {
      view.cursor = item.dataset.item;
      view.toggle(item.dataset.item);
      return;
    }
    const edge = target.closest("[data-edge]");
    if (edge) {
      view.host.onSelect(edgeSelection(view.index, Number(edge.dataset.edge)));
      return;
    }
    const chosen = target.closest("[data-sel]");
    if (item) view.cursor = item.dataset.item;
    view.host.onSelect(chosen ? chosen.dataset.sel : "");
  };
  const twice = (e) => {
    const item = e.target.closest("[data-item]");
    if (item && !e.target.closest("[data-toggle]")) view.toggle(item.dataset.item);
  };
  const wheel = (e) => {
    e.preventDefault();
    const unit = e.deltaMode === 1 ? 16 : 1;
    view.zoomBy(Math.exp(-e.deltaY * unit * 0.0016), ...place(e));
    tooltip.hide();
  };
  const leave = () => tooltip.hide();
  stage.addEventListener("pointerdown", down);
  stage.addEventListener("pointerleave", leave);
  stage.addEventListener("dblclick", twice);
  view.svg.addEventListener("wheel", wheel, { passive: false });
  stage.addEventListener("pointermove", move);
  window.addEventListener("pointermove", move);
  window.addEventListener("pointerup", up);
  return () => {
    window.removeEventListener("pointermove", move);
    window.removeEventListener("pointerup", up);
  };
}

const EXPORTED = [
  "fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "opacity", "font-size",
  "font-family", "font-weight", "text-anchor", "display",
];

/** The picture as a file of its own: colours written out, nothing referenced. */
function exportSvg(view) {
  if (!view.picture) return "";
  const { w, h } = view.picture;
  const copy = view.svg.cloneNode(true);
  const from = view.svg.querySelectorAll("*");
  copy.querySelectorAll("*").forEach((node, i) => {
    const style = getComputedStyle(from[i]);
    EXPORTED.forEach((name) => node.style.setProperty(name, style.getPropertyValue(name)));
    node.classList.remove("qxg-cursor");
  });
  copy.querySelectorAll(".qxg-hit, .qxg-wide").forEach((node) => node.remove());
  copy.querySelector(".qxg-world").removeAttribute("transform");
  const paper = getComputedStyle(view.stage).backgroundColor;
  const box = { x: -20, y: -20, width: w + 40, height: h + 40 };
  copy.prepend(svg("rect", { ...box, fill: paper }));
  Object.entries({
    xmlns: SVG_NS, viewBox: `${box.x} ${box.y} ${box.width} ${box.height}`,
    width: box.width, height: box.height,
  }).forEach(([name, value]) => copy.setAttribute(name, value));
  ["class", "tabindex", "aria-activedescendant", "style"].forEach((name) => copy.removeAttribute(name));
  return new XMLSerializer().serializeToString(copy);
}

function download(text, name) {
  const url = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
  html("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

function render({ model, el }) {
  const root = html("div", { class: "qxg" });
  const bar = html("div", { class: "qxg-bar", role: "toolbar", "aria-label": "Graph tools" });
  const stage = html("div", { class: "qxg-stage" });
  const status = html("div", { class: "qxg-status", role: "status", "aria-live": "polite" });
  root.append(bar, stage, status);
  el.append(root);
  const set = (changes) => {
    Object.entries(changes).forEach(([name, value]) => model.set(name, value));
    model.save_changes();
  };
  const say = (text) => {
    status.textContent = text;
    set({ status: text });
  };
  const crumbs = html("nav", { class: "qxg-crumbs", "aria-label": "Shown part of the model", hidden: "" });
  const cancel = html("button", { type: "button", class: "qxg-cancel", text: "Cancel layout (Esc)", hidden: "" });
  const host = {
    onSelect: (selection) => {
      view.select(selection, false);
      set({ selected: selection });
    },
    onOpened: (ids) => {
      if (JSON.stringify(ids) !== JSON.stringify(model.get("opened"))) set({ opened: ids });
      paintCrumbs();
    },
    onStatus: say,
    onMetrics: (metrics) => set({ metrics }),
    onBusy: (busy) => {
      cancel.hidden = !busy;
      stage.classList.toggle("qxg-busy", busy);
      stage.setAttribute("aria-busy", busy ? "true" : "false");
    },
    onSearch: () => search.input.focus(),
    onCursor: (element) => {
      const tip = element && tipOf(view.index, element);
      if (!tip) return;
      const [a, b] = [element.getBoundingClientRect(), stage.getBoundingClientRect()];
      tooltip.show(...tip, a.right - b.left, a.top - b.top);
    },
  };
  const view = new GraphView(stage, host);
  const tooltip = new Tooltip(stage);
  const search = searchBox(view.prefix, (text) => searchItems(view.index, text), (item) => {
    view.svg.focus({ preventScroll: true });
    if (!item) return;
    view.revealItem(item.id);
    set({ selected: item.sel });
  });
  const paintCrumbs = () => {
    const chain = [...ancestorsOf(view.index, view.root), view.root];
    crumbs.hidden = chain.length < 2;
    crumbs.replaceChildren(...chain.map((id) => {
      const button = html("button", { type: "button", text: view.index.items.get(id)?.label ?? "" });
      button.disabled = id === view.root;
      button.addEventListener("click", () => view.goTo(id));
      return button;
    }));
  };
  const legend = legendBox();
  const direction = iconButton("right", "Lay out from left to right", () => {
    view.setDirection(!view.lr);
    direction.setAttribute("aria-pressed", String(view.lr));
  });
  const legendButton = iconButton("legend", "Legend", () => {
    legend.hidden = !legend.hidden;
    legendButton.setAttribute("aria-pressed", String(!legend.hidden));
  });
  direction.setAttribute("aria-pressed", "false");
  legendButton.setAttribute("aria-pressed", "true");
  cancel.addEventListener("click", () => view.cancel());
  bar.append(
    search.box,
    iconButton("fit", "Fit all (0)", () => view.fit()),
    iconButton("out", "Zoom out (-)", () => view.zoomBy(0.8)),
    iconButton("in", "Zoom in (+)", () => view.zoomBy(1.25)),
    iconButton("target", "Zoom to selection (z)", () => view.zoomToSelection()),
    iconButton("collapse", "Close all groups", () => view.closeAll()),
    direction, legendButton,
    iconButton("save", "Download as SVG", () => download(exportSvg(view), "graph.svg")),
    crumbs,
  );
  stage.append(legend, cancel);
  const release = pointer(view, stage, tooltip);
  view.svg.addEventListener("keydown", (e) => {
    if (e.key === "Escape") tooltip.hide();
    if (!view.key(e)) return;
    e.preventDefault();
    e.stopPropagation();
  });
  view.svg.addEventListener("blur", () => tooltip.hide());

  const paintTheme = () => {
    const dark = pageIsDark();
    root.classList.toggle("qxg-dark", dark);
    if (model.get("dark") !== dark) set({ dark });
  };
  const watcher = new MutationObserver(paintTheme);
  const theme = { attributes: true, attributeFilter: ["class", "data-jp-theme-light", "data-jp-theme-name"] };
  watcher.observe(document.body, theme);
  const system = matchMedia("(prefers-color-scheme: dark)");
  system.addEventListener("change", paintTheme);
  const paintHeight = () => stage.style.setProperty("height", `${model.get("height")}px`);
  const onScene = async () => {
    const first = !view.picture;
    await view.setScene(model.get("scene") || {}, model.get("opened") || []);
    paintCrumbs();
    if (model.get("selected")) await view.select(model.get("selected"), first);
  };
  const onSelected = () => {
    if (model.get("selected") !== view.selection) view.select(model.get("selected"), true);
  };
  const onOpened = () => view.setOpened(model.get("opened") || []);
  const onMessage = (message) => {
    if (message?.type !== "export_svg") return;
    model.send({ type: "svg", id: message.id ?? null, svg: exportSvg(view) });
  };
  const heard = { "change:scene": onScene, "change:selected": onSelected, "change:opened": onOpened,
    "change:height": paintHeight, "msg:custom": onMessage };
  Object.entries(heard).forEach(([name, listener]) => model.on(name, listener));
  // The widget is often put into the page only after it was rendered, or in a hidden tab.
  const sized = new ResizeObserver(() => {
    if (stage.clientWidth && !view.seen) {
      view.seen = true;
      if (stage.clientWidth < 760) legendButton.click();
      view.remeasure().then(() => {
        view.fitReadable();
        if (view.selection) view.select(view.selection, true);
      });
    }
  });
  sized.observe(stage);
  paintHeight();
  paintTheme();
  onScene();
  return () => {
    Object.entries(heard).forEach(([name, listener]) => model.off(name, listener));
    watcher.disconnect();
    sized.disconnect();
    system.removeEventListener("change", paintTheme);
    release();
    view.dispose();
    root.remove();
  };
}

export default { render };
