"""The module tree of a snapshot as rows that a widget can draw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from qatexplorer.snapshot.diff import Diff
from qatexplorer.snapshot.records import FakeQuantSite, ModuleRecord, Snapshot
from qatexplorer.views.common.names import (
    KINDS,
    is_int8,
    qconfig_badge,
    short_type,
)

Row = dict[str, Any]


def build_tree(snapshot: Snapshot, change: Diff | None = None) -> list[Row]:
    """Rows of the tree, parents before children.

    Args:
        snapshot: the stage to show.
        change: what it changed, None to mark no change.

    Returns:
        JSON-able dicts with: ``id`` (selection string), ``parent`` (``id`` or None), ``kind``
        ("module" or "site"), ``path``, ``name``, ``depth``, ``type``, ``before`` (earlier type
        where it differs, else ""), ``what`` (any of "new", "gone", "type", "qconfig",
        "fake quant", "qparams", "hook", "mode") and ``changed``, ``changed_below``, ``qconfig``
        (short) and ``qconfig_title``, ``marks`` (own fake quants as [weight, input, output]) and
        ``below`` (those of the whole subtree), ``float``, ``not_run``, ``params``, ``shared``
        (another path that names the same object, or None), ``int8``, ``title``; for a site
        ``site`` (its kind).

    Whether a module *stays float* is a fact that its record holds (``stays_float``), the same that
    the ledger gives the reasons for.
    """
    rows = list(_Builder(snapshot, change).rows())
    _sum_up(rows)
    _run_by_what_is_inside(rows, snapshot)
    return rows


class _Builder:
    def __init__(self, snapshot: Snapshot, change: Diff | None) -> None:
        self.snapshot, self.change = snapshot, change
        self.what = change.what if change is not None else {}
        self.before = change.before_of if change is not None else {}
        self.gone = change.gone if change is not None else {}
        self.gone_sites = {s.path: s for s in change.sites_removed} if change is not None else {}
        self.first_paths: dict[int, str] = {}
        self.sites: dict[str, list[FakeQuantSite]] = {}
        for site in snapshot.sites:
            self.sites.setdefault(site.owner, []).append(site)

    def rows(self) -> Iterator[Row]:
        by_path = self.snapshot.by_path
        # An explicit stack: a model nested a thousand deep is legal.
        stack: list[tuple[ModuleRecord, int, str | None]] = []
        if "" in by_path:
            stack.append((by_path[""], 0, None))
        while stack:
            record, depth, gone_from = stack.pop()
            if gone_from is not None:
                yield self._gone_row(record, depth, gone_from)
                continue
            site = self.snapshot.site_by_path.get(record.path)
            yield self._site_row(record, site, depth) if site else self._module_row(record, depth)
            gone = self.gone.get(record.path, ())
            stack.extend((old, depth + 1, record.path) for old in reversed(gone))
            inner = reversed(record.children)
            stack.extend((by_path[c], depth + 1, None) for c in inner if c in by_path)

    def _base(self, record: ModuleRecord, depth: int, what: Sequence[str]) -> Row:
        return {
            "kind": "module",
            "id": f"module:{record.path}",
            "parent": None if record.parent is None else f"module:{record.parent}",
            "path": record.path,
            "name": record.name or "(model)",
            "depth": depth,
            "type": short_type(record),
            "before": "",
            "what": list(what),
            "changed": bool(what),
            "qconfig": "",
            "qconfig_title": "",
            "marks": [0, 0, 0],
            "float": False,
            "state": "",
            "not_run": False,
            "params": record.param_count,
            "shared": None,
            "int8": False,
            "title": record.qualified_type,
        }

    def _module_row(self, record: ModuleRecord, depth: int) -> Row:
        old = self.before.get(record.path)
        row = self._base(record, depth, self.what.get(record.path, ()))
        first = self.first_paths.setdefault(record.identity, record.path)
        own = self.sites.get(record.path, [])
        row.update(
            before=short_type(old) if old is not None and short_type(old) != row["type"] else "",
            qconfig=qconfig_badge(record.qconfig),
            marks=[sum(s.kind == kind for s in own) for kind in KINDS],
            float=record.stays_float,
            state=record.state,
            not_run=record.calls == 0 and self._should_run(record),
            shared=first if first != record.path else None,
            int8=is_int8(record),
        )
        if record.qconfig is not None:
            row["qconfig_title"] = (
                f"activation: {record.qconfig.activation}\nweight: {record.qconfig.weight}"
            )
        return row

    def _should_run(self, record: ModuleRecord) -> bool:
        """What holds an operation and what an int8 module holds are not meant to be called."""
        if record.compute == "functional" or record.type_name == "QFunctional":
            return False
        parent = self.snapshot.by_path.get(record.parent) if record.parent is not None else None
        return parent is None or parent.compute not in ("int8", "functional")

    def _site_row(self, record: ModuleRecord, site: FakeQuantSite, depth: int) -> Row:
        row = self._base(record, depth, self.what.get(site.path, ()))
        row.update(
            kind="site",
            id=f"site:{record.path}",
            site=site.kind,
            not_run=site.calls_per_forward == 0,
            shared=site.path if site.path != record.path else None,
        )
        return row

    def _gone_row(self, record: ModuleRecord, depth: int, above: str) -> Row:
        row = self._base(record, depth, ["gone"])
        row["parent"] = f"module:{above}"
        site = self.gone_sites.get(record.path)
        if site is not None:
            row.update(kind="site", id=f"site:{record.path}", site=site.kind)
        return row


def _run_by_what_is_inside(rows: list[Row], snapshot: Snapshot) -> None:
    """What only holds others has run if any of them has: FX never calls such a module itself."""
    ran: dict[str, bool] = {}
    inside: dict[str, bool] = {}
    for row in reversed(rows):
        record = snapshot.by_path.get(row["path"])
        if row["kind"] != "module" or record is None or "gone" in row["what"]:
            continue
        container = record.compute == "container"
        if container and row["not_run"]:
            row["not_run"] = inside.get(row["id"]) is False
        ran[row["id"]] = not row["not_run"]
        if row["parent"] is not None and record.type_name != "Identity":
            inside[row["parent"]] = inside.get(row["parent"], False) or ran[row["id"]]


def _sum_up(rows: list[Row]) -> None:
    """Add ``below`` and ``changed_below``: children come after parents, so go backwards."""
    by_id = {row["id"]: row for row in rows}
    for row in rows:
        row["below"], row["changed_below"] = list(row["marks"]), 0
    for row in reversed(rows):
        parent = by_id.get(row["parent"])
        if parent is not None and parent is not row:
            parent["below"] = [a + b for a, b in zip(parent["below"], row["below"], strict=True)]
            parent["changed_below"] += row["changed_below"] + row["changed"]
