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
        self._shown = _Stage(shown)
        self._stages = [*map(_Stage, snapshots), self._shown]
        self._selections: dict[str, str] = {}
        self._keys: dict[str, list[str]] = {}
        owners: dict[str, str] = {}
        for position, row in enumerate(comparison.rows):
            key = key_of(position)
            selection = self._found(row)
            self._selections[key] = selection
            if selection:
                self._keys.setdefault(selection, []).append(key)
            if row.owner:
                owners.setdefault(row.owner, key)
        for owner, key in owners.items():
            selection = self._module(owner)
            if selection:
                self._keys.setdefault(selection, [key])

    def selection_of(self, key: str) -> str:
        """What to select on the page for a row; ``""`` where the stage has no such place."""
        return self._selections.get(key, "")

    def key_for(self, selection: str, chosen: str) -> str:
        """The row for what is selected: ``chosen`` if it is one of them, else the first; ``""`` if
        no row stands for it. A module without a row of its own has that of its fake quant."""
        keys = self._keys.get(selection, [])
        return chosen if chosen in keys else next(iter(keys), "")

    def _found(self, row: CompareRow) -> str:
        for stage in self._stages:
            selection = stage.place_of(row)
            if selection:
                return self._moved(selection, stage)
        return self._module(row.owner) if row.owner else ""

    def _module(self, path: str) -> str:
        for stage in self._stages:
            if path in stage.snapshot.by_path:
                return self._moved(f"module:{path}", stage)
        return ""

    def _moved(self, selection: str, stage: _Stage) -> str:
        kind, _, path = selection.partition(":")
        if kind == "node":  # asked of the function, each would look through all nodes
            return selection if path in self._shown.nodes else ""
        return moved_selection(selection, stage.snapshot, self._shown.snapshot)


class _Stage:
    """A snapshot, with the ids of its graph's nodes."""

    def __init__(self, snapshot: Snapshot) -> None:
        nodes = snapshot.graph.nodes if snapshot.graph is not None else ()
        self.snapshot = snapshot
        self.nodes = frozenset(node.id for node in nodes)
        self._output = next((node.id for node in nodes if node.op == "output"), "")

    def place_of(self, row: CompareRow) -> str:
        """What a row stands for in this stage, ``""`` for nothing."""
        if row.kind == "output":
            return f"node:{self._output}" if self._output else ""
        if row.kind == "operation":
            return f"node:{row.path}" if row.path in self.nodes else ""
        if row.kind == "module":
            return f"module:{row.path}" if row.path in self.snapshot.by_path else ""
        return f"site:{row.path}" if row.path in self.snapshot.site_by_path else ""
