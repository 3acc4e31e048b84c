"""What the commands that print a result share: stdout is for it alone, errors are one message."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from qatexplorer.errors import InputError, QatExplorerError
from qatexplorer.shown import error_line

OK, FOUND, USAGE, FAILED, STOPPED = 0, 1, 2, 3, 130
"""Exit codes: all went well; what was asked for does not hold; wrong usage; a model that could not
be loaded or run; Ctrl-C."""


T = TypeVar("T")


def attempted(
    args: argparse.Namespace,
    what: str,
    work: Callable[[Callable[[str, float], Any]], T],
    usage: tuple[type[QatExplorerError], ...] = (),
) -> T | int:
    """What ``work`` gives, called with where to say what is being done; an exit code where it ends
    with an error, which is printed. ``what`` names it, as ``"comparison"``; ``usage`` are errors
    that mean wrong usage."""
    try:
        with stdout_is_for_the_result(), progress(args) as report:
            return work(report)
    except KeyboardInterrupt:
        print("qatexplorer: stopped.", file=sys.stderr)
        return STOPPED
    except QatExplorerError as error:
        return failed(error, USAGE if isinstance(error, usage) else FAILED)
    except (Exception, SystemExit) as error:
        return failed(unforeseen(error, what), FAILED)


def check_output(file: Path | None) -> None:
    """Raise InputError if ``file`` has no folder to be written in."""
    if file is not None and not file.absolute().parent.is_dir():
        raise unwritable(file, FileNotFoundError("there is no such folder"))


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
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return QatExplorerError(
        f"the {what} ended with {error_line(error)}",
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
