// The keyboard: arrows follow the tensors, Enter opens or selects. Mixed into GraphView.

Object.assign(GraphView.prototype, {
  /** Neighbours of every closed box, whatever open groups lie between. */
  neighbours() {
    if (this.links) return this.links;
    const shown = (node) => {
      let id = node.id;
      const chain = ancestorsOf(this.index, id);
      for (let i = chain.length - 1; i >= 0; i -= 1) {
        const box = this.picture.boxes.get(id);
        if (box && !box.open) return id;
        id = chain[i];
      }
      return null;
    };
    const at = this.index.nodes.map(shown);
    const links = { next: new Map(), previous: new Map() };
    const add = (map, from, to) => {
      if (!map.has(from)) map.set(from, new Set());
      map.get(from).add(to);
    };
    for (const [s, t] of this.index.edges) {
      const [a, b] = [at[s], at[t]];
      if (!a || !b || a === b) continue;
      add(links.next, a, b);
      add(links.previous, b, a);
    }
    this.links = links;
    return links;
  },

  middle(id) {
    const box = this.picture.boxes.get(id);
    return [box.x + box.w / 2, box.y + box.h / 2];
  },

  /** Moves the cursor: "next" and "previous" along edges, "before" and "after" in the layer. */
  step(way) {
    if (!this.picture) return;
    const boxes = [...this.picture.boxes.values()].filter((b) => !b.open);
    if (!boxes.length) return;
    if (!this.cursor || !this.picture.boxes.has(this.cursor)) {
      this.moveTo(boxes[0].id);
      return;
    }
    const [x, y] = this.middle(this.cursor);
    const [along, across] = this.lr ? [x, y] : [y, x];
    const place = (id) => (this.lr ? this.middle(id) : this.middle(id).reverse());
    if (way === "next" || way === "previous") {
      const box = this.picture.boxes.get(this.cursor);
      let found = [...(this.neighbours()[way].get(this.cursor) || [])];
      if (box.open) {
        const inside = boxes.filter((b) => ancestorsOf(this.index, b.id).includes(this.cursor));
        if (inside.length) found = [way === "next" ? inside[0].id : inside.at(-1).id];
      }
      found.sort((a, b) => {
        const [a0, a1] = place(a);
        const [b0, b1] = place(b);
        return Math.abs(a1 - across) + Math.abs(a0 - along) - Math.abs(b1 - across) - Math.abs(b0 - along);
      });
      if (found.length) this.moveTo(found[0]);
      return;
    }
    const sign = way === "after" ? 1 : -1;
    const size = (b) => (this.lr ? b.w : b.h) / 2;
    const here = size(this.picture.boxes.get(this.cursor));
    let best = null;
    for (const box of boxes) {
      const [a, c] = place(box.id);
      const far = (c - across) * sign;
      if (far <= 1 || Math.abs(a - along) > Math.max(here, size(box))) continue;
      if (!best || far < best[0]) best = [far, box.id];
    }
    if (best) this.moveTo(best[1]);
  },

  moveTo(id) {
    this.cursor = id;
    this.markAt = -1;
    this.paintCursor();
    this.makeVisible(id);
    this.host.onCursor(this.drawn.elements.get(id));
  },

  /** Goes through the fake quants of the item under the cursor. */
  nextMark() {
    const element = this.drawn.elements.get(this.cursor);
    const marks = element ? [...element.querySelectorAll("[data-site]")] : [];
    if (!marks.length) return;
    this.markAt = ((this.markAt ?? -1) + 1) % marks.length;
    this.host.onSelect(marks[this.markAt].dataset.sel);
    this.host.onCursor(marks[this.markAt]);
  },

  /** Handles a key; true if it meant something here. */
  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return false;
    const arrows = this.lr
      ? { ArrowRight: "next", ArrowLeft: "previous", ArrowUp: "before", ArrowDown: "after" }
      : { ArrowDown: "next", ArrowUp: "previous", ArrowLeft: "before", ArrowRight: "after" };
    if (arrows[event.key]) {
      this.step(arrows[event.key]);
      return true;
    }
    const item = this.cursor && this.index.items.get(this.cursor);
    const actions = {
      Enter: () => {
        if (!item) return;
        if (item.children) this.toggle(item.id);
        else this.host.onSelect(item.sel);
      },
      " ": () => item && this.host.onSelect(item.sel),
      Escape: () => this.escape(item),
      m: () => this.nextMark(),
      "+": () => this.zoomBy(1.25),
      "=": () => this.zoomBy(1.25),
      "-": () => this.zoomBy(0.8),
      0: () => this.fit(),
      z: () => this.zoomToSelection(),
      f: () => this.host.onSearch(),
      "/": () => this.host.onSearch(),
    };
    const action = actions[event.key];
    if (!action) return false;
    action();
    return true;
  },

  /** Cancels a layout; else closes the group around the cursor; else clears the selection. */
  escape(item) {
    if (this.cancel()) return;
    const around = item && (item.children && this.opened.has(item.id) ? item.id : item.parent);
    if (around && around !== ROOT) {
      this.cursor = around;
      this.toggle(around);
    } else {
      this.host.onSelect("");
    }
  },
});
