"""``qatexplorer report``: all that is known of a model, or of a kept run, as one HTML file.

Exit codes: 0 written, 2 wrong usage (options, a file that is there, a folder without a run, a file
that cannot be written), 3 the model could not be loaded or run, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qatexplorer.app.jobs import OK, USAGE, attempted, deliver, failed
from qatexplorer.app.session_of import check_arguments, session_of
from qatexplorer.errors import InputError, QatExplorerError, ReportError, RunFolderError
from qatexplorer.reports import check_free

if TYPE_CHECKING:
    from qatexplorer.session.session import Session

MEASURES = ("compare", "evaluate", "shadow", "gradient", "exact", "benchmark")
"""What ``--measure`` takes; the third to the fifth are methods of the sensitivity."""


def run(args: argparse.Namespace) -> int:
    """Do what the arguments of the command ask for; returns the exit code."""
    try:
        check_free(args.to, args.force)
        kept = _kept_run(args.model)
        if not kept:
            check_arguments(args)
    except QatExplorerError as error:
        return failed(error, USAGE)
    written = attempted(
        args,
        "report",
        lambda report: _of_run(args) if kept else _of_model(args, report),
        usage=(ReportError, RunFolderError),
    )
    if isinstance(written, int):
        return written
    deliver(f"{written} ({written.stat().st_size / 1e6:.1f} MB)", None)
    return OK


def _kept_run(target: str) -> bool:
    """Whether a folder is named. Raises InputError for what is neither a folder nor a factory."""
    if Path(target).is_dir():
        return True
    if ":" not in target:
        raise InputError(
            f"{target} is neither the folder of a run nor a factory.",
            fix="Name a run's folder that is there, or write package.module:factory.",
        )
    return False


def _of_run(args: argparse.Namespace) -> Path:
    from qatexplorer.runs.opened import open_run

    return open_run(args.model).report(args.to, overwrite=args.force)


def _of_model(args: argparse.Namespace, report: Callable[[str, float], Any]) -> Path:
    session = session_of(args, report)
    for what in args.measure:
        _measure(session, what, report)
    return session.report(
        args.to,
        overwrite=args.force,
        run_dir=args.run_dir,
        progress=lambda what: report(what, 0.9),
    )


def _measure(session: Session, what: str, report: Callable[[str, float], Any]) -> None:
    """Measure it; where that cannot be, say why on stderr: the page says that it is missing."""
    try:
        if what == "compare":
            session.compare(progress=report)
        elif what == "evaluate":
            session.evaluate(latency=False, progress=report)
        elif what == "benchmark":
            session.benchmark(progress=report)
        else:
            session.sensitivity(what, progress=report)  # type: ignore[arg-type]
    except QatExplorerError as error:
        print(f"qatexplorer: {what} was left out: {error.message}", file=sys.stderr)


def measures(text: str) -> tuple[str, ...]:
    """A type of argparse: names of :data:`MEASURES` with commas between, or ``none``."""
    if text == "none":
        return ()
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    unknown = [name for name in names if name not in MEASURES]
    if unknown:
        known = ", ".join(MEASURES)
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {known}; or write none")
    return names
