"""What the commands that print a result share: stdout is for it alone, errors are one message."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qatexplorer.errors import InputError, QatExplorerError

OK, FOUND, USAGE, FAILED, STOPPED = 0, 1, 2, 3, 130
"""Exit codes: all went well; what was asked for does not hold; wrong usage; a model that could not
be loaded or run; Ctrl-C."""


def deliver(text: str, file: Path | None) -> None:
    """To the file, or to stdout, also where that cannot spell every sign. Raises InputError."""
    if file is not None:
        try:
            file.write_text(f"{text}\n" if text else "", encoding="utf-8")
        except OSError as error:
            raise unwritable(file, error) from error
        return
    if not text:
        return
    spelling = sys.stdout.encoding or "ascii"
    print(text.encode(spelling, "replace").decode(spelling))


def failed(error: QatExplorerError, code: int) -> int:
    print(f"qatexplorer: {error.full_text()}", file=sys.stderr)
    return code


def unforeseen(error: BaseException, what: str) -> QatExplorerError:
    """What neither the model's own code nor ours should raise here, without its traceback."""
    first = (str(error).strip().splitlines() or [""])[0]
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return QatExplorerError(
        f"the {what} ended with {type(error).__name__}: {first}",
        where=f"{frame.filename}:{frame.lineno}",
        fix="Run the model on its example inputs yourself; if that works, report this with the "
        "output of qatexplorer doctor.",
    )


def unwritable(file: Path, error: OSError) -> InputError:
    return InputError(
        f"{file} cannot be written: {error.strerror or error}.",
        fix="Name a file in a folder that is there.",
    )


@contextlib.contextmanager
def stdout_is_for_the_result() -> Iterator[None]:
    """What the model's code prints meanwhile goes to stderr, from Python or below it."""
    with contextlib.redirect_stdout(sys.stderr):
        try:
            kept = os.dup(1)
        except OSError:  # closed
            yield
            return
        try:
            with contextlib.suppress(OSError):
                os.dup2(2, 1)
            yield
        finally:
            os.dup2(kept, 1)
            os.close(kept)


@contextlib.contextmanager
def progress(args: argparse.Namespace) -> Iterator[Any]:
    """A line on stderr that says what is being done, if that is a terminal."""
    if args.quiet or not sys.stderr.isatty():
        yield lambda _what, _share: None
        return
    width = shutil.get_terminal_size().columns - 1

    def show(what: str, share: float) -> None:
        sys.stderr.write(f"\r\x1b[K{f'{share:4.0%}  {what}'[:width]}")
        sys.stderr.flush()

    try:
        yield show
    finally:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
