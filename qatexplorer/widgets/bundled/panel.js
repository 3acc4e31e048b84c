// Made by tests/js/build.mjs, not by hand, of
//   common/dom.js
//   common/panel.js
// sha256 of these: f7d1fdbc88be64bab162f0dca8fa4fe8665764055ef629ce6ad6aa5579178036

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
var SAID_MS = 1600;
function title(details) {
  const summary = details.querySelector("summary")?.textContent ?? "";
  return summary.replace(/\(.*$/, "").trim();
}
async function copy(button, text) {
  const before = button.textContent;
  const done = await navigator.clipboard?.writeText(text).then(
    () => true,
    () => false
  );
  button.textContent = done || copyBySelection(button, text) ? "Copied" : "Select and copy it";
  setTimeout(() => {
    button.textContent = before;
  }, SAID_MS);
}
function copyBySelection(button, text) {
  const field = html("textarea", { class: "qx-sr", "aria-hidden": "true" });
  field.value = text;
  button.parentElement?.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  button.focus();
  return done;
}
function askedBy(root) {
  const focused = root.contains(document.activeElement) ? document.activeElement : null;
  return focused instanceof HTMLElement ? focused.dataset.ask : void 0;
}
function focusAsking(root, asked) {
  const buttons = [...root.querySelectorAll("[data-ask]")].filter((e) => e instanceof HTMLElement);
  const again = buttons.find((button) => button.dataset.ask === asked);
  again?.focus({ preventScroll: true });
  return again !== void 0;
}
function within(field) {
  const value = field.value === "" ? Number.NaN : Math.round(Number(field.value));
  if (Number.isNaN(value)) return field.defaultValue;
  return String(Math.min(Math.max(value, Number(field.min)), Number(field.max)));
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
      const asked = askedBy(root);
      root.innerHTML = model.get("html");
      for (const details of root.querySelectorAll("details")) {
        if (open.has(title(details))) details.open = true;
      }
      const heading = root.querySelector("h3");
      if (heading && heading.textContent !== about) {
        about = heading.textContent ?? "";
        root.closest(".qx-part-inspector")?.scrollTo(0, 0);
      }
      if (asked !== void 0 && !focusAsking(root, asked)) fromHere = true;
      if (!fromHere) return;
      fromHere = false;
      if (heading) {
        heading.tabIndex = -1;
        heading.focus({ preventScroll: true });
      }
    };
    const typed = (event) => {
      const field = event.target;
      if (!(field instanceof HTMLInputElement) || field.dataset.ask === void 0) return;
      if (event instanceof KeyboardEvent && event.key !== "Enter") return;
      field.value = within(field);
      if (field.value === (field.dataset.sent ?? field.defaultValue)) return;
      field.dataset.sent = field.value;
      model.send({ ask: `${field.dataset.ask}:${field.value}` });
    };
    root.addEventListener("change", typed);
    root.addEventListener("keydown", typed);
    root.addEventListener("click", (event) => {
      const wanted = closest(event.target, "[data-ask]:not(input)")?.dataset.ask;
      if (wanted !== void 0) model.send({ ask: wanted });
      const copied = closest(event.target, "[data-copy]");
      if (copied?.dataset.copy !== void 0) copy(copied, copied.dataset.copy);
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
