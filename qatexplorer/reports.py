"""A report as a file: written whole or not at all, by the room that draws pages.

Session and run lie below the room that knows how a page looks; the front door says who draws it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qatexplorer.errors import ReportError

Draw = Callable[[Any], str]
"""Gives the page of what is known of a session, or of an opened run, as HTML."""

_loaders: list[Callable[[], Draw]] = []


def drawn_by(load: Callable[[], Draw]) -> None:
    """``load`` gives what draws a page; it is asked when the first one is wanted."""
    _loaders[:] = [load]


def check_free(path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """The absolute path of a report that is to be written. Raises ReportError if there is something
    already (a folder always, a file without ``overwrite``)."""
    target = Path(path).expanduser().absolute()
    if target.is_dir():
        raise ReportError(
            f"{target} is a folder.", fix="Give the name of a file, such as report.html."
        )
    if target.exists() and not overwrite:
        raise ReportError(
            f"{target} is there already.",
            why="A report replaces no file unasked.",
            fix="Give another name, or pass overwrite=True (--force on the command line).",
        )
    return target


def write_report(
    known: Any, path: str | os.PathLike[str] = "report.html", overwrite: bool = False
) -> Path:
    """Draw the page of ``known`` and write it; a reader sees all of it or none.

    Returns the absolute path. Raises ReportError; an older file then stays as it was.
    """
    target = check_free(path, overwrite)
    text = _loaders[0]()(known)
    part: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
        part = Path(name)
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
        part.chmod(0o644)
        check_free(target, overwrite)  # drawing a large one takes seconds
        os.replace(part, target)
        part = None
    except OSError as error:
        raise ReportError(
            f"{target} cannot be written: {error.strerror or error}.",
            why="Nothing of it was left behind.",
            fix="Choose a file in a folder where you may write, on a disk with room.",
        ) from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)
    return target
