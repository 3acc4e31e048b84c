"""``qatexplorer migrate``: one model through several flows, as text, JSON or HTML.

Exit codes: 0 written, 2 wrong usage (options, a file that cannot be written), 3 the model could not
be loaded or run, or no flow takes it, 130 stopped by Ctrl-C. What it prints on stdout is the result
and nothing else.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qatexplorer._version import __version__
from qatexplorer.app.jobs import FAILED, OK, USAGE, attempted, check_output, deliver, failed
from qatexplorer.errors import EngineWarning, InputError, QatExplorerError

if TYPE_CHECKING:
    from qatexplorer.migration.records import Migration

FORMATS = ("text", "json", "html")
SCHEMA = "qatexplorer.migrate"
SCHEMA_VERSION = 1


def run(args: argparse.Namespace) -> int:
    """Do what the arguments of the command ask for; returns the exit code."""
    from qatexplorer.flows import get_flow
    from qatexplorer.flows.pt2e_quantizers import check_quantizer
    from qatexplorer.flows.qconfig import resolve_qconfig

    try:
        for name in args.flows or ():
            get_flow(name)
        if args.qconfig is not None:
            resolve_qconfig(args.qconfig)
        check_quantizer(args.quantizer)
        check_output(args.output)
    except QatExplorerError as error:
        return failed(error, USAGE)
    found = attempted(args, "migration", lambda report: _migration(args, report))
    if isinstance(found, int):
        return found
    try:
        deliver(_written(args, found), args.output)
    except InputError as error:
        return failed(error, USAGE)
    for column in found.flows:
        if column.error:
            print(f"qatexplorer: {column.flow}: {column.error}", file=sys.stderr)
    return OK if found.taken else FAILED


def _migration(args: argparse.Namespace, report: Callable[[str, float], Any]) -> Migration:
    from qatexplorer.app.load_model import load_model
    from qatexplorer.migration.make import migrate

    report(f"loading {args.model}", 0.0)
    loaded = load_model(args.model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EngineWarning)
        return migrate(
            loaded.model,
            loaded.example_inputs,
            flows=args.flows,
            data=loaded.data,
            qconfig=args.qconfig or loaded.suggested.get("qconfig"),
            quantizer=args.quantizer,
            metric=loaded.settings.get("metric"),
            stubs=args.stubs,
            calibrate=args.calibrate,
            int8=args.int8,
            progress=report,
        )


def _written(args: argparse.Namespace, found: Migration) -> str:
    if args.format == "json":
        return json.dumps(as_json(args.model, found), indent=1, allow_nan=False)
    if args.format == "html":
        from qatexplorer.views.report.page import report_html

        return report_html(found)
    from qatexplorer.migration.text import as_text

    terminal = args.output is None and sys.stdout.isatty()
    return as_text(found, shutil.get_terminal_size().columns if terminal else None)


def as_json(target: str, found: Migration) -> dict[str, Any]:
    """The result as plain data; docs/migrate.md describes it."""
    import torch

    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "qatexplorer": __version__,
        "torch": str(torch.__version__),
        "target": target,
        **found.to_json(),
    }


def flow_names(text: str) -> tuple[str, ...]:
    """A type of argparse: names with commas between."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
