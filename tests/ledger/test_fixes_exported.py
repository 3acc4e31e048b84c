"""The ledger of a model that PT2E has prepared, and what it says to do, done to the letter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qatexplorer.flows import flow_of
from qatexplorer.ledger import ledger_of
from qatexplorer.ledger.exported import BASIS
from tests.support.annotated import Normed, normed, plain, quantizer_of, session_of

EAGER = ("swapped nnqat", "convert swapped", "QAT mapping", "prepare_qat_fx", "propagate hands")


class Doubled(nn.Module):
    """What the first layer gives reaches the second as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Any:
        return self.two(torch.flatten(self.one(x), 1))


X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


def annotator(shared: bool, layers: int = 2) -> Any:
    """Rounds the result of each linear layer and the input of the second, alone or together."""
    from torchao.quantization.pt2e.fake_quantize import FusedMovingAvgObsFakeQuantize
    from torchao.quantization.pt2e.quantizer import (
        QuantizationAnnotation,
        QuantizationSpec,
        SharedQuantizationSpec,
    )

    own = QuantizationSpec(
        dtype=torch.uint8, quant_min=0, quant_max=255, qscheme=torch.per_tensor_affine,
        observer_or_fake_quant_ctr=FusedMovingAvgObsFakeQuantize,
    )  # fmt: skip

    def annotate(model: Any) -> None:
        found = [n for n in model.graph.nodes if "linear" in str(n.target)][:layers]
        for index, node in enumerate(found):
            given = node.args[0]
            spec = SharedQuantizationSpec(found[0]) if shared and index else own
            node.meta["quantization_annotation"] = QuantizationAnnotation(
                input_qspec_map={given: spec} if index else {}, output_qspec=own, _annotated=True
            )

    return annotate


def test_rows_are_of_the_users_modules() -> None:
    ledger = plain().ledger("insert")
    assert ledger.flow == "pt2e"
    weights = {row.owner: row for row in ledger.sites if row.kind == "weight"}
    assert set(weights) == {"conv", "last", "fc", "wide"}
    assert weights["conv"].owner_type == "Conv2d"
    assert weights["conv"].tensor.label == "conv.weight"
    assert {row.mechanism for row in ledger.sites} == {"node"}
    assert all("_insert_obs_or_fq" in row.call for row in ledger.sites)
    assert any(row.tensor.label == "output of drop" for row in ledger.sites)
    normed_weights = [r for r in normed().ledger().sites if r.kind == "weight"]
    labels = {row.tensor.label for row in normed_weights}
    assert "conv1.weight, scaled by its batch norm" in labels


def test_what_is_int8_is_read_off_the_graph_and_nothing_is_converted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = session_of(Normed())
    plain()  # goes to int8 the first time that it is asked for
    monkeypatch.setattr(type(session.flow), "_convert", _never)
    monkeypatch.setattr(type(session.flow), "_lower", _never)
    monkeypatch.setattr("qatexplorer.ledger.coverage.torch_convert", _never)
    ledger = session.ledger()
    assert ledger.coverage.basis == BASIS
    assert ledger.coverage.params_share == 1.0
    assert ledger.coverage.macs_share == 1.0
    assert not ledger.warnings
    assert {row.reason for row in ledger.floats} == {"not_annotated"}
    wide = [row for row in plain().ledger("insert").floats if row.path == "wide"]
    assert [row.reason for row in wide] == ["no_int8_kernel"]
    assert wide[0].params == 20
    assert "more than two dimensions" in wide[0].sentence
    states = {m.path: m.state for m in plain().snapshots["insert"].modules}
    for row in plain().ledger("insert").floats:
        assert row.what == "op" or states[row.path] == "float"


def _never(*_args: Any, **_kwargs: Any) -> Any:
    raise AssertionError("a copy was converted")


def test_answers_are_those_of_this_flow() -> None:
    session = normed()
    found = {answer.key: answer.text for answer in session.answers()}
    for text in found.values():
        assert not [word for word in EAGER if word in text], text
    assert "prepare_qat_pt2e lets the quantizer annotate" in found["three_calls"]
    assert "does not arise in this flow" in found["fx_redundant"]
    assert "There is only one in this flow: convert_pt2e" in found["two_converts"]
    assert "because the quantizer annotated" in found["input"]
    assert "There is none in this flow" in found["custom_modules"]


def test_a_model_prepared_elsewhere() -> None:
    import importlib

    from qatexplorer.flows.pt2e_quantizers import make_quantizer

    api = importlib.import_module("torchao.quantization.pt2e.quantize_pt2e")
    exported = torch.export.export(Doubled().train(), (X,)).module()
    prepared = api.prepare_qat_pt2e(exported, make_quantizer("x86"))
    assert flow_of(prepared).name == "pt2e"
    ledger = ledger_of(prepared, X)
    assert ledger.flow == "pt2e"
    assert {row.owner for row in ledger.sites if row.kind == "weight"} == {"one", "two"}


def test_two_on_the_same_values_become_one_that_is_shared() -> None:
    session = session_of(Doubled(), X, quantizer=quantizer_of(annotator(shared=False)))
    found = [one for one in session.ledger().redundancies if one.kind == "double"]
    assert len(found) == 1
    assert found[0].through == ("flatten.using_ints",)
    fix = "Have the quantizer annotate the second one with a SharedQuantizationSpec of the node"
    assert fix in found[0].fix
    # What it says to do.
    session = session_of(Doubled(), X, quantizer=quantizer_of(annotator(shared=True)))
    after = session.ledger().redundancies
    assert [one.kind for one in after] == ["shared"]
    assert "SharedQuantizationSpec" in after[0].evidence


def test_an_operation_that_no_pattern_took_is_rounded_by_a_quantizer_of_ones_own() -> None:
    session = session_of(Doubled(), X, quantizer=quantizer_of(annotator(False, layers=1)))
    left = {row.path: row for row in session.ledger().floats}
    assert left["two"].reason == "not_annotated"
    fix = "Choose a quantizer with a pattern for it, or pass one of your own whose annotate()"
    assert fix in left["two"].fix
    # What it says to do.
    session = session_of(Doubled(), X, quantizer=quantizer_of(annotator(False)))
    assert {row.path: row.reason for row in session.ledger().floats}["two"] == "no_int8_kernel"
    assert any(row.tensor.label == "output of two" for row in session.ledger().sites)
