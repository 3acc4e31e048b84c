// Made by tests/js/build.mjs, not by hand, of
//   common/dom.js
//   common/panel.js
// sha256 of these: ebf36c6cdc3f69de519564f7e5a81c39933b21216e61c5714b942d590dd9e888

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
function save(model, changes) {
  for (const name of Object.keys(changes)) {
    model.set(
      name,
      /** @type {Traits[string]} */
      changes[name]
    );
  }
  model.save_changes();
}
function forceTheme(root, dark) {
  root.classList.toggle("qx-dark", dark === true);
  root.classList.toggle("qx-light", dark === false);
}

// common/panel.js
function title(details) {
  const summary = details.querySelector("summary")?.textContent ?? "";
  return summary.replace(/\(.*$/, "").trim();
}
var panel_default = {
  /** @param {import("@anywidget/types").RenderProps<Traits>} props */
  render({ model, el }) {
    const root = html("div", { class: "qx qx-inspector", ...OWN_KEYS });
    const open = /* @__PURE__ */ new Set();
    let fromHere = false;
    let about = "";
    const look = () => forceTheme(root, model.get("dark"));
    const draw = () => {
      for (const details of root.querySelectorAll("details")) {
        if (details.open) open.add(title(details));
        else open.delete(title(details));
      }
      root.innerHTML = model.get("html");
      for (const details of root.querySelectorAll("details")) {
        if (open.has(title(details))) details.open = true;
      }
      const heading = root.querySelector("h3");
      if (heading && heading.textContent !== about) {
        about = heading.textContent ?? "";
        root.closest(".qx-part-inspector")?.scrollTo(0, 0);
      }
      if (!fromHere) return;
      fromHere = false;
      if (heading) {
        heading.tabIndex = -1;
        heading.focus({ preventScroll: true });
      }
    };
    root.addEventListener("click", (event) => {
      const wanted = closest(event.target, "[data-ask]")?.dataset.ask;
      if (wanted !== void 0) model.send({ ask: wanted });
      const selected = closest(event.target, "[data-select]")?.dataset.select;
      if (selected === void 0) return;
      fromHere = true;
      save(model, { selected });
    });
    const unlisten = listen(model, { "change:html": draw, "change:dark": look });
    look();
    draw();
    el.append(root);
    return () => {
      unlisten();
      root.remove();
    };
  }
};
export {
  panel_default as default
};
