"""Float models that hold torch's intrinsic (fused) modules from the start."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.nn import intrinsic as nni

from .models import (
    FLOWS,
    UNet,
    assert_untouched,
    batches,
    fake_quants,
    mean_square,
    session_of,
    state_of,
    to_int8,
)

pytestmark = pytest.mark.slow


def picture() -> Tensor:
    return torch.rand(2, 1, 16, 16)


@pytest.mark.parametrize(("flow", "stubs"), [("fx", "none"), ("eager", "layers")])
def test_a_unet_reaches_int8(flow: str, stubs: Any) -> None:
    torch.manual_seed(0)
    model = UNet().train()
    before = state_of(model)
    session = session_of(
        model,
        (picture(),),
        flow,
        stubs=stubs,
        data=batches(picture, lambda x: x * 2),
        loss=mean_square,
        metric=mean_square,
    )
    assert session.snapshot.by_path["enc1"].type_name == "ConvReLU2d"
    assert session.snapshot.sites == ()
    to_int8(session)
    layers = {p.removesuffix(".module") for p in fake_quants(session)}
    assert layers >= {"enc1", "enc2", "bottom", "dec1", "dec2", "mask"}
    assert_untouched(model, before)


LAYERS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "ConvReLU1d": (lambda: nni.ConvReLU1d(nn.Conv1d(3, 4, 3), nn.ReLU()), (4, 3, 8)),
    "ConvBn1d": (lambda: nni.ConvBn1d(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4)), (4, 3, 8)),
    "ConvBnReLU1d": (
        lambda: nni.ConvBnReLU1d(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.ReLU()),
        (4, 3, 8),
    ),
    "ConvReLU2d": (lambda: nni.ConvReLU2d(nn.Conv2d(3, 4, 3), nn.ReLU()), (4, 3, 8, 8)),
    "ConvBn2d": (lambda: nni.ConvBn2d(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), (4, 3, 8, 8)),
    "ConvBnReLU2d": (
        lambda: nni.ConvBnReLU2d(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        (4, 3, 8, 8),
    ),
    "LinearReLU": (lambda: nni.LinearReLU(nn.Linear(3, 4), nn.ReLU()), (4, 3)),
    "LinearBn1d": (lambda: nni.LinearBn1d(nn.Linear(3, 4), nn.BatchNorm1d(4)), (4, 3)),
}


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("name", LAYERS)
def test_each_kind_is_a_float_layer(name: str, flow: str) -> None:
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    model = nn.Sequential(nn.Identity(), make()).train()
    stubs: Any = "model" if flow == "eager" else "none"
    session = session_of(
        model,
        (torch.rand(shape),),
        flow,
        stubs=stubs,
        data=batches(lambda: torch.rand(shape), lambda x: x.mean()),
        loss=lambda out, target: (out.mean() - target).square(),
        metric=lambda out, target: 0.0,
    )
    assert session.snapshot.by_path["1"].type_name == name
    to_int8(session)
    assert (
        sum(p.numel() for p in model.parameters())
        == session.snapshots["float"].by_path[""].param_count
    )
