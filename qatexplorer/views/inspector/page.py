"""What there is to know about one selected thing, as HTML."""

from __future__ import annotations

from collections.abc import Mapping

from qatexplorer.session.glance import Glance
from qatexplorer.snapshot.records import FakeQuantSite, Graph, GraphNode, ModuleRecord, Snapshot
from qatexplorer.views.common.html import Html, code, folded, go, join, kind_badge, tag, terms
from qatexplorer.views.common.names import (
    count,
    has_qconfigs,
    is_int8,
    plain_dtype,
    qconfig_badge,
    shape_text,
    short_type,
    state_words,
)
from qatexplorer.views.inspector import site as site_parts
from qatexplorer.views.inspector.exported import (
    annotation_html,
    mode_of_module,
    mode_word,
    nodes_of,
)
from qatexplorer.views.inspector.glance import glance_html
from qatexplorer.views.inspector.int8_layer import Int8Section, int8_html
from qatexplorer.views.inspector.switching import SwitchSection, switch_html
from qatexplorer.views.inspector.words import (
    two_observers,
    type_strip,
    why_module,
    why_node,
)


def inspect_html(
    snapshots: Mapping[str, Snapshot],
    stage: str,
    selection: str,
    glance: Glance | None = None,
    int8: Int8Section | None = None,
    switch: SwitchSection | None = None,
) -> str:
    """Everything about ``selection`` at ``stage``, in the light of all stages reached.

    Args:
        snapshots: by stage name, in the order of the stages.
        selection: ``"module:<path>"``, ``"site:<path>"``, ``"node:<id>"``,
            ``"edge:<source>:<target>"`` or ``""``. A path that this stage does not have is shown
            as it was at the nearest stage that has it.
        glance: what to show of the model when nothing is selected.
        int8: what is known of the int8 layer that is selected, None for another selection.
        switch: what is known of the switch of the fake quants, None where there is nothing to
            switch.

    Returns:
        HTML of one ``<article>``, all text escaped. Buttons with ``data-select`` name other
        selections, those with ``data-ask`` ask the page for something (see
        :func:`~qatexplorer.views.inspector.glance.glance_html`).
    """
    kind, _, rest = selection.partition(":")
    body: Html | None = None
    if stage in snapshots:
        view = _View(snapshots, stage)
        if kind in ("module", "site"):
            body = view.place(rest)
        elif kind == "node":
            body = view.node(rest)
        elif kind == "edge":
            body = view.edge(rest)
        elif not selection and glance is not None:
            body = glance_html(glance)
    if body is None:
        body = _nothing(selection)
    elif int8 is not None:
        body = join([body, int8_html(int8)])
    elif switch is not None and stage in snapshots:
        sites = _View(snapshots, stage).sites_at(kind, rest)
        body = join([body, switch_html(switch, sites)]) if sites else body
    return tag("article", body, class_="qx-inspect", aria_label="Inspector")


def _nothing(selection: str) -> Html:
    if selection:
        return tag("p", "There is no ", code(selection), " at this stage.", class_="qx-muted")
    return tag(
        "p",
        "Pick a module, an edge or a fake quant in the tree or in the graph.",
        class_="qx-muted",
    )


class _View:
    def __init__(self, snapshots: Mapping[str, Snapshot], stage: str) -> None:
        self.snapshots, self.stage = snapshots, stage
        self.now = snapshots[stage]

    def place(self, path: str) -> Html | None:
        """A module or fake quant, at this stage or the nearest one that has it."""
        names = list(self.snapshots)
        here = names.index(self.stage)
        for name in sorted(names, key=lambda n: (abs(names.index(n) - here), names.index(n))):
            snapshot = self.snapshots[name]
            site = snapshot.site_by_path.get(path)
            module = snapshot.by_path.get(path) or next(
                (m for m in snapshot.modules if m.origin == path), None
            )
            if site is None and module is None:
                continue
            note = self._elsewhere(name, names) if name != self.stage else None
            if site is not None:
                return join([note, site_parts.site_html(self.snapshots, name, site)])
            assert module is not None
            return join([note, self.module(snapshot, module)])
        return None

    def _elsewhere(self, name: str, names: list[str]) -> Html:
        gone = names.index(name) < names.index(self.stage)
        return tag(
            "p",
            "Gone" if gone else "Not there yet",
            f" at stage “{self.stage}”; shown as it is at stage “{name}”.",
            class_="qx-remark",
        )

    def module(self, snapshot: Snapshot, module: ModuleRecord) -> Html:
        sites = snapshot.sites_of(module.path)
        badges = [kind_badge(s.kind) for s in sites]
        if is_int8(module):
            badges.append(tag("span", "int8", class_="qx-badge qx-int8"))
        if module.stays_float:
            badges.append(tag("span", "stays float", class_="qx-badge qx-tree-float"))
        return join(
            [
                tag("header", tag("h3", module.path or "The model itself"), *badges),
                type_strip(self.snapshots, snapshot.stage, module),
                tag("p", why_module(self.snapshots, snapshot, module), class_="qx-why"),
                self._module_terms(snapshot, module),
                two_observers(sites),
                self._module_details(snapshot, module),
            ]
        )

    def _module_terms(self, snapshot: Snapshot, module: ModuleRecord) -> Html:
        shared = [m for m in snapshot.modules if m.identity == module.identity and m is not module]
        qconfig = None
        if module.qconfig is not None:
            lines = [
                tag("div", "activation: ", code(module.qconfig.activation)),
                tag("div", "weight: ", code(module.qconfig.weight)),
            ]
            qconfig = folded(qconfig_badge(module.qconfig), *lines)
        parent = None
        if module.parent is not None:
            parent = go(f"module:{module.parent}", module.parent or "the model itself")
        return terms(
            [
                ("type", code(module.qualified_type)),
                ("settings", code(module.extra_repr) if module.extra_repr else None),
                ("inside", parent),
                ("state", state_words(module, snapshot)[1]),
                ("qconfig", qconfig or _no_qconfig(snapshot, module)),
                ("annotation", self._annotations(snapshot, module)),
                ("parameters", f"{module.param_count:,}" if module.param_count else "none"),
                ("runs", _runs(snapshot, module)),
                ("mode", _mode(snapshot, module)),
                (
                    "same object as",
                    join([go(f"module:{m.path}", m.path) for m in shared], ", ") or None,
                ),
                ("source", self._source(module)),
            ]
        )

    def _annotations(self, snapshot: Snapshot, module: ModuleRecord) -> Html | None:
        nodes = nodes_of(snapshot.graph, module.path) if snapshot.exported else ()
        found = [annotation_html(self.snapshots, snapshot, node) for node in nodes]
        return join(found) or None

    def _source(self, module: ModuleRecord) -> Html | None:
        graph = self.now.graph
        found = [n for n in graph.nodes if n.path == module.path and n.source] if graph else []
        places = dict.fromkeys(n.source for n in found)
        return join([code(p) for p in places], ", ") if module.path and places else None

    def _module_details(self, snapshot: Snapshot, module: ModuleRecord) -> Html:
        parts = []
        if module.hooks:
            rows = [
                tag(
                    "li",
                    code(h.name),
                    f" ({h.kind.replace('_', '-')} hook",
                    _torchs(h.observer),
                    ")",
                )
                for h in module.hooks
            ]
            parts.append(folded(f"Hooks ({len(rows)}), in the order they run", tag("ul", *rows)))
        if module.tensors:
            prefix = f"{module.path}." if module.path else ""
            rows = [
                tag(
                    "tr",
                    tag("td", code(prefix + t.name)),
                    tag("td", shape_text(t.shape)),
                    tag("td", plain_dtype(t.dtype)),
                    tag("td", "trained" if t.requires_grad else "not trained"),
                )
                for t in module.tensors
            ]
            heads = [tag("th", h, scope="col") for h in ("state_dict key", "shape", "dtype", "")]
            table = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *rows))
            parts.append(folded(f"Parameters and buffers ({len(rows)})", table))
        inner = [c for c in module.children if c in snapshot.by_path]
        if inner:
            links = [tag("li", self._child(snapshot, c)) for c in inner[:200]]
            parts.append(folded(f"Children ({len(inner)})", tag("ul", *links)))
        return join(parts)

    def _child(self, snapshot: Snapshot, path: str) -> Html:
        site = snapshot.site_by_path.get(path)
        record = snapshot.by_path[path]
        selection = f"{'site' if site else 'module'}:{path}"
        return join([go(selection, record.name), " ", tag("small", short_type(record))])

    def node(self, node_id: str) -> Html | None:
        graph = self.now.graph
        node = _node(graph, node_id)
        if graph is None or node is None:
            return None
        exported = self.now.exported
        op = "operation" if exported and node.op.startswith("call") else node.op
        return join(
            [
                tag("header", tag("h3", node.label), tag("span", op, class_="qx-badge")),
                tag("p", why_node(self.now, node), class_="qx-why"),
                terms(
                    [
                        ("calls", None if exported and node.path else code(node.target)),
                        ("module", go(f"module:{node.path}", node.path) if node.path else None),
                        ("called in", go(f"module:{node.scope}", node.scope or "the model itself")),
                        ("source", code(node.source) if node.source else None),
                        ("output", f"{shape_text(node.shape)}, {plain_dtype(node.dtype)}"),
                        ("mode", mode_word(node.trains)),
                        ("annotation", self._annotation(node) if exported else None),
                        ("fake quants on it", _site_list(self._sites_on(node))),
                        ("takes", self._ends(graph, node, "source")),
                        ("used by", self._ends(graph, node, "target")),
                    ]
                ),
            ]
        )

    def _annotation(self, node: GraphNode) -> Html | None:
        if node.op in ("placeholder", "output"):
            return None
        return annotation_html(self.snapshots, self.now, node)

    def edge(self, rest: str) -> Html | None:
        graph = self.now.graph
        edge = (
            next((e for e in graph.edges if f"{e.source}:{e.target}" == rest), None)
            if graph
            else None
        )
        source = _node(graph, edge.source) if edge else None
        target = _node(graph, edge.target) if edge else None
        if graph is None or source is None or target is None:
            return None
        # In an FX graph the edge knows what is on it: one user may get another fake quant.
        on_edge = [self.now.site_by_path[path] for path in edge.sites] if edge else []
        sites = tuple(on_edge) or self._sites_on(source)
        why = f"{count(len(sites), 'fake quant') if sites else 'No fake quant'} on this tensor."
        return join(
            [
                tag("header", tag("h3", f"{source.label} → {target.label}")),
                tag("p", why, class_="qx-why"),
                terms(
                    [
                        ("shape", shape_text(source.shape)),
                        ("dtype", plain_dtype(source.dtype)),
                        ("made by", _node_link(source)),
                        ("used by", self._ends(graph, source, "target")),
                        ("fake quants on it", _site_list(sites) or "none"),
                    ]
                ),
            ]
        )

    def sites_at(self, kind: str, rest: str) -> tuple[FakeQuantSite, ...]:
        """The fake quants of a selection at this stage: itself, those of a module, those on what a
        node returns."""
        if kind == "node":
            node = _node(self.now.graph, rest)
            return self._sites_on(node) if node is not None else ()
        site = self.now.site_by_path.get(rest) if kind in ("module", "site") else None
        if site is not None:
            return (site,)
        return self.now.sites_of(rest) if kind == "module" else ()

    def _sites_on(self, node: GraphNode) -> tuple[FakeQuantSite, ...]:
        # A weight's stands at the operation that takes it, where the weight is no node.
        placed = tuple(
            s
            for s in self.now.sites
            if node.id in s.nodes and (s.kind != "weight" or node.op == "get_attr")
        )
        if placed or not node.path:
            return placed
        return tuple(s for s in self.now.sites_of(node.path) if s.kind != "weight")

    def _ends(self, graph: Graph, node: GraphNode, end: str) -> Html | None:
        other = "target" if end == "source" else "source"
        ids = [getattr(e, end) for e in graph.edges if getattr(e, other) == node.id]
        found = [n for n in (_node(graph, i) for i in ids) if n is not None]
        return join([_node_link(n) for n in found], ", ") or None


def _torchs(observer: bool) -> str:
    return ", torch's own: it runs a fake quant or observer" if observer else ""


def _mode(snapshot: Snapshot, module: ModuleRecord) -> str:
    found = mode_of_module(snapshot, module) if snapshot.exported else ""
    return found or ("training" if module.training else "eval")


def _no_qconfig(snapshot: Snapshot, module: ModuleRecord) -> str:
    if not has_qconfigs(snapshot):
        return ""
    if not snapshot.is_from("qconfig"):
        return "none yet"
    return "none: it stays float" if module.stays_float else "none at this stage"


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _runs(snapshot: Snapshot, module: ModuleRecord) -> str:
    if module.calls is None:
        return "not measured at this stage"
    if module.calls == 0:
        prefix = f"{module.path}."
        if any(m.calls for m in snapshot.modules if m.path.startswith(prefix)):
            return "what is inside runs; its own forward is not called"
        return "its own forward is not called"
    return f"{_times(module.calls)} per forward"


def _node(graph: Graph | None, node_id: str) -> GraphNode | None:
    return next((n for n in graph.nodes if n.id == node_id), None) if graph else None


def _node_link(node: GraphNode) -> Html:
    selection = (
        f"module:{node.path}" if node.path and node.op == "call_module" else f"node:{node.id}"
    )
    return go(selection, node.path or node.label)


def _site_list(sites: tuple[FakeQuantSite, ...]) -> Html | None:
    if not sites:
        return None
    return join(
        [join([kind_badge(s.kind), " ", go(f"site:{s.path}", s.path)]) for s in sites], ", "
    )
