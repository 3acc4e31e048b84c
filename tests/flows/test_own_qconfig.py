"""What a qconfig that is given makes of the qconfig attributes that a model brings along."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import (
    DeQuantStub,
    FakeQuantizeBase,
    QConfig,
    QConfigMapping,
    QuantStub,
    default_per_channel_weight_fake_quant,
    get_default_qat_qconfig,
    get_default_qat_qconfig_mapping,
    get_default_qconfig,
)
from torch.ao.quantization.observer import MinMaxObserver

import qatexplorer as qx
from qatexplorer.errors import PostTrainingQConfigWarning, QConfigError

FLOWS = ("eager", "fx")
QNNPACK = get_default_qat_qconfig("qnnpack")  # 0..255, weights per tensor
FBGEMM = get_default_qat_qconfig("fbgemm")  # 0..127, weights per channel
PTQ, OTHER = get_default_qconfig("qnnpack"), get_default_qconfig("fbgemm")


class Net(nn.Module):
    """A conv, a block of two convs, a linear layer; stubs for eager mode."""

    def __init__(self, **own: Any) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.first = nn.Conv2d(1, 4, 3)
        self.block = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1))
        self.fc = nn.Linear(64, 4)
        for path, qconfig in own.items():
            self.get_submodule(path.replace("root", "").replace("__", ".")).qconfig = qconfig

    def forward(self, x: Tensor) -> Tensor:
        return self.dequant(self.fc(torch.flatten(self.block(self.first(self.quant(x))), 1)))


X = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LAYERS = ("first", "block.0", "block.2", "fc")


def session_of(model: nn.Module, flow: str, **settings: Any) -> qx.Session:
    return qx.Session(model.train(), X, flow=flow, **settings)


def weights(session: qx.Session) -> dict[str, str]:
    """By layer: whose weight fake quant it has (both backends differ there), or "float"."""
    session.goto("insert")
    found = {}
    for path in LAYERS:
        fake_quant: Any = getattr(session.model.get_submodule(path), "weight_fake_quant", None)
        if isinstance(fake_quant, FakeQuantizeBase):
            found[path] = "fbgemm" if fake_quant.is_per_channel else "qnnpack"
        else:
            found[path] = "float" if fake_quant is None else "observed"
    return found


def activations(session: qx.Session) -> dict[str, int]:
    """Largest code of the fake quant on each layer's output."""
    sites = session.goto("insert").sites
    return {s.owner: s.quant_max for s in sites if s.kind != "weight" and s.owner in LAYERS}


def notes(session: qx.Session) -> str:
    return " ".join(session.snapshots["float"].notes)


@pytest.mark.parametrize("flow", FLOWS)
def test_the_given_one_wins_over_the_roots(flow: str) -> None:
    session = session_of(Net(root=QNNPACK), flow, qconfig="fbgemm")
    assert set(weights(session).values()) == {"fbgemm"}
    assert set(activations(session).values()) == {127}
    assert "'fbgemm'" in notes(session)
    assert "not the model's own attribute (the QAT default of 'qnnpack')" in notes(session)
    assert notes(session) in " ".join(session.snapshots["propagate"].notes)


@pytest.mark.parametrize("flow", FLOWS)
def test_the_users_model_keeps_its_attributes(flow: str) -> None:
    model = Net(root=QNNPACK, fc=None)
    session_of(model, flow, qconfig="fbgemm").goto("insert")
    assert {p: vars(m)["qconfig"] for p, m in model.named_modules() if "qconfig" in vars(m)} == {
        "": QNNPACK,
        "fc": None,
    }


@pytest.mark.parametrize("flow", FLOWS)
def test_without_one_the_models_own_are_used_and_named(flow: str) -> None:
    session = session_of(Net(root=QNNPACK, fc=None, block=FBGEMM), flow)
    assert weights(session) == {
        "first": "qnnpack",
        "block.0": "fbgemm",
        "block.2": "fbgemm",
        "fc": "float",
    }
    assert session.options.qconfig.backend == "qnnpack"
    for text in ("No qconfig was given", "'qnnpack'", "fc (None: stays float)", "block (the QAT"):
        assert text in notes(session)
    if flow == "fx":  # in eager mode a float layer between int8 ones needs stubs around it
        session.goto(session.flow.int8_stage)


@pytest.mark.parametrize("flow", FLOWS)
def test_what_was_set_on_purpose_stays_and_is_named(flow: str) -> None:
    session = session_of(Net(root=QNNPACK, fc=None, first=QNNPACK), flow, qconfig="fbgemm")
    assert weights(session) == {
        "first": "fbgemm",  # the same as the root's: inherited, not chosen
        "block.0": "fbgemm",
        "block.2": "fbgemm",
        "fc": "float",
    }
    assert "fc (None: stays float)" in notes(session)
    assert "first" not in notes(session)


@pytest.mark.parametrize("flow", FLOWS)
def test_the_fix_that_the_note_names_works(flow: str) -> None:
    model = Net(root=QNNPACK, fc=None)
    assert "qconfig={'fc': …}" in notes(session_of(model, flow, qconfig="fbgemm"))
    session = session_of(model, flow, qconfig={"": "fbgemm", "fc": "fbgemm"})
    assert set(weights(session).values()) == {"fbgemm"}
    assert "replaces the model's own at fc" in notes(session)


@pytest.mark.parametrize("flow", FLOWS)
def test_a_given_path_wins_there_and_below(flow: str) -> None:
    model = Net(block__0=None, block__2=QNNPACK)
    session = session_of(model, flow, qconfig={"": "qnnpack", "block": "fbgemm"})
    assert weights(session)["block.0"] == weights(session)["block.2"] == "fbgemm"


@pytest.mark.parametrize("flow", FLOWS)
def test_the_roots_own_given_again_deeper_down_follows_the_root(flow: str) -> None:
    model = Net(root=QNNPACK, block=None, block__2=QNNPACK)
    found = weights(session_of(model, flow, qconfig="fbgemm"))
    assert (found["block.0"], found["block.2"], found["fc"]) == ("float", "fbgemm", "fbgemm")


@pytest.mark.parametrize("flow", FLOWS)
def test_a_whole_mapping_wins_and_is_not_written_to(flow: str) -> None:
    mapping = get_default_qat_qconfig_mapping("fbgemm")
    before = copy.deepcopy(mapping.to_dict())
    session = session_of(Net(root=QNNPACK, fc=None), flow, qconfig=mapping)
    found = weights(session)
    assert (found["first"], found["fc"]) == ("fbgemm", "float")
    assert str(mapping.to_dict().keys()) == str(before.keys())
    assert not mapping.module_name_qconfigs
    named = QConfigMapping().set_global(FBGEMM).set_module_name("fc", FBGEMM)
    assert weights(session_of(Net(fc=None), flow, qconfig=named))["fc"] == "fbgemm"


@pytest.mark.parametrize("flow", FLOWS)
def test_only_parts_have_one_and_the_rest_gets_the_default(flow: str) -> None:
    session = session_of(Net(fc=None), flow, engine="fbgemm")
    found = weights(session)
    assert (found["first"], found["fc"]) == ("fbgemm", "float")
    assert "The rest gets the QAT default of 'fbgemm'" in notes(session)


@pytest.mark.parametrize("flow", FLOWS)
def test_a_root_that_says_none_stays_float_and_it_is_reported(flow: str) -> None:
    session = session_of(Net(root=None), flow)
    assert set(weights(session).values()) == {"float"}
    assert "Nothing else will be quantized" in notes(session)
    session.configure(qconfig="fbgemm")
    assert set(weights(session).values()) == {"fbgemm"}


@pytest.mark.parametrize("flow", FLOWS)
def test_a_part_in_float_has_no_fake_quant_at_all(flow: str) -> None:
    """torch's FX alone drops the weight's and keeps the output's."""
    session = session_of(Net(root=FBGEMM, first=None, block=None), flow)
    session.goto("insert")
    assert "first" not in activations(session)


@pytest.mark.parametrize("flow", FLOWS)
def test_settings_made_between_the_stages_stay(flow: str) -> None:
    session = session_of(Net(root=QNNPACK), flow, qconfig="fbgemm")
    session.model.fc.qconfig = None  # type: ignore[assignment]
    found = weights(session)
    assert (found["first"], found["fc"]) == ("fbgemm", "float")
    session.reset()
    assert weights(session)["fc"] == "fbgemm"


def test_a_fused_layer_keeps_what_its_first_part_was_given() -> None:
    class Fused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quant, self.dequant = QuantStub(), DeQuantStub()
            self.a, self.bn, self.b = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)
            self.a.qconfig = QNNPACK

        def forward(self, x: Tensor) -> Tensor:
            return self.dequant(self.b(self.bn(self.a(self.quant(x)))))

    session = session_of(Fused(), "eager", qconfig="fbgemm")
    session.goto("insert")
    a: Any = session.model.a
    assert type(a).__name__ == "ConvBn2d"
    assert not a.weight_fake_quant.is_per_channel


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize(
    ("own", "fix"),
    [
        ({"root": PTQ}, "qconfig='qnnpack';"),
        ({"root": QNNPACK, "fc": PTQ}, "qconfig={'fc': 'qnnpack'};"),
        ({"root": PTQ, "fc": OTHER}, "qconfig={'': 'qnnpack', 'fc': 'qnnpack'};"),
    ],
)
def test_post_training_qconfigs_are_loud_at_every_stage(
    own: dict[str, Any], fix: str, flow: str
) -> None:
    model = Net(**own)
    with pytest.warns(PostTrainingQConfigWarning, match="Nothing is simulated") as caught:
        session = session_of(model, flow)
    assert [w.filename.endswith("test_own_qconfig.py") for w in caught] == [True]
    assert weights(session)["fc"] == "observed"
    session.goto(session.flow.train_stage)
    for stage, snapshot in session.snapshots.items():
        assert any("POST-TRAINING QCONFIG" in note for note in snapshot.notes), stage
    assert fix in notes(session)
    with warnings.catch_warnings():
        warnings.simplefilter("error", PostTrainingQConfigWarning)
        again = session_of(model, flow, qconfig=eval(fix.removeprefix("qconfig=").strip(";")))
    assert set(weights(again).values()) == {"qnnpack"}
    assert not again.options.qconfig.loud


def test_observed_activations_with_simulated_weights_are_reported() -> None:
    mixed = QConfig(activation=MinMaxObserver, weight=default_per_channel_weight_fake_quant)
    with pytest.warns(PostTrainingQConfigWarning, match="activation: MinMaxObserver"):
        session_of(Net(), "eager", qconfig=mixed)


def test_configure_warns_only_when_it_concerns_the_qconfig() -> None:
    with pytest.warns(PostTrainingQConfigWarning):
        session = session_of(Net(root=PTQ), "eager", qconfig=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error", PostTrainingQConfigWarning)
        session.configure(fusion=[])
        session.configure(qconfig="fbgemm")
    with pytest.warns(PostTrainingQConfigWarning):
        session.configure(qconfig=None)


def test_an_attribute_of_that_name_that_is_no_qconfig() -> None:
    model = Net()
    model.fc.qconfig = {"bits": 8}  # type: ignore[assignment]
    with pytest.raises(QConfigError, match="dict, not a qconfig") as caught:
        session_of(model, "eager")
    assert caught.value.where == "fc"
    model.fc.bits = model.fc.qconfig
    del model.fc.qconfig
    session_of(model, "eager").goto("insert")
