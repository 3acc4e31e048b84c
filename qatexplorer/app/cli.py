"""The command line: ``qatexplorer dashboard | lab | inspect | train | check | ...``.

The others are ``compare``, ``migrate``, ``report`` and ``doctor``. Exit codes: 0 all went well, 1
an error of ours with its message on stderr (or, from ``doctor``, ``check`` and ``compare``,
something that it found), 2 wrong usage. ``check``, ``compare``, ``migrate`` and ``report`` have 3
for what is no finding and no wrong usage, so that CI can tell them apart
(:mod:`qatexplorer.app.check`); ``train`` has codes of its own too (:mod:`qatexplorer.app.train`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from qatexplorer._version import __version__
from qatexplorer.errors import QatExplorerError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default ``sys.argv[1:]``) and return the exit code."""
    args = _parser().parse_args(argv)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except QatExplorerError as error:
        print(f"qatexplorer: {error.full_text()}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of a pipe (`| head`) has enough; Python must not complain at exit either.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qatexplorer",
        description="See what quantization-aware training does to your own PyTorch model.",
    )
    parser.add_argument("--version", action="version", version=f"qatexplorer {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_dashboard(commands)
    _add_lab(commands)
    _add_inspect(commands)
    _add_train(commands)
    _add_check(commands)
    _add_compare(commands)
    _add_migrate(commands)
    _add_report(commands)
    _add_doctor(commands)
    return parser


def _add_dashboard(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("dashboard", help="open the explorer in the browser (Voila)")
    command.add_argument("--port", type=_port, help="default: the first free one from 8866 on")
    command.add_argument("--no-browser", action="store_true", help="only serve; print the address")
    command.add_argument("--theme", choices=("light", "dark"), default="light")
    command.add_argument(
        "--warm-kernels",
        type=_few,
        default=1,
        metavar="N",
        help="kernels that have torch loaded and wait for a page, about 0.4 GB each "
        "(default: %(default)s; 0: a page waits for its kernel to start)",
    )
    what = command.add_mutually_exclusive_group()
    what.add_argument("--model", metavar="package.module:factory", help="your own model")
    what.add_argument("--example", metavar="NAME", help="an embedded example")
    command.set_defaults(run=_dashboard)


def _add_lab(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("lab", help="open the notebooks in JupyterLab")
    command.add_argument("--port", type=_port, help="default: the first free one from 8888 on")
    command.add_argument("--no-browser", action="store_true", help="only serve; print the address")
    command.add_argument(
        "--dir",
        type=Path,
        default=Path("qatexplorer-notebooks"),
        help="folder of your own that the notebooks are copied to (default: %(default)s)",
    )
    command.set_defaults(run=_lab)


def _add_inspect(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("inspect", help="take a model to a stage and print what it is")
    command.add_argument("model", metavar="package.module:factory|zoo:NAME")
    command.add_argument("--to", metavar="STAGE", help="default: the one with all fake quants")
    command.add_argument(
        "--flow", default="eager", help="eager, fx, pt2e or torchao (default: %(default)s)"
    )
    command.add_argument("--qconfig", metavar="BACKEND", help="x86, fbgemm, qnnpack or onednn")
    command.add_argument("--json", action="store_true", help="machine-readable, on stdout")
    command.set_defaults(run=_inspect)


def _add_train(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from qatexplorer.app import train_options

    train_options.add(commands).set_defaults(run=_train)


def _train(args: argparse.Namespace) -> int:
    from qatexplorer.app import train

    return train.run(args)


_CHECK_CODES = """\
exit codes:
  0  nothing at or above --fail-on
  1  findings at or above it
  2  wrong usage: an option, the silence list in pyproject.toml, a file that cannot be written
  3  the model could not be loaded, run or checked
"""


def _add_check(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "check",
        help="what is wrong with a model's quantization, where, and how to fix it",
        epilog=_CHECK_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("model", nargs="?", metavar="package.module:factory|zoo:NAME")
    command.add_argument(
        "--flow", default="eager", help="eager, fx, pt2e or torchao (default: %(default)s)"
    )
    command.add_argument("--qconfig", metavar="BACKEND", help="x86, fbgemm, qnnpack or onednn")
    command.add_argument(
        "--stubs",
        choices=("none", "model", "layers"),
        default="none",
        help="wrap the model, or each layer, in stubs (default: %(default)s; eager only)",
    )
    form = command.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="machine-readable, on stdout")
    form.add_argument("--sarif", action="store_true", help="SARIF 2.1.0, on stdout")
    command.add_argument("--output", type=Path, metavar="FILE", help="write it there instead")
    command.add_argument(
        "--fail-on",
        choices=("error", "warning", "info", "never"),
        default="error",
        help="the mildest finding that makes the exit code 1 (default: %(default)s)",
    )
    command.add_argument(
        "--thorough",
        action="store_true",
        help="take longer: also what needs the model to run more often, as on its evaluation data",
    )
    command.add_argument("--quiet", action="store_true", help="no progress; a line a finding")
    about = command.add_mutually_exclusive_group()
    about.add_argument("--rules", action="store_true", help="list all rules, check nothing")
    about.add_argument("--explain", metavar="RULE", help="print the page of a rule, check nothing")
    command.set_defaults(run=_check)


_COMPARE_CODES = """\
exit codes:
  0  every threshold holds
  1  a threshold does not hold
  2  wrong usage: an option, a file that is there or cannot be written
  3  the model could not be loaded, run or compared, or a threshold could not be judged
"""


def _add_compare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from qatexplorer.app.compare import batches, number, share
    from qatexplorer.app.session_of import add_arguments

    command = commands.add_parser(
        "compare",
        help="float, fake quant and int8 side by side, with thresholds for CI",
        epilog=_COMPARE_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("model", metavar="package.module:factory|zoo:NAME")
    add_arguments(command)
    command.add_argument(
        "--batches", type=batches, default=4, metavar="N",
        help="of the evaluation data (default: %(default)s)",
    )  # fmt: skip
    command.add_argument("--json", action="store_true", help="machine-readable, on stdout")
    command.add_argument("--output", type=Path, metavar="FILE", help="write it there instead")
    command.add_argument(
        "--min-sqnr-int8", type=number, metavar="DB", help="of each of the model's outputs"
    )
    command.add_argument(
        "--min-agreement", type=share, metavar="SHARE",
        help="of int8 codes that equal the fake-quant codes, at every place (0 to 1)",
    )  # fmt: skip
    command.add_argument(
        "--max-drop", type=number, metavar="D",
        help="of the metric from float to int8, in its own unit (0.01 is one point of accuracy)",
    )  # fmt: skip
    command.add_argument(
        "--metric-mode", choices=("max", "min"), default="max",
        help="whether a high metric is good (default: %(default)s)",
    )  # fmt: skip
    command.add_argument("--report", type=Path, metavar="FILE", help="write the HTML report too")
    command.add_argument("--force", action="store_true", help="replace a report that is there")
    command.set_defaults(run=_compare)


_MIGRATE_CODES = """\
exit codes:
  0  it was written
  2  wrong usage: an option, a file that cannot be written
  3  the model could not be loaded or run, or no flow takes it
"""


def _add_migrate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from qatexplorer.app.compare import batches
    from qatexplorer.app.migrate import FORMATS, flow_names

    command = commands.add_parser(
        "migrate",
        help="one model through eager, FX and PT2E: what each of them rounds, and how",
        epilog=_MIGRATE_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("model", metavar="package.module:factory|zoo:NAME")
    command.add_argument(
        "--flows", type=flow_names, metavar="NAME,…", help="(default: eager,fx,pt2e)"
    )
    command.add_argument("--format", choices=FORMATS, default="text", help="(default: %(default)s)")
    command.add_argument("--output", type=Path, metavar="FILE", help="write it there instead")
    command.add_argument("--qconfig", metavar="BACKEND", help="x86, fbgemm, qnnpack or onednn")
    command.add_argument("--quantizer", metavar="NAME", help="of PT2E (default: x86)")
    command.add_argument(
        "--stubs", choices=("none", "model", "layers"),
        help="of eager mode (default: model where the model has no stubs of its own, else none)",
    )  # fmt: skip
    command.add_argument(
        "--calibrate", type=batches, default=8, metavar="N",
        help="show the observers N batches of the training data (default: %(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--no-int8", dest="int8", action="store_false",
        help="convert nothing: no metric of int8, and not how far it is from the fake quants",
    )  # fmt: skip
    command.add_argument("--quiet", action="store_true", help="no progress")
    command.set_defaults(run=_migrate)


_REPORT_CODES = """\
exit codes:
  0  the report was written
  2  wrong usage: an option, a folder without a run, a file that is there or cannot be written
  3  the model could not be loaded or run
"""


def _add_report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from qatexplorer.app.report import MEASURES, measures
    from qatexplorer.app.session_of import add_arguments

    command = commands.add_parser(
        "report",
        help="all that is known of a model, or of a kept run, as one HTML file",
        epilog=_REPORT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("model", metavar="package.module:factory|zoo:NAME|RUN_DIR")
    command.add_argument(
        "--to", type=Path, default=Path("report.html"), metavar="FILE",
        help="(default: %(default)s)",
    )  # fmt: skip
    command.add_argument("--force", action="store_true", help="replace a file that is there")
    add_arguments(command)
    command.add_argument(
        "--measure", type=measures, default=("compare", "evaluate"), metavar="WHAT,…",
        help=f"of {', '.join(MEASURES)}, or none (default: compare,evaluate)",
    )  # fmt: skip
    command.set_defaults(run=_report)


def _add_doctor(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("doctor", help="what this machine has, and what is wrong with it")
    command.add_argument("--json", action="store_true", help="machine-readable, on stdout")
    command.set_defaults(run=_doctor)


def _dashboard(args: argparse.Namespace) -> int:
    from qatexplorer import zoo
    from qatexplorer.app import launch
    from qatexplorer.app.load_model import load_factory

    # What cannot be opened is reported here and not first in a browser window.
    if args.model:
        load_factory(args.model)
    if args.example:
        zoo.load(args.example)
    port = launch.claim_port(args.port, 8866)
    launch.hand_over(args.model, args.example)
    return launch.run_voila(
        port=port, browser=not args.no_browser, theme=args.theme, warm=args.warm_kernels
    )


def _lab(args: argparse.Namespace) -> int:
    from qatexplorer.app import launch

    port = launch.claim_port(args.port, 8888)
    launch.hand_over(None, None)
    return launch.run_lab(folder=args.dir, port=port, browser=not args.no_browser)


def _inspect(args: argparse.Namespace) -> int:
    from qatexplorer.app.listing import as_json, as_text
    from qatexplorer.app.load_model import load_model
    from qatexplorer.session.session import Session

    # A model's code may print; stdout is for the result.
    with contextlib.redirect_stdout(sys.stderr):
        loaded = load_model(args.model)
        qconfig = args.qconfig or loaded.suggested.get("qconfig")
        session = Session(
            loaded.model,
            loaded.example_inputs,
            flow=args.flow,
            qconfig=qconfig,
            data=loaded.data,
            **loaded.settings,
        )
        first = session.snapshot
        session.goto(args.to or session.flow.prepared_stage)
    if args.json:
        print(json.dumps(as_json(args.model, first, session.snapshot), indent=1, allow_nan=False))
    else:
        print(as_text(args.model, first, session.snapshot))
    return 0


def _check(args: argparse.Namespace) -> int:
    from qatexplorer.app import check

    return check.run(args)


def _compare(args: argparse.Namespace) -> int:
    from qatexplorer.app import compare

    return compare.run(args)


def _migrate(args: argparse.Namespace) -> int:
    from qatexplorer.app import migrate

    return migrate.run(args)


def _report(args: argparse.Namespace) -> int:
    from qatexplorer.app import report

    return report.run(args)


def _doctor(args: argparse.Namespace) -> int:
    from qatexplorer.app import doctor

    # A package that is imported may print; stdout is for the report.
    with contextlib.redirect_stdout(sys.stderr):
        report = doctor.examine()
    print(json.dumps(report, indent=1, allow_nan=False) if args.json else doctor.as_text(report))
    return 1 if report["problems"] else 0


def _port(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (1 to 65535)")
    return int(text)


def _few(text: str) -> int:
    if not text.isdigit() or int(text) > 16:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of kernels (0 to 16)")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
