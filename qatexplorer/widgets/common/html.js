// A block of HTML that Python's views made (and escaped).

export default {
  render({ model, el }) {
    const root = document.createElement("div");
    el.append(root);
    const draw = () => {
      root.className = `qx ${model.get("kind")}`;
      const role = model.get("role");
      if (role) root.setAttribute("role", role);
      root.innerHTML = model.get("html");
      root.hidden = model.get("html") === "";
    };
    for (const name of ["html", "kind", "role"]) model.on(`change:${name}`, draw);
    draw();
    return () => {
      for (const name of ["html", "kind", "role"]) model.off(`change:${name}`, draw);
    };
  },
};
