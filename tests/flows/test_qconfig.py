"""From what a reader writes as qconfig to what torch takes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.ao.quantization import (
    FakeQuantize,
    QConfig,
    QConfigMapping,
    default_per_channel_weight_fake_quant,
    get_default_qat_qconfig,
)

import qatexplorer as qx
from qatexplorer.flows.qconfig import resolve_qconfig
from qatexplorer.quantizers.engine import available_engines, default_backend
from tests.support.models import ConvBnRelu, image

SPECIAL = QConfig(activation=FakeQuantize, weight=default_per_channel_weight_fake_quant)


def owners(qconfig: Any) -> dict[str, str]:
    """Class of the fake quant on each owner's output, after insert."""
    session = qx.Session(ConvBnRelu().train(), (image(),), qconfig=qconfig)
    sites = session.goto("insert").sites
    return {s.owner: s.fake_quant_class for s in sites if s.kind != "weight"}


def test_default_is_the_best_backend_and_says_why() -> None:
    plan = resolve_qconfig(None)
    assert plan.backend == plan.name == default_backend().name
    assert plan.reason
    if "onednn" in available_engines():
        assert plan.backend == "onednn"
        session = qx.Session(ConvBnRelu().train(), (image(),))
        site = session.goto("insert").site_by_path["conv1.activation_post_process"]
        assert (site.quant_min, site.quant_max) == (0, 255)


@pytest.mark.parametrize("name", ["x86", "fbgemm", "qnnpack", "onednn"])
def test_backend_names(name: str) -> None:
    plan = resolve_qconfig(name)
    assert (plan.backend, plan.name, plan.reason) == (name, name, "")
    assert plan.default is not None
    session = qx.Session(ConvBnRelu().train(), (image(),), qconfig=name)
    site = session.goto("insert").site_by_path["conv1.activation_post_process"]
    assert site.quant_max == (127 if name in ("x86", "fbgemm") else 255)


def test_a_qconfig_itself_and_another_engine() -> None:
    plan = resolve_qconfig(SPECIAL, "qnnpack")
    assert (plan.default, plan.backend, plan.name) == (SPECIAL, "qnnpack", "custom")


def test_dict_by_path_and_type() -> None:
    found = owners({"": "onednn", nn.Linear: SPECIAL, "conv2": None})
    assert found["fc"] == "FakeQuantize"
    assert found["conv1"] == "FusedMovingAvgObsFakeQuantize"
    assert "conv2" not in found


def test_path_beats_type() -> None:
    found = owners({"": "onednn", nn.Conv2d: None, "conv2": SPECIAL})
    assert "conv1" not in found
    assert found["conv2"] == "FakeQuantize"


def test_dict_without_a_default_keeps_the_default() -> None:
    assert owners({"fc": SPECIAL})["conv1"] == "FusedMovingAvgObsFakeQuantize"


def test_none_for_the_whole_quantizes_only_what_is_named() -> None:
    assert set(owners({"": None, "fc": "onednn"})) == {"fc"}


def test_qconfig_mapping() -> None:
    mapping = (
        QConfigMapping()
        .set_global(get_default_qat_qconfig("onednn"))
        .set_object_type(nn.Linear, SPECIAL)
        .set_module_name_regex("conv[12]", SPECIAL)
        .set_module_name("conv2", None)
    )
    found = owners(mapping)
    assert found["fc"] == found["conv1"] == "FakeQuantize"
    assert "conv2" not in found
    assert found["quant"] == "FusedMovingAvgObsFakeQuantize"


def test_what_is_said_of_a_place_holds_below_it() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), nn.Linear(4, 4))
    session = qx.Session(
        model.train(), (torch.zeros(2, 4),), qconfig={"0": None, nn.Linear: "onednn"}
    )
    assert {s.owner for s in session.goto("insert").sites} == {"1"}


def test_a_misspelt_path_names_the_nearest() -> None:
    session = qx.Session(ConvBnRelu().train(), (image(),), qconfig={"conv_2": None})
    with pytest.raises(qx.errors.QConfigError, match="conv_2") as caught:
        session.goto("insert")
    assert "conv2" in caught.value.remedy


def test_factories_are_spelled_out_for_the_reader() -> None:
    session = qx.Session(ConvBnRelu().train(), (image(),), qconfig="onednn")
    record = session.goto("propagate").by_path["conv1"].qconfig
    assert record is not None
    assert record.activation.startswith("FusedMovingAvgObsFakeQuantize(observer=")
    assert "quant_max=255" in record.activation
    assert "MovingAveragePerChannelMinMaxObserver" in record.weight
    assert session.snapshots["float"].by_path["conv1"].qconfig is None
