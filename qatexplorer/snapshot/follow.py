"""Following what is selected from one stage to another."""

from __future__ import annotations

from qatexplorer.snapshot.records import Snapshot


def moved_selection(selection: str, old: Snapshot, new: Snapshot) -> str:
    """The same thing in another stage: a wrapper may have changed a module's path."""
    kind, _, path = selection.partition(":")
    if kind == "module" and path in old.by_path:
        origin = old.by_path[path].origin
        if path in new.by_path and new.by_path[path].origin == origin:
            return selection
        there = [m.path for m in new.modules if m.origin == origin and (origin or m.path == "")]
        return f"module:{there[0]}" if there else ""
    if kind == "site" and path not in new.site_by_path:
        owner = path.rpartition(".")[0]
        return moved_selection(f"module:{owner}", old, new)
    if kind in ("node", "edge") and new.graph is not None:
        known = {n.id for n in new.graph.nodes}
        return selection if set(path.split(":")) <= known else ""
    return selection
