// Shows the inspector's HTML (escaped by the view that made it) and hands clicks on
// [data-select] to Python as the selection.

function openTitles(root) {
  const titles = new Set();
  for (const details of root.querySelectorAll("details[open]")) titles.add(title(details));
  return titles;
}

function title(details) {
  return details.querySelector("summary").textContent.replace(/\(.*$/, "").trim();
}

export default {
  render({ model, el }) {
    const root = document.createElement("div");
    root.className = "qx qx-inspector";
    root.dataset.lmSuppressShortcuts = "true";
    let open = new Set();
    let fromHere = false;

    const look = () => {
      const dark = model.get("dark");
      root.classList.toggle("qx-dark", dark === true);
      root.classList.toggle("qx-light", dark === false);
    };
    const draw = () => {
      // What a reader folded out for one module they want to see for the next one too.
      for (const details of root.querySelectorAll("details")) open.delete(title(details));
      open = new Set([...open, ...openTitles(root)]);
      root.innerHTML = model.get("html");
      for (const details of root.querySelectorAll("details")) {
        if (open.has(title(details))) details.open = true;
      }
      if (!fromHere) return;
      fromHere = false;
      const heading = root.querySelector("h3");
      if (heading) {
        heading.tabIndex = -1;
        heading.focus({ preventScroll: true });
      }
    };
    root.addEventListener("click", (event) => {
      const button = event.target.closest("[data-select]");
      if (!button) return;
      fromHere = true;
      model.set("selected", button.dataset.select);
      model.save_changes();
    });
    model.on("change:html", draw);
    model.on("change:dark", look);
    look();
    draw();
    el.append(root);
    return () => {
      model.off("change:html", draw);
      model.off("change:dark", look);
      root.remove();
    };
  },
};
