// The mouse: drag to pan, wheel to zoom, click to select, double click to open.

import { closest } from "../common/dom.js";
import { edgeSelection } from "./scene.js";
import { tipOf } from "./tooltip.js";

/**
 * @typedef {import("./view.js").GraphView} GraphView
 * @typedef {import("./tooltip.js").Tooltip} Tooltip
 */

/**
 * @param {GraphView} view
 * @param {EventTarget | null} target what was clicked
 */
function click(view, target) {
  const item = closest(target, "[data-item]")?.dataset.item;
  if (item !== undefined && closest(target, "[data-toggle]")) {
    view.cursor = item;
    view.toggle(item);
    return;
  }
  const edge = closest(target, "[data-edge]")?.dataset.edge;
  if (edge !== undefined) {
    view.host.onSelect(edgeSelection(view.index, Number(edge)));
    return;
  }
  if (item !== undefined) view.cursor = item;
  view.host.onSelect(closest(target, "[data-sel]")?.dataset.sel ?? "");
}

/**
 * Listens to the mouse. Returns what ends that.
 * @param {GraphView} view
 * @param {HTMLElement} stage
 * @param {Tooltip} tooltip
 */
export function listenToPointer(view, stage, tooltip) {
  /** @type {{ x: number, y: number, moved: boolean, target: EventTarget | null } | null} */
  let drag = null;
  /**
   * @param {MouseEvent} e
   * @returns {[number, number]}
   */
  const place = (e) => {
    const box = stage.getBoundingClientRect();
    return [e.clientX - box.left, e.clientY - box.top];
  };
  /** @param {Event} e */
  const isInside = (e) => e.target instanceof Node && view.svg.contains(e.target);
  /** @param {PointerEvent} e */
  const down = (e) => {
    if (e.button !== 0 || !isInside(e)) return;
    drag = { x: e.clientX, y: e.clientY, moved: false, target: e.target };
    view.svg.focus({ preventScroll: true });
  };
  /** @param {PointerEvent} e */
  const move = (e) => {
    if (drag) {
      const [dx, dy] = [e.clientX - drag.x, e.clientY - drag.y];
      if (!drag.moved && Math.hypot(dx, dy) < 4) return;
      stage.classList.add("qxg-dragging");
      view.camera.panBy(dx, dy);
      drag = { x: e.clientX, y: e.clientY, moved: true, target: drag.target };
      tooltip.hide();
      return;
    }
    const tip = isInside(e) && e.target instanceof Element ? tipOf(view.index, e.target) : null;
    if (tip) tooltip.show(tip, ...place(e));
    else tooltip.hide();
  };
  const up = () => {
    const was = drag;
    drag = null;
    stage.classList.remove("qxg-dragging");
    if (was && !was.moved) click(view, was.target);
  };
  /** @param {MouseEvent} e */
  const twice = (e) => {
    const item = closest(e.target, "[data-item]")?.dataset.item;
    if (item !== undefined && !closest(e.target, "[data-toggle]")) view.toggle(item);
  };
  /** @param {WheelEvent} e */
  const wheel = (e) => {
    e.preventDefault();
    const unit = e.deltaMode === 1 ? 16 : 1;
    view.camera.zoomBy(Math.exp(-e.deltaY * unit * 0.0016), place(e));
    tooltip.hide();
  };
  stage.addEventListener("pointerdown", down);
  stage.addEventListener("pointerleave", () => tooltip.hide());
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
