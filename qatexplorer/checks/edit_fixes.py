"""Fixes that many rules offer: edits of the session's copy, tried on a copy first, and FX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qatexplorer.checks.records import Fix
from qatexplorer.checks.subject import Subject
from qatexplorer.errors import EditError
from qatexplorer.flows.edits import Edit, tried


def use_fx(subject: Subject) -> tuple[Fix, ...]:
    """The way into FX, for a model that torch.fx traces."""
    graph = subject.options.graph
    if subject.flow.by_graph or graph is None or graph.origin != "torch.fx":
        return ()
    return (Fix("Use FX", "configure", (("flow", "fx"),), "session.configure(flow='fx')"),)


def tried_edits(subject: Subject, edits: Sequence[Edit]) -> dict[str, Edit]:
    """``edits`` by path, with code and diff, made in one copy of the model; none if one does not
    fit."""
    try:
        return {one.path: one for one in tried(subject.base, edits)}
    except EditError:
        return {}


def edit_fixes(label: str, one: Edit | None, every: Sequence[Edit] = ()) -> tuple[Fix, ...]:
    """The fix that makes ``one``, and where there are more of its kind, one that makes them all."""
    if one is None:
        return ()
    fixes = [_fix(label, one.name, one.path, one.value, one.diff)]
    same = [e for e in every if (e.name, e.value) == (one.name, one.value)]
    if len(same) > 1:
        paths = tuple(e.path for e in same)
        diff = "\n".join(e.diff for e in same)
        fixes.append(_fix(f"{label}, at all {len(same)}", one.name, paths, one.value, diff))
    return tuple(fixes)


def _fix(label: str, name: str, path: str | tuple[str, ...], value: Any, diff: str) -> Fix:
    arguments = [("name", name), ("path", path), *([("value", value)] if value is not None else [])]
    more = f", {value!r}" if value is not None else ""
    shown = list(path) if isinstance(path, tuple) else path
    return Fix(label, "edit", tuple(arguments), f"session.edit({name!r}, {shown!r}{more})", diff)
