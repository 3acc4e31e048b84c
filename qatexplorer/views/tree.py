"""The module tree of a snapshot as rows that a widget can draw."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from qatexplorer.snapshot.records import FakeQuantSite, ModuleRecord, Snapshot
from qatexplorer.views.common.names import (
    KINDS,
    is_int8,
    qconfig_badge,
    short_type,
)

Row = dict[str, Any]


def build_tree(snapshot: Snapshot, before: Snapshot | None = None) -> list[Row]:
    """Rows of the tree, parents before children.

    Args:
        snapshot: the stage to show.
        before: the stage before it, None to mark no change. Modules are matched by ``origin``,
            so a ``QuantWrapper`` put around the model does not make all of it new.

    Returns:
        JSON-able dicts with: ``id`` (selection string), ``parent`` (``id`` or None), ``kind``
        ("module" or "site"), ``path``, ``name``, ``depth``, ``type``, ``before`` (earlier type
        where it differs, else ""), ``what`` (any of "new", "gone", "type", "qconfig",
        "fake quant", "qparams", "hook") and ``changed``, ``changed_below``, ``qconfig`` (short)
        and ``qconfig_title``, ``marks`` (own fake quants as [weight, input, output]) and ``below``
        (those of the whole subtree), ``float``, ``not_run``, ``params``, ``shared`` (another path
        that names the same object, or None), ``int8``, ``title``; for a site ``site`` (its kind).

    Whether a module *stays float* is a fact that its record holds (``stays_float``), the same that
    the ledger gives the reasons for.
    """
    rows = list(_Builder(snapshot, before).rows())
    _sum_up(rows)
    _run_by_what_is_inside(rows, snapshot)
    return rows


@dataclass
class _Builder:
    snapshot: Snapshot
    before: Snapshot | None
    old: dict[str, ModuleRecord] = field(default_factory=dict)
    gone: dict[str, list[ModuleRecord]] = field(default_factory=dict)
    first_paths: dict[int, str] = field(default_factory=dict)
    sites: dict[str, list[FakeQuantSite]] = field(default_factory=dict)
    old_sites: dict[str, list[FakeQuantSite]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for site in self.snapshot.sites:
            self.sites.setdefault(site.owner, []).append(site)
        if self.before is None:
            return
        self.old = {_place(m): m for m in self.before.modules}
        new = {_place(m): m for m in self.snapshot.modules}
        for place, module in self.old.items():
            if place not in new:
                parent = self.old.get(self._old_parent(module))
                home = new.get(_place(parent)) if parent is not None else None
                if home is not None:
                    self.gone.setdefault(home.path, []).append(module)
        for site in self.before.sites:
            self.old_sites.setdefault(site.owner, []).append(site)

    def _old_parent(self, module: ModuleRecord) -> str:
        assert self.before is not None
        parent = self.before.by_path.get(module.parent) if module.parent is not None else None
        return _place(parent) if parent is not None else "\0"

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

    def _base(self, record: ModuleRecord, depth: int, what: list[str]) -> Row:
        return {
            "kind": "module",
            "id": f"module:{record.path}",
            "parent": None if record.parent is None else f"module:{record.parent}",
            "path": record.path,
            "name": record.name or "(model)",
            "depth": depth,
            "type": short_type(record),
            "before": "",
            "what": what,
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
        old = self.old.get(_place(record))
        row = self._base(record, depth, self._what(record, old))
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
        old = self._old_site(site)
        what = []
        if self.before is not None:
            what = ["new"] if old is None else ["qparams"] if _state(old) != _state(site) else []
        row = self._base(record, depth, what)
        row.update(
            kind="site",
            id=f"site:{record.path}",
            site=site.kind,
            not_run=site.calls_per_forward == 0,
            shared=site.path if site.path != record.path else None,
        )
        return row

    def _gone_row(self, record: ModuleRecord, depth: int, home: str) -> Row:
        assert self.before is not None
        row = self._base(record, depth, ["gone"])
        row["parent"] = f"module:{home}"
        site = self.before.site_by_path.get(record.path)
        if site is not None:
            row.update(kind="site", id=f"site:{record.path}", site=site.kind)
        return row

    def _old_site(self, site: FakeQuantSite) -> FakeQuantSite | None:
        if self.before is None:
            return None
        found = self.before.site_by_path.get(site.path)
        if found is None:
            owner = self.snapshot.by_path.get(site.owner)
            old = self.old.get(_place(owner)) if owner is not None else None
            name = site.path.rpartition(".")[2]
            if old is not None:
                found = self.before.site_by_path.get(f"{old.path}.{name}" if old.path else name)
        return found

    def _what(self, record: ModuleRecord, old: ModuleRecord | None) -> list[str]:
        if self.before is None:
            return []
        if old is None:
            return ["new"]
        what = []
        if record.qualified_type != old.qualified_type:
            what.append("type")
        # convert takes the qconfig off everywhere once it has served: nothing to look at.
        if record.qconfig != old.qconfig and record.qconfig is not None:
            what.append("qconfig")
        own, earlier = self.sites.get(record.path, []), self.old_sites.get(old.path, [])
        if sorted(s.kind for s in own) != sorted(s.kind for s in earlier):
            what.append("fake quant")
        elif [_state(s) for s in own] != [_state(s) for s in earlier]:
            what.append("qparams")
        if record.hooks != old.hooks:
            what.append("hook")
        return what


def _run_by_what_is_inside(rows: list[Row], snapshot: Snapshot) -> None:
    """What only holds others has run if any of them has: FX never calls the holder itself."""
    ran: dict[str, bool] = {}
    inside: dict[str, bool] = {}
    for row in reversed(rows):
        record = snapshot.by_path.get(row["path"])
        if row["kind"] != "module" or record is None or "gone" in row["what"]:
            continue
        holder = record.compute == "container"
        if holder and row["not_run"]:
            row["not_run"] = inside.get(row["id"]) is False
        ran[row["id"]] = not row["not_run"]
        if row["parent"] is not None and record.type_name != "Identity":
            inside[row["parent"]] = inside.get(row["parent"], False) or ran[row["id"]]


def _place(record: ModuleRecord) -> str:
    return record.origin or record.path


def _state(site: FakeQuantSite) -> tuple[object, ...]:
    flags = (site.observer_enabled, site.fake_quant_enabled)
    return (site.scale, site.zero_point, site.min_val, site.max_val, flags)


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
