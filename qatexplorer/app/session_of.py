"""The session that a command line asks for: a model, taken to int8 as far as it goes."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qatexplorer.errors import EngineWarning, InputError, QatExplorerError

if TYPE_CHECKING:
    from qatexplorer.app.load_model import LoadedModel
    from qatexplorer.session.session import Session

CALIBRATE = 8
"""Batches of training data that the observers see where no run is given."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The arguments that say which model, and how it is taken to int8."""
    command.add_argument("--flow", default="eager", help="eager, fx or pt2e (default: %(default)s)")
    command.add_argument(
        "--quantizer",
        metavar="NAME",
        help="of flow pt2e: x86, arm, xpu, embedding or xnnpack (default: x86)",
    )
    command.add_argument("--qconfig", metavar="BACKEND", help="x86, fbgemm, qnnpack or onednn")
    command.add_argument(
        "--stubs",
        choices=("none", "model", "layers"),
        default="none",
        help="wrap the model, or each layer, in stubs (default: %(default)s; eager only)",
    )
    command.add_argument(
        "--run-dir", type=Path, metavar="DIR", help="take weights and ranges from this kept run"
    )
    command.add_argument(
        "--calibrate",
        type=whole_number,
        default=CALIBRATE,
        metavar="N",
        help="without --run-dir, show the observers N batches of the training data "
        "(default: %(default)s; 0: none)",
    )
    command.add_argument("--quiet", action="store_true", help="no progress")


def check_arguments(args: argparse.Namespace) -> None:
    """Look at them before a model is loaded. Raises InputError for wrong ones."""
    from qatexplorer.runs.opened import open_run

    check_settings(args)
    if args.run_dir is not None:
        open_run(args.run_dir)


def check_settings(args: argparse.Namespace) -> None:
    """Look at flow, stubs and qconfig before a model is loaded. Raises InputError."""
    from qatexplorer.flows import get_flow
    from qatexplorer.flows.qconfig import resolve_qconfig

    flow = get_flow(args.flow)
    if args.stubs != "none" and not flow.offers_stubs:
        raise InputError(
            f"--stubs {args.stubs} means nothing in flow {args.flow}.",
            why="This flow quantizes the input by itself.",
            fix="Leave --stubs away, or take --flow eager.",
        )
    check_quantizer_option(getattr(args, "quantizer", None), args.flow)
    if args.qconfig is not None:
        resolve_qconfig(args.qconfig)


def check_quantizer_option(quantizer: str | None, name: str) -> None:
    """Raise InputError if ``quantizer`` is none, or is given for a flow that has none."""
    from qatexplorer.flows import get_flow
    from qatexplorer.flows.pt2e_quantizers import check_quantizer

    flow = get_flow(name)
    if quantizer is not None and not flow.offers_quantizer:
        raise InputError(
            f"--quantizer {quantizer} means nothing in flow {name}.",
            why=f"How a tensor is rounded is decided by {flow.decided_by}.",
            fix="Leave --quantizer away, or take --flow pt2e.",
        )
    check_quantizer(quantizer)


def opened(
    args: argparse.Namespace, report: Callable[[str, float], Any]
) -> tuple[LoadedModel, Session]:
    """The model that a command names, and a session of it with its settings, at the float stage.

    Raises what loading and the settings raise.
    """
    from qatexplorer.app.load_model import load_model
    from qatexplorer.session.session import Session

    report(f"loading {args.model}", 0.0)
    loaded = load_model(args.model)
    report("looking at the model", 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EngineWarning)  # it is a finding
        session = Session(
            loaded.model,
            loaded.example_inputs,
            flow=args.flow,
            quantizer=getattr(args, "quantizer", None),
            qconfig=args.qconfig or loaded.suggested.get("qconfig"),
            stubs=args.stubs,
            data=loaded.data,
            **loaded.settings,
        )
    session.warns = False
    return loaded, session


def session_of(args: argparse.Namespace, report: Callable[[str, float], Any]) -> Session:
    """Load the model, prepare it, give it the weights of a run or calibrate it, and convert it.

    Stops at the prepared model where it cannot be converted, or its observers have seen nothing.
    Raises what loading and preparing raise.
    """
    _, session = opened(args, report)
    if not session.snapshot.modules[0].training:
        session.use_train_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EngineWarning)  # it is a finding
        report("preparing it", 0.0)
        session.goto(session.flow.prepared_stage)
        if args.run_dir is not None:
            report("reading the run", 0.1)
            session.load_run(args.run_dir)
        elif args.calibrate and session.data is not None:
            report("calibrating", 0.1)
            session.calibrate(args.calibrate)
        if session.observed:
            report("converting", 0.2)
            try:
                session.goto(session.flow.int8_stage)
            except QatExplorerError as error:
                print(f"qatexplorer: no int8 model: {error.message}", file=sys.stderr)
    return session


def whole_number(text: str) -> int:
    """A type of argparse: 0 or more."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return int(text)
