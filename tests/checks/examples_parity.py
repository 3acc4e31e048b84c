"""Models that compute something else once they are prepared or in int8: QX501 to QX508."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.ao.quantization import (
    convert,
    disable_fake_quant,
    disable_observer,
    enable_fake_quant,
    get_default_qat_qconfig,
    prepare_qat,
)

import qatexplorer as qx
from qatexplorer.quantizers.engine import quantized_engine
from tests.checks.examples import example
from tests.checks.parity_models import (
    Activated,
    Behind,
    Doubled,
    Dropping,
    OnePath,
    Small,
    TokenMixer,
    Twice,
    TwoConvs,
    TwoNorms,
    Unfolded,
    Upsampling,
    converted_apart,
    fused_apart,
    image,
    prepared_apart,
    rows,
    tokens,
)


def made(kind: type[nn.Module], *arguments: Any) -> Any:
    def make() -> Any:
        torch.manual_seed(0)
        return kind(*arguments).train(), image()

    return make


# -- QX501 -----------------------------------------------------------------------------------------

for name, kind, group in (
    ("relu_twice", TwoConvs, ["conv1", "relu"]),
    ("conv_with_one_norm", OnePath, ["conv", "bn"]),
):
    example(
        "QX501",
        f"{name}_eager",
        made(kind, True),
        made(kind, False),
        lambda model, x, group=group: fused_apart(model, x, group) > 1e-3,
        settings={"fusion": [group], "qconfig": "x86"},
    )
for name, kind in (
    ("conv_with_one_norm", OnePath),
    ("conv_with_two_norms", TwoNorms),
    ("dropout_as_a_function", Dropping),
):
    example(
        "QX501",
        f"{name}_fx",
        made(kind, True),
        made(kind, False),
        lambda model, x: prepared_apart(model, x) > 1e-3,
        settings={"flow": "fx", "qconfig": "x86"},
    )

# -- QX502 -----------------------------------------------------------------------------------------

for flow in ("eager", "fx"):
    example(
        "QX502",
        f"transposed_{flow}",
        made(Upsampling, True),
        made(Upsampling, False),
        lambda model, x, flow=flow: (
            converted_apart(model, x, flow, qconfig="qnnpack", engine="onednn") > 0.2
        ),
        settings={"flow": flow, "qconfig": "qnnpack", "engine": "onednn"},
        paths=("up",),
    )

example(
    "QX502",
    "relu6_behind_a_convolution_on_qnnpack",
    made(Behind, nn.ReLU6()),
    made(Behind, nn.ReLU()),
    lambda model, x: converted_apart(model, x, "eager", qconfig="qnnpack", engine="qnnpack") > 0.1,
    settings={"flow": "eager", "qconfig": "qnnpack", "fusion": []},
    paths=("act",),
)

# -- QX503 -----------------------------------------------------------------------------------------

for flow in ("eager", "fx"):
    for engine in ("x86", "qnnpack"):
        groups = {"groups": [("embed", "norm")]} if flow == "eager" else {}
        example(
            "QX503",
            f"{flow}_{engine}",
            lambda: (TokenMixer().train(), tokens(1)[0]),
            lambda: (Unfolded().train(), tokens(1)[0]),
            lambda model, x, flow=flow, engine=engine, groups=groups: (
                converted_apart(
                    model,
                    x,
                    flow,
                    qconfig=engine,
                    engine=engine,
                    **(groups if type(model) is TokenMixer else {}),
                )
                > 0.1
            ),
            settings={"flow": flow, "qconfig": engine},
            paths=("embed",),
        )

# -- QX504 -----------------------------------------------------------------------------------------

example(
    "QX504",
    "linear_twice",
    lambda: (Twice(True).train(), torch.randn(32, 8, generator=torch.Generator().manual_seed(1))),
    lambda: (Twice(False).train(), torch.randn(32, 8, generator=torch.Generator().manual_seed(1))),
    lambda model, x: converted_apart(model, x, "fx", qconfig="onednn", engine="onednn") > 0.01,
    settings={"flow": "fx", "qconfig": "onednn"},
    paths=("fc",),
)

# -- QX505 -----------------------------------------------------------------------------------------


def small(version: int, name: str = "onednn") -> Any:
    return lambda: (Small(get_default_qat_qconfig(name, version=version)).train(), rows())


def scales_differ(model: nn.Module, x: Any) -> bool:
    prepared = prepare_qat(copy.deepcopy(model))
    prepared(x)
    fake: Any = prepared.fc1.weight_fake_quant
    asked = fake.calculate_qparams()[0]
    return bool(((fake.scale - asked).abs() > 1e-4 * asked).any())


for flow in ("eager", "fx"):
    example("QX505", flow, small(1), small(0), scales_differ, settings={"flow": flow})

# -- QX506 -----------------------------------------------------------------------------------------


def wide(name: str) -> Any:
    return lambda: (Small(get_default_qat_qconfig(name, version=0)).train(), rows(2.0))


def calibrated_on_less(session: qx.Session) -> None:
    """On values half as large as those of the example input."""
    session.goto("train")
    model = session.model.eval()
    with torch.no_grad():
        model(rows(1.0))


def codes_go_on(model: nn.Module, x: Any) -> bool:
    with quantized_engine("onednn"):
        prepared = prepare_qat(copy.deepcopy(model))
        prepared.eval()(rows(1.0))
        prepared.apply(disable_observer)
        return bool((convert(prepared).quant(x).int_repr().max() > 127) !=
                    (prepared.quant.activation_post_process.quant_max > 127))  # fmt: skip


for flow in ("eager", "fx"):
    example(
        "QX506",
        flow,
        wide("x86"),
        wide("onednn"),
        codes_go_on,
        settings={"flow": flow, "engine": "onednn"},
        walk=calibrated_on_less,
    )

# -- QX507 -----------------------------------------------------------------------------------------


def off_at_the_end(off: bool) -> Any:
    def make() -> Any:
        model = Small(get_default_qat_qconfig("onednn"))
        model.wide_at_the_end = off
        return model.train(), rows()

    return make


def train_by_hand(model: nn.Module, off: bool) -> None:
    """A batch with fake quants on; then one ten times as large, with or without them."""
    with torch.no_grad():
        model(rows())
        if off:
            model.apply(disable_fake_quant)
        for _ in range(30):
            model(rows(10.0))


def walk_by_hand(session: qx.Session) -> None:
    session.goto("train")
    off = bool(session._models.base.wide_at_the_end)
    train_by_hand(session.model.train(), off)


def converted_elsewhere(model: nn.Module, x: Any) -> bool:
    with quantized_engine("onednn"):
        prepared = prepare_qat(copy.deepcopy(model))
        train_by_hand(prepared, bool(model.wide_at_the_end))
        prepared.apply(disable_observer).apply(enable_fake_quant).eval()
        fake: Any = prepared.fc1.activation_post_process
        int8: Any = convert(copy.deepcopy(prepared)).fc1
        return abs(int8.scale / float(fake.scale) - 1) > 0.1


for flow in ("eager", "fx"):
    example(
        "QX507",
        flow,
        off_at_the_end(True),
        off_at_the_end(False),
        converted_elsewhere,
        settings={"flow": flow},
        walk=walk_by_hand,
    )

# -- QX508 -----------------------------------------------------------------------------------------

parts = partial(converted_apart, flow="fx", qconfig="onednn", engine="onednn")
example(
    "QX508",
    "prelu",
    lambda: (Activated(nn.PReLU()).train(), image()),
    lambda: (Activated(nn.LeakyReLU(0.25)).train(), image()),
    lambda model, x: parts(model, x) > 0.04,
    settings={"flow": "fx", "qconfig": "onednn"},
    paths=("act",),
)
example(
    "QX508",
    "times_two",
    lambda: (Doubled(True).train(), image()),
    lambda: (Doubled(False).train(), image()),
    lambda model, x: parts(model, x) > 0.04,
    settings={"flow": "fx", "qconfig": "onednn"},
)
