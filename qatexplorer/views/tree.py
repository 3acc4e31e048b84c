"""The module tree of a snapshot as rows that a widget can draw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from qatexplorer.snapshot.records import FakeQuantSite, ModuleRecord, Snapshot
from qatexplorer.views.common.names import (
    FUNCTIONALS,
    INSERTED_STAGES,
    KINDS,
    is_boundary,
    is_int8,
    is_int8_stage,
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

    A module *stays float* at stages insert, train and convert when it computes something of its
    own (it holds parameters itself, or is a leaf that is not of a type in :data:`FOLLOWS`), and
    it has no weight and no output fake quant, or after convert is not an int8 module, and no
    module around it covers it (a batch norm inside a fused conv, the inside of an int8 module).
    """
    rows = list(_Builder(snapshot, before).rows())
    _sum_up(rows)
    return rows


def stays_float(
    snapshot: Snapshot, module: ModuleRecord, kinds: Mapping[str, frozenset[str]] | None = None
) -> bool:
    """Whether ``module`` stays float at this stage, see :func:`build_tree`.

    ``kinds`` are the kinds of fake quant by owner, for a caller who asks for many modules.
    """
    if snapshot.stage not in INSERTED_STAGES or module.path in snapshot.site_by_path:
        return False
    if not _computes(snapshot, module):
        return False
    if is_int8_stage(snapshot):
        return not is_int8(module) and not any(map(is_int8, _above(snapshot, module)))
    if snapshot.stage == "convert":  # FX: the reference model
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
        self.kinds = kinds_by_owner(self.snapshot)
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
