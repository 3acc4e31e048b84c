"""What changed between two snapshots."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from qatexplorer.snapshot.records import FakeQuantSite, ModuleRecord, Snapshot


@dataclass(frozen=True)
class ModuleChange:
    """One module before and after; ``what`` lists "type", "qconfig", "hooks", "training"."""

    before: ModuleRecord
    after: ModuleRecord
    what: tuple[str, ...]


@dataclass(frozen=True)
class Diff:
    """Difference of two snapshots, in the order of the later one.

    Attributes:
        swapped: modules whose type changed. changed: all modules with any change, those included.
        added, removed: modules that only one side has (fake quants are counted as sites instead).
        sites_added, sites_removed, sites_changed: fake quants; changed means qparams or flags.
    """

    before: str
    after: str
    changed: tuple[ModuleChange, ...]
    added: tuple[ModuleRecord, ...]
    removed: tuple[ModuleRecord, ...]
    sites_added: tuple[FakeQuantSite, ...]
    sites_removed: tuple[FakeQuantSite, ...]
    sites_changed: tuple[FakeQuantSite, ...]

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
    def paths(self) -> frozenset[str]:
        """Paths, in the later snapshot, of all that changed: modules, fake quants, owners.

        A qconfig that convert takes off everywhere once it has served is no change to look at.
        """
        found = {c.after.path for c in self.changed if not _only_lost_qconfig(c)}
        found |= {m.path for m in self.added}
        for site in (*self.sites_added, *self.sites_changed):
            found |= {site.path, site.owner}
        return frozenset(found)

    def summary(self) -> str:
        """One line for a reader, e.g. ``"5 modules swapped, 12 fake quants inserted"``."""
        parts = [
            _count(len(self.swapped), "module", "swapped"),
            _count(self.qconfigs_set, "qconfig", "set"),
            _count(self.qconfigs_removed, "qconfig", "removed"),
            _count(len(self.added), "module", "added"),
            _count(len(self.removed), "module", "removed"),
            _count(len(self.sites_added), "fake quant", "inserted"),
            _count(len(self.sites_removed), "fake quant", "removed"),
            _count(len(self.sites_changed), "fake quant", "updated"),
        ]
        return ", ".join(p for p in parts if p) or "nothing changed"


def _only_lost_qconfig(change: ModuleChange) -> bool:
    return change.what == ("qconfig",) and change.after.qconfig is None


def _count(number: int, noun: str, verb: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''} {verb}" if number else ""


def _key(module: ModuleRecord) -> str:
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
    old = {_key(m): m for m in before.modules if m.path not in old_sites}
    new = {_key(m): m for m in after.modules if m.path not in new_sites}
    mode = (before.training, after.training)
    changes = (
        ModuleChange(old[key], module, _module_changes(old[key], module, mode))
        for key, module in new.items()
        if key in old
    )
    return Diff(
        before=before.stage,
        after=after.stage,
        changed=tuple(c for c in changes if c.what),
        added=tuple(m for key, m in new.items() if key not in old),
        removed=tuple(m for key, m in old.items() if key not in new),
        sites_added=tuple(s for s in after.sites if s.path not in old_sites),
        sites_removed=tuple(s for s in before.sites if s.path not in new_sites),
        sites_changed=tuple(
            s
            for s in after.sites
            if s.path in old_sites and _site_state(s) != _site_state(old_sites[s.path])
        ),
    )
