"""Which rows of a comparison stand for what is selected on the page, and the other way round."""

from __future__ import annotations

from collections.abc import Sequence

from qatexplorer.accuracy.records import CompareRow, Comparison
from qatexplorer.snapshot.follow import moved_selection
from qatexplorer.snapshot.records import Snapshot
from qatexplorer.views.accuracy.compare_table import key_of


class Places:
    """The places of a comparison's rows in the stage in view.

    ``snapshots`` are those of the stages where a row's path may be looked up, the likeliest first;
    ``shown`` is the one in view.
    """

    def __init__(
        self, comparison: Comparison, snapshots: Sequence[Snapshot], shown: Snapshot
    ) -> None:
        self._selections: dict[str, str] = {}
        self._keys: dict[str, list[str]] = {}
        owners: list[tuple[str, str]] = []
        for position, row in enumerate(comparison.rows):
            key = key_of(position)
            selection = _found(row, snapshots, shown)
            self._selections[key] = selection
            if selection:
                self._keys.setdefault(selection, []).append(key)
            if row.owner:
                owners.append((_moved(f"module:{row.owner}", snapshots, shown), key))
        for selection, key in owners:
            if selection and selection not in self._keys:
                self._keys[selection] = [key]

    def selection_of(self, key: str) -> str:
        """What to select on the page for a row; ``""`` where the stage has no such place."""
        return self._selections.get(key, "")

    def key_for(self, selection: str, chosen: str) -> str:
        """The row for what is selected: ``chosen`` if it is one of them, else the first; ``""`` if
        no row stands for it. A module without a row of its own has that of its fake quant."""
        keys = self._keys.get(selection, [])
        if self._selections.get(chosen) == selection and selection:
            return chosen
        return chosen if chosen in keys else next(iter(keys), "")


def _found(row: CompareRow, snapshots: Sequence[Snapshot], shown: Snapshot) -> str:
    for snapshot in (*snapshots, shown):
        selection = _place_in(row, snapshot)
        if selection:
            return moved_selection(selection, snapshot, shown)
    return _moved(f"module:{row.owner}", snapshots, shown) if row.owner else ""


def _moved(selection: str, snapshots: Sequence[Snapshot], shown: Snapshot) -> str:
    path = selection.partition(":")[2]
    for snapshot in (*snapshots, shown):
        if path in snapshot.by_path:
            return moved_selection(selection, snapshot, shown)
    return ""


def _place_in(row: CompareRow, snapshot: Snapshot) -> str:
    nodes = {node.id: node for node in snapshot.graph.nodes} if snapshot.graph is not None else {}
    if row.kind == "output":
        return next((f"node:{id}" for id, node in nodes.items() if node.op == "output"), "")
    if row.kind == "operation":
        return f"node:{row.path}" if row.path in nodes else ""
    if row.kind == "module":
        return f"module:{row.path}" if row.path in snapshot.by_path else ""
    return f"site:{row.path}" if row.path in snapshot.site_by_path else ""
