"""From what a user writes as qconfig to what torch takes."""

from __future__ import annotations

import warnings
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
    get_default_qat_qconfig_mapping,
)

import qatexplorer as qx
from qatexplorer.errors import EngineWarning, UnknownEngineError
from qatexplorer.flows.qconfig import resolve_qconfig
from qatexplorer.quantizers.engine_choice import BACKENDS, default_backend
from tests.support.engines import fake_machine, faked
from tests.support.models import ConvBnRelu, image

SPECIAL = QConfig(activation=FakeQuantize, weight=default_per_channel_weight_fake_quant)


def owners(qconfig: Any) -> dict[str, str]:
    """Class of the fake quant on each owner's output, after insert."""
    session = qx.Session(ConvBnRelu().train(), (image(),), qconfig=qconfig)
    sites = session.goto("insert").sites
    return {s.owner: s.fake_quant_class for s in sites if s.kind != "weight"}


def test_the_default_follows_the_probe_and_says_why() -> None:
    plan, best = resolve_qconfig(None), default_backend()
    assert (plan.backend, plan.name, plan.default_of) == (best.engine, best.qconfig, best.qconfig)
    assert plan.reason == best.reason
    assert plan.concern is None
    session = qx.Session(ConvBnRelu().train(), (image(),))
    site = session.goto("insert").site_by_path["conv1.activation_post_process"]
    assert (site.quant_min, site.quant_max) == (0, 255)


def without_vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    probes = [faked(name, 0 if name == "qnnpack" else 63) for name in BACKENDS]
    fake_machine(monkeypatch, *probes)


def test_a_qconfig_without_a_name_runs_on_the_engine_of_the_probe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without_vnni(monkeypatch)
    for spec in (None, SPECIAL, {"": SPECIAL}, {"": None, "fc": "onednn"}, QConfigMapping()):
        plan = resolve_qconfig(spec)
        assert (plan.backend, plan.concern) == ("qnnpack", None)
        assert "onednn, x86 and fbgemm saturate" in plan.reason


@pytest.mark.parametrize(
    ("spec", "engine", "kind"),
    [
        ("onednn", None, "saturates"),
        ({"": "onednn"}, None, "saturates"),
        (None, "onednn", "saturates"),
        (SPECIAL, "fbgemm", "saturates"),
        ("onednn", "x86", "saturates"),
        # One part of the model on the full range, the other not.
        ({"": "x86", "fc": "onednn"}, None, "saturates"),
        ("x86", None, "clamps"),
        (None, "x86", "clamps"),
        ("x86", "qnnpack", "clamps"),
        (QConfigMapping().set_global(get_default_qat_qconfig("fbgemm")), "x86", "clamps"),
        (get_default_qat_qconfig_mapping("fbgemm"), "x86", "clamps"),
        ("onednn", "qnnpack", None),
        ("qnnpack", None, None),
        ({"": None}, "onednn", None),
    ],
)
def test_what_is_wrong_with_an_engine_that_was_named(
    monkeypatch: pytest.MonkeyPatch, spec: Any, engine: str | None, kind: str | None
) -> None:
    without_vnni(monkeypatch)
    plan = resolve_qconfig(spec, engine)
    assert plan.reason == ""
    assert (plan.concern.kind if plan.concern else None) == kind


def test_a_qconfig_can_be_named_whose_engine_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import qatexplorer.quantizers.engine as module

    monkeypatch.setattr(module, "available_engines", lambda: ("qnnpack",))
    plan = resolve_qconfig("onednn", "qnnpack")
    assert (plan.name, plan.backend) == ("onednn", "qnnpack")
    with pytest.raises(UnknownEngineError, match="onednn"):
        resolve_qconfig("onednn")


def test_a_session_warns_at_the_start_and_at_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    without_vnni(monkeypatch)
    with pytest.warns(EngineWarning, match="engine onednn saturates") as caught:
        session = qx.Session(ConvBnRelu().train(), (image(),), qconfig="onednn")
    assert caught[0].filename == __file__
    with pytest.warns(EngineWarning, match="engine onednn saturates"):
        notes = session.goto("convert").notes
    assert any("engine onednn saturates" in note for note in notes)
    with warnings.catch_warnings():
        warnings.simplefilter("error", EngineWarning)
        session.configure(engine="qnnpack")
        assert not any("saturates" in note for note in session.goto("convert").notes)
        session.configure(qconfig=None)
        session.configure(qconfig="x86")
    with pytest.warns(EngineWarning, match="engine onednn saturates") as caught:
        session.configure(qconfig="onednn")
    assert caught[0].filename == __file__


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
    assert "conv2" in caught.value.fix


def test_factories_are_spelled_out_for_the_user() -> None:
    session = qx.Session(ConvBnRelu().train(), (image(),), qconfig="onednn")
    record = session.goto("propagate").by_path["conv1"].qconfig
    assert record is not None
    assert record.activation.startswith("FusedMovingAvgObsFakeQuantize(observer=")
    assert "quant_max=255" in record.activation
    assert "MovingAveragePerChannelMinMaxObserver" in record.weight
    assert session.snapshots["float"].by_path["conv1"].qconfig is None
