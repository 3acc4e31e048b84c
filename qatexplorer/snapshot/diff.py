"""What changed between two snapshots: the one answer, for the page's every view and for scripts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

from qatexplorer.shown import Shown, at_most
from qatexplorer.snapshot.records import FakeQuantSite, Graph, ModuleRecord, Snapshot


@dataclass(frozen=True)
class ModuleChange:
    """One module before and after; ``what`` lists "type", "qconfig", "hooks", "training"."""

    before: ModuleRecord
    after: ModuleRecord
    what: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class Diff(Shown):
    """Difference of two snapshots, in the order of the later one.

    Attributes:
        before, after: names of the stages.
        swapped: modules whose type changed. changed: all modules with any change, those included.
        added, removed: modules that only one side has (fake quants are counted as sites instead).
        sites_added, sites_removed, sites_changed: fake quants; changed means qparams or flags.
        gone: what only the earlier one has, modules and fake quants, by the path that the module
            around them has in the later one.
        owners_before: path in the later snapshot of the owners of removed fake quants.
        nodes_added, nodes_removed: operations that only one side's graph has, where both graphs are
            those of an exported model: ids in the graph that has them.
    """

    before: str
    after: str
    changed: tuple[ModuleChange, ...]
    added: tuple[ModuleRecord, ...]
    removed: tuple[ModuleRecord, ...]
    sites_added: tuple[FakeQuantSite, ...]
    sites_removed: tuple[FakeQuantSite, ...]
    sites_changed: tuple[FakeQuantSite, ...]
    gone: Mapping[str, tuple[ModuleRecord, ...]] = field(default_factory=dict)
    owners_before: tuple[str, ...] = ()
    nodes_added: tuple[str, ...] = ()
    nodes_removed: tuple[str, ...] = ()

    @cached_property
    def swapped(self) -> tuple[ModuleChange, ...]:
        return tuple(c for c in self.changed if "type" in c.what)

    @cached_property
    def qconfigs_set(self) -> int:
        """Number of modules that got a qconfig, or another one."""
        return sum("qconfig" in c.what and c.after.qconfig is not None for c in self.changed)

    @cached_property
    def qconfigs_removed(self) -> int:
        """Number of modules that lost their qconfig."""
        return sum("qconfig" in c.what and c.after.qconfig is None for c in self.changed)

    @cached_property
    def before_of(self) -> Mapping[str, ModuleRecord]:
        """The earlier record of each module that changed, by its path in the later snapshot."""
        return MappingProxyType({c.after.path: c.before for c in self.changed})

    @cached_property
    def what(self) -> Mapping[str, tuple[str, ...]]:
        """What is to be seen of each module and fake quant that changed, by its path in the later
        snapshot: any of "new", "type", "qconfig", "fake quant", "qparams", "hook", "mode".

        A qconfig that convert takes off everywhere once it has served is nothing to look at.
        """
        found: dict[str, dict[str, None]] = {}

        def note(path: str, word: str) -> None:
            found.setdefault(path, {})[word] = None

        for change in self.changed:
            for kind in change.what:
                if kind != "qconfig" or change.after.qconfig is not None:
                    note(change.after.path, _WORDS.get(kind, kind))
        new = {module.path for module in self.added}
        for path in new:
            note(path, "new")
        for site in self.sites_added:
            note(site.path, "new")
        counted = [site.owner for site in self.sites_added] + list(self.owners_before)
        for owner in dict.fromkeys(counted):
            if owner not in new:
                note(owner, "fake quant")
        for site in self.sites_changed:
            note(site.path, "qparams")
            if site.owner not in new and "fake quant" not in found.get(site.owner, ()):
                note(site.owner, "qparams")
        return MappingProxyType({path: tuple(words) for path, words in found.items()})

    @cached_property
    def paths(self) -> frozenset[str]:
        """Paths, in the later snapshot, of all that changed: modules, fake quants, owners; and ids
        of operations that are new in its graph."""
        return frozenset((*self.what, *self.nodes_added))

    def summary(self) -> str:
        """One line for people, e.g. ``"3 groups fused, 12 fake quants inserted"``."""
        swaps = Counter(_became(change) for change in self.swapped)
        stubs = sum("QuantStub" in module.type_name for module in self.added)
        parts = [
            *(_count(swaps[what], *words) for what, words in _BECAME.items()),
            _count(self.qconfigs_set, "module", "given a qconfig"),
            _count(self.qconfigs_removed, "qconfig", "taken off"),
            _count(stubs, "stub", "put in"),
            _count(len(self.added) - stubs, "module", "added"),
            _count(len(self.removed), "module", "removed"),
            _count(len(self.sites_added), "fake quant", "inserted"),
            _count(len(self.sites_removed), "fake quant", "removed"),
            _count(len(self.sites_changed), "fake quant", "updated"),
            _count(len(self.nodes_added), "operation", "added"),
            _count(len(self.nodes_removed), "operation", "removed"),
        ]
        return ", ".join(p for p in parts if p) or "nothing changed"

    def __repr__(self) -> str:
        swaps = Counter(_names(c.before, c.after) for c in self.swapped)
        sites = Counter((s.kind, s.fake_quant_class) for s in self.sites_added)
        lines = [f"  {old} → {new} × {n}" for (old, new), n in swaps.most_common()]
        lines += [f"  + {name} for {kind} × {n}" for (kind, name), n in sites.most_common()]
        return at_most([f"Diff {self.before} → {self.after}: {self.summary()}", *lines])


def _names(before: ModuleRecord, after: ModuleRecord) -> tuple[str, str]:
    """Class names, with where they come from if they are the same."""
    if before.type_name != after.type_name:
        return before.type_name, after.type_name
    return before.qualified_type, after.qualified_type


_BECAME = {
    "fused": ("group", "fused"),
    "empty": ("module", "left empty by it"),
    "qat": ("layer", "made a QAT module"),
    "reference": ("layer", "made a reference module"),
    "int8": ("module", "made int8"),
    "boundary": ("stub", "made a quantize or dequantize"),
    "other": ("module", "swapped"),
}
"""What a swap made of a module: noun and verb."""


def _became(change: ModuleChange) -> str:
    after = change.after
    if after.compute in ("int8", "boundary", "reference"):
        return after.compute
    if ".qat." in after.qualified_type:
        return "qat"
    if after.fused and not change.before.fused:
        return "fused"
    return "empty" if after.type_name == "Identity" else "other"


_WORDS = {"hooks": "hook", "training": "mode"}


def _count(number: int, noun: str, verb: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''} {verb}" if number else ""


def place_of(module: ModuleRecord) -> str:
    """Where it stands in the float model; its own path if it is new."""
    return module.origin or module.path


def _module_changes(
    before: ModuleRecord, after: ModuleRecord, mode: tuple[bool, bool]
) -> tuple[str, ...]:
    """``mode`` is the root's training flag before and after: what follows it says nothing new."""
    what = []
    if before.qualified_type != after.qualified_type:
        what.append("type")
    if before.qconfig != after.qconfig:
        what.append("qconfig")
    if before.hooks != after.hooks:
        what.append("hooks")
    if before.training != after.training and (before.training, after.training) != mode:
        what.append("training")
    return tuple(what)


def _site_state(site: FakeQuantSite) -> tuple[object, ...]:
    return (
        site.scale,
        site.zero_point,
        site.min_val,
        site.max_val,
        site.observer_enabled,
        site.fake_quant_enabled,
    )


def diff(before: Snapshot, after: Snapshot) -> Diff:
    """Compare two snapshots of the same model; modules are matched by their float-stage place."""
    old_sites, new_sites = dict(before.site_by_path), dict(after.site_by_path)
    old = {place_of(m): m for m in before.modules if m.path not in old_sites}
    new = {place_of(m): m for m in after.modules if m.path not in new_sites}
    mode = (before.training, after.training)
    changes = (
        ModuleChange(old[key], module, _module_changes(old[key], module, mode))
        for key, module in new.items()
        if key in old
    )
    removed, owners = _sites_removed(before, new, new_sites)
    nodes_added, nodes_removed = _nodes_changed(before.graph, after.graph)
    return Diff(
        before=before.stage,
        after=after.stage,
        changed=tuple(c for c in changes if c.what),
        added=tuple(m for key, m in new.items() if key not in old),
        removed=tuple(m for key, m in old.items() if key not in new),
        sites_added=tuple(s for s in after.sites if s.path not in old_sites),
        sites_removed=removed,
        sites_changed=tuple(
            s
            for s in after.sites
            if s.path in old_sites and _site_state(s) != _site_state(old_sites[s.path])
        ),
        gone=_gone(before, after),
        owners_before=owners,
        nodes_added=nodes_added,
        nodes_removed=nodes_removed,
    )


def _nodes_changed(
    before: Graph | None, after: Graph | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Operations that one of two exported graphs has more of than the other. What rewrites such a
    graph gives new ids, so they are matched by module or by what they call."""
    if before is None or after is None or not (before.exported and after.exported):
        return (), ()
    return _more_of(after, before), _more_of(before, after)


def _more_of(one: Graph, other: Graph) -> tuple[str, ...]:
    keys = {node.id: node.path or node.target for node in one.nodes}
    same = {node.id for node in other.nodes if keys.get(node.id) == (node.path or node.target)}
    left = Counter(node.path or node.target for node in other.nodes if node.id not in same)
    found = []
    for node in one.nodes:
        key = keys[node.id]
        if node.id in same:
            continue
        if left[key]:
            left[key] -= 1
        else:
            found.append(node.id)
    return tuple(found)


def _sites_removed(
    before: Snapshot, new: Mapping[str, ModuleRecord], there: Iterable[str]
) -> tuple[tuple[FakeQuantSite, ...], tuple[str, ...]]:
    known = set(there)
    removed = tuple(s for s in before.sites if s.path not in known)
    owners = (before.by_path.get(site.owner) for site in removed)
    places = (new.get(place_of(owner)) for owner in owners if owner is not None)
    return removed, tuple(dict.fromkeys(place.path for place in places if place is not None))


def _gone(before: Snapshot, after: Snapshot) -> Mapping[str, tuple[ModuleRecord, ...]]:
    new = {place_of(m): m for m in after.modules}
    found: dict[str, list[ModuleRecord]] = {}
    for module in before.modules:
        parent = before.by_path.get(module.parent) if module.parent is not None else None
        if parent is None or place_of(module) in new:
            continue
        place = new.get(place_of(parent))
        if place is not None:
            found.setdefault(place.path, []).append(module)
    return {path: tuple(modules) for path, modules in found.items()}
