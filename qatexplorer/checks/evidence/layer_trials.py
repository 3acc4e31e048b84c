"""What torch alone makes of one layer of a kind: prepared, run, converted and run again.

Each kind is tried once a process, on a tiny layer between stubs, with torch's own calls.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.quantization import DeQuantStub, QuantStub, get_default_qat_qconfig, prepare_qat
from torch.ao.quantization import convert as torch_convert
from torch.ao.quantization import get_default_qat_qconfig_mapping as torch_mapping
from torch.nn.utils import parametrize, prune, spectral_norm, weight_norm

from qatexplorer.forward.preserve import preserved_rng
from qatexplorer.quantizers.engine import available_engines, quantized_engine
from qatexplorer.shown import first_line

# Whose weights have one scale, which every kind of layer can have, and whose kernels are right.
_ENGINES = ("qnnpack", "fbgemm", "onednn", "x86")
_SIZES = {
    nn.Linear: ((3, 4), (2, 3)),
    nn.Conv1d: ((3, 4, 3), (2, 3, 8)),
    nn.Conv2d: ((3, 4, 3), (2, 3, 8, 8)),
    nn.Conv3d: ((3, 4, 3), (2, 3, 5, 5, 5)),
    nn.ConvTranspose1d: ((3, 4, 3), (2, 3, 8)),
    nn.ConvTranspose2d: ((3, 4, 3), (2, 3, 8, 8)),
    nn.ConvTranspose3d: ((3, 4, 3), (2, 3, 5, 5, 5)),
    nn.GRU: ((3, 4), (2, 5, 3)),
    nn.RNN: ((3, 4), (2, 5, 3)),
    nn.LSTM: ((3, 4), (2, 5, 3)),
    nn.GRUCell: ((3, 4), (2, 3)),
    nn.RNNCell: ((3, 4), (2, 3)),
    nn.LSTMCell: ((3, 4), (2, 3)),
}


@dataclass(frozen=True)
class Trial:
    """Where torch stops: ``call`` in its words, ``""`` if it does not; ``error`` is its text."""

    call: str = ""
    error: str = ""


class _First(nn.Module):
    """A layer that may return several tensors, between stubs."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.quant, self.layer, self.dequant = QuantStub(), layer, DeQuantStub()
        self.several = isinstance(layer, (nn.GRU, nn.RNN, nn.LSTM, nn.LSTMCell))

    def forward(self, x: Tensor) -> Tensor:
        result = self.layer(self.quant(x))
        out: Tensor = self.dequant(result[0] if self.several else result)
        return out


@cache
def try_layer(kind: type[nn.Module], computed: str, flow: str) -> Trial | None:
    """What comes of a layer of type ``kind`` in ``flow`` ("eager" or "fx"); None if it is none that
    can be tried. ``computed`` names the edit that would make a parameter of its weight, ``""`` for
    a plain one."""
    if kind not in _SIZES:
        return None
    arguments, shape = _SIZES[kind]
    with preserved_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        make: Callable[..., nn.Module] = kind
        model = _First(_COMPUTE[computed](make(*arguments))).train()
        with quantized_engine(next(e for e in _ENGINES if e in available_engines())):
            return _to_int8(model, torch.randn(shape), flow)


def _to_int8(model: nn.Module, x: Tensor, flow: str) -> Trial:
    calls: list[tuple[str, Callable[[Any], Any]]]
    if flow == "fx":
        from torch.ao.quantization import quantize_fx

        mapping = torch_mapping("qnnpack")
        calls = [
            ("prepare_qat_fx", lambda m: quantize_fx.prepare_qat_fx(m, mapping, (x,))),
            ("the first QAT forward", lambda m: (m(x), m)[1]),
            ("convert_fx", lambda m: quantize_fx.convert_fx(m.eval())),
        ]
    else:
        model.qconfig = get_default_qat_qconfig("qnnpack")
        calls = [
            # In place: a copy of a weight that is computed fails by itself.
            ("prepare_qat", lambda m: prepare_qat(m, inplace=True)),
            ("the first QAT forward", lambda m: (m(x), m)[1]),
            ("convert", lambda m: torch_convert(m.eval(), inplace=True)),
        ]
    calls.append(("the int8 model", lambda m: m(x)))
    for name, call in calls:
        try:
            model = call(model)
        except Exception as error:
            text = first_line(error)
            return Trial(name, f"{type(error).__name__}: {text.strip()}")
    return Trial()


class _Same(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight + 0


def _pruned(layer: nn.Module) -> nn.Module:
    prune.l1_unstructured(layer, "weight", 0.2)
    return layer


_COMPUTE: dict[str, Callable[[nn.Module], nn.Module]] = {
    "": lambda layer: layer,
    "remove_weight_norm": weight_norm,
    "remove_spectral_norm": spectral_norm,
    "remove_pruning": _pruned,
    "remove_parametrizations": lambda layer: parametrize.register_parametrization(
        layer, "weight", _Same()
    ),
}
