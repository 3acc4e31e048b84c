// The stages as a stepper: one button a stage, Back, Next and Reset. It draws what Python says and
// sends what is asked for; it decides nothing.

import { html, listen, OWN_KEYS } from "../common/dom.js";

/**
 * One stage, as views/common/story.py makes it.
 * @typedef {object} Entry
 * @property {string} name
 * @property {string} title
 * @property {"done" | "current" | "next" | "later"} state
 * @property {string} summary
 * @property {string} call
 */

/**
 * @typedef {object} Traits see stagebar.py
 * @property {Entry[]} stages
 * @property {string} busy
 * @property {boolean} can_stop
 */

const STATE_WORDS = {
  done: "done",
  current: "in view",
  next: "next",
  later: "not reached",
};

const SHOWN_FROM_S = 3;

class StageBar {
  /**
   * @param {import("@anywidget/types").AnyModel<Traits>} model
   * @param {HTMLElement} el
   */
  constructor(model, el) {
    this.model = model;
    this.list = html("ol", { class: "qx-stages", "aria-label": "Stages" });
    this.back = this.button("◀ Back", "Show the stage before (nothing is undone)", "back");
    this.next = this.button("Next ▶", "Run the next torch call", "next");
    this.reset = this.button("↺ Reset", "Start again from the float model", "reset");
    this.stop = this.button("■ Stop", "Stop what is running", "stop");
    this.next.classList.add("qx-primary");
    this.status = html("span", { class: "qx-stage-status", role: "status", "aria-live": "polite" });
    // Beside the status: said aloud every second it would drown everything else.
    this.time = html("span", { class: "qx-stage-time", "aria-hidden": "true" });
    const buttons = [this.back, this.next, this.reset, this.stop];
    this.root = html("div", { class: "qx qx-stagebar", ...OWN_KEYS }, [
      this.list,
      html("div", { class: "qx-stage-controls" }, [this.status, this.time, ...buttons]),
    ]);
    el.append(this.root);
    const draw = () => this.draw();
    const heard = { "change:stages": draw, "change:busy": draw, "change:can_stop": draw };
    /** @type {ReturnType<typeof setInterval> | undefined} */
    this.ticking = undefined;
    this.unlisten = listen(model, heard);
    this.draw();
  }

  /**
   * @param {string} text
   * @param {string} title
   * @param {string} action
   */
  button(text, title, action) {
    // On a narrow page the sign stands alone.
    const parts = text.split(" ").map((part) => {
      const word = part.length > 1;
      return html("span", { class: word ? "qx-stage-word" : null, text: part });
    });
    const button = html(
      "button",
      { class: "qx-button", title, "aria-label": text, "data-action": action },
      parts,
    );
    button.addEventListener("click", () => this.request(action));
    return button;
  }

  /**
   * @param {string} action
   * @param {string} [stage]
   */
  request(action, stage = "") {
    this.model.send({ action, stage });
  }

  draw() {
    const stages = this.model.get("stages");
    const busy = this.model.get("busy");
    const focused = document.activeElement;
    const name =
      focused instanceof HTMLElement && this.root.contains(focused)
        ? focused.dataset.stage
        : undefined;
    const items = stages.map((stage, index) => this.item(stage, index, Boolean(busy)));
    this.list.replaceChildren(...items);
    if (name !== undefined) {
      const again = this.list.querySelector(`[data-stage="${CSS.escape(name)}"]`);
      if (again instanceof HTMLElement) again.focus();
    }
    const at = stages.findIndex((stage) => stage.state === "current");
    this.back.disabled = Boolean(busy) || at <= 0;
    this.next.disabled = Boolean(busy) || at === stages.length - 1 || stages.length === 0;
    this.reset.disabled = Boolean(busy);
    this.stop.hidden = !this.model.get("can_stop");
    this.status.textContent = busy;
    this.count(Boolean(busy));
    this.root.classList.toggle("qx-busy", Boolean(busy));
  }

  /**
   * Say how long the kernel is at work, from the third second on.
   * @param {boolean} busy
   */
  count(busy) {
    if (busy === (this.ticking !== undefined)) return;
    clearInterval(this.ticking);
    this.ticking = undefined;
    this.time.textContent = "";
    if (!busy) return;
    const begun = Date.now();
    this.ticking = setInterval(() => {
      const seconds = Math.round((Date.now() - begun) / 1000);
      if (seconds >= SHOWN_FROM_S) this.time.textContent = `${seconds} s`;
    }, 1000);
  }

  /**
   * @param {Entry} stage
   * @param {number} index
   * @param {boolean} busy
   */
  item(stage, index, busy) {
    const { name, title, state, summary, call } = stage;
    const dot = state === "done" ? "✓" : String(index + 1);
    const button = html(
      "button",
      {
        class: "qx-stage-button",
        "data-stage": name,
        disabled: busy,
        title: [title, call, summary].filter(Boolean).join("\n"),
        "aria-label": `Stage ${index + 1}, ${title}, ${STATE_WORDS[state]}. ${summary}`,
        "aria-current": state === "current" ? "step" : null,
      },
      [
        html("span", { class: "qx-stage-dot", "aria-hidden": "true", text: dot }),
        html("span", { class: "qx-stage-title", text: title }),
      ],
    );
    button.addEventListener("click", () => this.request("goto", name));
    return html("li", { class: `qx-stage qx-stage-${state}` }, [button]);
  }

  destroy() {
    clearInterval(this.ticking);
    this.unlisten();
    this.root.remove();
  }
}

export default {
  /** @param {import("@anywidget/types").RenderProps<Traits>} props */
  render({ model, el }) {
    const view = new StageBar(model, el);
    return () => view.destroy();
  },
};
