"""What torch's own calls do to a model, without qatexplorer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao import quantization as tq
from torch.ao.quantization import quantize_fx
from torch.utils._pytree import tree_leaves

ENGINE = "qnnpack"
"""There is no CPU on which it saturates, and its weights have one scale."""


@contextmanager
def engine() -> Iterator[None]:
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = ENGINE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.quantized.engine = before


def call(model: Any, inputs: Any) -> Any:
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def prepared(
    model: Any, inputs: Any, flow: str = "eager", wrap: bool = False, times: int = 10
) -> nn.Module:
    """Prepared by torch and shown its inputs ``times``; ``wrap`` puts it into a QuantWrapper."""
    torch.manual_seed(0)
    if flow == "fx":
        mapping = tq.get_default_qat_qconfig_mapping(ENGINE)
        given = tuple(inputs.values()) if isinstance(inputs, dict) else inputs
        given = given if isinstance(given, tuple) else (given,)
        model = quantize_fx.prepare_qat_fx(model, mapping, given)
    else:
        model = tq.QuantWrapper(model).train() if wrap else model
        model.qconfig = tq.get_default_qat_qconfig(ENGINE)
        tq.prepare_qat(model, inplace=True)
    with torch.no_grad():
        for _ in range(times):
            call(model, inputs)
    return model.eval()


def error_of(model: Any, inputs: Any, flow: str = "eager", wrap: bool = False) -> str:
    """What stops it on the way to int8, ``""`` if its int8 model runs."""
    with engine():
        try:
            model = prepared(model, inputs, flow, wrap)
            convert: Any = quantize_fx.convert_fx if flow == "fx" else tq.convert
            with torch.no_grad():
                call(convert(model), inputs)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return ""


def fails(
    text: str, flow: str = "eager", *, wrap: bool = False
) -> Callable[[nn.Module, Any], bool]:
    """Whether int8 stops, and then with ``text`` in torch's error."""

    def misbehaves(model: nn.Module, inputs: Any) -> bool:
        error = error_of(model, inputs, flow, wrap)
        assert not error or text in error, error
        return bool(error)

    return misbehaves


def int8_is_off(model: nn.Module, inputs: Any) -> bool:
    """Whether int8 (eager) is off the fake-quant model by a tenth of its output's range."""
    with engine(), torch.no_grad():
        model = prepared(model, inputs)
        model.apply(tq.disable_observer)
        wanted = tensors(call(model, inputs))
        found = tensors(call(tq.convert(model), inputs))
    return any(
        float((a - b).abs().max()) > 0.1 * float(a.max() - a.min())
        for a, b in zip(wanted, found, strict=True)
    )


def loses_codes(path: str) -> Callable[[nn.Module, Any], bool]:
    """Whether one of the tensors that the fake quant of ``path`` rounds gets less than a sixth of
    its 256 codes."""

    def misbehaves(model: nn.Module, inputs: Any) -> bool:
        spans: list[float] = []
        with engine(), torch.no_grad():
            model = prepared(model, inputs, times=300)  # a moving average needs that
            model.apply(tq.disable_observer)
            quant: Any = model.get_submodule(f"{path}.activation_post_process")
            quant.register_forward_pre_hook(
                lambda m, a: spans.append(float(a[0].max().clamp(0) - a[0].min().clamp(max=0)))
            )
            call(model, inputs)
        return min(spans) / float(quant.scale) < 256 / 6

    return misbehaves


def tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
