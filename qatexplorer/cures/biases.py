"""Bias correction: the mean error that rounding a weight makes, taken off the bias.

Section 4.2 of arXiv 1906.04721: with a weight ``W`` rounded to ``W + d``, the mean of the output of
a channel is off by ``E[d x]``, which is measured on batches. torch's own
``torch.ao.quantization._correct_bias.bias_correction`` measures the same, for layers that are fused
with nothing and batches of one size; it says nothing of layers with a batch norm or ReLU inside.
The two agree where both can be used (the tests hold this).

It is for weights that were not trained with fake quants: those that were have a bias that has seen
the error. What a batch norm after it has made up for must not be taken off once more either.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from qatexplorer.cures.base import Ground, Look, Work, counted, cure
from qatexplorer.cures.batch_norms import reestimate_batch_norms

BATCHES = 8


def correct_biases(model: nn.Module, batches: Iterable[Any], run: Any) -> None:
    """Take the mean error of each rounded weight off its layer's bias, in the order of the layers:
    each one sees what those before it give by then."""
    for module in layers_with_bias(model):
        sums: list[Tensor] = []
        counts: list[int] = []

        def measure(
            layer: Any,
            args: tuple[Tensor, ...],
            sums: list[Tensor] = sums,
            counts: list[int] = counts,
        ) -> None:
            error = rounding_error(layer, args[0])
            sums.append(error.double().sum(dim=1))
            counts.append(error.shape[1])

        handle = module.register_forward_pre_hook(measure)
        try:
            for inputs, _ in batches:
                run(model, inputs)
        finally:
            handle.remove()
        if counts:
            bias = bias_of(module)
            bias.data -= (torch.stack(sums).sum(dim=0) / sum(counts)).to(bias.dtype)


def rounding_error(layer: Any, x: Tensor) -> Tensor:
    """What rounding the weight adds to the output before a ReLU: (channels, all other values)."""
    norm = getattr(layer, "bn", None)
    weight = layer.weight
    if norm is not None:  # its scale is a part of the weight that is rounded
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        weight = weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
    change = layer.weight_fake_quant(weight) - weight
    if isinstance(layer, nn.Linear):
        return nn.functional.linear(x, change).flatten(0, -2).t()
    forwards = (
        (nn.Conv1d, nn.Conv1d._conv_forward),
        (nn.Conv2d, nn.Conv2d._conv_forward),
        (nn.Conv3d, nn.Conv3d._conv_forward),
    )
    convolve = next(forward for kind, forward in forwards if isinstance(layer, kind))
    error: Tensor = convolve(layer, x, change, None)
    return error.transpose(0, 1).flatten(1)


def bias_of(layer: Any) -> Any:
    """The parameter that is added last, that of the batch norm inside if there is one."""
    return layer.bn.bias if hasattr(layer, "bn") else layer.bias


def layers_with_bias(model: nn.Module) -> list[nn.Module]:
    """Linear and conv layers with a fake-quantized weight and a bias."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    found = [m for m in model.modules() if isinstance(m, kinds) and hasattr(m, "weight_fake_quant")]
    return [m for m in found if bias_of(m) is not None]


def _why_not(ground: Ground) -> str:
    why = ground.why_no_work()
    if why or ground.work is None:
        return why
    if ground.trained:
        return "The model has been trained, and its biases have learned to live with rounding."
    if correct_biases in ground.worked:
        return "The biases have been corrected; a second time would take the same error off again."
    if reestimate_batch_norms in ground.worked:
        return "The batch norms were measured with the errors in, which they have made up for."
    if not layers_with_bias(ground.work):
        return "No layer of the prepared model has a fake-quantized weight and a bias."
    return ""


def _look(ground: Ground) -> Look:
    assert ground.work is not None
    layers = len(layers_with_bias(ground.work))
    does = (
        f"Takes the mean error that rounding the weight adds to the output off the bias of "
        f"{counted(layers, 'layer')}{', one after the other' if layers > 1 else ''}."
    )
    return Look(does, batches=BATCHES, passes=layers)


@cure("biases", "Correct biases", "arXiv 1906.04721, section 4.2", "fake_quant", _why_not, _look)
def biases(ground: Ground, batches: int = BATCHES) -> Work:
    """Plan it, with ``batches`` training batches, which are gone through once for each layer."""
    assert ground.work is not None
    layers = layers_with_bias(ground.work)
    written = {id(bias_of(layer)) for layer in layers}
    named = ground.work.named_parameters(remove_duplicate=False)
    tensors = tuple(name for name, parameter in named if id(parameter) in written)
    return Work(correct_biases, tensors, batches, passes=len(layers))
