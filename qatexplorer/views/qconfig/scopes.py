"""What a rule of the qconfig may be for: what is selected, all of one type, or a pattern."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from qatexplorer.snapshot.records import ModuleRecord, Snapshot
from qatexplorer.views.common.names import count

ScopeKind = Literal["modules", "type", "pattern"]

_SHOWN = 4


@dataclass(frozen=True)
class Scope:
    """Modules of the float model that a rule is made for.

    Attributes:
        kind: "modules" are named by their paths, "type" by their class, "pattern" by a regular
            expression that their paths match from the begin on.
        text: a path, the qualified name of a class, or the pattern.
        label: for a list to choose from.
        paths: of all modules that it is about, in the order of the model.
    """

    kind: ScopeKind
    text: str
    label: str
    paths: tuple[str, ...]


def chosen_paths(chosen: Iterable[str], now: Snapshot, first: Snapshot) -> tuple[str, ...]:
    """Paths in the float stage ``first`` of the modules that are selected at the stage ``now``,
    each once; of a fake quant, that of the module it belongs to."""
    found = []
    for selection in chosen:
        kind, _, path = selection.partition(":")
        site = now.site_by_path.get(path) if kind == "site" else None
        owner = site.place(path).owner if site is not None else path
        record = now.by_path.get(owner) if kind in ("module", "site") else None
        # A module that a stage has added has no origin; the root has none either.
        if record is not None and (record.origin or not record.path):
            found.append(record.origin)
    return tuple(path for path in dict.fromkeys(found) if path in first.by_path)


def scopes_of(paths: Sequence[str], first: Snapshot) -> list[Scope]:
    """What may be chosen for modules that are selected: themselves, then each of their types."""
    if not paths:
        return []
    label = f"this module: {paths[0] or '(model)'}"
    if len(paths) > 1:
        label = f"these {len(paths)} modules"
    found = [Scope("modules", "\n".join(paths), label, tuple(paths))]
    types = dict.fromkeys(first.by_path[path].qualified_type for path in paths)
    for qualified in types:
        same = tuple(m.path for m in first.modules if m.qualified_type == qualified)
        name = qualified.rpartition(".")[2]
        found.append(Scope("type", qualified, f"all of type {name} ({len(same)})", same))
    return found


def pattern_scope(pattern: str, first: Snapshot) -> Scope:
    """All modules whose path matches ``pattern`` as torch takes it (``re.match``). Raises
    ``re.error`` for one that cannot be understood."""
    found = re.compile(pattern)
    paths = tuple(m.path for m in first.modules if m.path and found.match(m.path))
    return Scope("pattern", pattern, f"pattern {pattern}", paths if pattern else ())


def matched_words(scope: Scope, first: Snapshot) -> str:
    """How many modules it is about, and which, for the line below the choice."""
    if not scope.paths:
        return "matches no module"
    shown = ", ".join(path or "(model)" for path in scope.paths[:_SHOWN])
    more = len(scope.paths) - _SHOWN
    inside = _inside(scope.paths, first)
    below = f", with {count(inside, 'module')} inside" if inside else ""
    return f"{count(len(scope.paths), 'module')}{below}: {shown}" + (
        f" and {more:,} more" if more > 0 else ""
    )


def _inside(paths: Sequence[str], first: Snapshot) -> int:
    """Modules below those of ``paths`` that are not among them."""
    named = set(paths)

    def within(record: ModuleRecord) -> bool:
        path = record.path
        while path:
            path = path.rpartition(".")[0]
            if path in named:
                return True
        return False

    return sum(record.path not in named and within(record) for record in first.modules)
