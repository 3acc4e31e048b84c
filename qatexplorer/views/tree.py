"""The module tree of a snapshot as rows that a widget can draw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from qatexplorer.snapshot.diff import Diff
from qatexplorer.snapshot.records import FakeQuantSite, ModuleRecord, Snapshot
from qatexplorer.views.common.names import (
    FUNCTIONALS,
    KINDS,
    is_boundary,
    is_int8,
    is_reference,
    qconfig_badge,
    short_type,
)

Row = dict[str, Any]

_CONTAINERS = ("Sequential", "ModuleList", "ModuleDict")
FOLLOWS = (
    "Identity",
    "Dropout",
    "Flatten",
    "Unflatten",
    "ReLU",
    "MaxPool",
    "AvgPool",
    "AdaptiveAvgPool",
    "AdaptiveMaxPool",
    "Upsample",
    "PixelShuffle",
    "PixelUnshuffle",
    "ChannelShuffle",
    "ZeroPad",
    "ConstantPad",
    "ReflectionPad",
    "ReplicationPad",
    "QuantStub",
    "DeQuantStub",
)
"""Leaf types that compute in whatever they are given (torch runs them on int8 tensors as they
are) or only mark a place; they are never said to stay float."""


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

    From the stage with all fake quants on, a module *stays float* when it computes something of its
    own (it holds parameters itself, or is a leaf that is not of a type in :data:`FOLLOWS`), and
    it has no weight and no output fake quant, or after convert is not an int8 module, and no
    module around it covers it (a batch norm inside a fused conv, the inside of an int8 module).
    """
    rows = list(_Builder(snapshot, change).rows())
    _sum_up(rows)
    return rows


def stays_float(
    snapshot: Snapshot, module: ModuleRecord, kinds: Mapping[str, frozenset[str]] | None = None
) -> bool:
    """Whether ``module`` stays float at this stage, see :func:`build_tree`.

    ``kinds`` are the kinds of fake quant by owner, for a caller who asks for many modules.
    """
    if not snapshot.is_from("inserted") or module.path in snapshot.site_by_path:
        return False
    if not _computes(snapshot, module):
        return False
    if snapshot.role == "int8":
        return not is_int8(module) and not any(map(is_int8, _above(snapshot, module)))
    if snapshot.role == "reference":
        inside = any(map(is_reference, _above(snapshot, module)))
        return not is_reference(module) and not inside and not _holds_reference(snapshot, module)
    owned = kinds_by_owner(snapshot) if kinds is None else kinds
    if owned.get(module.path, frozenset()) & {"weight", "output"}:
        return False
    return not any("weight" in owned.get(m.path, ()) for m in _above(snapshot, module))


def _holds_reference(snapshot: Snapshot, module: ModuleRecord) -> bool:
    return any(is_reference(snapshot.by_path[child]) for child in module.children)


def kinds_by_owner(snapshot: Snapshot) -> Mapping[str, frozenset[str]]:
    """Kinds of the fake quants that each module holds."""
    found: dict[str, set[str]] = {}
    for site in snapshot.sites:
        if site.nodes and site.kind == "weight":
            continue  # of a parameter that an operation of the graph reads, not of a module
        found.setdefault(site.owner, set()).add(site.kind)
    return {owner: frozenset(kinds) for owner, kinds in found.items()}


def _above(snapshot: Snapshot, module: ModuleRecord) -> Iterator[ModuleRecord]:
    """The modules around ``module``, inner ones first."""
    parent = module.parent
    while parent is not None and parent in snapshot.by_path:
        record = snapshot.by_path[parent]
        yield record
        parent = record.parent


def _computes(snapshot: Snapshot, module: ModuleRecord) -> bool:
    if module.type_name in FUNCTIONALS:
        return module.calls != 0
    if any(tensor.requires_grad for tensor in module.tensors):
        return True
    inner = any(child not in snapshot.site_by_path for child in module.children)
    if inner or module.path == "" or is_boundary(module) or module.type_name in _CONTAINERS:
        return False
    return not module.type_name.startswith(FOLLOWS)


class _Builder:
    def __init__(self, snapshot: Snapshot, change: Diff | None) -> None:
        self.snapshot, self.change = snapshot, change
        self.what = change.what if change is not None else {}
        self.before = change.before_of if change is not None else {}
        self.gone = change.gone if change is not None else {}
        self.gone_sites = {s.path: s for s in change.sites_removed} if change is not None else {}
        self.kinds = kinds_by_owner(snapshot)
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
            float=stays_float(self.snapshot, record, self.kinds),
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
        """Containers and what a fused or int8 module holds are not meant to be called."""
        if record.type_name in (*_CONTAINERS[1:], *FUNCTIONALS, "QFunctional"):
            return False
        parent = self.snapshot.by_path.get(record.parent) if record.parent is not None else None
        return parent is None or not (is_int8(parent) or parent.type_name in FUNCTIONALS)

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

    def _gone_row(self, record: ModuleRecord, depth: int, home: str) -> Row:
        row = self._base(record, depth, ["gone"])
        row["parent"] = f"module:{home}"
        site = self.gone_sites.get(record.path)
        if site is not None:
            row.update(kind="site", id=f"site:{record.path}", site=site.kind)
        return row


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
