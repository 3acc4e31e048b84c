"""Run the converted model, and say in the user's terms what stands in its way."""

from __future__ import annotations

import linecache
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch.fx import GraphModule, Node
from torch.nn import Module
from torch.overrides import TorchFunctionMode, resolve_name

from qatexplorer.data import call_model, cloned
from qatexplorer.errors import ConvertError, Int8RunError
from qatexplorer.evaluate.metric import evaluation_mode
from qatexplorer.explain.blame import Place, place_of, release_frames
from qatexplorer.explain.translations import translate
from qatexplorer.forward.graph_module import source_of
from qatexplorer.quantizers.engine import quantized_engine

_NAMED = re.compile(r"Could not run '([^']+)'")
_ASSIGNED = re.compile(r"\s*(\w+)\s*=")
_TORCH_PASSES = "torch/ao/quantization"
_NODES = ("ref_node", "func_node", "node", "n")
"""Names by which torch's passes hold the node in hand, the nearest first."""


class _CallInFlight(TorchFunctionMode):
    """Remembers the torch call that raised: many of torch's errors do not name it."""

    def __init__(self) -> None:
        super().__init__()
        self.failed = ""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        try:
            return func(*args, **(kwargs or {}))
        except Exception:
            if not self.failed:
                self.failed = resolve_name(func) or getattr(func, "__name__", str(func))
            raise


def run_int8(model: Module, inputs: Any, engine: str | None = None) -> Any:
    """Output of the converted ``model`` for ``inputs``, in eval mode and without gradients.

    Args:
        inputs: a tensor, a tuple of positional or a dict of keyword arguments.
        engine: quantized engine to run with; None is the present one.

    Raises UnknownEngineError, and Int8RunError with ``op`` (the operation), ``where`` (the module
    whose forward calls it), ``source`` (the line outside torch), ``why`` and ``fix``.
    """
    calls = _CallInFlight()
    with quantized_engine(engine), evaluation_mode(model):
        try:
            with calls:
                return call_model(model, cloned(inputs))
        except Exception as error:
            failed = int8_error(error, model, calls.failed)
            release_frames(error)
            raise failed from error


def int8_error(error: Exception, model: Module, call: str = "") -> Int8RunError:
    """The typed error for what the int8 ``model`` raised; ``call`` is the torch call if known."""
    place = in_graph(error, model) or place_of(error, model)
    named = _NAMED.search(str(error))
    op = named.group(1) if named else call or place.function
    translation = translate(error, place, in_fx=isinstance(model, GraphModule))
    return Int8RunError(
        f"The int8 model cannot run: {op} failed{_at(place)}.",
        where=place.path,
        why=translation.why,
        fix=translation.fix,
        op=op,
        source=place.source,
    )


def convert_error(error: Exception, model: Module) -> ConvertError:
    """The typed error for what torch's ``convert`` (or ``prepare``) raised on ``model``.

    ``where`` is the module in hand: the innermost one that a frame of torch's walk holds.
    """
    node = in_graph(error, model)
    place = node or place_in_walk(error, model)
    translation = translate(error, place, in_fx=isinstance(model, GraphModule))
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    line = _at(node) if node is not None else ""  # else the line is that of torch's caller
    message = f"torch's convert failed{line}: {type(error).__name__}: {first[:200]}"
    found = ConvertError(message, where=place.path, why=translation.why, fix=translation.fix)
    found.source = node.source if node is not None else ""
    return found


def in_graph(error: Exception, model: Module) -> Place | None:
    """The place of the node that an FX graph's own code, or torch's walk over the graph, was at.

    A graph's code is not the user's, but each of its nodes knows the line that made it. None where
    the error comes from no node that does.
    """
    if not isinstance(model, GraphModule):
        return None
    by_name = {node.name: node for node in model.graph.nodes}
    modules = dict(model.named_modules(remove_duplicate=False))
    step, node, whole = error.__traceback__, None, by_name
    while step is not None:
        frame = step.tb_frame
        if frame.f_code.co_filename.startswith("<eval_with_key>"):
            line = linecache.getline(frame.f_code.co_filename, step.tb_lineno)
            name = _ASSIGNED.match(line)
            node = whole.get(name.group(1)) if name else None
        elif _TORCH_PASSES in frame.f_code.co_filename.replace("\\", "/"):
            lowered = frame.f_locals.get("quantized")
            if isinstance(lowered, GraphModule):  # it packs weights by a graph of their own
                whole = {one.name: one for one in lowered.graph.nodes}
            held = (frame.f_locals.get(name) for name in _NODES)
            node = next((one for one in held if isinstance(one, Node)), node)
        step = step.tb_next
    while node is not None and not source_of(by_name.get(node.name, node)) and len(node.users) == 1:
        node = next(iter(node.users))  # a weight's: the operation that takes it is the user's
    if node is None:
        return None
    known = by_name.get(node.name, node)
    path = str(known.target) if known.op == "call_module" else _scope(known)
    source = source_of(known)
    if not source and not path:
        return None
    kind = type(modules[path]).__name__ if path in modules else ""
    function = str(getattr(known.target, "__name__", known.target))
    return Place(path, source, kind, function)


def _scope(node: Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    return str(next((path for path, _ in reversed(stack.values())), ""))


def place_in_walk(error: Exception, model: Module) -> Place:
    """The module in hand when torch's ``convert`` or ``prepare`` raised, else where it ran.

    Converting works on a copy, so identity says nothing: the names of the walk are followed.

    ``torch.ao.quantization.quantize._convert`` loops over ``named_children`` with the variables
    ``name`` and ``mod`` in each level of its recursion.
    """
    path: list[str] = []
    type_name = ""
    step = error.__traceback__
    while step is not None:
        frame = step.tb_frame
        if frame.f_code.co_name in ("_convert", "convert", "_add_observer_"):
            child = frame.f_locals.get("mod", frame.f_locals.get("child"))
            name = frame.f_locals.get("name")
            if isinstance(child, Module) and isinstance(name, str):
                path.append(name)
                type_name = type(child).__name__
        step = step.tb_next
    if path and ".".join(path) in dict(model.named_modules(remove_duplicate=False)):
        return Place(".".join(path), "", type_name)
    return place_of(error, model)


def _at(place: Place) -> str:
    if not place.source:
        return ""
    file, _, line = place.source.rpartition(":")
    return f" at {Path(file).name}:{line}"
