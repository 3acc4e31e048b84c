"""The module tree of a snapshot as rows that a widget can draw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qatexplorer.snapshot.diff import Diff, place_of
from qatexplorer.snapshot.records import FakeQuantSite, ModuleRecord, Snapshot
from qatexplorer.views.common.names import (
    KINDS,
    TensorName,
    TensorNames,
    count,
    is_int8,
    number,
    qconfig_badge,
    seen_words,
    short_type,
    state_words,
)

Row = dict[str, Any]

_FOLD = "identities"
_KIND_ORDER = tuple(KINDS)


def build_tree(
    snapshot: Snapshot,
    change: Diff | None = None,
    before: Snapshot | None = None,
    rules: Mapping[str, tuple[str, str]] | None = None,
) -> list[Row]:
    """Rows of the tree, parents before children.

    A fake quant stands under the module whose weight, output or input it rounds, wherever torch
    keeps it; one for the result of an operation under the module in whose forward that is. A name
    that several tensors share one fake quant under has a row for each. ``Identity`` modules that a
    module has more than one of are together under one row of kind "fold".

    Args:
        snapshot: the stage to show.
        change: what it changed, None to mark no change.
        before: the stage before it; without it, fake quants that are gone stand where torch kept
            them.
        rules: modules whose qconfig comes from a rule of the session, by path in this snapshot:
            what the rule says in a word or two, and in a sentence.

    Returns:
        JSON-able dicts with: ``id`` (selection string), ``parent`` (``id`` or None), ``kind``
        ("module", "site" or "fold"), ``path``, ``name``, ``depth``, ``type``, ``before`` (earlier
        type where it differs, else ""), ``what`` (any of "new", "gone", "type", "qconfig", "fake
        quant", "qparams", "hook", "mode") and ``changed``, ``changed_below``, ``qconfig`` (short)
        and ``qconfig_title``, ``rule`` and ``rule_title`` ("" without one), ``marks`` (own fake
        quants as [weight, input, output]) and ``below`` (those of the whole subtree), ``float``,
        ``state`` ("int8", "float", "mixed", ""), ``state_text`` (e.g. "mixed: 3 of 5 int8") and
        ``state_title``, ``not_run``, ``quiet`` (it does nothing), ``params``, ``shared`` (another
        path that names the same object, or None), ``int8``, ``title``; for a fake quant ``site``
        (its kind), ``torch_name`` (what torch calls it), ``source`` (the line that makes the
        tensor) and ``shares`` (the tensors that share it, itself among them; empty if it has one).

    Whether a module *stays float* is a fact that its record holds (``stays_float``), the same that
    the ledger gives the reasons for.
    """
    rows = list(_Builder(snapshot, change, before, rules or {}).rows())
    _sum_up(rows)
    _run_by_what_is_inside(rows, snapshot)
    return rows


def state_label(snapshot: Snapshot) -> str:
    """What the column with the states is called at this stage."""
    if not snapshot.is_from("inserted"):
        return "Qconfig"
    return "Computes in" if snapshot.role == "int8" else "Prepared for"


@dataclass(frozen=True)
class _Item:
    """What is to become a row: a record with the row around it, or a fold of records."""

    record: ModuleRecord
    depth: int
    parent: str | None
    gone: bool = False
    fold: tuple[ModuleRecord, ...] = ()


class _Builder:
    def __init__(
        self,
        snapshot: Snapshot,
        change: Diff | None,
        before: Snapshot | None,
        rules: Mapping[str, tuple[str, str]],
    ) -> None:
        self.snapshot, self.change, self.old = snapshot, change, before
        self.rules = rules
        self.what = change.what if change is not None else {}
        self.before = change.before_of if change is not None else {}
        self.first_paths: dict[int, str] = {}
        self.own: dict[str, list[FakeQuantSite]] = {}
        for site in snapshot.sites:
            self.own.setdefault(site.owner, []).append(site)
        self.names = TensorNames(snapshot)
        self.gone_names = TensorNames(before) if before is not None else None
        self.gone_sites = {
            place.path: site
            for site in (change.sites_removed if change is not None else ())
            for place in site.places or (site.place(site.path),)
        }
        self.sites_at = self._sites_at()
        self.gone_at = self._gone_at()

    # -- what stands where ----------------------------------------------------------------------

    def _module_around(self, path: str) -> str:
        """``path``, or the nearest module around it that is there and is no fake quant."""
        known, sites = self.snapshot.by_path, self.snapshot.site_by_path
        while path and (path not in known or path in sites):
            path = path.rpartition(".")[0]
        return path

    def _sites_at(self) -> dict[str, list[ModuleRecord]]:
        """Records of the fake quants by the module that they belong to, weights first."""
        sites = self.snapshot.site_by_path
        found: dict[str, list[ModuleRecord]] = {}
        for record in self.snapshot.modules:
            site = sites.get(record.path)
            if site is not None:
                owner = self._module_around(site.place(record.path).owner)
                found.setdefault(owner, []).append(record)
        for records in found.values():
            records.sort(key=lambda record: _KIND_ORDER.index(sites[record.path].kind))
        return found

    def _gone_at(self) -> dict[str, list[ModuleRecord]]:
        """What only the stage before has: fake quants where their owner is now."""
        found: dict[str, list[ModuleRecord]] = {}
        now = {place_of(module): module.path for module in self.snapshot.modules}
        for around, records in (self.change.gone if self.change is not None else {}).items():
            for record in records:
                site, place = self.gone_sites.get(record.path), around
                if site is not None and self.old is not None:
                    owner = self.old.by_path.get(site.place(record.path).owner)
                    place = now.get(place_of(owner), around) if owner is not None else around
                found.setdefault(place, []).append(record)
        return found

    # -- rows -----------------------------------------------------------------------------------

    def rows(self) -> Iterator[Row]:
        # An explicit stack: a model nested a thousand deep is legal.
        stack: list[_Item] = []
        if "" in self.snapshot.by_path:
            stack.append(_Item(self.snapshot.by_path[""], 0, None))
        while stack:
            item = stack.pop()
            row = self._row(item)
            yield row
            stack.extend(reversed(self._below(item, row["id"])))

    def _row(self, item: _Item) -> Row:
        if item.fold:
            return self._fold_row(item)
        if item.gone:
            return self._gone_row(item)
        site = self.snapshot.site_by_path.get(item.record.path)
        return self._site_row(item, site) if site else self._module_row(item)

    def _below(self, item: _Item, row_id: str) -> list[_Item]:
        depth = item.depth + 1
        if item.gone:
            return []
        if item.fold:
            return [_Item(record, depth, row_id) for record in item.fold]
        path, by_path = item.record.path, self.snapshot.by_path
        sites = self.snapshot.site_by_path
        children = [by_path[c] for c in item.record.children if c in by_path and c not in sites]
        idle = [child for child in children if self._is_idle(child)]
        fold = tuple(idle) if len(idle) > 1 else ()
        folded = {child.path for child in fold}
        found = [_Item(record, depth, row_id) for record in self.sites_at.get(path, ())]
        found += [_Item(child, depth, row_id) for child in children if child.path not in folded]
        if fold:
            found.append(_Item(item.record, depth, row_id, fold=fold))
        found += [_Item(old, depth, row_id, gone=True) for old in self.gone_at.get(path, ())]
        return found

    def _is_idle(self, record: ModuleRecord) -> bool:
        """Whether it hands its input on, and there is nothing to be seen of it at this stage."""
        return (
            _hands_on(record)
            and not record.children
            and record.path not in self.own
            and record.path not in self.what
        )

    def _base(self, item: _Item, what: Sequence[str]) -> Row:
        record = item.record
        return {
            "kind": "module",
            "id": f"module:{record.path}",
            "parent": item.parent,
            "path": record.path,
            "name": record.name or "(model)",
            "depth": item.depth,
            "type": short_type(record),
            "before": "",
            "what": list(what),
            "changed": bool(what),
            "qconfig": "",
            "qconfig_title": "",
            "rule": "",
            "rule_title": "",
            "marks": [0, 0, 0],
            "float": False,
            "state": "",
            "state_text": "",
            "state_title": "",
            "not_run": False,
            "quiet": False,
            "params": record.param_count,
            "shared": None,
            "int8": False,
            "title": record.qualified_type,
        }

    def _module_row(self, item: _Item) -> Row:
        record = item.record
        old = self.before.get(record.path)
        row = self._base(item, self.what.get(record.path, ()))
        first = self.first_paths.setdefault(record.identity, record.path)
        own = self.own.get(record.path, [])
        text, title = state_words(record, self.snapshot)
        rule, rule_title = self.rules.get(record.path, ("", ""))
        row.update(
            before=short_type(old) if old is not None and short_type(old) != row["type"] else "",
            qconfig=qconfig_badge(record.qconfig),
            rule=rule,
            rule_title=rule_title,
            marks=[sum(s.kind == kind for s in own) for kind in KINDS],
            float=record.stays_float,
            state=record.state,
            state_text=text,
            state_title=title,
            not_run=record.calls == 0 and self._should_run(record),
            quiet=_hands_on(record) and not own,
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

    def _site_row(self, item: _Item, site: FakeQuantSite) -> Row:
        record = item.record
        row = self._base(item, self.what.get(site.path, ()))
        name = self.names.of(record.path)
        others = self.names.shared(record.path)
        shares = (name.text, *others) if others or name.more else ()
        row.update(
            _named(name, record),
            kind="site",
            id=f"site:{record.path}",
            site=site.kind,
            not_run=site.calls_per_forward == 0,
            shared=site.path if site.path != record.path else None,
            shares=list(shares),
            title=f"{record.path}\n{site.fake_quant_class}\n{_scale_words(site)}",
        )
        return row

    def _gone_row(self, item: _Item) -> Row:
        record = item.record
        row = self._base(item, ["gone"])
        site = self.gone_sites.get(record.path)
        if site is not None:
            names = self.gone_names
            name = names.of(record.path) if names is not None else TensorName(record.name)
            row.update(
                _named(name, record),
                kind="site",
                id=f"site:{record.path}",
                site=site.kind,
                shares=[],
            )
        return row

    def _fold_row(self, item: _Item) -> Row:
        path = f"{item.record.path}.{_FOLD}" if item.record.path else _FOLD
        row = self._base(item, ())
        names = ", ".join(record.name for record in item.fold)
        row.update(
            kind="fold",
            id=f"fold:{path}",
            path=path,
            name=f"{len(item.fold)} × {item.fold[0].type_name}",
            type=names,
            title=f"{names}: each hands its input on as it is",
            quiet=True,
            params=0,
        )
        return row


def _hands_on(record: ModuleRecord) -> bool:
    return record.type_name == "Identity"


def _named(name: TensorName, record: ModuleRecord) -> Row:
    more = f" and {name.more} more" if name.more else ""
    return {"name": name.text + more, "torch_name": record.name, "source": name.source}


def _scale_words(site: FakeQuantSite) -> str:
    """Its scale, if that says anything: one that has seen no data has torch's initial 1."""
    if site.seen == "nothing" or not site.scale:
        return f"{seen_words(site)} yet"
    low, high = min(site.scale), max(site.scale)
    if low == high:
        return f"scale {number(low)}"
    return f"scale {number(low)} … {number(high)}, {count(len(site.scale), 'channel')}"


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
