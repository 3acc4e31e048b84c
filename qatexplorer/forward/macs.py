"""Multiply-accumulates, counted while they happen, from the shapes that really occur.

The formulas are those of ``torch.utils.flop_counter`` (``flop_registry``), which count an addition
and a multiplication each: a MAC is half of that. So a convolution takes
``out.numel() · in_channels / groups · prod(kernel)``, a linear layer ``out.numel() ·
in_features``, a matrix product ``n · m · k``. Two operations that the CPU runs in one piece and
that torch's table lacks are added: attention (``2 · batch · heads · q · k · dim``) and a layer of
an LSTM (``steps · batch · weights``).
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

_MORE = ("_scaled_dot_product_flash_attention_for_cpu", "mkldnn_rnn_layer")


class MacCounter(TorchDispatchMode):
    """``total`` grows by the multiply-accumulates of every operation inside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        packet = getattr(func, "_overloadpacket", None)
        formula = flop_registry.get(packet)
        if formula is not None:
            self.total += int(formula(*args, **kwargs, out_val=out)) // 2
        elif getattr(packet, "__name__", "") in _MORE:
            self.total += _more(str(getattr(packet, "__name__", "")), args)
        return out


def _more(name: str, args: tuple[Any, ...]) -> int:
    tensors = [a for a in args if isinstance(a, torch.Tensor)]
    if name == _MORE[0]:
        query, key, value = tensors[:3]
        pairs = query.shape[0] * query.shape[1] * query.shape[2] * key.shape[2]
        return int(pairs * (query.shape[3] + value.shape[3]))
    steps = tensors[0].shape[0] * tensors[0].shape[1]
    return int(steps * sum(weight.numel() for weight in tensors[1:3]))
