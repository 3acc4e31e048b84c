"""A snapshot as text for a terminal, and as JSON for a script."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

from qatexplorer._version import __version__
from qatexplorer.snapshot.records import FakeQuantSite, ModuleRecord, Snapshot
from qatexplorer.views.graph.marks import LETTERS

SCHEMA = "qatexplorer.inspect"
SCHEMA_VERSION = 1


def as_json(name: str, before: Snapshot, after: Snapshot) -> dict[str, Any]:
    """The snapshot ``after`` as plain dicts, with each module's type in ``before``.

    ``schema_version`` grows when a key changes its meaning or goes; new keys may come at any time.
    Numbers that JSON lacks (NaN and the infinities) are strings.
    """
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "qatexplorer": __version__,
        "model": name,
        "flow": after.flow,
        "stage": after.stage,
        "modules": [
            {**_plain(dataclasses.asdict(module)), "type_before": type_before(module, before)}
            for module in after.modules
        ],
        "sites": [_plain(dataclasses.asdict(site)) for site in after.sites],
        "notes": list(after.notes),
        "warnings": list(after.warnings),
    }


def as_text(name: str, before: Snapshot, after: Snapshot) -> str:
    """Two tables: modules with their type before → after, and the fake quants."""
    quantizers = {path for site in after.sites for path in (site.path, *site.aliases)}
    quantizers |= {site.observer_path for site in after.sites}
    modules = [module for module in after.modules if module.path not in quantizers]
    count = f"{len(after.sites)} fake quants" if len(after.sites) != 1 else "1 fake quant"
    parts = [
        f"{name}: flow {after.flow}, stage {after.stage}, {len(modules)} modules, {count}",
        "",
        *_table(
            ("module", "type before → after", "qconfig", "fake quants"),
            (_module_row(module, before, after) for module in modules),
        ),
    ]
    if after.sites:
        parts += [
            "",
            *_table(
                ("fake quant", "kind", "made in", "runs by", "dtype", "codes", "qscheme"),
                (_site_row(site) for site in after.sites),
            ),
            "",
            "W weight, I input, A output (activation) of the module",
        ]
    parts += [line for note in (*after.notes, *after.warnings) for line in ("", f"Note: {note}")]
    return "\n".join(parts)


def type_before(module: ModuleRecord, before: Snapshot) -> str | None:
    """Type of the same place in ``before``, None if there was no such place."""
    if module.path and not module.origin:
        return None
    there = before.by_path.get(module.origin)
    return there.type_name if there else None


def _module_row(module: ModuleRecord, before: Snapshot, after: Snapshot) -> tuple[str, ...]:
    was = type_before(module, before)
    if was is None:
        kind = f"new: {module.type_name}"
    elif was == module.type_name:
        kind = was
    else:
        kind = f"{was} → {module.type_name}"
    letters = " ".join(LETTERS[site.kind] for site in after.sites_of(module.path))
    return module.path or "(model)", kind, "yes" if module.qconfig else "-", letters or "-"


def _site_row(site: FakeQuantSite) -> tuple[str, ...]:
    axis = "" if site.ch_axis is None else f", axis {site.ch_axis}"
    return (
        site.path,
        site.kind,
        site.stage,
        site.mechanism,
        site.dtype.removeprefix("torch."),
        f"{site.quant_min}..{site.quant_max}",
        site.qscheme.removeprefix("torch.") + axis,
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    lines.insert(1, ["-" * width for width in widths])
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
