"""What stays float, and why: one model for each reason, and the shares counted again here."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao.nn.quantized import FloatFunctional
from torch.ao.quantization import (
    DeQuantStub,
    QConfigMapping,
    QuantStub,
    default_dynamic_qconfig,
    get_default_qat_qconfig,
    get_default_qat_qconfig_mapping,
    prepare_qat,
)
from torch.ao.quantization.fx.custom_config import PrepareCustomConfig
from torch.ao.quantization.quantize_fx import prepare_qat_fx
from torch.utils.flop_counter import FlopCounterMode

import qatexplorer as qx
from qatexplorer.ledger import FloatRow, Ledger, ledger_of
from tests.support.ledger_models import Flat, TwoLinear, eager, seen
from tests.support.models import SMALL, NoStubs, PlainAdd, TwoNames


class MyLinear(nn.Linear):
    """A subclass that no mapping knows."""


class Own(nn.Module):
    """A class with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain


class Mixed(nn.Module):
    """Between the stubs, one thing for each reason why eager mode leaves it float."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.fc = nn.Linear(6, 6)
        self.out, self.norm = nn.Linear(6, 6), nn.GroupNorm(2, 6)
        self.mine, self.own = MyLinear(6, 6), Own()
        self.bn, self.act = nn.BatchNorm1d(6), nn.ReLU()
        self.odd, self.spare = nn.Softplus(), nn.Softmin(1)
        self.none = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dequant(self.fc(self.quant(x)))
        x = self.own(self.mine(x)) + 1
        x = self.act(self.bn(self.odd(x)))
        return torch.matmul(self.none(x), x.t())


def reasons(ledger: Ledger) -> dict[str, str]:
    return {row.path or row.name: row.reason for row in ledger.floats if row.what == "module"}


def ops(ledger: Ledger) -> dict[str, FloatRow]:
    return {row.name: row for row in ledger.floats if row.what == "op"}


@pytest.fixture(scope="module")
def mixed() -> Ledger:
    torch.manual_seed(0)
    x = torch.randn(4, 6)
    model = Mixed()
    model.none.qconfig = None
    return ledger_of(seen(prepare_qat(eager(model)), x), x)


def test_every_module_has_its_reason_in_eager(mixed: Ledger) -> None:
    found = reasons(mixed)
    assert found["mine"] == "subclass_not_in_mapping"
    assert found["own"] == "custom_without_entry"
    assert found["bn"] == "not_fused"
    assert found["act"] == "float_input"
    assert found["odd"] == "type_not_in_mapping"
    assert found["spare"] == "never_executed"
    assert found["none"] == "no_qconfig"
    assert not {"fc", "quant", "dequant"} & set(found)


def test_every_op_has_its_reason_in_eager(mixed: Ledger) -> None:
    found = ops(mixed)
    assert found["add"].reason == found["matmul"].reason == "functional_op"
    assert "test_ledger_floats.py" in found["add"].sentence
    assert "FloatFunctional" in found["add"].fix
    assert found["matmul"].macs == 4 * 4 * 6
    assert found["mul"].path == "own"
    assert "linear" not in found  # that of MyLinear is the module's own row


def test_rows_say_what_they_hold(mixed: Ledger) -> None:
    rows = {row.path: row for row in mixed.floats if row.what == "module"}
    assert rows["mine"].params == 6 * 6 + 6
    assert rows["mine"].macs == 4 * 6 * 6
    assert rows["mine"].selection == "module:mine"
    assert "MyLinear" in rows["mine"].sentence
    assert "Linear" in rows["mine"].fix
    for row in mixed.floats:
        assert row.sentence.endswith((".", ")."))
        assert "{" not in row.sentence + row.fix


def test_the_root_is_never_swapped() -> None:
    ledger = ledger_of(prepare_qat(eager(nn.Linear(6, 4))), torch.randn(4, 6))
    assert reasons(ledger) == {"Linear": "root_module"}
    assert ledger.coverage.params_share == ledger.coverage.macs_share == 0
    assert ledger.warnings[0].startswith("NO WEIGHT OF THIS MODEL WILL BE INT8")
    assert "QuantWrapper" in ledger.warnings[0]


def test_nothing_quantized_is_reported_with_the_commonest_reason() -> None:
    x = torch.randn(4, 6)
    model = prepare_qat(eager(nn.Sequential(MyLinear(6, 6), nn.Softmax(1))))
    ledger = ledger_of(model, x)
    assert ledger.sites  # the output of the softmax is watched, and yet no weight will be int8
    assert "NO WEIGHT" in ledger.warnings[0]
    assert "subclass of Linear" in ledger.warnings[0]
    quantized = ledger_of(prepare_qat(eager(TwoLinear())), x)
    assert not any("NO WEIGHT" in text for text in quantized.warnings)


def test_int8_error_is_translated_into_a_warning() -> None:
    ledger = ledger_of(prepare_qat(eager(NoStubs())), torch.randn(4, 1, 8, 8))
    assert ledger.coverage.basis == "converted types"
    (text,) = ledger.warnings
    assert "QuantStub" in text
    plain = ledger_of(prepare_qat(eager(PlainAdd())), torch.randn(4, 6))
    assert ops(plain)["add"].reason == "functional_op"
    assert any("FloatFunctional" in text for text in plain.warnings)


def test_what_training_does_not_simulate_is_reported() -> None:
    class OneD(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quant, self.dequant = QuantStub(), DeQuantStub()
            self.conv = nn.Conv1d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.dequant(self.conv(self.quant(x)))

    ledger = ledger_of(seen(prepare_qat(eager(OneD())), torch.randn(4, 3, 8)), torch.randn(4, 3, 8))
    assert any("never rounded their weights: conv" in text for text in ledger.warnings)
    assert ledger.coverage.params_share == 1.0
    names = ledger_of(prepare_qat(eager(TwoNames())), torch.randn(4, 6))
    assert any("Second names" in text and "again" in text for text in names.warnings)


@pytest.mark.parametrize("case", SMALL, ids=lambda c: c.name)
def test_macs_are_half_the_flops_that_torch_counts(case: Any) -> None:
    model, x = case()
    session = qx.Session(model, x)
    session.goto("insert")
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        session.model(x)
    assert session.ledger().coverage.macs_total == counter.get_total_flops() // 2


def test_macs_by_hand() -> None:
    model = Flat("function")
    x = torch.randn(4, 1, 8, 8)
    ledger = ledger_of(prepare_qat(eager(model)), x)
    conv, linear = 4 * 4 * 8 * 8 * 9, 4 * 4 * 16
    assert ledger.coverage.macs_total == conv + linear


def test_shares_of_a_half_quantized_model() -> None:
    x = torch.randn(4, 6)
    model = TwoLinear()
    model.fc2.qconfig = None
    ledger = ledger_of(prepare_qat(eager(model)), x)
    assert (ledger.coverage.params_int8, ledger.coverage.params_total) == (42, 42 + 28)
    assert (ledger.coverage.macs_int8, ledger.coverage.macs_total) == (4 * 36, 4 * 36 + 4 * 24)
    assert reasons(ledger) == {"fc2": "no_qconfig"}


def test_functionals_that_become_int8_have_no_row() -> None:
    class Adds(TwoLinear):
        def __init__(self) -> None:
            super().__init__()
            self.add = FloatFunctional()

        def forward(self, x: Tensor) -> Tensor:
            x = self.quant(x)
            return self.dequant(torch.flatten(self.add.add(x, self.fc1(x)), 1))

    ledger = ledger_of(seen(prepare_qat(eager(Adds())), torch.randn(4, 6)), torch.randn(4, 6))
    assert not ops(ledger)
    assert reasons(ledger) == {}
    assert {row.path for row in ledger.ghosts} >= {"fc2.weight_fake_quant"}


# -- FX -----------------------------------------------------------------------------------------


class Traced(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 6), nn.Linear(6, 6)
        self.odd = nn.Softplus()
        self.opaque = nn.Sequential(nn.Linear(6, 6))
        self.weight = nn.Parameter(torch.randn(6, 6))

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(self.fc1(x), self.weight)
        x = self.odd(self.fc2(x))
        return torch.sin(self.opaque(x)) * torch.exp(x)


def prepared_fx(model: nn.Module, mapping: QConfigMapping, **custom: Any) -> tuple[Any, Tensor]:
    x = torch.randn(4, 6)
    return prepare_qat_fx(model.train(), mapping, (x,), **custom), x


def test_reasons_in_fx() -> None:
    mapping = get_default_qat_qconfig_mapping("onednn").set_module_name("fc2", None)
    custom = PrepareCustomConfig().set_non_traceable_module_names(["opaque"])
    model, x = prepared_fx(Traced(), mapping, prepare_custom_config=custom)
    ledger = ledger_of(seen(model, x), x)
    found = reasons(ledger)
    assert found["fc2"] == "no_qconfig"
    assert found["odd"] == "type_not_in_mapping"
    assert found["opaque.0"] == "below_non_traceable"
    assert "inside opaque" in next(r.sentence for r in ledger.floats if r.path == "opaque.0")
    assert "fc1" not in found
    assert ops(ledger)["sin"].reason == ops(ledger)["exp"].reason == "type_not_in_mapping"
    assert "linear" not in ops(ledger)
    names = {node.name for node in model.graph.nodes}
    assert ops(ledger)["sin"].selection.removeprefix("node:") in names
    assert (ledger.coverage.params_int8, ledger.coverage.params_total) == (42 + 36, 42 * 3 + 36)
    assert (ledger.coverage.macs_int8, ledger.coverage.macs_total) == (2 * 144, 4 * 144)


def test_dtypes_that_the_backend_does_not_know() -> None:
    odd = get_default_qat_qconfig("onednn")
    odd = odd._replace(activation=odd.activation.with_args(dtype=torch.qint8, quant_min=-128,
                                                           quant_max=127))  # fmt: skip
    model, x = prepared_fx(Traced(), QConfigMapping().set_global(odd))
    ledger = ledger_of(model, x)
    rows = {row.path: row for row in ledger.floats if row.what == "module"}
    assert rows["fc1"].reason == "dtype_not_in_backend_config"
    assert "activation qint8" in rows["fc1"].sentence


def test_fx_subclass_is_traced_through_not_left_out() -> None:
    mapping = get_default_qat_qconfig_mapping("onednn")
    model, x = prepared_fx(nn.Sequential(MyLinear(6, 6)), mapping)
    ledger = ledger_of(seen(model, x), x)
    assert not ledger.floats
    assert ledger.coverage.params_share == 1.0  # the bias goes with the weight, as a layer's does


def test_dynamic_qconfigs_are_not_read_wrongly() -> None:
    model, x = prepared_fx(Traced(), QConfigMapping().set_global(default_dynamic_qconfig))
    ledger = None
    try:
        ledger = ledger_of(model, x)
    except qx.errors.StageError:
        return  # torch inserted nothing at all
    assert ledger is not None
    assert ledger.coverage.params_total == 42 * 3 + 36


def test_fx_add_and_relu_are_one_int8_operation() -> None:
    class Adds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.relu = nn.Linear(6, 6), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            y = self.fc(x)
            y += x
            return self.fc(self.relu(y))

    model, x = prepared_fx(Adds(), get_default_qat_qconfig_mapping("onednn"))
    assert not ledger_of(seen(model, x), x).floats
    alone, _ = prepared_fx(Adds(), QConfigMapping().set_global(None))
    assert {row.reason for row in ledger_of(alone, x).floats} == {"no_qconfig"}


def test_attention_weights_are_not_simulated_by_torchs_own_mapping() -> None:
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quant, self.dequant = QuantStub(), DeQuantStub()
            self.attention, self.fc = nn.MultiheadAttention(8, 2), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.quant(x)
            return self.dequant(self.fc(self.attention(x, x, x)[0]))

    session = qx.Session(Attends().train(), torch.randn(3, 2, 8), qat_mapping="attention")
    session.goto("insert")
    assert not hasattr(session.model.attention.linear_Q, "weight_fake_quant")
    ledger = session.ledger()
    assert ledger.coverage.params_share == 1.0
    assert any("attention.linear_Q" in text and "never rounded" in text for text in ledger.warnings)


def test_fx_leaves_lstm_and_attention_float_and_says_why() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.fc = nn.LSTM(6, 5), nn.Linear(5, 4)
            self.attention = nn.MultiheadAttention(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.fc(self.lstm(x)[0])
            return self.attention(x, x, x)[0]

    session = qx.Session(Both().train(), torch.randn(3, 2, 6), flow="fx")
    session.goto("insert")
    ledger = session.ledger()
    found = reasons(ledger)
    assert found == {"lstm": "not_matched", "attention": "type_not_in_mapping"}
    by_path = {row.path: row for row in ledger.floats}
    weights = 4 * 5 * (6 + 5)
    assert by_path["lstm"].macs == 3 * 2 * weights
    assert by_path["lstm"].params == weights + 2 * 20
    assert 0 < ledger.coverage.macs_share < 0.5
