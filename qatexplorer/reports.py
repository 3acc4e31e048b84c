"""A report as a file, or a script: written whole or not at all. Another room draws the pages.

Session and run lie below the room that knows how a page looks; the front door says who draws it.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qatexplorer.errors import ExportError, QatExplorerError, ReportError

Draw = Callable[[Any], str]
"""Gives the page of what is known of a session, or of an opened run, as HTML."""

_loaders: list[Callable[[], Draw]] = []


def plain_data(value: Any) -> Any:
    """As JSON has it: NaN is null, infinity ``"inf"`` or ``"-inf"``, a tuple a list."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else f"{value}"
    if isinstance(value, Mapping):
        return {str(key): plain_data(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_data(one) for one in value]
    return value


def drawn_by(load: Callable[[], Draw]) -> None:
    """``load`` gives what draws a page; it is asked when the first one is wanted."""
    _loaders[:] = [load]


def check_free(path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """The absolute path of a report that is to be written. Raises ReportError if there is something
    already (a folder always, a file without ``overwrite``), or if it cannot be looked at."""
    return _free(path, overwrite, _REPORT)


def check_new(path: str | os.PathLike[str]) -> Path:
    """As :func:`check_free`, for a page, on which no file can be overwritten."""
    return _free(path, False, replace(_REPORT, replace=""))


def write_report(
    known: Any, path: str | os.PathLike[str] = "report.html", overwrite: bool = False
) -> Path:
    """Draw the page of ``known`` and write it: all of it is there, or none.

    Returns the absolute path. Raises ReportError; an older file then stays as it was.
    """
    check_free(path, overwrite)
    return _write(path, _loaders[0]()(known), overwrite, _REPORT)


def write_script(text: str, path: str | os.PathLike[str]) -> Path:
    """Write a script whole, or nothing of it; it replaces no file.

    Returns the absolute path. Raises ExportError.
    """
    return _write(path, text, False, _SCRIPT)


@dataclass(frozen=True)
class _Kind:
    """What is written: the name of it, an example, its error, and how to replace an older one."""

    name: str
    example: str
    error: type[QatExplorerError]
    replace: str = ""


_REPORT = _Kind(
    "report", "report.html", ReportError, ", or pass overwrite=True (--force on the command line)"
)
_SCRIPT = _Kind("script", "walk.py", ExportError)


def _free(path: str | os.PathLike[str], overwrite: bool, kind: _Kind) -> Path:
    target = Path(path).expanduser().absolute()
    try:
        there, folder = target.exists(), target.is_dir()
    except OSError as error:
        raise _cannot(target, error, kind) from error
    if folder:
        raise kind.error(
            f"{target} is a folder.", fix=f"Give the name of a file, such as {kind.example}."
        )
    if there and not overwrite:
        raise kind.error(
            f"{target} is there already.",
            why=f"A {kind.name} replaces no file unasked.",
            fix=f"Give another name{kind.replace}.",
        )
    return target


def _write(path: str | os.PathLike[str], text: str, overwrite: bool, kind: _Kind) -> Path:
    target = _free(path, overwrite, kind)
    part: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".writing-", dir=target.parent)
        part = Path(name)
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
        part.chmod(0o644)
        _free(target, overwrite, kind)  # drawing a large one takes seconds
        os.replace(part, target)
        part = None
    except OSError as error:
        raise _cannot(target, error, kind) from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)
    return target


def _cannot(target: Path, error: OSError, kind: _Kind) -> QatExplorerError:
    return kind.error(
        f"{target} cannot be written: {error.strerror or error}.",
        why="Nothing of it was left behind.",
        fix="Choose a file in a folder where you may write, on a disk with room.",
    )
