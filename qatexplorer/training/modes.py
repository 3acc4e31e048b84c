"""Modes of a model in training, and keeping its last good state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.ao.nn.intrinsic import qat as nniqat
from torch.nn import Module
from torch.nn.modules.batchnorm import _BatchNorm

from qatexplorer.forward.either_mode import EitherMode


def train_mode(model: Module, bn_frozen: bool) -> None:
    """``model.train()``; with ``bn_frozen`` the running statistics of batch norms stand still.

    torch's ``freeze_bn_stats`` knows the fused conv-bn modules only; a batch norm on its own is
    frozen by eval mode. In an exported model they are operations of the graph, whose flag is set.
    """
    for module in model.modules():
        if isinstance(module, EitherMode):
            module.freeze_bn = bn_frozen
    model.train()
    if bn_frozen:
        model.apply(nniqat.freeze_bn_stats)
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()


@contextmanager
def restored_modes(model: Module) -> Iterator[None]:
    """Training flags and ``freeze_bn`` of every module are put back at exit."""
    before = [(m, m.training, getattr(m, "freeze_bn", None)) for m in model.modules()]
    try:
        yield
    finally:
        for module, training, freeze_bn in before:
            module.training = training
            if freeze_bn is not None:
                module.freeze_bn = freeze_bn


def all_finite(tensors: list[Tensor]) -> bool:
    """True if no floating-point tensor holds NaN or Inf; one synchronisation for all of them."""
    floating = _floating(tensors)
    if not floating:
        return True
    # The 2-norm is 10 times as fast as the others; it overflows above 1e19, so only its yes counts.
    return bool(_finite_norms(floating, 2.0)) or bool(_finite_norms(floating, float("inf")))


def read_with_finite(value: Tensor, tensors: list[Tensor]) -> tuple[float, bool]:
    """``value`` (one element) as a number, and :func:`all_finite` of ``tensors``, in the one
    synchronisation that a device needs for both."""
    floating = _floating(tensors)
    if not floating:
        return float(value), True
    finite = _finite_norms(floating, 2.0)
    wide = _widest(finite.device)
    both = torch.stack([value.reshape(()).to(finite.device, wide), finite.to(wide)])
    number, yes = both.tolist()
    return number, bool(yes) or bool(_finite_norms(floating, float("inf")))


def _floating(tensors: list[Tensor]) -> list[Tensor]:
    return [t for t in tensors if t.is_floating_point() and t.numel()]


def _finite_norms(tensors: list[Tensor], order: float) -> Tensor:
    norms = torch._foreach_norm(tensors, ord=order)
    device = norms[0].device
    return torch.isfinite(torch.stack([n.to(device, _widest(device)) for n in norms])).all()


def _widest(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64  # which has no float64


class BufferBackup:
    """The buffers of a model before a step: one NaN batch spoils an observer for good.

    Storage is allocated once and filled by one fused copy, which is what makes a backup before
    every single step affordable.
    """

    def __init__(self, model: Module) -> None:
        self._owners = [
            (module, name)
            for module in model.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]
        self._saved: list[Tensor] = []
        self._shapes: list[torch.Size] = []
        self.save()

    def _tensors(self) -> list[Tensor]:
        return [module._buffers[name] for module, name in self._owners]  # type: ignore[misc]

    @torch.no_grad()
    def save(self) -> None:
        """Remember the buffers as they are now."""
        tensors = self._tensors()
        shapes = [tensor.shape for tensor in tensors]
        if shapes != self._shapes:
            # Observers grow their buffers at the first batch.
            self._saved = [tensor.detach().clone() for tensor in tensors]
            self._shapes = shapes
        elif tensors:
            torch._foreach_copy_(self._saved, tensors)

    @torch.no_grad()
    def restore(self) -> None:
        """Put the saved values back, in place."""
        for tensor, saved in zip(self._tensors(), self._saved, strict=True):
            if tensor.shape != saved.shape:
                tensor.resize_(saved.shape)
            tensor.copy_(saved)


class ModelBackup:
    """Parameters and buffers at the start of an epoch: one copy of the model's tensors."""

    def __init__(self, model: Module) -> None:
        self._parameters: list[Tensor] = list(model.parameters())
        self._saved = [p.detach().clone() for p in self._parameters]
        self._buffers = BufferBackup(model)

    @torch.no_grad()
    def save(self) -> None:
        """Remember the present values, unless a parameter is not finite."""
        if self._parameters and all_finite([p.detach() for p in self._parameters]):
            torch._foreach_copy_(self._saved, self._parameters)
            self._buffers.save()

    @torch.no_grad()
    def restore(self) -> None:
        """Put the saved values back, in place."""
        for parameter, saved in zip(self._parameters, self._saved, strict=True):
            parameter.copy_(saved)
        self._buffers.restore()
