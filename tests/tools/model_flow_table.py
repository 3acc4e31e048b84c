"""Write ``docs/models-and-flows.md``: which model goes through which flow, and what stops it.

Run from the repository::

    python -m tests.tools.model_flow_table [--flows eager fx …] [--models name …] [--stage int8]

Each model is taken by a session to the stage with all fake quants in, run once in train mode, and
with ``--stage int8`` converted and run once more. What has a result already is left as it is,
unless ``--again``; ``--seconds`` ends the script after that time, to go on another day. Nothing in
the table is typed by hand.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

import qatexplorer as qx
from qatexplorer.data import call_model
from qatexplorer.errors import QatExplorerError
from qatexplorer.flows import FLOWS, get_flow
from tests.support.models import Case
from tests.support.models_pt2e import every_case, inputs_of

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "docs" / "models-and-flows.md"
RESULTS = Path(__file__).with_suffix(".json")
HEAD = """# Models and flows

Made by `python -m tests.tools.model_flow_table` with {versions}: {models} models with random
weights and small inputs, each in every flow. **int8**: the fake quants are in, a forward in train
mode runs, it is converted, and the converted model runs. **trains**: the first two of these; what
stops the rest is said below. **refused**: the flow takes the model to no training, and says why.
The number is that of the fake quants. Nothing here was configured for a model: a message often
names the setting with which it goes through.

| model | {flows} |
|---|{rules}|
"""
_MESSAGE = 320


class TooLongError(BaseException):
    """The time for one model is over; no ``except Exception`` on the way may hold it."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise TooLongError inside when the time is over; what runs in C goes on until it is done."""

    def over(*_: Any) -> None:
        raise TooLongError

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def tried(case: Case, flow: str, to_int8: bool, limit: float) -> dict[str, Any]:
    """One cell: how far ``case`` comes in ``flow``, and what stops it."""
    started = time.perf_counter()
    cell: dict[str, Any] = {"result": "refused", "fake_quants": 0, "message": "", "where": ""}
    try:
        with at_most(limit):
            model, x = case()
            _go(cell, model, inputs_of(x), flow, to_int8)
    except QatExplorerError as error:
        cell |= {"message": error.message, "where": error.where or ""}
        cell["fix"] = error.fix
    except pytest.skip.Exception as error:
        cell |= {"result": "not here", "message": str(error)}
    except TooLongError:
        cell["message"] = f"took longer than {limit:.0f} s"
    except Exception as error:
        cell["message"] = f"{type(error).__name__}: {error}"
        cell["untyped"] = True
    cell["message"] = _short(cell["message"])
    cell["seconds"] = round(time.perf_counter() - started, 1)
    return cell


def _go(cell: dict[str, Any], model: Any, inputs: Any, flow: str, to_int8: bool) -> None:
    session = qx.Session(model, inputs, flow=flow)
    prepared = get_flow(flow).prepared_stage
    session.goto(prepared)
    cell["fake_quants"] = len(session.snapshot.sites)
    ready = session.model
    with torch.no_grad():
        call_model(ready.train(), inputs)
    cell["result"] = "trains"
    if to_int8:
        session.goto(get_flow(flow).int8_stage)
        with torch.no_grad(), session._models.engine():
            call_model(session.int8, inputs)
        cell["result"] = "int8"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _MESSAGE else text[: _MESSAGE - 1] + "…"


def kept(path: Path = RESULTS) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"models": {}}


def write(results: dict[str, Any], path: Path = RESULTS, table_path: Path = TABLE) -> None:
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    table_path.write_text(table(results), encoding="utf-8")


def table(results: dict[str, Any]) -> str:
    models: dict[str, dict[str, Any]] = results["models"]
    known = {flow for cells in models.values() for flow in cells}
    flows = [flow for flow in (*FLOWS, *sorted(known - set(FLOWS))) if flow in known]
    head = HEAD.format(
        versions=results.get("versions", ""),
        models=len(models),
        flows=" | ".join(flows),
        rules="|".join("---" for _ in flows),
    )
    rows, messages = [], []
    for name, cells in models.items():
        rows.append(f"| {name} | {' | '.join(_cell(cells.get(flow)) for flow in flows)} |")
        messages += [_message(name, flow, cells[flow]) for flow in flows if _says(cells, flow)]
    counts = [
        f"| **int8 / trains / refused** | {' | '.join(_counts(models, flow) for flow in flows)} |"
    ]
    said = ["", "## What stops a model", "", "| model | flow | message |", "|---|---|---|"]
    return head + "\n".join([*rows, *counts, *said, *messages]) + "\n"


def _cell(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "–"
    number = f" {cell['fake_quants']}" if cell["fake_quants"] else ""
    return f"{cell['result']}{number}"


def _counts(models: dict[str, dict[str, Any]], flow: str) -> str:
    found = [cells[flow]["result"] for cells in models.values() if flow in cells]
    return " / ".join(str(found.count(kind)) for kind in ("int8", "trains", "refused"))


def _says(cells: dict[str, Any], flow: str) -> bool:
    return flow in cells and bool(cells[flow]["message"])


def _message(name: str, flow: str, cell: dict[str, Any]) -> str:
    where = f" (`{cell['where']}`)" if cell["where"] else ""
    text = cell["message"].replace("|", "\\|").replace("<", "&lt;")
    return f"| {name} | {flow} | {text}{where} |"


def versions() -> str:
    names = ("torch", "torchao", "timm", "transformers", "torchvision")
    found = []
    for name in names:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--flows", nargs="+", default=list(FLOWS))
    parser.add_argument("--models", nargs="+", default=[])
    parser.add_argument("--stage", choices=("insert", "int8"), default="insert")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for a model and flow")
    parser.add_argument("--seconds", type=float, default=1e9, help="end after these")
    parser.add_argument("--again", action="store_true", help="also what has a result")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", type=Path, default=TABLE)
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    results = kept(options.results)
    results["versions"] = versions()
    cases = every_case()
    end = time.monotonic() + options.seconds
    for case in cases:
        if options.models and case.name not in options.models:
            continue
        for flow in options.flows:
            cells = results["models"].setdefault(case.name, {})
            if time.monotonic() > end or (flow in cells and not options.again):
                continue
            cells[flow] = tried(case, flow, options.stage == "int8", options.limit)
            print(f"{cells[flow]['seconds']:6.1f} s  {case.name} {flow} {_cell(cells[flow])}")
            sys.stdout.flush()
            order = {one.name: n for n, one in enumerate(cases)}
            models = sorted(results["models"].items(), key=lambda item: order.get(item[0], -1))
            results["models"] = {name: value for name, value in models if value}
            write(results, options.results, options.table)


if __name__ == "__main__":
    main()
