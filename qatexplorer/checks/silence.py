"""Findings that the user does not want to hear of: by rule and path, with a reason.

In ``pyproject.toml``::

    [tool.qatexplorer.check]
    silence = [
      { id = "QX101", path = "body.*", reason = "that block stays float" },
    ]
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from qatexplorer.checks.records import Finding, Findings, silenced_as, worst_first
from qatexplorer.checks.rules import Found, rule_named
from qatexplorer.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PYPROJECT = "pyproject.toml"
_KEYS = ("id", "path", "reason")
_FORM = 'silence = [{ id = "QX101", path = "body.*", reason = "…" }]'


@dataclass(frozen=True)
class Silence:
    """One rule that is not to be heard of at some places.

    Attributes:
        id: of the rule. reason: why it does no harm there.
        path: glob on the finding's module path, or on its ``"file:line"`` where it has no path.
        file: that it stands in, ``""`` for an argument. number: which entry of its list, from 1.
    """

    id: str
    reason: str
    path: str = "*"
    file: str = ""
    number: int = 0

    def covers(self, finding: Finding) -> bool:
        """Whether it is about this finding."""
        return finding.id == self.id and fnmatchcase(finding.path or finding.source, self.path)


def silences(given: Any) -> tuple[Silence, ...]:
    """Entries of a list (dicts with ``id``, ``path`` and ``reason``, or :class:`Silence`), or of
    the ``pyproject.toml`` at a path.

    Raises InputError, which names file and entry, for what cannot be understood.
    """
    if isinstance(given, (str, Path)):
        return read_silences(Path(given))
    return tuple(_entry(one, "", number) for number, one in enumerate(_listed(given), 1))


def find_pyproject(start: Path) -> Path | None:
    """The nearest ``pyproject.toml`` in ``start`` or above, None for none."""
    here = start.absolute()
    return next((f for d in (here, *here.parents) if (f := d / PYPROJECT).is_file()), None)


def read_silences(file: Path) -> tuple[Silence, ...]:
    """The entries of ``[tool.qatexplorer.check]`` in ``file``; none where it has no such table.

    Raises InputError for a file that cannot be read, and as :func:`silences`.
    """
    try:
        whole = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{file} cannot be read: {type(error).__name__}: {error}",
            fix="Name a pyproject.toml that is there and is UTF-8 text.",
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{file} is not TOML: {error}.", fix="Correct it there.") from error
    table: Any = whole
    for name in ("tool", "qatexplorer", "check"):
        table = table.get(name, {}) if isinstance(table, Mapping) else None
        if not isinstance(table, Mapping):
            raise InputError(
                f"{file}: {name} of [tool.qatexplorer.check] is no table.",
                fix=f"Write [tool.qatexplorer.check], and below it {_FORM}.",
            )
    other = [name for name in table if name != "silence"]
    if other:
        raise InputError(
            f"{file}: [tool.qatexplorer.check] has no setting {other[0]!r}.",
            fix=f"Remove it. What there is: {_FORM}.",
        )
    entries = _listed(table.get("silence", ()), f"{file}: ")
    return tuple(_entry(one, str(file), number) for number, one in enumerate(entries, 1))


def silenced(findings: Findings, entries: Iterable[Silence]) -> Findings:
    """``findings`` with those that an entry covers among the silenced ones.

    An entry that covers none is a finding of its own, unless its rule could not be asked.
    """
    given = tuple(entries)
    kept: list[Finding] = []
    quiet: list[Finding] = list(findings.silenced)
    used: set[Silence] = set()
    for finding in findings.found:
        by = [entry for entry in given if entry.covers(finding)]
        used.update(by)
        if by:
            quiet.append(silenced_as(finding, by[0].reason))
        else:
            kept.append(finding)
    unknown = {one.id for one in findings.skipped}
    kept += [_unused(e) for e in given if e not in used and e.id not in unknown]
    return replace(findings, found=worst_first(kept), silenced=tuple(quiet))


def _unused(entry: Silence) -> Finding:
    name = f"{entry.id} {rule_named(entry.id).name}"
    found = Found(
        "",
        f"Entry {entry.number} of silence, {name} at {entry.path!r}, matches no finding here.",
        "Remove the entry, or correct its path.",
        source=entry.file or "silence",
    )
    return rule_named("unused-silence").finding(found, "")


def _listed(given: Any, where: str = "") -> tuple[Any, ...]:
    if isinstance(given, (Mapping, str)) or not isinstance(given, Iterable):
        raise InputError(f"{where}silence is no list.", fix=f"Write {_FORM}.")
    return tuple(given)


def _entry(given: Any, file: str, number: int) -> Silence:
    if isinstance(given, Silence):
        return given
    origin = f"{file}, entry {number} of silence" if file else f"silence, entry {number}"
    if not isinstance(given, Mapping):
        raise InputError(f"{origin}: {given!r} is no table.", fix=f"Write {_FORM}.")
    other = [name for name in given if name not in _KEYS]
    if other:
        raise InputError(
            f"{origin}: {other[0]!r} is none of {', '.join(_KEYS)}.", fix=f"Write {_FORM}."
        )
    for name in _KEYS:
        value = given.get(name, "*" if name == "path" else "")
        if not isinstance(value, str) or not value.strip():
            raise InputError(
                f"{origin}: {name} is missing or no text.",
                why="A silence needs a rule and a reason; without a path it holds for all paths.",
                fix=f"Write {_FORM}.",
            )
    try:
        id = rule_named(given["id"]).id
    except InputError as error:
        raise InputError(f"{origin}: {error.message}", fix=error.fix) from error
    return Silence(id, given["reason"].strip(), given.get("path", "*"), file, number)
