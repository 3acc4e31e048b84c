"""What a session of torchao's QAT calls what it comes to: in text, in tables and in the report."""

from __future__ import annotations

import re
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.app.compare import judge
from qatexplorer.flows.torchao import parts_in_words
from qatexplorer.views.accuracy.compare_table import columns_of
from qatexplorer.views.common.results import results_html
from qatexplorer.views.training.multiples import multiples
from tests.support.page_text import visible_text

ao = pytest.importorskip("torchao.quantization")
X = torch.randn(8, 32, generator=torch.Generator().manual_seed(0))
FORM = "converted (int4 weights, int8 inputs)"


def session_of(base: Any = None, **given: Any) -> qx.Session:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 4)).train()
    return qx.Session(model, X, flow="torchao", base_config=base, **given)


@pytest.fixture(scope="module")
def session() -> qx.Session:
    """Trained, converted and measured."""
    data = [(X, torch.arange(8) % 4)]
    made = session_of(data={"train": data, "eval": data})
    made.train(epochs=1, progress=False)
    made.goto("convert")
    made.evaluate()
    made.benchmark((1,), seconds=0.1, compiled=False)
    made.compare(batches=1)
    return made


@pytest.mark.parametrize(
    ("base", "form"),
    [
        (lambda: None, FORM),
        (lambda: "int8", "converted (int8 weights)"),
        (lambda: "int2", "converted (int2 weights)"),
        (lambda: ao.Int4WeightOnlyConfig(group_size=32), "converted (int4 weights)"),
        (
            lambda: ao.Float8DynamicActivationInt4WeightConfig(),
            "converted (int4 weights, float8_e4m3fn inputs)",
        ),
        (
            lambda: {
                nn.Linear: ao.Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int2),
                nn.Embedding: ao.IntxWeightOnlyConfig(weight_dtype=torch.int4),
            },
            "converted (int2 and int4 weights, int8 inputs)",
        ),
        (lambda: _without_base(), "converted"),
    ],
)
def test_the_form_is_what_the_base_config_makes(base: Any, form: str) -> None:
    made = session_of(base())
    assert made.flow.form(made.options) == form
    assert made.flow.result == "converted"


def _without_base() -> Any:
    qat = pytest.importorskip("torchao.quantization.qat")
    weights = qat.IntxFakeQuantizeConfig(torch.int4, group_size=32)
    return qat.QATConfig(weight_config=weights, step="prepare")


@pytest.mark.parametrize("flow", ["eager", "fx", "pt2e"])
def test_other_flows_come_to_int8(flow: str) -> None:
    made = qx.Session(nn.Sequential(nn.Linear(32, 4)).train(), X, flow=flow)
    assert made.flow.form(made.options) == made.flow.result == "int8"


def test_the_benchmark_says_what_was_timed(session: qx.Session) -> None:
    made = session.last_benchmark
    assert made is not None
    text = repr(made)
    assert f"{FORM} and float" in text or f"{FORM} is " in text
    assert f"most time of {FORM}" in text
    assert not re.search(r"\bint8 (is|and|engine)\b", text)
    assert made.engine == ""


def test_the_evaluation_says_what_was_judged(session: qx.Session) -> None:
    found = session.last_evaluation
    assert found is not None
    labels = [result.words for result in found.values()]
    assert labels == ["float", "converted without training", "fake-quant", FORM]
    text = visible_text(results_html(found))
    assert "int8 engine" not in text
    assert "on one grid" not in text
    assert ", engine" not in repr(found)


def test_the_comparison_names_the_converted_model(session: qx.Session) -> None:
    found = session.last_comparison
    assert found is not None
    assert found.form == "converted"
    assert "int8" not in repr(found)
    heads = [f"{column['label']} {column.get('tip', '')}" for column in columns_of(found.form)]
    assert not [head for head in heads if "int8" in head]
    assert "converted, dB SQNR of converted against float" in heads


def test_the_report_does_not_call_it_int8(session: qx.Session, tmp_path: Path) -> None:
    text = visible_text(session.report(tmp_path / "r.html").read_text(encoding="utf-8"))
    assert FORM in text
    assert "Float, fake quant and converted" in text
    assert not re.search(r"\bint8 (is (slower|faster)|and (float|fake quant)|loses|, dB)", text)


def test_no_observer_is_said_to_be_frozen(session: qx.Session) -> None:
    run = session.run
    assert run is not None
    assert run.telemetry is not None
    assert not any(info.observes for info in run.telemetry.infos)
    assert "observer" not in str(multiples(run.telemetry))


def test_the_command_line_judges_it_in_its_words(session: qx.Session) -> None:
    asked = Namespace(min_sqnr_int8=0.0, min_agreement=None, max_drop=1.0, metric_mode="max")
    comparison, evaluation = session.last_comparison, session.last_evaluation
    assert comparison is not None
    texts = [one.text for one in judge(asked, comparison, evaluation)]
    assert "the lowest SQNR of converted is" in texts[0]
    assert f" {FORM}, a drop of " in texts[1]


def test_the_graph_is_coloured_in_its_words(session: qx.Session) -> None:
    found = session.overlay("precision", "prepare")
    assert found.title == "Float or integers"
    assert found.categories == ("float", "integers", "mixed")
    assert found.values["0"] == 1.0
    assert found.note == "What each module will be in the converted model."
    assert session.overlay("sqnr_int8").title == "SQNR of converted"


def test_a_layer_left_in_float_keeps_its_parameters() -> None:
    made = session_of()
    made.configure(qconfig={"0": None})
    made.goto("prepare")
    assert {site.owner for site in made.snapshot.sites} == {"2"}
    assert type(made.model[0]) is nn.Linear  # type: ignore[index]
    assert torch.equal(made.model[0].weight, made._models.base[0].weight)  # type: ignore[index]
    assert "1 layer" in " ".join(made.snapshot.notes)
    made.goto("convert")
    assert type(made.int8[0].weight.data) is torch.Tensor  # type: ignore[index]
    assert "1 Linear weights are" in " ".join(made.snapshot.notes)


def test_fields_of_the_base_config_are_told() -> None:
    given = ao.IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=ao.PerGroup(16))
    (part,) = parts_in_words(session_of({nn.Linear: given}).options)
    assert (part.name, part.layers) == ("IntxWeightOnlyConfig", "Linear layers")
    assert ("weight_dtype", "torch.int4") in part.fields
    assert dict(part.fields)["granularity"] == "PerGroup(group_size=16)"
    (named,) = parts_in_words(session_of().options)
    assert "notes of stage 'prepare'" in dict(named.fields)["weight_granularity"]
