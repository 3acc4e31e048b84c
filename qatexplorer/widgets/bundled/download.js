// Made by tests/js/build.mjs, not by hand, of
//   common/dom.js
//   common/download.js
//   common/file.js
// sha256 of these: 39c4f054f72058c883f375d9cad01697ca7526c9e752322a5391b6d8eac3cd3a

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
function unzipped(bytes) {
  const packed = new Blob([
    /** @type {DataView<ArrayBuffer>} */
    bytes
  ]);
  return new Response(packed.stream().pipeThrough(new DecompressionStream("gzip"))).text();
}
var download_default = {
  /** @param {import("@anywidget/types").RenderProps<Traits>} props */
  render({ model, el }) {
    const button = html("button", { class: "qx-button" });
    const root = html("div", { class: "qx qx-download" }, [button]);
    el.append(root);
    let asked = "";
    const save = (text) => download(text, model.get("filename"), model.get("type"));
    button.addEventListener("click", () => {
      if (!model.get("held")) return save(model.get("text"));
      asked = Math.random().toString(36).slice(2);
      model.send({ ask: asked });
    });
    const receive = (message, buffers) => {
      if (message?.answers === asked && buffers[0]) unzipped(buffers[0]).then(save);
    };
    const draw = () => {
      button.textContent = model.get("label");
      button.title = model.get("tip");
      button.disabled = model.get("text") === "" && !model.get("held");
    };
    draw();
    return listen(model, {
      "change:label": draw,
      "change:tip": draw,
      "change:text": draw,
      "change:held": draw,
      "msg:custom": receive
    });
  }
};
export {
  download_default as default
};
