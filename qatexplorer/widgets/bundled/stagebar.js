// Made by tests/js/build.mjs, not by hand, of
//   common/dom.js
//   explorer/stagebar.js
// sha256 of these: 2f2d65b12c22899d2e3e58a31521a0093782c449420717c6c3fb68efe7c3171e

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
function listen(model, handlers) {
  const pairs = Object.entries(handlers);
  for (const [event, handler] of pairs) model.on(event, handler);
  return () => {
    for (const [event, handler] of pairs) model.off(event, handler);
  };
}

// explorer/stagebar.js
var STATE_WORDS = {
  done: "done",
  current: "in view",
  next: "next",
  later: "not reached"
};
var SHOWN_FROM_S = 3;
var StageBar = class {
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
    this.time = html("span", { class: "qx-stage-time", "aria-hidden": "true" });
    const buttons = [this.back, this.next, this.reset, this.stop];
    this.root = html("div", { class: "qx qx-stagebar", ...OWN_KEYS }, [
      this.list,
      html("div", { class: "qx-stage-controls" }, [this.status, this.time, ...buttons])
    ]);
    el.append(this.root);
    const draw = () => this.draw();
    const heard = { "change:stages": draw, "change:busy": draw, "change:can_stop": draw };
    this.ticking = void 0;
    this.unlisten = listen(model, heard);
    this.draw();
  }
  /**
   * @param {string} text
   * @param {string} title
   * @param {string} action
   */
  button(text, title, action) {
    const parts = text.split(" ").map((part) => {
      const word = part.length > 1;
      return html("span", { class: word ? "qx-stage-word" : null, text: part });
    });
    const button = html(
      "button",
      { class: "qx-button", title, "aria-label": text, "data-action": action },
      parts
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
    const name = focused instanceof HTMLElement && this.root.contains(focused) ? focused.dataset.stage : void 0;
    const items = stages.map((stage, index) => this.item(stage, index, Boolean(busy)));
    this.list.replaceChildren(...items);
    if (name !== void 0) {
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
    if (busy === (this.ticking !== void 0)) return;
    clearInterval(this.ticking);
    this.ticking = void 0;
    this.time.textContent = "";
    if (!busy) return;
    const begun = Date.now();
    this.ticking = setInterval(() => {
      const seconds = Math.round((Date.now() - begun) / 1e3);
      if (seconds >= SHOWN_FROM_S) this.time.textContent = `${seconds} s`;
    }, 1e3);
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
        "aria-current": state === "current" ? "step" : null
      },
      [
        html("span", { class: "qx-stage-dot", "aria-hidden": "true", text: dot }),
        html("span", { class: "qx-stage-title", text: title })
      ]
    );
    button.addEventListener("click", () => this.request("goto", name));
    return html("li", { class: `qx-stage qx-stage-${state}` }, [button]);
  }
  destroy() {
    clearInterval(this.ticking);
    this.unlisten();
    this.root.remove();
  }
};
var stagebar_default = {
  /** @param {import("@anywidget/types").RenderProps<Traits>} props */
  render({ model, el }) {
    const view = new StageBar(model, el);
    return () => view.destroy();
  }
};
export {
  stagebar_default as default
};
