// Made by tests/js/build.mjs, not by hand, of
//   common/dom.js
//   common/html.js
// sha256 of these: 38ecb47e31999ccfd7cabb99209ea0bfec892e89e115c8f0bf5739d05fd23abb

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

// common/html.js
var html_default = {
  /** @param {import("@anywidget/types").RenderProps<Traits>} props */
  render({ model, el }) {
    const root = html("div");
    el.append(root);
    const draw = () => {
      root.className = `qx ${model.get("kind")}`;
      const role = model.get("role");
      if (role) root.setAttribute("role", role);
      root.innerHTML = model.get("html");
      root.hidden = model.get("html") === "";
    };
    draw();
    return listen(model, { "change:html": draw, "change:kind": draw, "change:role": draw });
  }
};
export {
  html_default as default
};
