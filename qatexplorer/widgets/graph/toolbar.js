// Toolbar, search, legend and tooltip: plain HTML around the drawing.

// JupyterLab's shortcuts would act on the cell ("m" makes it Markdown). They ask the focused
// element itself first, so this belongs on everything that takes the focus, not around it.
const OWN_KEYS = { "data-lm-suppress-shortcuts": "true" };

function html(tag, attributes = {}, children = []) {
  const node = document.createElement(tag);
  if (tag === "button" || tag === "input") node.setAttribute(...Object.entries(OWN_KEYS)[0]);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") node.textContent = value;
    else if (value !== null && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.filter(Boolean));
  return node;
}

const ICONS = {
  fit: "M3 6V3h3M10 3h3v3M13 10v3h-3M6 13H3v-3",
  out: "M4 8h8",
  in: "M4 8h8M8 4v8",
  target: "M8 2v3M8 11v3M2 8h3M11 8h3M8 8h.01",
  down: "M8 3v10M4.5 9.5 8 13l3.5-3.5",
  right: "M3 8h10M9.5 4.5 13 8l-3.5 3.5",
  collapse: "M4 6l4-3.5L12 6M4 10l4 3.5L12 10",
  save: "M8 2.5v7M5 7l3 3 3-3M3 13h10",
  legend: "M3 4.5h2M7 4.5h6M3 8h2M7 8h6M3 11.5h2M7 11.5h6",
};

function iconButton(name, title, onClick) {
  const icon = svg("svg", { viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true" }, [
    svg("path", { d: ICONS[name], class: "qxg-icon" }),
  ]);
  const button = html("button", { type: "button", class: "qxg-button", title, "aria-label": title }, [icon]);
  button.addEventListener("click", onClick);
  return button;
}

/** A search box with a list of matches; `find(text)` gives hits, `choose(item)` takes one. */
function searchBox(prefix, find, choose) {
  const listId = `${prefix}matches`;
  const input = html("input", {
    type: "search", class: "qxg-search", placeholder: "Find path, type or op  (f)", role: "combobox",
    "aria-label": "Find in the graph by path, type or operation", "aria-expanded": "false",
    "aria-controls": listId, autocomplete: "off", spellcheck: "false",
  });
  const list = html("ul", { id: listId, class: "qxg-matches", role: "listbox", hidden: "" });
  const box = html("div", { class: "qxg-find" }, [input, list]);
  let hits = [];
  let at = 0;
  const close = () => {
    list.hidden = true;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const paint = () => {
    [...list.querySelectorAll("[role=option]")].forEach((row, i) => {
      row.setAttribute("aria-selected", i === at ? "true" : "false");
      if (i === at) input.setAttribute("aria-activedescendant", row.id);
    });
  };
  const take = (item) => {
    close();
    choose(item);
  };
  const refresh = () => {
    const { hits: found, total } = find(input.value);
    hits = found;
    at = 0;
    const rows = hits.map((item, i) => {
      const row = html("li", { role: "option", id: `${listId}${i}`, title: item.path || item.label }, [
        html("b", { text: item.path || item.label }),
        html("span", { text: item.children ? opsText(item) : item.sub }),
      ]);
      row.addEventListener("mousedown", (e) => {
        e.preventDefault();
        take(item);
      });
      return row;
    });
    if (total > hits.length) rows.push(html("li", { class: "qxg-more", text: `${total - hits.length} more` }));
    if (!total && input.value.trim()) rows.push(html("li", { class: "qxg-more", text: "no match" }));
    list.replaceChildren(...rows);
    list.hidden = !rows.length;
    input.setAttribute("aria-expanded", rows.length ? "true" : "false");
    paint();
  };
  input.addEventListener("input", refresh);
  input.addEventListener("focus", refresh);
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (e) => {
    e.stopPropagation();
    if (e.key === "ArrowDown" || e.key === "ArrowUp") {
      e.preventDefault();
      if (hits.length) at = (at + (e.key === "ArrowDown" ? 1 : hits.length - 1)) % hits.length;
      paint();
    } else if (e.key === "Enter" && hits[at]) {
      take(hits[at]);
    } else if (e.key === "Escape") {
      close();
      choose(null);
    }
  });
  return { box, input };
}

/** What the shapes and outlines mean. */
function legendBox() {
  const sample = (draw) => svg("svg", { width: 34, height: 24, viewBox: "-17 -12 34 24", "aria-hidden": "true" }, [draw]);
  const mark = (kind, letter, more = {}) => sample(drawMark({ kind, letter, ...more }, 0, 0));
  const frame = (names, inner) =>
    sample(
      svg("g", { class: `qxg-item ${names}` }, [
        names.includes("qxg-closed") && svg("rect", { x: -11, y: -5, width: 26, height: 14, rx: 4, class: "qxg-behind" }),
        svg("rect", { x: -14, y: -8, width: 28, height: 15, rx: 4, class: "qxg-frame" }),
        inner && svg("rect", { x: -11.5, y: -5.5, width: 23, height: 10, rx: 2, class: "qxg-inner" }),
      ]),
    );
  const rows = [
    [mark("weight", "W"), "weight fake quant, on its module"],
    [mark("input", "I"), "input fake quant, on the tensor"],
    [mark("output", "A"), "activation (output) fake quant, on the tensor"],
    [mark("output", "A", { off: true }), "fake quant that never runs"],
    [mark("weight", "W", { changed: true }), "changed in this step"],
    [sample(deltaBadge(0, 0)), "module changed, or something inside it"],
    [sample(drawTwice([[0, 0], [0, 0]])), "fake-quantized twice (once the ledger is made)"],
    [frame("qxg-node qxg-is-int8", true), "computes in int8"],
    [frame("qxg-closed"), "group, Enter or ▸ opens it"],
  ];
  return html("div", { class: "qxg-legend", role: "note", "aria-label": "Legend" },
    rows.map(([picture, text]) => html("div", {}, [picture, html("span", { text })])));
}

/** The tooltip: built of text nodes, shown beside the pointer or the focused item. */
class Tooltip {
  constructor(stage) {
    this.stage = stage;
    this.box = html("div", { class: "qxg-tip", role: "tooltip", hidden: "" });
    stage.append(this.box);
  }

  show(title, lines, x, y) {
    this.box.replaceChildren(
      html("b", { text: title }), ...lines.filter(Boolean).map((text) => html("div", { text })),
    );
    this.box.hidden = false;
    const { clientWidth: w, clientHeight: h } = this.stage;
    const { offsetWidth: bw, offsetHeight: bh } = this.box;
    this.box.style.left = `${Math.max(4, x + 14 + bw > w ? x - bw - 10 : x + 14)}px`;
    this.box.style.top = `${Math.max(4, Math.min(y + 12, h - bh - 4))}px`;
  }

  hide() {
    this.box.hidden = true;
  }
}

/** Title and lines for whatever element the pointer or the cursor is on. */
function tipOf(index, element) {
  const at = element.closest("[data-site], [data-edge], [data-item]");
  if (!at) return null;
  if (at.dataset.site !== undefined) {
    const entry = index.sites[at.dataset.site];
    return [at.dataset.site, [...entry.tip, entry.changed ? "changed in this step" : ""]];
  }
  if (at.dataset.edge !== undefined) {
    const [s, t] = index.edges[Number(at.dataset.edge)];
    const [source, target] = [index.nodes[s], index.nodes[t]];
    const back = index.edges[Number(at.dataset.edge)][2] ? "closes a cycle" : "";
    const twice = index.redundant.has(Number(at.dataset.edge))
      ? "2×: fake-quantized twice on this way, see the ledger" : "";
    const name = (n) => n.path || n.label;
    return [`${name(source)} → ${name(target)}`, [source.shape || "shape unknown", twice, back]];
  }
  const item = index.items.get(at.dataset.item);
  const lines = [item.children ? opsText(item) : item.sub, ...item.tip];
  item.marks.forEach((m) => {
    const [what, ...rest] = index.sites[m.site].tip;
    lines.push(`${index.sites[m.site].letter}  ${what.split(" ").slice(0, 3).join(" ")}: ${rest.slice(0, 3).join("; ")}`);
  });
  if (item.changed) lines.push("changed in this step");
  else if (item.inside) lines.push("something inside changed in this step");
  return [item.path || item.label, lines];
}
