"""``qatexplorer compare``: float, fake quant and int8 side by side, for a terminal and for CI.

Exit codes: 0 every threshold holds, 1 one does not, 2 wrong usage (options, a file that cannot be
written), 3 the model could not be loaded, run or compared, or a threshold could not be judged, 130
stopped by Ctrl-C. What it prints on stdout is the result and nothing else.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from qatexplorer._version import __version__
from qatexplorer.app.jobs import (
    FAILED,
    FOUND,
    OK,
    USAGE,
    attempted,
    check_output,
    deliver,
    failed,
)
from qatexplorer.app.session_of import check_arguments, session_of
from qatexplorer.errors import InputError, QatExplorerError, ReportError
from qatexplorer.reports import check_free, plain_data

if TYPE_CHECKING:
    from qatexplorer.accuracy.records import Comparison
    from qatexplorer.evaluate.evaluation import Evaluation

SCHEMA = "qatexplorer.compare"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Judged:
    """A threshold: its option, its limit, what was measured (None where it could not be) and where.

    ``holds`` is None where it could not be judged; ``text`` says all of it in a sentence.
    """

    option: str
    limit: float
    value: float | None
    place: str
    holds: bool | None
    text: str


@dataclass(frozen=True)
class Compared:
    """A model that was compared: how it was named, its flow, what was found."""

    target: str
    flow: str
    comparison: Comparison
    evaluation: Evaluation | None


def run(args: argparse.Namespace) -> int:
    """Do what the arguments of the command ask for; returns the exit code."""
    try:
        check_arguments(args)
        check_output(args.output)
        if args.report is not None:
            check_free(args.report, args.force)
    except QatExplorerError as error:
        return failed(error, USAGE)
    compared = attempted(
        args, "comparison", lambda report: _compared(args, report), usage=(ReportError,)
    )
    if isinstance(compared, int):
        return compared
    judged = judge(args, compared.comparison, compared.evaluation)
    code = exit_code(judged)
    if args.json:
        result = json.dumps(as_json(compared, judged, code), indent=1, allow_nan=False)
    else:
        result = as_text(compared, judged)
    try:
        deliver(result, args.output)
    except InputError as error:
        return failed(error, USAGE)
    for one in judged:
        if not one.holds:
            print(f"qatexplorer: {one.text}", file=sys.stderr)
    return code


def _compared(args: argparse.Namespace, report: Callable[[str, float], Any]) -> Compared:
    session = session_of(args, report)
    found = session.compare(args.batches, lost=session.data is not None, progress=report)
    evaluation = None
    if args.max_drop is not None:
        evaluation = session.evaluate(latency=False, progress=report)
    if args.report is not None:
        session.report(args.report, overwrite=args.force, run_dir=args.run_dir)
    return Compared(args.model, args.flow, found, evaluation)


def judge(
    args: argparse.Namespace, found: Comparison, evaluation: Evaluation | None
) -> tuple[Judged, ...]:
    """The thresholds that were given: ``min_sqnr_int8`` (dB, of the model's outputs),
    ``min_agreement`` (share of equal codes, at every place) and ``max_drop`` (of the metric, float
    to int8)."""
    judged = []
    if args.min_sqnr_int8 is not None:
        outputs = (row for row in found if row.kind == "output")
        known = [(row.sqnr_int8_db, row.path) for row in outputs]
        judged.append(
            _at_least("--min-sqnr-int8", args.min_sqnr_int8, known, f"SQNR of {found.form}", "dB")
        )
    if args.min_agreement is not None:
        known = [(row.agreement, row.path) for row in found]
        what = "share of equal codes"
        judged.append(_at_least("--min-agreement", args.min_agreement, known, what, ""))
    if args.max_drop is not None:
        judged.append(_drop(args.max_drop, args.metric_mode, evaluation))
    return tuple(judged)


def _at_least(
    option: str,
    limit: float,
    places: Iterable[tuple[float | None, str]],
    what: str,
    unit: str,
) -> Judged:
    known = [(value, path) for value, path in places if value is not None]
    if not known:
        text = f"{option} cannot be judged: no place has a {what}."
        return Judged(option, limit, None, "", None, text)
    # NaN is worse than any number.
    value, path = min(known, key=lambda one: -math.inf if math.isnan(one[0]) else one[0])
    holds = value >= limit
    written = f"{value:.4g} {unit}".strip()
    verdict = "holds" if holds else "does not hold"
    text = (
        f"{option} {limit:g} {verdict}: the lowest {what} is {written}, at {path or 'the model'}."
    )
    return Judged(option, limit, value, path, holds, text)


def _drop(limit: float, mode: str, evaluation: Evaluation | None) -> Judged:
    option = "--max-drop"
    results = {} if evaluation is None else dict(evaluation)
    metrics = [results[name].metric if name in results else None for name in ("float", "int8")]
    first, last = metrics
    if first is None or last is None:
        note = results["int8"].note if "int8" in results else ""
        text = f"{option} cannot be judged: int8 has no metric. {note}".strip()
        return Judged(option, limit, None, "", None, text)
    drop = first.value - last.value
    drop = drop if mode == "max" else -drop
    holds = drop <= limit
    verdict = "holds" if holds else "does not hold"
    words = results["int8"].words
    form = "in int8" if words == "int8" else words
    text = (
        f"{option} {limit:g} {verdict}: {first.name} is {first.value:.4g} in float and "
        f"{last.value:.4g} {form}, a drop of {drop:.4g}."
    )
    return Judged(option, limit, drop, "", holds, text)


def exit_code(judged: Iterable[Judged]) -> int:
    """1 if a threshold does not hold, else 3 if one could not be judged, else 0."""
    verdicts = [one.holds for one in judged]
    if False in verdicts:
        return FOUND
    return FAILED if None in verdicts else OK


def as_text(compared: Compared, judged: Iterable[Judged]) -> str:
    """For people: the comparison as it prints, accuracy, and each threshold."""
    lines = [f"{compared.target}, flow {compared.flow}", repr(compared.comparison)]
    if compared.evaluation is not None:
        lines.append(repr(compared.evaluation))
    return "\n".join([*lines, *(one.text for one in judged)])


def as_json(compared: Compared, judged: Iterable[Judged], code: int) -> dict[str, Any]:
    """The result as plain data; docs/reports.md describes it."""
    import torch

    found = compared.comparison
    evaluation = compared.evaluation
    result = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "qatexplorer": __version__,
        "torch": str(torch.__version__),
        "target": compared.target,
        "flow": compared.flow,
        "exit_code": code,
        "thresholds": [asdict(one) for one in judged],
        "batches": found.batches,
        "forwards": dict(found.passes),
        "first_apart": None if found.first is None else found.first.path,
        "lost": found.lost_total if found.evaluated else None,
        "evaluated": found.evaluated,
        "notes": list(found.notes),
        "evaluation": None if evaluation is None else evaluation.to_dict(),
        "rows": [asdict(row) for row in found],
    }
    plain: dict[str, Any] = plain_data(result)
    return plain


def share(text: str) -> float:
    """A type of argparse: 0 to 1."""
    value = number(text)
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to 1")
    return value


def number(text: str) -> float:
    """A type of argparse: a finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return value


def batches(text: str) -> int:
    """A type of argparse: 1 or more."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of batches")
    return int(text)
