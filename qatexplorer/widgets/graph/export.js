// The picture as a file of its own.

import { SVG_NS, svg } from "../common/dom.js";

const EXPORTED = [
  "fill",
  "fill-opacity",
  "stroke",
  "stroke-width",
  "stroke-dasharray",
  "opacity",
  "font-size",
  "font-family",
  "font-weight",
  "text-anchor",
  "display",
];

/**
 * The picture as SVG text: colours written out, nothing referenced; "" if nothing is drawn.
 * @param {import("./view.js").GraphView} view
 */
export function exportSvg(view) {
  if (!view.picture) return "";
  const { w, h } = view.picture;
  const copy = /** @type {SVGSVGElement} */ (view.svg.cloneNode(true));
  const from = view.svg.querySelectorAll("*");
  for (const [i, node] of [...copy.querySelectorAll("*")].entries()) {
    const style = getComputedStyle(from[i]);
    if (node instanceof SVGElement) {
      for (const name of EXPORTED) node.style.setProperty(name, style.getPropertyValue(name));
    }
    node.classList.remove("qxg-cursor");
  }
  for (const node of copy.querySelectorAll(".qxg-hit, .qxg-wide")) node.remove();
  copy.querySelector(".qxg-world")?.removeAttribute("transform");
  const paper = getComputedStyle(view.stage).backgroundColor;
  const box = { x: -20, y: -20, width: w + 40, height: h + 40 };
  copy.prepend(svg("rect", { ...box, fill: paper }));
  copy.setAttribute("xmlns", SVG_NS);
  copy.setAttribute("viewBox", `${box.x} ${box.y} ${box.width} ${box.height}`);
  copy.setAttribute("width", String(box.width));
  copy.setAttribute("height", String(box.height));
  for (const name of ["class", "tabindex", "aria-activedescendant", "style"]) {
    copy.removeAttribute(name);
  }
  return new XMLSerializer().serializeToString(copy);
}
