// The mouse and fingers: drag to pan, click to select or to open, Ctrl + wheel and pinch to zoom.

import { closest } from "../common/dom.js";
import { edgeSelection, itemOf } from "./scene.js";
import { tipOf } from "./tooltip.js";

/**
 * @typedef {import("./view.js").GraphView} GraphView
 * @typedef {import("./tooltip.js").Tooltip} Tooltip
 */

/** @typedef {{ x: number, y: number }} Finger */

/** After a click on a fold the pointer is on what it held: a second click there is not for that. */
const DOUBLE = { ms: 400, px: 8 };

/**
 * The id to select next of Identities that share a dot: the one after that which is selected.
 * @param {GraphView} view
 * @param {string[]} ids
 */
function nextPass({ index, selection }, ids) {
  const at = ids.findIndex((id) => itemOf(index, id).sel === selection);
  return ids[(at + 1) % ids.length];
}

/**
 * @param {GraphView} view
 * @param {EventTarget | null} target what was clicked
 * @returns {boolean} whether a made-up group opens for it
 */
function click(view, target) {
  const id = closest(target, "[data-item]")?.dataset.item;
  const item = view.index.items.get(id ?? "");
  const isMark = closest(target, "[data-site]") !== null;
  // A made-up group is no module that could be selected: all of it opens.
  const opens = item?.synthetic && !view.opened.has(item.id) && !isMark;
  if (item && (opens || closest(target, "[data-toggle]"))) {
    view.cursor = item.id;
    view.toggle(item.id);
    return Boolean(opens);
  }
  const pass = closest(target, "[data-pass]")?.dataset.pass;
  const edge = closest(target, "[data-edge]")?.dataset.edge;
  if (pass !== undefined) {
    view.host.onSelect(itemOf(view.index, nextPass(view, pass.split("\n"))).sel);
  } else if (edge !== undefined) {
    view.host.onSelect(edgeSelection(view.index, Number(edge)));
  } else {
    if (id !== undefined) view.cursor = id;
    view.host.onSelect(closest(target, "[data-sel]")?.dataset.sel ?? "");
  }
  return false;
}

/**
 * How a wheel zooms: with Ctrl (a pinch on a touchpad says so too) or where the graph has the
 * focus. Else it scrolls the page.
 * @param {GraphView} view
 * @param {(e: MouseEvent) => [number, number]} place
 * @param {Tooltip} tooltip
 * @param {() => void} onUnfocused the wheel was turned and scrolls the page
 */
function zoomByWheel(view, place, tooltip, onUnfocused) {
  /** @param {WheelEvent} e */
  const wheel = (e) => {
    const zooms = e.ctrlKey || e.metaKey || view.svg.matches(":focus");
    if (!zooms) {
      if (Math.abs(e.deltaY) > Math.abs(e.deltaX)) onUnfocused();
      return;
    }
    e.preventDefault();
    const unit = e.deltaMode === 1 ? 16 : 1;
    // A pinch comes in steps much smaller than a wheel's.
    const speed = e.ctrlKey && Math.abs(e.deltaY) < 40 ? 0.008 : 0.0016;
    view.camera.zoomBy(Math.exp(-e.deltaY * unit * speed), place(e));
    tooltip.hide();
  };
  view.svg.addEventListener("wheel", wheel, { passive: false });
}

/**
 * Two fingers on the graph: pan and zoom with them.
 * @param {GraphView} view
 * @param {Map<number, Finger>} fingers by pointer
 * @param {number} id of the finger that moved
 * @param {Finger} to
 * @param {(e: { clientX: number, clientY: number }) => [number, number]} place
 */
function pinch(view, fingers, id, to, place) {
  const [other] = [...fingers].filter(([key]) => key !== id).map(([, finger]) => finger);
  const from = fingers.get(id) ?? to;
  const before = Math.hypot(from.x - other.x, from.y - other.y);
  const after = Math.hypot(to.x - other.x, to.y - other.y);
  fingers.set(id, to);
  view.camera.dragBy((to.x - from.x) / 2, (to.y - from.y) / 2);
  const middle = { clientX: (to.x + other.x) / 2, clientY: (to.y + other.y) / 2 };
  if (before > 0) view.camera.zoomBy(after / before, place(middle));
}

/**
 * Listens to the mouse. Returns what ends that.
 * @param {GraphView} view
 * @param {HTMLElement} stage
 * @param {Tooltip} tooltip
 * @param {() => void} onUnfocused the wheel was turned over a graph without the focus
 */
export function listenToPointer(view, stage, tooltip, onUnfocused) {
  /** @type {{ x: number, y: number, moved: boolean, target: EventTarget | null } | null} */
  let drag = null;
  /** @type {Map<number, Finger>} */
  const fingers = new Map();
  let opened = { at: Number.NEGATIVE_INFINITY, x: 0, y: 0 };
  /** @param {MouseEvent} e */
  const isSecond = (e) =>
    performance.now() - opened.at < DOUBLE.ms &&
    Math.hypot(e.clientX - opened.x, e.clientY - opened.y) < DOUBLE.px;
  /**
   * @param {{ clientX: number, clientY: number }} e
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
    if (e.pointerType === "touch") fingers.set(e.pointerId, { x: e.clientX, y: e.clientY });
    drag = { x: e.clientX, y: e.clientY, moved: fingers.size > 1, target: e.target };
    view.svg.focus({ preventScroll: true });
  };
  /** @param {PointerEvent} e */
  const move = (e) => {
    if (drag && fingers.size > 1 && fingers.has(e.pointerId)) {
      pinch(view, fingers, e.pointerId, { x: e.clientX, y: e.clientY }, place);
      return;
    }
    if (drag) {
      const [dx, dy] = [e.clientX - drag.x, e.clientY - drag.y];
      if (!drag.moved && Math.hypot(dx, dy) < 4) return;
      stage.classList.add("qxg-dragging");
      view.camera.dragBy(dx, dy);
      drag = { x: e.clientX, y: e.clientY, moved: true, target: drag.target };
      tooltip.hide();
      return;
    }
    const tip = isInside(e) && e.target instanceof Element ? tipOf(view.index, e.target) : null;
    if (tip) tooltip.show(tip, ...place(e));
    else tooltip.hide();
  };
  /** @param {PointerEvent} e */
  const up = (e) => {
    fingers.delete(e.pointerId);
    if (fingers.size) return;
    const was = drag;
    drag = null;
    stage.classList.remove("qxg-dragging");
    if (!was || was.moved || isSecond(e)) return;
    if (click(view, was.target)) opened = { at: performance.now(), x: e.clientX, y: e.clientY };
  };
  /** @param {MouseEvent} e */
  const twice = (e) => {
    const item = closest(e.target, "[data-item]")?.dataset.item;
    const isOther = isSecond(e) || closest(e.target, "[data-toggle]");
    if (item !== undefined && !isOther) view.toggle(item);
  };
  stage.addEventListener("pointerdown", down);
  stage.addEventListener("pointerleave", () => tooltip.hide());
  stage.addEventListener("dblclick", twice);
  zoomByWheel(view, place, tooltip, onUnfocused);
  window.addEventListener("pointermove", move);
  window.addEventListener("pointerup", up);
  window.addEventListener("pointercancel", up);
  return () => {
    window.removeEventListener("pointermove", move);
    window.removeEventListener("pointerup", up);
    window.removeEventListener("pointercancel", up);
  };
}
