// Where the reader looks: pan, zoom, fit. Mixed into GraphView.

Object.assign(GraphView.prototype, {
  size() {
    return { w: this.svg.clientWidth || 800, h: this.svg.clientHeight || 500 };
  },

  paintView() {
    const { x, y, k } = this.view;
    this.world.setAttribute("transform", `translate(${x} ${y}) scale(${k})`);
  },

  panBy(dx, dy) {
    this.view.x += dx;
    this.view.y += dy;
    this.paintView();
  },

  zoomBy(factor, px, py) {
    const { w, h } = this.size();
    const [cx, cy] = px === undefined ? [w / 2, h / 2] : [px, py];
    const k = Math.min(4, Math.max(0.04, this.view.k * factor));
    const real = k / this.view.k;
    this.view = { k, x: cx - (cx - this.view.x) * real, y: cy - (cy - this.view.y) * real };
    this.paintView();
  },

  frame(box, least, most) {
    const { w, h } = this.size();
    const margin = 20;
    const fit = Math.min((w - 2 * margin) / box.w, (h - 2 * margin) / box.h);
    const k = Math.min(most, Math.max(least, fit));
    const centre = (room, size) => (room - size * k) / 2;
    // What does not fit is shown from where the tensors enter.
    const x = box.w * k > w - margin && this.lr ? margin : centre(w, box.w);
    const y = box.h * k > h - margin ? margin : centre(h, box.h);
    this.view = { k, x: x - box.x * k, y: y - box.y * k };
    this.paintView();
  },

  /** The whole picture, however small it gets. */
  fit() {
    if (this.picture) this.frame({ x: 0, y: 0, w: this.picture.w, h: this.picture.h }, 0.04, 1.15);
  },

  /** The whole picture if it stays readable, else its beginning. */
  fitReadable() {
    if (this.picture) this.frame({ x: 0, y: 0, w: this.picture.w, h: this.picture.h }, READABLE, 1.15);
  },

  zoomToSelection() {
    const found = itemsOfSelection(this.index, this.selection).find((id) => this.drawn.elements.has(id));
    const box = this.picture && this.picture.boxes.get(found || this.cursor);
    if (!box) return false;
    this.frame({ x: box.x - 60, y: box.y - 60, w: box.w + 120, h: box.h + 120 }, 0.2, 1.6);
    return true;
  },

  /** Pans as little as needed to show an item; does nothing if it is in view. */
  makeVisible(id) {
    const box = this.picture && this.picture.boxes.get(id);
    if (!box) return;
    const { w, h } = this.size();
    const { x, y, k } = this.view;
    const shift = (start, length, room) => {
      const margin = 24;
      if (length > room - 2 * margin) {
        const covers = start <= margin && start + length >= room - margin;
        return covers ? 0 : margin - start;
      }
      if (start < margin) return margin - start;
      return start + length > room - margin ? room - margin - start - length : 0;
    };
    const dx = shift(box.x * k + x, box.w * k, w);
    const dy = shift(box.y * k + y, box.h * k, h);
    if (dx || dy) this.panBy(dx, dy);
  },

  /** The item nearest to the middle of the window: it stays in place when the scene changes. */
  centreItem() {
    if (!this.picture) return null;
    const { w, h } = this.size();
    const { x, y, k } = this.view;
    const [cx, cy] = [(w / 2 - x) / k, (h / 2 - y) / k];
    let best = null;
    let least = Infinity;
    for (const box of this.picture.boxes.values()) {
      if (box.open || !this.index.items.has(box.id)) continue;
      const far = Math.hypot(box.x + box.w / 2 - cx, box.y + box.h / 2 - cy);
      if (far < least) [best, least] = [box.id, far];
    }
    return best;
  },
});
