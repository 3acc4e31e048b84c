// Made by tests/js/build.mjs, not by hand, of
//   common/dom.js
//   explorer/counts.js
//   explorer/news.js
// sha256 of these: c88f716f9844a42fdc97186b5d4a0d6f6b2943344b333d3fa1e2d7565895bc25

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
function closest(target, selector) {
  return target instanceof Element ? target.closest(selector) : null;
}
function listen(model, handlers) {
  const pairs = Object.entries(handlers);
  for (const [event, handler] of pairs) model.on(event, handler);
  return () => {
    for (const [event, handler] of pairs) model.off(event, handler);
  };
}

// explorer/counts.js
function countsInWords({ counts = [], said = "" }) {
  const words = [...counts.map(({ n, word }) => `${n.toLocaleString("en")} ${word}`), said];
  return words.filter(Boolean).join(", ");
}
function alertOf(findings) {
  const errors = findings.filter((finding) => finding.severity === "error");
  if (errors.length < 2) return errors[0]?.message ?? "";
  const more = errors.length - 1;
  return `${errors[0].message} ${more.toLocaleString("en")} more error${more === 1 ? "" : "s"}.`;
}
function countParts({ counts = [], said = "" }) {
  const numbers = counts.map(
    ({ severity, mark, n, word }) => html("span", { class: `qx-count qx-count-${severity}` }, [
      html("span", { class: "qx-finding-mark", "aria-hidden": "true", text: mark }),
      n.toLocaleString("en"),
      html("span", { class: "qx-sr", text: ` ${word}` })
    ])
  );
  return said ? [...numbers, html("span", { class: "qx-counts-said", text: said })] : numbers;
}

// explorer/news.js
var made = 0;
var NewsBar = class {
  /**
   * @param {import("@anywidget/types").AnyModel<Traits>} model
   * @param {HTMLElement} el
   */
  constructor(model, el) {
    this.model = model;
    made += 1;
    const id = `qx-news-${made}-${Math.random().toString(36).slice(2, 8)}`;
    this.title = html("b");
    this.text = html("span");
    this.line = html("p", { class: "qx-news-line", role: "status", "aria-live": "polite" }, [
      this.title,
      this.text
    ]);
    this.alert = html("p", { class: "qx-sr", role: "alert" });
    this.worst = html("span", { class: "qx-finding" });
    this.more = html("button", { class: "qx-button qx-note-more", "aria-controls": id });
    this.list = html("ul", { class: "qx-findings", "aria-label": "Findings" });
    this.story = html("div", { class: "qx-story" });
    this.close = html("button", {
      class: "qx-button qx-note-close",
      text: "✕",
      title: "Close (Esc)",
      "aria-label": "Close"
    });
    this.counts = html("button", { class: "qx-button qx-counts" });
    const inside = [this.close, this.list, this.story];
    const attributes = { class: "qx-popover", id, hidden: true, tabindex: "-1" };
    this.popover = html("div", attributes, inside);
    const parts = [this.line, this.worst, this.more, this.counts, this.alert, this.popover];
    this.root = html("div", { class: "qx qx-note qx-newsbar", ...OWN_KEYS }, parts);
    el.append(this.root);
    this.root.addEventListener("click", (event) => this.onClick(event));
    this.root.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || this.popover.hidden) return;
      event.stopPropagation();
      this.shut();
    });
    const draw = () => this.draw();
    const names = ["title", "news", "story", "findings", "busy"];
    const unlisten = listen(model, {
      ...Object.fromEntries(names.map((n) => [`change:${n}`, draw])),
      "change:checks": () => this.drawCounts()
    });
    const outside = (event) => {
      if (!(event.target instanceof Node && this.root.contains(event.target))) this.show(false);
    };
    document.addEventListener("pointerdown", outside);
    this.end = () => {
      unlisten();
      document.removeEventListener("pointerdown", outside);
      this.root.remove();
    };
    this.draw();
    this.drawCounts();
  }
  /** @param {Event} event */
  onClick(event) {
    if (closest(event.target, ".qx-note-more, .qx-finding-word")) {
      this.show(Boolean(this.popover.hidden));
      return;
    }
    if (closest(event.target, ".qx-note-close")) {
      this.shut();
      return;
    }
    if (closest(event.target, ".qx-counts, .qx-finding-rest")) {
      this.show(false);
      this.model.send({ action: "checks" });
      return;
    }
    const fix = closest(event.target, "[data-fix]");
    const place = closest(event.target, "[data-go]");
    if (fix) {
      this.show(false);
      this.model.send({ action: "fix", key: fix.dataset.fix, index: Number(fix.dataset.index) });
    } else if (place) {
      this.model.send({ action: "select", selection: place.dataset.go });
    }
  }
  draw() {
    const { model } = this;
    const findings = model.get("findings");
    const title = model.get("title");
    this.title.textContent = title ? `${title}: ` : "";
    this.text.textContent = model.get("news");
    this.line.title = this.line.textContent ?? "";
    const [worst] = findings;
    const pressing = worst && worst.severity !== "info" ? worst : void 0;
    this.worst.hidden = pressing === void 0;
    this.worst.className = `qx-finding qx-finding-${pressing?.severity ?? "info"}`;
    this.worst.replaceChildren(...pressing ? this.chip(pressing, findings.length - 1) : []);
    this.list.hidden = findings.length === 0;
    this.list.replaceChildren(
      ...worst ? [this.item(worst)] : [],
      ...findings.length > 1 ? [html("li", {}, [this.rest(findings.length - 1)])] : []
    );
    this.story.innerHTML = model.get("story");
    const said = alertOf(findings);
    if (this.alert.textContent !== said) this.alert.textContent = said;
    this.more.hidden = model.get("story") === "" && findings.length === 0;
    this.show(!(this.popover.hidden || this.more.hidden));
  }
  /**
   * The worst finding, in the line.
   * @param {Entry} finding
   * @param {number} others
   */
  chip(finding, others) {
    const { mark, word, message } = finding;
    return [
      html("button", { class: "qx-finding-word", title: `${message}
${finding.fix}` }, [
        html("span", { class: "qx-finding-mark", "aria-hidden": "true", text: mark }),
        html("b", { text: `${word}: ` }),
        message
      ]),
      ...this.buttons(finding),
      ...others > 0 ? [this.rest(others)] : []
    ];
  }
  /** @param {number} others */
  rest(others) {
    const text = `${others.toLocaleString("en")} more in Checks`;
    return html("button", { class: "qx-link qx-finding-rest", text });
  }
  /** How many of each severity, and how far the check is: a button that opens the panel. */
  drawCounts() {
    const checks = this.model.get("checks") ?? {};
    const what = countsInWords(checks);
    this.counts.hidden = what === "";
    this.counts.title = `Checks: ${what}`;
    this.counts.setAttribute("aria-label", `Checks: ${what}`);
    this.counts.replaceChildren(...countParts(checks));
  }
  /** @param {Entry} finding */
  item(finding) {
    const { severity, mark, word, message, fix, select } = finding;
    return html("li", { class: `qx-finding qx-finding-${severity}` }, [
      html("span", { class: "qx-finding-mark", "aria-hidden": "true", text: mark }),
      html("div", {}, [
        html("b", { text: `${word}: ` }),
        message,
        fix && html("div", { class: "qx-muted", text: fix }),
        html("div", { class: "qx-finding-buttons" }, [
          ...this.buttons(finding),
          select && html("button", { class: "qx-link", "data-go": select, text: "show the place" })
        ])
      ])
    ]);
  }
  /** @param {Entry} finding */
  buttons(finding) {
    return finding.fixes.map(
      ({ label, code }, index) => html("button", {
        class: "qx-button qx-fix",
        text: label,
        title: code,
        "data-fix": finding.key,
        "data-index": String(index),
        disabled: this.model.get("busy")
      })
    );
  }
  /** @param {boolean} open */
  show(open) {
    this.popover.hidden = !open;
    this.more.setAttribute("aria-expanded", String(open));
    this.more.textContent = open ? "less" : "more";
  }
  shut() {
    const inside = this.popover.contains(document.activeElement);
    this.show(false);
    if (inside) this.more.focus();
  }
};
var news_default = {
  /** @param {import("@anywidget/types").RenderProps<Traits>} props */
  render({ model, el }) {
    const view = new NewsBar(model, el);
    return () => view.end();
  }
};
export {
  news_default as default
};
