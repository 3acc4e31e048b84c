// The stages as a stepper: one button a stage, Back, Next and Reset. It draws what Python says and
// sends what is asked for; it decides nothing.

const STATE_WORDS = {
  done: "done",
  current: "in view",
  next: "next",
  later: "not reached",
};

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

class StageBar {
  constructor(model, el) {
    this.model = model;
    this.root = make("div", "qx qx-stagebar");
    this.root.dataset.lmSuppressShortcuts = "true";
    this.list = make("ol", "qx-stages");
    this.list.setAttribute("aria-label", "Stages");
    this.controls = make("div", "qx-stage-controls");
    this.back = this.button("◀ Back", "Show the stage before (nothing is undone)", "back");
    this.next = this.button("Next ▶", "Run the next torch call", "next");
    this.reset = this.button("↺ Reset", "Start again from the float model", "reset");
    this.stop = this.button("■ Stop", "Stop what is running", "stop");
    this.next.classList.add("qx-primary");
    this.status = make("span", "qx-stage-status");
    this.status.setAttribute("role", "status");
    this.status.setAttribute("aria-live", "polite");
    this.controls.append(this.back, this.next, this.reset, this.stop, this.status);
    this.root.append(this.list, this.controls);
    el.append(this.root);
    this.draw = this.draw.bind(this);
    for (const name of ["stages", "busy", "can_stop"]) model.on(`change:${name}`, this.draw);
    this.draw();
  }

  button(text, title, action) {
    const button = make("button", "qx-button", text);
    button.type = "button";
    button.title = title;
    button.dataset.action = action;
    button.addEventListener("click", () => this.ask(action));
    return button;
  }

  ask(action, stage) {
    this.model.send({ action, stage: stage ?? "" });
  }

  draw() {
    const stages = this.model.get("stages");
    const busy = this.model.get("busy");
    const focused = this.root.contains(document.activeElement)
      ? document.activeElement.dataset.stage
      : undefined;
    this.list.replaceChildren(
      ...stages.map((stage, index) => {
        const item = make("li", `qx-stage qx-stage-${stage.state}`);
        const button = make("button", "qx-stage-button");
        button.type = "button";
        button.dataset.stage = stage.name;
        button.disabled = Boolean(busy);
        const dot = make("span", "qx-stage-dot", stage.state === "done" ? "✓" : String(index + 1));
        dot.setAttribute("aria-hidden", "true");
        const text = make("span", "qx-stage-text");
        text.append(make("span", "qx-stage-title", stage.title));
        if (stage.summary) text.append(make("span", "qx-stage-summary", stage.summary));
        button.append(dot, text);
        button.title = stage.call ? `${stage.call}\n${stage.summary}` : stage.title;
        button.setAttribute(
          "aria-label",
          `Stage ${index + 1}, ${stage.title}, ${STATE_WORDS[stage.state]}. ${stage.summary}`,
        );
        if (stage.state === "current") button.setAttribute("aria-current", "step");
        button.addEventListener("click", () => this.ask("goto", stage.name));
        item.append(button);
        return item;
      }),
    );
    if (focused) this.list.querySelector(`[data-stage="${focused}"]`)?.focus();
    const at = stages.findIndex((stage) => stage.state === "current");
    this.back.disabled = Boolean(busy) || at <= 0;
    this.next.disabled = Boolean(busy) || at === stages.length - 1 || stages.length === 0;
    this.reset.disabled = Boolean(busy);
    this.stop.hidden = !this.model.get("can_stop");
    this.status.textContent = busy;
    this.root.classList.toggle("qx-busy", Boolean(busy));
  }

  destroy() {
    for (const name of ["stages", "busy", "can_stop"]) this.model.off(`change:${name}`, this.draw);
    this.root.remove();
  }
}

export default {
  render({ model, el }) {
    const view = new StageBar(model, el);
    return () => view.destroy();
  },
};
