"""What the errors of cures advise, done."""

from __future__ import annotations

import pytest
import torch
from torch.ao.quantization import FakeQuantize, FusedMovingAvgObsFakeQuantize, QConfig

from qatexplorer.cures import CURES
from qatexplorer.errors import InputError, QConfigError
from qatexplorer.flows.quant_spec import QuantSpec
from tests.cures.nets import session_of, usual


def test_an_unknown_cure_names_those_that_there_are() -> None:
    session = session_of(usual(), "fx")
    with pytest.raises(InputError) as caught:
        session.cure("sugar")
    assert caught.value.fix == f"The cures are {', '.join(CURES)}."
    assert "The cures are " in caught.value.fix
    session.cure("equalization")


def test_settings_that_a_cure_does_not_take() -> None:
    session = session_of(usual(), "fx")
    with pytest.raises(InputError, match="these settings"):
        session.cure("equalization", strength=3)
    with pytest.raises(InputError, match="no cure to take back"):
        session.undo_cure()


def test_ranges_of_nothing_and_of_a_rule_that_there_is_not() -> None:
    session = session_of(usual(), "fx")
    with pytest.raises(QConfigError) as caught:
        session.cure("ranges")
    assert caught.value.fix == "Pass activation='histogram', weight='min-max', or both."
    assert session.cure("ranges", activation="histogram", weight="min-max").changes
    with pytest.raises(QConfigError) as caught:
        session.cure("ranges", activation="wide")
    assert str(caught.value.fix).startswith("Give one of 'min-max', ")
    session.cure("ranges", activation="min-max")


def test_a_class_of_ones_own_is_set_by_hand() -> None:
    class Own(FakeQuantize):
        pass

    qconfig = QConfig(
        activation=FusedMovingAvgObsFakeQuantize.with_args(dtype=torch.quint8),
        weight=Own.with_args(
            dtype=torch.qint8, quant_min=-128, quant_max=127, qscheme=torch.per_tensor_symmetric
        ),
    )
    session = session_of(usual(), "fx", qconfig=qconfig)
    with pytest.raises(QConfigError) as caught:
        session.cure("ranges", weight="min-max")
    assert caught.value.fix == "Set it with session.set_qconfig or session.configure(qconfig=…)."
    session.configure(qconfig="qnnpack")
    session.cure("ranges", weight="min-max")
    assert session.qconfig_at("").weight == QuantSpec(
        signed=True,
        scheme="symmetric",
        observer="MinMaxObserver",
        fake_quant="FakeQuantize",
    )


def test_percentiles_that_are_none_or_of_another_observer() -> None:
    kind = {"observer": "PercentileObserver", "fake_quant": "FakeQuantize"}
    with pytest.raises(QConfigError) as caught:
        QuantSpec.from_json({"bits": 8, "percentile": 20, **kind})
    assert caught.value.fix == "Give percentile a number above 50 and at most 100."
    QuantSpec.from_json({"bits": 8, "percentile": 60, **kind})
    with pytest.raises(QConfigError) as caught:
        QuantSpec(percentile=99.0)
    assert caught.value.fix == "Leave percentile out, or set observer to 'PercentileObserver'."
    QuantSpec(percentile=99.0, observer="PercentileObserver", fake_quant="FakeQuantize")
