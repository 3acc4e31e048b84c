// Made by tests/js/build.mjs, not by hand, of
//   common/dom.js
//   common/download.js
//   common/file.js
// sha256 of these: 8c8d3522a668a10434068ec3bc83d99fb2f55e5cc7cf601b72620631a895d700

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

// common/file.js
function download(text, name, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  html("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1e3);
}

// common/download.js
var download_default = {
  /** @param {import("@anywidget/types").RenderProps<Traits>} props */
  render({ model, el }) {
    const button = html("button", { class: "qx-button" });
    const root = html("div", { class: "qx qx-download" }, [button]);
    el.append(root);
    button.addEventListener(
      "click",
      () => download(model.get("text"), model.get("filename"), model.get("type"))
    );
    const draw = () => {
      button.textContent = model.get("label");
      button.title = model.get("tip");
      button.disabled = model.get("text") === "";
    };
    draw();
    return listen(model, { "change:label": draw, "change:tip": draw, "change:text": draw });
  }
};
export {
  download_default as default
};
