"""Batch-norm statistics measured anew on the weights that training has left."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from qatexplorer.cures.base import Ground, Look, Work, counted, cure

BATCHES = 32
_TENSORS = ("running_mean", "running_var", "num_batches_tracked")


def reestimate_batch_norms(model: nn.Module, batches: Iterable[Any], run: Any) -> None:
    """The running statistics of batch norms become the plain mean over ``batches``.

    As torch.optim.swa_utils.update_bn does it, but for the statistics of before, which stay until
    the first batch replaces them: QAT modules scale their weight by them before they round it. So
    the range of such a weight is another afterwards, and is measured anew.
    """
    norms: list[Any] = [
        m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats
    ]
    before = [(norm.momentum, norm.training) for norm in norms]
    for norm in norms:
        norm.num_batches_tracked.zero_()  # so the first batch counts in full
        norm.momentum = None  # torch's word for a mean over all batches
        norm.training = True
    try:
        for inputs, _ in batches:
            run(model, inputs)
    finally:
        for norm, (momentum, training) in zip(norms, before, strict=True):
            norm.momentum, norm.training = momentum, training
    for layer in layers_with_norm(model):
        observe_weight(layer)


def layers_with_norm(model: nn.Module) -> list[nn.Module]:
    """Layers that round their weight with the scale of a batch norm in it, by a range that an
    observer has found; a learned step size is left as training left it."""
    layers: list[Any] = [m for m in model.modules() if hasattr(m, "weight_fake_quant")]
    fused = [m for m in layers if hasattr(m, "bn") and m.bn.track_running_stats]
    return [
        m
        for m in fused
        if hasattr(m.weight_fake_quant, "observer_enabled")
        and not hasattr(m.weight_fake_quant, "static_enabled")
        and hasattr(m.weight_fake_quant.activation_post_process, "reset_min_max_vals")
    ]


def observe_weight(layer: Any) -> None:
    """The observer of the layer's weight forgets what it has seen and sees what is there now."""
    scale = layer.bn.weight / torch.sqrt(layer.bn.running_var + layer.bn.eps)
    weight = layer.weight * scale.reshape(-1, *[1] * (layer.weight.dim() - 1))
    fake_quant = layer.weight_fake_quant
    before = fake_quant.observer_enabled.clone()
    fake_quant.activation_post_process.reset_min_max_vals()
    fake_quant.enable_observer()
    fake_quant(weight)
    fake_quant.observer_enabled.copy_(before)


def _why_not(ground: Ground) -> str:
    why = ground.why_no_work()
    if why or ground.work is None:
        return why
    return "" if _written(ground.work) else "The prepared model has no batch norm with statistics."


def _written(model: nn.Module) -> tuple[str, ...]:
    norms = [
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
        for name in _TENSORS
    ]
    if not norms:
        return ()
    ranged = {id(layer) for layer in layers_with_norm(model)}
    layers = [path for path, module in model.named_modules() if id(module) in ranged]
    begins = tuple(f"{path}.weight_fake_quant." for path in layers)
    return (*norms, *(name for name in model.state_dict() if name.startswith(begins)))


def _look(ground: Ground) -> Look:
    assert ground.work is not None
    norms = sum(name.endswith("running_mean") for name in _written(ground.work))
    does = f"Measures the statistics of {counted(norms, 'batch norm')} anew on training batches"
    ranged = len(layers_with_norm(ground.work))
    if ranged:
        does += f", and then the ranges of {counted(ranged, 'weight')} that they scale"
    return Look(f"{does}.", batches=BATCHES)


@cure(
    "batch_norms",
    "Measure batch norms anew",
    "AIMET, bn_reestimation; torch.optim.swa_utils.update_bn",
    "fake_quant",
    _why_not,
    _look,
)
def batch_norms(ground: Ground, batches: int = BATCHES) -> Work:
    """Plan it, with ``batches`` training batches."""
    assert ground.work is not None
    return Work(reestimate_batch_norms, _written(ground.work), batches)
