"""``python -m qatexplorer.studies``: published results, tried on the digits.

    python -m qatexplorer.studies --folder results --processes 4
    python -m qatexplorer.studies --studies R1,R10 --seeds 2 --quick
    python -m qatexplorer.studies --folder here --storage sqlite:////shared/studies.db

What is done is kept in the folder; a run that was stopped goes on with the same command. Prints the
tables on stdout and progress on stderr. Exit codes: 0 all was done, 1 an error, 2 wrong usage, 130
stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from qatexplorer.errors import QatExplorerError
from qatexplorer.reports import check_free
from qatexplorer.studies import (
    FULL,
    QUICK,
    STUDIES,
    Effort,
    Results,
    Study,
    as_markdown,
    chosen,
    read,
    run,
)
from qatexplorer.training.trials import TrialsProgress


def main(argv: Sequence[str] | None = None, studies: tuple[Study, ...] | None = None) -> int:
    """Run the command line ``argv``; ``studies`` instead of those that ``--studies`` names."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.storage and args.processes > 1:
        parser.error("with --storage each process is a command of its own: start more of them")
    effort = QUICK if args.quick else FULL
    try:
        if args.markdown:
            check_free(args.markdown, overwrite=True)
        wanted = studies or chosen(args.studies)
        try:
            found = run(
                wanted,
                args.folder,
                seeds=args.seeds,
                effort=effort,
                processes=args.processes,
                storage=args.storage,
                progress=_Lines(),
            )
        except KeyboardInterrupt:
            return _stopped(wanted, args, effort)
    except QatExplorerError as error:
        print(f"qatexplorer.studies: {error.full_text()}", file=sys.stderr)
        return 1
    with contextlib.suppress(BrokenPipeError):
        _print(found, args.markdown)
    return 0


def _stopped(wanted: tuple[Study, ...], args: argparse.Namespace, effort: Effort) -> int:
    if args.folder is None:
        print("Stopped; without --folder nothing is kept.", file=sys.stderr)
        return 130
    found = read(wanted, args.folder, seeds=args.seeds, effort=effort)
    print(
        f"Stopped: {found.done} of {found.total} jobs are in {args.folder}; "
        "the same command goes on.",
        file=sys.stderr,
    )
    return 130


def _print(found: Results, markdown: Path | None) -> None:
    text = as_markdown(found)
    print(text, flush=True)
    if markdown is not None:
        part = markdown.with_name(f".{markdown.name}.{os.getpid()}.tmp")
        part.write_text(f"# Published results, tried on the digits\n\n{text}\n", encoding="utf-8")
        os.replace(part, markdown)


class _Lines:
    """A line on stderr for each job that is done."""

    def __call__(self, now: TrialsProgress) -> None:
        line = f"{now.done} of {now.total} jobs done"
        if now.kept and now.done == now.kept:
            line += f", {now.kept} of them before"
        line += f", {now.elapsed_s:,.0f} s"
        if now.eta_s:
            line += f", about {now.eta_s:,.0f} s left"
        print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m qatexplorer.studies",
        description="Try published results on the digits, five seeds each.",
    )
    parser.add_argument(
        "--studies", metavar="R1,R3", help=f"default: {','.join(study.id for study in STUDIES)}"
    )
    parser.add_argument("--seeds", type=_count, default=5, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--quick", action="store_true", help="a quarter of the epochs: to see that it runs"
    )
    parser.add_argument(
        "--folder", type=Path, help="keeps what is done, and is gone on from; default: nothing kept"
    )
    parser.add_argument(
        "--processes", type=_count, default=1, metavar="N", help="jobs at a time (default: 1)"
    )
    parser.add_argument(
        "--storage",
        metavar="URL",
        help="optuna's: a URL of a database such as sqlite:///studies.db, or a journal file; every "
        "command with the same one, on any machine, takes jobs from it (extra: optuna)",
    )
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="write the tables there too, over what it has"
    )
    return parser


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


if __name__ == "__main__":
    raise SystemExit(main())
