"""Custom modules, modules that are not traced, preserved attributes, backend configs."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.nn import quantizable
from torch.ao.nn import quantized as nnq
from torch.ao.quantization import (
    DeQuantStub,
    QuantStub,
    convert,
    get_default_qat_module_mappings,
    get_default_qat_qconfig,
    prepare,
    prepare_qat,
    propagate_qconfig_,
)
from torch.ao.quantization.fx.custom_config import ConvertCustomConfig, PrepareCustomConfig
from torch.nn import functional as F

import qatexplorer as qx
from qatexplorer.errors import ConvertError, StageError
from qatexplorer.flows.custom import BACKEND_CONFIGS, find_backend_config, find_qat_mapping
from tests.against_torch.fx_reference import compare_fx
from tests.against_torch.reference import assert_same_state
from tests.support.custom_modules import Doubling, Int8Doubling, ObservedDoubling
from tests.support.models_fx import Attending, Masked, Masking, QuantizableResNet, Recurrent, rgb

SEQUENCE = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))


class WithCustom(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.first, self.mine, self.last = nn.Linear(6, 6), Doubling(), nn.Linear(6, 4)
        self.labels = ("cat", "dog")

    def forward(self, x: Tensor) -> Tensor:
        return self.dequant(self.last(self.mine(self.first(self.quant(x)))))


PREPARE = {"float_to_observed_custom_module_class": {Doubling: ObservedDoubling}}
CONVERT = {"observed_to_quantized_custom_module_class": {ObservedDoubling: Int8Doubling}}
VECTOR = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


def notes(session: qx.Session, stage: str) -> str:
    return " ".join(session.snapshots[stage].notes)


# -- eager ---------------------------------------------------------------------------------------


def test_custom_modules_in_eager_as_torch_does_them() -> None:
    torch.manual_seed(0)
    model = WithCustom().train()
    session = qx.Session(
        model,
        (VECTOR,),
        qconfig="onednn",
        fusion=[],
        prepare_custom_config=PREPARE,
        convert_custom_config=CONVERT,
    )
    session.goto("train")
    theirs = copy.deepcopy(model)
    theirs.qconfig = get_default_qat_qconfig("onednn")  # type: ignore[assignment]
    mapping = get_default_qat_module_mappings()
    propagate_qconfig_(theirs, prepare_custom_config_dict=PREPARE)
    convert(theirs, mapping, True, False, convert_custom_config_dict=CONVERT)
    prepare(theirs, True, None, set(mapping.values()), prepare_custom_config_dict=PREPARE)
    assert_same_state(session.model, theirs)
    assert isinstance(session.model.mine, ObservedDoubling)
    text = notes(session, "insert")
    assert "Custom module mine" in text
    assert "float_to_observed_custom_module_class[Doubling" in text
    session.model(VECTOR)
    session.goto("convert")
    assert isinstance(session.int8.mine, Int8Doubling)
    assert "observed_to_quantized_custom_module_class[ObservedDoubling" in notes(session, "convert")


def test_lstm_through_torchs_own_entry() -> None:
    torch.manual_seed(0)
    model = Recurrent().train()
    session = qx.Session(model, (SEQUENCE,), qconfig="onednn", fusion=[])
    session.goto("insert")
    assert "Custom module lstm: swapped by float_to_observed_custom_module_class[LSTM: " in notes(
        session, "insert"
    )
    theirs = copy.deepcopy(model)
    theirs.qconfig = get_default_qat_qconfig("onednn")  # type: ignore[assignment]
    assert_same_state(session.model, prepare_qat(theirs))
    session.goto("train")
    session.model(SEQUENCE)
    session.goto("convert")
    assert isinstance(session.int8.lstm, nnq.LSTM)
    assert "observed_to_quantized_custom_module_class[LSTM" in notes(session, "convert")


def test_attention_needs_the_mapping_that_the_error_names() -> None:
    x = torch.randn(3, 4, 8)
    session = qx.Session(Attending().train(), (x,))
    with pytest.raises(StageError) as caught:
        session.goto("insert")
    assert "qat_mapping='attention'" in caught.value.fix
    session = qx.Session(Attending().train(), (x,), qat_mapping="attention")
    session.goto("train")
    assert isinstance(session.model.attention, quantizable.MultiheadAttention)
    assert "MultiheadAttention: " in notes(session, "insert")
    session.model(x)
    session.goto("convert")
    assert isinstance(session.int8.attention, nnq.MultiheadAttention)
    default, fixed = get_default_qat_module_mappings(), find_qat_mapping("attention")
    assert fixed is not None
    (gone,) = set(default) - set(fixed)
    assert gone.__name__ == "NonDynamicallyQuantizableLinear"


# -- FX ------------------------------------------------------------------------------------------


def test_custom_module_in_fx_equals_torch() -> None:
    torch.manual_seed(0)
    custom = PrepareCustomConfig().set_float_to_observed_mapping(Doubling, ObservedDoubling)
    custom.set_non_traceable_module_classes([Doubling])
    converting = ConvertCustomConfig().set_observed_to_quantized_mapping(
        ObservedDoubling, Int8Doubling
    )
    outcome = compare_fx(
        WithCustom().train(),
        (VECTOR,),
        custom=custom,
        convert_custom=converting,
        prepare_custom_config=custom,
        convert_custom_config=converting,
    )
    assert outcome.int8_error is None
    session = outcome.session
    assert isinstance(session.int8.mine, Int8Doubling)
    assert "float_to_observed_mapping[tests.support.custom_modules.Doubling" in notes(
        session, "insert"
    )


def test_dict_of_the_eager_form_is_taken_by_fx() -> None:
    session = qx.Session(
        WithCustom().train(),
        (VECTOR,),
        flow="fx",
        non_traceable=[Doubling],
        prepare_custom_config=PREPARE,
        convert_custom_config=CONVERT,
    )
    session.goto("train")
    session.model(VECTOR)
    session.goto("lower")
    assert isinstance(session.int8.mine, Int8Doubling)


@pytest.mark.parametrize("by", ["inner.0", Masking], ids=["path", "type"])
def test_non_traceable_module_stays_one_call(by: Any) -> None:
    session = qx.Session(Masked().train(), (rgb(),), flow="fx", non_traceable=by)
    snapshot = session.goto("insert")
    assert "inner.0" in notes(session, "trace")
    assert "left as one call" in notes(session, "trace")
    assert snapshot.graph is not None
    assert [n.path for n in snapshot.graph.nodes if n.path] == ["conv", "inner.0", "inner.1", "fc"]
    assert snapshot.by_path["inner.0"].type_name == "Masking"
    custom = PrepareCustomConfig().set_non_traceable_module_names(["inner.0"])
    outcome = compare_fx(Masked().train(), (rgb(),), custom=custom, non_traceable=["inner.0"])
    assert outcome.refused is None


def test_preserved_attributes_reach_int8() -> None:
    custom = PrepareCustomConfig().set_preserved_attributes(["labels"])
    model = WithCustom().train()
    session = qx.Session(model, (VECTOR,), flow="fx", prepare_custom_config=custom)
    session.goto("train")
    assert session.model.labels == ("cat", "dog")
    session.model(VECTOR)
    session.goto("convert")
    assert session.model.labels == ("cat", "dog")
    session.goto("lower")
    assert session.int8.labels == ("cat", "dog")
    plain = qx.Session(model, (VECTOR,), flow="fx")
    plain.goto("insert")
    assert not hasattr(plain.model, "labels")


@pytest.mark.parametrize("name", BACKEND_CONFIGS)
def test_backend_configs_by_name_equal_torch(name: str) -> None:
    torch.manual_seed(0)
    config = find_backend_config(name)
    assert config is not None
    # torch gets the config, the session its name.
    outcome = compare_fx(
        QuantizableResNet().train(), (rgb(16),), torch_config=config, backend_config=name
    )
    if name == "onednn":  # torch lists a fusion there that it has for eval mode only
        assert outcome.refused is not None
        assert "eval mode only" in outcome.refused.why
        assert "'native'" in outcome.refused.fix
        return
    assert outcome.refused is None
    graph = outcome.session.snapshot.graph
    assert graph is not None
    int8 = sum((n.dtype or "").startswith("torch.quint8") for n in graph.nodes)
    assert (int8 == 0) is (name == "tensorrt")


def test_backend_config_object_and_none() -> None:
    config = find_backend_config("fbgemm")
    assert find_backend_config(config) is config
    assert find_backend_config(None) is None


# -- torch's gaps, in words ----------------------------------------------------------------------


class NoBias(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel)


def test_functional_convolution_without_a_bias() -> None:
    session = qx.Session(NoBias().train(), (rgb(),), flow="fx")
    session.goto("train")
    session.model(rgb())
    session.goto("convert")
    with pytest.raises(ConvertError) as caught:
        session.step()
    assert "write all arguments out" in caught.value.fix
    assert session.stage == "convert"


def test_lstm_without_state() -> None:
    mapping = {"float_to_observed_custom_module_class": {nn.LSTM: quantizable.LSTM}}
    back = {"observed_to_quantized_custom_module_class": {quantizable.LSTM: nnq.LSTM}}
    session = qx.Session(
        Recurrent().train(),
        (SEQUENCE,),
        flow="fx",
        prepare_custom_config=mapping,
        convert_custom_config=back,
    )
    session.goto("train")
    assert isinstance(session.model.lstm, quantizable.LSTM)
    session.model(SEQUENCE)
    with pytest.raises(ConvertError) as caught:
        session.step()
    assert "(h0, c0)" in caught.value.fix
