"""FX's graph of the model, and the modules in whose forward tracing stops."""

from __future__ import annotations

import linecache
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import fx, nn

from qatexplorer.checks.evidence.float_run import kind_of
from qatexplorer.checks.subject import NoEvidence, Subject
from qatexplorer.errors import TraceFailedError
from qatexplorer.explain.blame import place_of, release_frames
from qatexplorer.flows.base import FlowOptions
from qatexplorer.flows.fx import PASSED_ON_THE_WAY
from qatexplorer.shown import first_line

_MOST = 8
"""Modules named; tracing is begun anew for each."""


@dataclass(frozen=True)
class Stop:
    """A module whose own forward FX cannot trace, the smallest such one.

    ``path`` is ``""`` for the model's own forward. ``error`` is torch's, ``line`` the code at
    ``source``; ``why`` and ``fix`` are what the trace stage would say.
    """

    path: str
    kind: str
    error: str
    source: str
    line: str
    why: str
    fix: str


@dataclass(frozen=True)
class Traced:
    """``stops``: where tracing stops, each found with those before left as one call.

    ``complete``: with all of them left so, the model is traced. ``kind`` is that of the graph's
    output where it is a list, tuple or dict written in forward, ``""`` for anything else.
    """

    stops: tuple[Stop, ...]
    complete: bool
    kind: str = ""


def traced(subject: Subject) -> Traced:
    """Trace the model with FX"""
    stage = subject.flow.stage_with("traced")
    if not subject.flow.by_graph or stage is None:
        raise NoEvidence("Eager mode traces nothing.")
    options, stops = subject.options, list[Stop]()
    while True:
        subject.stop_if_asked()
        try:
            model = subject.maker.rebuild(stage.name, options=options)
        except TraceFailedError as error:
            stop = _stop(error, subject.base)
            again = not stop.path or any(stop.path == one.path for one in stops)
            if not again or not stops:
                stops.append(stop)
            if again or len(stops) == _MOST:
                return Traced(tuple(stops), complete=False)
            options = _left_whole(options, stop.path)
            continue
        return Traced(tuple(stops), complete=True, kind="" if stops else _kind(model))


def _stop(error: TraceFailedError, base: nn.Module) -> Stop:
    cause = error.__cause__ or error
    file, _, number = place_of(cause, base).source.rpartition(":")
    if Path(file).name in PASSED_ON_THE_WAY:
        file = number = ""
    line = linecache.getline(file, int(number)).strip() if number.isdigit() else ""
    source = f"{Path(file).name}:{number}" if file else ""
    path = error.where or ""
    kind = type(dict(base.named_modules()).get(path, base)).__name__
    first = first_line(cause).partition(". ")[0]
    text = f"{type(cause).__name__}: {first}"
    release_frames(error)
    return Stop(path, kind, text, source, line, error.why or "", error.fix or "")


def _left_whole(options: FlowOptions, path: str) -> FlowOptions:
    custom = options.custom
    return replace(options, custom=replace(custom, non_traceable=(*custom.non_traceable, path)))


def _kind(model: nn.Module) -> str:
    if not isinstance(model, fx.GraphModule):
        return ""
    output = next(node for node in reversed(model.graph.nodes) if node.op == "output")
    given: Any = output.args[0]
    return "" if isinstance(given, fx.Node) else kind_of(given)
