"""Models that break the rules of settings: qconfigs, dtypes, bits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.quantization import (
    DeQuantStub,
    FakeQuantize,
    MovingAverageMinMaxObserver,
    QConfig,
    QConfigMapping,
    QuantStub,
    convert,
    default_weight_fake_quant,
    get_default_qat_qconfig,
    get_default_qat_qconfig_mapping,
    prepare_qat,
)
from torch.ao.quantization.quantize_fx import convert_fx, prepare_qat_fx

from tests.checks.examples import Made, example

QINT8 = QConfig(
    FakeQuantize.with_args(
        observer=MovingAverageMinMaxObserver,
        dtype=torch.qint8,
        quant_min=-128,
        quant_max=127,
        qscheme=torch.per_tensor_symmetric,
    ),
    default_weight_fake_quant,
)


def four_bits() -> QConfig:
    weight = FakeQuantize.with_args(
        observer=MovingAverageMinMaxObserver,
        quant_min=-8,
        quant_max=7,
        dtype=torch.qint8,
        qscheme=torch.per_tensor_symmetric,
    )
    return QConfig(get_default_qat_qconfig("onednn").activation, weight)


class Net(nn.Module):
    """A convolution and a linear layer named ``last``."""

    def __init__(self, last: str = "fc", own: QConfig | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.conv = nn.Conv2d(1, 2, 3)
        self.last = last
        self.add_module(last, nn.Linear(8, 4))
        if own is not None:
            self.qconfig = own

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dequant(getattr(self, self.last)(self.conv(self.quant(x)).flatten(1)))
        return y


def net(last: str = "fc", own: QConfig | None = None) -> Made:
    return Net(last, own).train(), torch.randn(4, 1, 4, 4)


def in_eager(model: nn.Module, inputs: Tensor) -> Any:
    if not hasattr(model, "qconfig"):
        model.qconfig = get_default_qat_qconfig("onednn")
    prepared = prepare_qat(model.train())
    prepared(inputs)
    return prepared


def in_fx(model: nn.Module, inputs: Tensor, mapping: QConfigMapping) -> Any:
    prepared = prepare_qat_fx(model.train(), mapping, (inputs,))
    prepared(inputs)
    return prepared


def eager_fails(model: nn.Module, inputs: Tensor) -> bool:
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "onednn"
    try:
        convert(in_eager(model, inputs).eval())(inputs)
    except RuntimeError:
        return True
    finally:
        torch.backends.quantized.engine = before
    return False


# -- QX301 -------------------------------------------------------------------------------------


def mapping_by_path() -> QConfigMapping:
    return (
        QConfigMapping()
        .set_global(get_default_qat_qconfig("onednn"))
        .set_module_name("head", None)
        .set_module_name_regex("hea.*", None)
    )


def nothing_stays_float(model: nn.Module, inputs: Tensor) -> bool:
    prepared = in_fx(model, inputs, mapping_by_path())
    return hasattr(getattr(prepared, str(model.last)), "weight_fake_quant")


for flow in ("eager", "fx"):
    example(
        "QX301",
        f"path-{flow}",
        net,
        lambda: net("head"),
        nothing_stays_float,
        settings={"qconfig": {"head": None}, "flow": flow},
    )
example(
    "QX301",
    "mapping-fx",
    net,
    lambda: net("head"),
    nothing_stays_float,
    settings={"qconfig": mapping_by_path(), "flow": "fx"},
)


class Lower(nn.Linear):
    """A layer of the user's own."""


def with_lower(used: bool) -> Made:
    model, inputs = net()
    if used:
        model.fc = Lower(8, 4)
    return model, inputs


def all_weights_faked(model: nn.Module, inputs: Tensor) -> bool:
    mapping = QConfigMapping().set_global(get_default_qat_qconfig("onednn"))
    prepared = in_fx(model, inputs, mapping.set_object_type(Lower, None))
    return hasattr(prepared.fc, "weight_fake_quant")


for flow in ("eager", "fx"):
    example(
        "QX301",
        f"type-{flow}",
        lambda: with_lower(False),
        lambda: with_lower(True),
        all_weights_faked,
        settings={"qconfig": {Lower: None}, "flow": flow},
    )

# -- QX302 -------------------------------------------------------------------------------------


def own_mapping(model: Any) -> QConfigMapping:
    mapping = get_default_qat_qconfig_mapping("onednn")
    return mapping.set_global(model.qconfig) if hasattr(model, "qconfig") else mapping


def fx_drops(model: nn.Module, inputs: Tensor) -> bool:
    own = own_mapping(model)
    int8 = convert_fx(in_fx(model, inputs, own).eval())
    return type(int8.conv) is nn.Conv2d


example(
    "QX302", "qint8-eager", lambda: net(own=QINT8), net, eager_fails, paths=("conv",),
    settings={"engine": "onednn"},
)  # fmt: skip
for engine in ("x86", "fbgemm", "qnnpack"):
    example(
        "QX302", f"qint8-eager-{engine}", lambda: net(own=QINT8), net, eager_fails,
        settings={"engine": engine},
    )  # fmt: skip
example(
    "QX302", "qint8-fx", lambda: net(own=QINT8), net, fx_drops, settings={"flow": "fx"},
    paths=("conv",),
)  # fmt: skip

# -- QX303 -------------------------------------------------------------------------------------


class Ending(nn.Module):
    """A layer, and an operation of fixed range at the end."""

    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(8, 8)
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.fc(x))
        return y


def stays_float(model: Any, inputs: Tensor) -> bool:
    mapping = QConfigMapping().set_global(get_default_qat_qconfig("onednn"))
    int8 = convert_fx(in_fx(model, inputs, mapping).eval())
    last = list(int8.graph.nodes)[-2]
    return bool(last.target != "dequantize")


for kind in (nn.Sigmoid, nn.Tanh, nn.Hardsigmoid):
    example(
        "QX303",
        kind.__name__,
        lambda kind=kind: (Ending(kind()).train(), torch.randn(4, 8)),
        lambda: (Ending(nn.ReLU()).train(), torch.randn(4, 8)),
        stays_float,
        settings={
            "flow": "fx",
            "qconfig": QConfigMapping().set_global(get_default_qat_qconfig("onednn")),
        },
        paths=("last",),
    )

# -- QX304 -------------------------------------------------------------------------------------


def uneven(qconfig: str) -> Made:
    """A linear layer with one channel a thousand times smaller than the others."""
    model, inputs = net(own=get_default_qat_qconfig(qconfig))
    with torch.no_grad():
        model.fc.weight[0] *= 0.001
    return model, inputs


def small_channel_is_lost(model: Any, inputs: Tensor) -> bool:
    int8 = convert(in_eager(model, inputs).eval())
    return not bool(int8.fc.weight().int_repr()[0].any())


for flow in ("eager", "fx"):
    example(
        "QX304",
        flow,
        lambda: uneven("qnnpack"),
        lambda: uneven("onednn"),
        small_channel_is_lost,
        settings={"flow": flow},
        paths=("",),
    )

# -- QX305 -------------------------------------------------------------------------------------


def a_byte_for_16_codes(model: Any, inputs: Tensor) -> bool:
    weight = convert(in_eager(model, inputs).eval()).fc.weight()
    return weight.element_size() == 1 and int(weight.int_repr().abs().max()) <= 8


for flow in ("eager", "fx"):
    example(
        "QX305", f"int4-{flow}", lambda: net(own=four_bits()), net, a_byte_for_16_codes,
        settings={"flow": flow}, paths=("conv",),
    )  # fmt: skip

# -- QX306 -------------------------------------------------------------------------------------


class Mixed(Net):
    """Computes under autocast."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return super().forward(x)


class NotMixed(Net):
    """Says that it does not."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=False):
            return super().forward(x)


def autocast_raises(model: nn.Module, inputs: Tensor) -> bool:
    try:
        in_eager(model, inputs)
    except RuntimeError as error:
        return "expected scalar type Float" in str(error)
    return False


example(
    "QX306", "forward", lambda: (Mixed().train(), torch.randn(4, 1, 4, 4)),
    lambda: (NotMixed().train(), torch.randn(4, 1, 4, 4)), autocast_raises, paths=("",),
)  # fmt: skip
example(
    "QX306", "version-0", lambda: (Mixed().train(), torch.randn(4, 1, 4, 4)),
    lambda: (
        Mixed(own=get_default_qat_qconfig("onednn", version=0)).train(),
        torch.randn(4, 1, 4, 4),
    ),
    autocast_raises,
)  # fmt: skip
