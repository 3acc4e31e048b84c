"""The options of ``qatexplorer train``; those of a run are the fields of TrainingConfig.

Imports no torch: the other commands read this too.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from qatexplorer.runs.config import TrainingConfig, given_settings

CODES = """\
exit codes:
  0    all epochs are done
  1    the training has failed; the error says why, and whether a checkpoint was left
  2    wrong usage: an option, a setting, a run folder that is taken or holds no run
  3    the model, its data, a function or the rules could not be loaded or prepared
  130  stopped before the last epoch, by Ctrl-C, SIGTERM or the page; --resume goes on

on several processes, with DistributedDataParallel:
  torchrun --nproc-per-node=2 -m qatexplorer.app.cli train my.pkg:factory --run-dir runs/a
"""
FUNCTION = "package.module:function"


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the command."""
    command = commands.add_parser(
        "train",
        help="train with fake quants, without a browser",
        epilog=CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("model", metavar="package.module:factory|zoo:NAME")
    command.add_argument(
        "--run-dir",
        type=Path,
        metavar="FOLDER",
        help="folder to keep the run in, which the page opens while it trains; default: a new one "
        "in the folder of the page's runs",
    )
    command.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in --run-dir from its last checkpoint; what is not given is as "
        "the run had it",
    )
    command.add_argument("--flow", help="eager, fx, pt2e or torchao (default: eager)")
    command.add_argument(
        "--qconfig",
        metavar="BACKEND|FILE",
        help="x86, fbgemm, qnnpack or onednn, or a .toml or .json file of rules",
    )
    command.add_argument(
        "--quantizer",
        metavar="NAME",
        help="of flow pt2e: x86, arm, xpu, embedding or xnnpack (default: x86)",
    )
    command.add_argument(
        "--stubs",
        choices=("none", "model", "layers"),
        default="none",
        help="wrap the model, or each layer, in stubs (default: %(default)s; eager only)",
    )
    command.add_argument(
        "--calibrate",
        type=_count,
        default=0,
        metavar="N",
        help="let the observers see N training batches first (default: %(default)s)",
    )
    command.add_argument("--loss", metavar=FUNCTION, help="default: cross entropy")
    command.add_argument("--metric", metavar=FUNCTION, help="default: top-1 accuracy")
    settings = command.add_argument_group("settings of the run", "as in qatexplorer.TrainingConfig")
    meanings = _meanings()
    for field in fields(TrainingConfig):
        _add_setting(settings, field, meanings[field.name])
    return command


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """Those fields of TrainingConfig that were given."""
    return given_settings(vars(args))


def option_of(name: str) -> str:
    """How the field ``name`` is spelled on the command line."""
    return "--" + name.replace("_", "-")


def _meanings() -> dict[str, str]:
    """What the docstring of TrainingConfig says of each field."""
    text = str(TrainingConfig.__doc__).partition("Attributes:")[2].partition("\n    Raises ")[0]
    found = re.findall(r"^ {8}(\w+): (.*?)(?=^ {8}\w|\Z)", text, re.MULTILINE | re.DOTALL)
    return {name: " ".join(meaning.split()).replace("``", "") for name, meaning in found}


def _add_setting(group: argparse._ArgumentGroup, field: Field[Any], meaning: str) -> None:
    kind = str(field.type)
    more: dict[str, Any] = {}
    if kind.startswith("Literal["):
        more["choices"] = re.findall(r"""['"]([^'"]+)['"]""", kind)
    else:
        more["type"], more["metavar"] = _reader(kind)
    default = "none" if field.default is None else field.default
    group.add_argument(
        option_of(field.name),
        dest=field.name,
        default=argparse.SUPPRESS,
        help=f"{meaning} (default: {default})".replace("%", "%%"),
        **more,
    )


def _reader(kind: str) -> tuple[Callable[[str], Any], str]:
    """What makes a value of a field of type ``kind`` of a text, and how help names the text."""
    first = kind.partition(" |")[0]
    readers: dict[str, tuple[Callable[[str], Any], str]] = {
        "int": (_number(int, "whole number"), "N"),
        "float": (_number(float, "number"), "X"),
        "str": (str, f"NAME|{FUNCTION}"),
        "tuple[str, ...]": (_paths, "PATH,PATH"),
    }
    read, metavar = readers[first]
    if not kind.endswith("| None"):
        return read, metavar
    return lambda text: None if text == "none" else read(text), metavar


def _number(kind: Callable[[str], Any], words: str) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a {words}") from None

    return read


def _paths(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of batches")
    return int(text)
