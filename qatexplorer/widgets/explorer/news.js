// The line of news: what happened, what is wrong and buttons against it; the rest opens over the
// page. It draws what Python says and sends what is asked for; it decides nothing.

import { closest, html, listen, OWN_KEYS } from "../common/dom.js";
import { alertOf, countParts, countsInWords } from "./counts.js";

/**
 * One finding, as views/common/findings.py makes it.
 * @typedef {object} Entry
 * @property {string} key
 * @property {"error" | "warning" | "info"} severity
 * @property {string} mark
 * @property {string} word
 * @property {string} message
 * @property {string} fix
 * @property {string} select
 * @property {{ label: string, code: string }[]} fixes
 */

/**
 * @typedef {object} Traits see news.py
 * @property {string} title
 * @property {string} news
 * @property {string} story
 * @property {Entry[]} findings
 * @property {import("./counts.js").Checks} checks
 * @property {boolean} busy
 */

let made = 0;

class NewsBar {
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
      this.text,
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
      "aria-label": "Close",
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
      "change:checks": () => this.drawCounts(),
    });
    /** A click elsewhere closes what was opened to be read. @param {Event} event */
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
    // What is only good to know is counted, and does not take the room of the news.
    const pressing = worst && worst.severity !== "info" ? worst : undefined;
    this.worst.hidden = pressing === undefined;
    this.worst.className = `qx-finding qx-finding-${pressing?.severity ?? "info"}`;
    this.worst.replaceChildren(...(pressing ? this.chip(pressing, findings.length - 1) : []));
    this.list.hidden = findings.length === 0;
    // All of them are in the panel of checks.
    this.list.replaceChildren(
      ...(worst ? [this.item(worst)] : []),
      ...(findings.length > 1 ? [html("li", {}, [this.rest(findings.length - 1)])] : []),
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
      html("button", { class: "qx-finding-word", title: `${message}\n${finding.fix}` }, [
        html("span", { class: "qx-finding-mark", "aria-hidden": "true", text: mark }),
        html("b", { text: `${word}: ` }),
        message,
      ]),
      ...this.buttons(finding),
      ...(others > 0 ? [this.rest(others)] : []),
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
          select && html("button", { class: "qx-link", "data-go": select, text: "show the place" }),
        ]),
      ]),
    ]);
  }

  /** @param {Entry} finding */
  buttons(finding) {
    return finding.fixes.map(({ label, code }, index) =>
      html("button", {
        class: "qx-button qx-fix",
        text: label,
        title: code,
        "data-fix": finding.key,
        "data-index": String(index),
        disabled: this.model.get("busy"),
      }),
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
}

export default {
  /** @param {import("@anywidget/types").RenderProps<Traits>} props */
  render({ model, el }) {
    const view = new NewsBar(model, el);
    return () => view.end();
  },
};
