"""Batch-norm statistics measured anew on the weights that training has left."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from qatexplorer.cures.base import Ground, Work, cure

BATCHES = 32
_TENSORS = ("running_mean", "running_var", "num_batches_tracked")


def reestimate_batch_norms(model: nn.Module, batches: Iterable[Any], run: Any) -> None:
    """The running statistics of batch norms become the plain mean over ``batches``.

    As torch.optim.swa_utils.update_bn does it, but for the statistics of before, which stay until
    the first batch replaces them: QAT modules scale their weight by them before they round it.
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


def _why_not(ground: Ground) -> str:
    why = ground.why_no_work()
    if why or ground.work is None:
        return why
    return "" if _written(ground.work) else "The prepared model has no batch norm with statistics."


def _written(model: nn.Module) -> tuple[str, ...]:
    return tuple(
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
        for name in _TENSORS
    )


@cure(
    "batch_norms",
    "Measure batch norms anew",
    "AIMET, bn_reestimation; torch.optim.swa_utils.update_bn",
    _why_not,
)
def batch_norms(ground: Ground, batches: int = BATCHES) -> Work:
    """Plan it, with ``batches`` training batches."""
    assert ground.work is not None
    return Work(reestimate_batch_norms, _written(ground.work), batches)
