"""Functions that are copied into a script of the PT2E flow as they stand here, beside those of
:mod:`.parts`; they use torch and torchao only."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram

from qatexplorer.forward.either_mode import EitherMode


def exported_program(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> ExportedProgram:
    """``torch.export.export`` for batches of any size, where forward takes them."""
    # One row is given twice: torch.export takes a size of one for a number that never changes.
    single = {id(t) for t in batched((*args, *kwargs.values())) if len(t) == 1}

    def two(value: Any) -> Any:
        return torch.cat((value, value)) if id(value) in single else value

    args = tuple(two(value) for value in args)
    kwargs = {name: two(value) for name, value in kwargs.items()}
    shapes = torch.export.ShapesCollection()
    for tensor in batched((*args, *kwargs.values())):
        shapes[tensor] = {0: torch.export.Dim.AUTO}

    def once() -> ExportedProgram:
        dynamic = shapes.dynamic_shapes(model, args, kwargs)
        return torch.export.export(model, args, kwargs, dynamic_shapes=dynamic)

    config: Any = getattr(model, "config", None)
    try:
        return once()
    except Exception as error:
        # Of transformers: keys and values for the next token, which it cannot take.
        if not (getattr(config, "use_cache", False) and "Cache" in str(error)):
            raise
    config.use_cache = False
    try:
        return once()
    finally:
        config.use_cache = True


def batched(values: tuple[Any, ...]) -> list[torch.Tensor]:
    """The tensors that have a batch: all with as many rows as the first one."""
    tensors = [v for v in values if isinstance(v, torch.Tensor) and v.dim()]
    return [t for t in tensors if len(t) == len(tensors[0])]


def in_eval_mode(model: nn.Module) -> None:
    """By torchao's own switch, as its recipe has it before ``convert_pt2e``. It puts torch's own p,
    eps and momentum into the dropouts and batch norms that it replaces."""
    pt2e = importlib.import_module("torchao.quantization.pt2e")
    for module in model.modules():
        if isinstance(module, EitherMode):
            module.freeze_bn = False  # it looks for batch norms that train
    model.train()
    pt2e.move_exported_model_to_eval(model)
    for module in model.modules():
        module.__dict__["_mode" if isinstance(module, EitherMode) else "training"] = False


def views_made_runnable(lowered: fx.GraphModule, inputs: tuple[Any, ...]) -> int:
    """OneDNN's convolutions give tensors that lie in memory channels last, and lowering leaves the
    ``view`` behind them, which then raises. Where the model does not run, ``reshape`` takes its
    place; at how many places."""
    try:
        lowered(*inputs)
        return 0
    except RuntimeError as error:
        if "view size is not compatible" not in str(error):
            raise
    view, reshape = torch.ops.aten.view.default, torch.ops.aten.reshape.default
    nodes = [node for node in lowered.graph.nodes if node.target is view]
    for node in nodes:
        node.target = reshape
    lowered.recompile()
    return len(nodes)
