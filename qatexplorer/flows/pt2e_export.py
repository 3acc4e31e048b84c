"""The two times that the PT2E flow exports: the user's model, and the reference model to lower it.

torch.export writes down sizes as numbers unless it is asked not to. Both ask for batches of any
size, and where that cannot be had they say so.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from qatexplorer.data import as_args, cloned
from qatexplorer.flows.imported import imported
from qatexplorer.flows.pt2e_errors import (
    export_failed,
    lowered_does_not_run,
    lowering_failed,
)
from qatexplorer.forward.trace import TRACE_LOCK

_CACHE_NOTE = (
    "config.use_cache was False while torch.export ran: torch.export and convert_pt2e cannot take "
    "the keys and values that the model returns for the next token."
)


def export(model: nn.Module, inputs: Any) -> tuple[fx.GraphModule, tuple[str, ...]]:
    """``torch.export`` of ``model`` in the mode that it is in, for batches of any size where torch
    can; what to say of it. Raises TraceFailedError with the place in the user's model."""
    args, kwargs = _rows_of(inputs)
    shapes = torch.export.ShapesCollection()
    batched = batched_tensors((*args, *kwargs.values()))
    for tensor in batched:
        shapes[tensor] = {0: torch.export.Dim.AUTO}
    notes: list[str] = []

    def once() -> torch.export.ExportedProgram:
        dynamic = shapes.dynamic_shapes(model, args, kwargs)
        return torch.export.export(model, args, kwargs, dynamic_shapes=dynamic)

    try:
        try:
            program = once()
        except Exception as error:
            if not _returns_a_cache(error, model):
                raise
            notes.append(_CACHE_NOTE)
            with _without_cache(model):
                program = once()
    except Exception as error:
        raise export_failed(error, model) from error
    module = program.module()
    assert isinstance(module, fx.GraphModule)
    if batched and not program.range_constraints:
        notes.append(
            f"torch.export has fixed the batch at {len(batched[0])}: something in forward hangs on "
            "its size. Batches of another size do not run."
        )
    return module, tuple(notes)


def _rows_of(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments to export with. One row is given twice: torch.export takes a size of one for a
    number that never changes."""
    args, kwargs = as_args(cloned(inputs))
    single = {id(t) for t in batched_tensors((*args, *kwargs.values())) if len(t) == 1}

    def two(value: Any) -> Any:
        return torch.cat((value, value)) if id(value) in single else value

    return tuple(map(two, args)), {name: two(value) for name, value in kwargs.items()}


def batched_tensors(values: tuple[Any, ...]) -> list[Tensor]:
    """The tensors that have a batch: all with as many rows as the first one."""
    tensors = [v for v in values if isinstance(v, Tensor) and v.dim()]
    return [t for t in tensors if len(t) == len(tensors[0])]


def _returns_a_cache(error: Exception, model: nn.Module) -> bool:
    """Whether a model of transformers failed because of the keys and values that it returns."""
    kept = getattr(getattr(model, "config", None), "use_cache", False)
    return bool(kept) and "Cache" in str(error)


@contextmanager
def _without_cache(model: nn.Module) -> Iterator[None]:
    config: Any = model.config
    before, config.use_cache = config.use_cache, False
    try:
        yield
    finally:
        config.use_cache = before


def lower(
    reference: fx.GraphModule, inputs: Any, elsewhere: str = ""
) -> tuple[fx.GraphModule, tuple[str, ...]]:
    """``lower_pt2e_quantized_to_x86`` of ``reference``, to be called as that is; what to say of it,
    ``elsewhere`` first: what else lowers it, where that is meant.

    Raises StageError if torchao cannot lower it, or what it gives does not run.
    """
    api = imported("torchao.quantization.pt2e.lowering")
    args, kwargs = _rows_of(inputs)
    given = inspect.signature(reference.forward).bind(*args, **kwargs).args
    written: Any = reference.graph._codegen
    called_as = written.pytree_info.in_spec
    programs: list[torch.export.ExportedProgram] = []
    try:
        with torch.no_grad():
            try:
                with _any_batch(given, programs):
                    lowered = api.lower_pt2e_quantized_to_x86(reference, given)
            except Exception:  # as torchao does it
                programs.clear()
                lowered = api.lower_pt2e_quantized_to_x86(reference, given)
    except Exception as error:
        raise lowering_failed(error) from error
    _call_as(lowered, called_as)
    batched = batched_tensors(given)
    any_batch = not batched or any(program.range_constraints for program in programs)
    # It checks that its inputs are as large as the example inputs; of a graph that computes with
    # the sizes that come, that is not asked. Of another it must be: its kernels trust the sizes.
    lowered.validate_inputs = not any_batch
    with torch.no_grad():
        try:
            made = _views_made_runnable(lowered, args, kwargs)
        except Exception as error:
            raise lowered_does_not_run(error, elsewhere) from error
    notes = (*((elsewhere,) if elsewhere else ()), *made)
    if any_batch:
        return lowered, notes
    note = (
        f"Lowering has fixed the batch at {len(batched[0])}: something in the graph hangs on its "
        "size. Batches of another size do not run."
    )
    return lowered, (*notes, note)


def _views_made_runnable(
    lowered: fx.GraphModule, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[str, ...]:
    """OneDNN's convolutions give tensors that lie in memory channels last, and lowering leaves the
    ``view`` behind them, which then raises. Where the model does not run, ``reshape`` takes its
    place; what to say of it."""
    try:
        lowered(*cloned(args), **cloned(kwargs))
        return ()
    except RuntimeError as error:
        if "view size is not compatible" not in str(error):
            raise
    view, reshape = torch.ops.aten.view.default, torch.ops.aten.reshape.default
    nodes = [node for node in lowered.graph.nodes if node.target is view]
    for node in nodes:
        node.target = reshape
    lowered.recompile()
    note = (
        "lower_pt2e_quantized_to_x86 gave a model that does not run: aten.view behind a "
        f"convolution whose int8 result lies channels last. In this copy its {len(nodes)} aten.view"
        " are aten.reshape, which computes the same."
    )
    return (note,)


@contextmanager
def _any_batch(
    given: tuple[Any, ...], programs: list[torch.export.ExportedProgram]
) -> Iterator[None]:
    """Inside, torchao's lowering exports for batches of any size, into ``programs``; by itself it
    does for that of the example inputs."""
    batched = {id(t) for t in batched_tensors(given)}
    dims = {0: torch.export.Dim.AUTO}
    shapes = tuple(dims if id(value) in batched else None for value in given)
    thread, original = threading.get_ident(), torch.export.export

    def exported(*args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != thread:
            return original(*args, **kwargs)
        programs.append(original(*args, **{"dynamic_shapes": shapes, **kwargs}))
        return programs[-1]

    with TRACE_LOCK:
        torch.export.export = exported
        try:
            yield
        finally:
            torch.export.export = original


def _call_as(lowered: fx.GraphModule, called_as: Any) -> None:
    """Let ``lowered`` take its inputs by name where the exported model does: lowering exports once
    more, by position."""
    codegen: Any = lowered.graph._codegen
    info = codegen.pytree_info
    if info.in_spec != called_as:
        codegen.pytree_info = type(info)(info.orig_args, called_as, info.out_spec)
        lowered.recompile()
