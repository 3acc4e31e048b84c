"""``qatexplorer check``: what is wrong with a model's quantization, for a terminal and for CI.

Exit codes: 0 nothing at or above ``--fail-on``, 1 findings at or above it, 2 wrong usage (options,
the silence list, a file that cannot be written), 3 the model could not be loaded, run or checked,
130 stopped by Ctrl-C. What it prints on stdout is the result and nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qatexplorer._version import __version__
from qatexplorer.app.jobs import FOUND, OK, USAGE, attempted, check_output, deliver, failed
from qatexplorer.app.session_of import check_settings, opened
from qatexplorer.errors import (
    EngineWarning,
    InputError,
    PostTrainingQConfigWarning,
    QatExplorerError,
)

if TYPE_CHECKING:
    from qatexplorer.app.load_model import LoadedModel
    from qatexplorer.checks.records import Findings
    from qatexplorer.checks.silence import Silence

FAIL_ON = ("error", "warning", "info", "never")
SCHEMA = "qatexplorer.check"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Checked:
    """A model that was checked: how it was named, the flow, the model itself, the findings."""

    target: str
    flow: str
    loaded: LoadedModel
    findings: Findings


def run(args: argparse.Namespace) -> int:
    """Do what the arguments of the command ask for; returns the exit code."""
    try:
        if args.rules or args.explain is not None:
            return _about_rules(args)
        silences = _before(args)
    except QatExplorerError as error:
        return failed(error, USAGE)
    checked = attempted(args, "check", lambda report: _checked(args, silences, report))
    if isinstance(checked, int):
        return checked
    code = exit_code(checked.findings, args.fail_on)
    try:
        _write(args, checked, code)
    except InputError as error:
        return failed(error, USAGE)
    return code


def exit_code(findings: Findings, fail_on: str) -> int:
    """1 if a finding is as severe as ``fail_on`` or more, else 0."""
    from qatexplorer.checks.records import SEVERITIES

    if fail_on == "never":
        return OK
    counted = SEVERITIES[: FAIL_ON.index(fail_on) + 1]
    return FOUND if any(one.severity in counted for one in findings) else OK


def as_json(checked: Checked, fail_on: str, code: int) -> dict[str, Any]:
    """The result as plain data; docs/checks.md describes it."""
    import torch

    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "qatexplorer": __version__,
        "torch": str(torch.__version__),
        "target": checked.target,
        "flow": checked.flow,
        "fail_on": fail_on,
        "exit_code": code,
        **checked.findings.to_json(),
    }


def _before(args: argparse.Namespace) -> tuple[Silence, ...]:
    """Look at the options before a model is loaded. Raises InputError for wrong ones."""
    from qatexplorer.checks.silence import find_pyproject, read_silences

    if args.model is None:
        raise InputError(
            "no model is named.", fix="Write qatexplorer check package.module:factory."
        )
    check_settings(args)
    check_output(args.output)
    file = find_pyproject(Path.cwd())
    if file is None:
        return ()
    return read_silences(Path(os.path.relpath(file)) if file.parent == Path.cwd() else file)


def _checked(args: argparse.Namespace, silences: tuple[Silence, ...], report: Any) -> Checked:
    from qatexplorer.checks.records import worst_first
    from qatexplorer.checks.silence import silenced

    with warnings.catch_warnings():
        # They are findings here.
        warnings.simplefilter("ignore", EngineWarning)
        warnings.simplefilter("ignore", PostTrainingQConfigWarning)
        loaded, session = opened(args, report)
        # In eval mode nothing can be tried: say so, and look for the rest on a copy in train mode.
        asleep = [f for f in session.findings(try_int8=False) if f.name == "eval-mode"]
        if asleep:
            session.use_train_mode()
        # Some rules look at fake quants. Where there will be none, the findings say why.
        report("preparing it", 0.0)
        with contextlib.suppress(QatExplorerError):
            session.goto(session.flow.prepared_stage)
        found = session.check(progress=report, thorough=args.thorough)
    every = replace(found, found=worst_first((*asleep, *found.found)))
    return Checked(args.model, args.flow, loaded, silenced(every, silences))


def _about_rules(args: argparse.Namespace) -> int:
    from qatexplorer.checks import families
    from qatexplorer.checks.pages import rule_page, stages_of
    from qatexplorer.checks.rules import RULES, rule_named
    from qatexplorer.shown import columns

    assert families  # registers the rules
    if args.explain is not None:
        deliver(rule_page(rule_named(args.explain)).rstrip(), args.output)
        return OK
    rules = [RULES[id] for id in sorted(RULES)]
    if args.json:
        rows = [
            {
                "id": one.id,
                "name": one.name,
                "severity": one.severity,
                "stages": dict(stages_of(one)),
                "title": one.title,
                "docs": one.docs,
            }
            for one in rules
        ]
        text = json.dumps(rows, indent=1)
    else:
        text = "\n".join(columns([(r.id, r.severity, r.name, r.title) for r in rules]))
    deliver(text, args.output)
    return OK


def _write(args: argparse.Namespace, checked: Checked, code: int) -> None:
    """The result to stdout or to the file; beside a file for machines, the text to stdout."""
    from qatexplorer.app.check_text import as_lines, as_text

    def text(for_people: bool) -> str:
        if args.quiet:
            return as_lines(checked.findings)
        terminal = for_people and sys.stdout.isatty()
        width = shutil.get_terminal_size().columns if terminal else None
        return as_text(checked.target, checked.flow, checked.findings, width)

    if args.json:
        result = json.dumps(as_json(checked, args.fail_on, code), indent=1, allow_nan=False)
    elif args.sarif:
        from qatexplorer.app.places import Places, repository
        from qatexplorer.checks.sarif import to_sarif

        places = Places(checked.loaded.model, checked.loaded.source)
        log = to_sarif(checked.findings, locate=places.of, root=repository())
        result = json.dumps(log, indent=1, allow_nan=False)
    else:
        result = text(args.output is None)
    deliver(result, args.output)
    if args.output is not None and (args.json or args.sarif):
        deliver(text(True), None)
