"""Why a step failed, in words of the user's model."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.nn import Module
from torch.nn.modules.batchnorm import _BatchNorm

from qatexplorer.data import call_model
from qatexplorer.errors import DivergedError, QatExplorerError, TrainingError
from qatexplorer.explain.blame import place_of
from qatexplorer.explain.translations import translate
from qatexplorer.forward.exported import is_exported, stack_of
from qatexplorer.forward.hooks import hooked
from qatexplorer.forward.scripted import named_python_modules
from qatexplorer.forward.visit import Visit, visited
from qatexplorer.quantizers.facts import is_quantizer
from qatexplorer.shown import error_line

LOWER_LR = "Use a lower lr, or limit the gradients' norm (clip_grad_norm=1.0)."


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors in a nest of tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return [tensor for item in value for tensor in tensors_in(item)]
    return []


def finite(value: Any) -> bool:
    """True if no floating-point tensor in ``value`` holds NaN or Inf."""
    return all(
        bool(torch.isfinite(t.detach()).all())
        for t in tensors_in(value)
        if t.is_floating_point() or t.is_complex()
    )


def first_nonfinite(model: Module, inputs: Any) -> tuple[str, Module] | None:
    """The first module, in order of execution, whose output holds NaN or Inf, with its path.

    Runs one forward without gradients; the caller puts buffers back. Fake quants, and the batch
    norm inside a fused conv-bn, are passed over: theirs is a value of the module that they belong
    to, which reports next.
    """
    if is_exported(model):
        return _first_operation(model, inputs)
    found: list[tuple[str, Module]] = []
    inner = {id(c) for m in model.modules() if _fused(m) for c in m.children()}
    looked_at = [
        (path, module)
        for path, module in named_python_modules(model)
        if id(module) not in inner and not is_quantizer(module)
    ]

    def left(path: str, module: Module, _args: Any, _kwargs: Any, output: Any) -> None:
        if not found and not finite(output):
            found.append((path, module))

    try:
        with torch.no_grad(), hooked(looked_at, left=left):
            call_model(model, inputs)
    except Exception as error:
        # Some kernels refuse a NaN scale or zero point before any output could be looked at.
        path_or_none = place_of(error, model).path
        if not found and path_or_none is not None:
            found.append((path_or_none, model.get_submodule(path_or_none)))
    return found[0] if found else None


def _first_operation(model: Module, inputs: Any) -> tuple[str, Module] | None:
    """The same for an exported model, whose operations know whose work they are. Of a division by
    the scale of a batch norm the module is one that has that scale (:func:`zero_gamma`)."""
    modules = dict(model.named_modules(remove_duplicate=False))
    found: list[tuple[str, Module]] = []

    def visit(seen: Visit) -> None:
        node = seen.node
        if found or node is None or node.op != "call_function" or finite(seen.result):
            return
        # What torchao has put behind a convolution is work of the convolution.
        stack = next(filter(None, map(stack_of, (node, *node.all_input_nodes))), ())
        by: Any = node.args[1] if "aten.div." in str(node.target) else None
        scale = seen.values.get(by)
        zero = isinstance(scale, Tensor) and bool((scale == 0).any())
        path = stack[-1][0] if stack else ""
        found.append((path, ZeroScale() if zero else modules.get(path, Module())))

    with torch.no_grad(), suppress(Exception), visited(model, visit):
        call_model(model, inputs)
    return found[0] if found else None


class ZeroScale(Module):
    """Stands for a division by a batch norm's scale that is zero, in an exported graph."""


def _fused(module: Module) -> bool:
    return type(module).__module__.startswith("torch.ao.nn.intrinsic.qat")


def zero_gamma(module: Module) -> bool:
    """True if a batch norm in ``module`` has a gamma (its ``weight``) of exactly zero."""
    return any(
        isinstance(m, _BatchNorm) and m.weight is not None and bool((m.weight == 0).any())
        for m in module.modules()
    )


def diverged(
    *, what: str, epoch: int, batch: int, batch_finite: bool, guilty: tuple[str, Module] | None
) -> DivergedError:
    """The error for a loss or gradient (``what``) that is not finite."""
    message = f"Training diverged: {what} in epoch {epoch}, batch {batch}."
    where = guilty[0] if guilty else None
    if not batch_finite:
        return DivergedError(
            message,
            where=where,
            why="The batch itself holds NaN or infinite values. One such batch would have spoiled "
            "the observers for good; they were put back to before it.",
            fix="Look for missing values or a division by zero in the data or its transforms.",
        )
    if guilty and isinstance(guilty[1], ZeroScale):
        return DivergedError(
            message,
            where=where,
            why="A batch norm behind this convolution has a gamma (weight) of exactly zero, and "
            "prepare_qat_pt2e divides by gamma: 0/0 is NaN. Residual networks are often "
            "initialized so (zero_init_last, zero_init_residual).",
            fix="Train the float model first, or build it with zero_init_last=False.",
        )
    if guilty and zero_gamma(guilty[1]):
        return DivergedError(
            message,
            where=where,
            why="A batch norm here has a gamma (weight) of exactly zero, and torch's fused conv-bn "
            "for QAT divides by gamma: 0/0 is NaN. Residual networks are often initialized so "
            "(zero_init_last, zero_init_residual).",
            fix="Train the float model first, build it with zero_init_last=False, or set "
            "module._enable_slow_path_for_better_numerical_stability = True on the fused modules.",
        )
    if guilty:
        why = "The batch is finite; this is the first module that makes NaN or Inf of it."
        return DivergedError(message, where=where, why=why, fix=LOWER_LR)
    return DivergedError(
        message,
        why="All modules give finite outputs, so it happens in the loss or in its gradient.",
        fix="Check the loss for log(0), a division by zero or overflow; or use a lower lr.",
    )


def shapes(value: Any) -> str:
    """Shapes and dtypes of the tensors in ``value``, for a message."""
    found = tensors_in(value)
    if not found and isinstance(getattr(value, "logits", None), Tensor):
        found = [value.logits]
    text = ", ".join(f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for t in found)
    return text or type(value).__name__


def spoiled_range(error: Exception) -> bool:
    """True if torch refuses to fake-quantize because a range is NaN or has overflowed."""
    return translate(error).rule == "nan-range"


def out_of_memory(error: BaseException) -> bool:
    """True for every way in which torch and Python say that memory is used up."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in text or "not enough memory" in text
    )


def failure(
    error: Exception, model: Module, *, phase: str, epoch: int, batch: int, detail: str = ""
) -> TrainingError:
    """The typed error for ``error``, raised in ``phase`` of batch ``batch`` of ``epoch``."""
    if isinstance(error, TrainingError):
        return error
    place = place_of(error, model)
    at = f"epoch {epoch}, batch {batch}"
    text = error_line(error)
    if out_of_memory(error):
        return TrainingError(
            f"Out of memory in the {phase} of {at}.",
            where=place.path,
            why=text,
            fix="Use a smaller batch. A fake quant keeps one more copy of each activation.",
        )
    if phase == "data":
        ours = error.fix if isinstance(error, QatExplorerError) else ""
        return TrainingError(
            f"The data could not give batch {batch} of epoch {epoch}.",
            why=text + (f" (at {place.source})" if place.source else ""),
            fix=ours or "Iterate over your data alone to see it; the model is kept as it was.",
        )
    if phase == "loss":
        return TrainingError(
            f"The loss cannot be computed in {at}.",
            why=f"{text} ({detail})",
            fix="Make the target fit the model's output, or pass loss=function(output, target).",
        )
    if isinstance(error, QatExplorerError):
        return TrainingError(
            f"The {phase} of {at} failed: {error.message}",
            where=error.where if error.where is not None else place.path,
            why=error.why,
            fix=error.fix,
        )
    known = translate(error, place, in_fx=isinstance(model, GraphModule))
    return TrainingError(
        f"The {phase} of {at} failed: {text}",
        where=place.path,
        why=known.why + (f" (at {place.source})" if place.source else ""),
        fix=known.fix,
    )
