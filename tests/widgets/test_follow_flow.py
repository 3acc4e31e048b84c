"""Tabs, buttons and hovers call things as the session's flow does, also after it was changed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.accuracy.records import Sensitivity
from qatexplorer.flows import FLOWS
from qatexplorer.views.takehome.words import cannot_export, cannot_script, export_tip, script_tip
from qatexplorer.widgets.explorer.explorer import Explorer
from tests.support.page_text import visible_text
from tests.support.waiting import until

pytest.importorskip("torchao")
X = torch.randn(4, 32)


def explorer(flow: str) -> Explorer:
    data = [(X, torch.tensor([0, 1, 2, 3]))]
    model = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 4)).train()
    return qx.explore(model, X, flow=flow, data={"train": data, "eval": data})


def columns(table: Any) -> list[str]:
    return [column["label"] for column in table.columns]


def test_panels_follow_a_change_of_the_flow() -> None:
    made = explorer("torchao")
    session = made.session
    assert session is not None
    made.drawer.show_panel(made.cures)
    made.drawer.show_panel(made.takehome)
    shown = {"torchao": False, "eager": True}
    for flow in ("torchao", "eager", "torchao"):
        if session.flow.name != flow:
            session.configure(flow=flow)
        result = "int8" if shown[flow] else "converted"
        until(lambda: f"Float, fake-quant, {result}" in made.drawer.titles)  # noqa: B023
        until(lambda: f"{result}, dB" in columns(made.compare.table))  # noqa: B023
        display = "" if shown[flow] else "none"
        assert made.training.calibrate.layout.display == display
        assert made.training.schedules.freeze_observers.layout.display == display
        assert made.sweeps.observers.layout.display == display
        assert made.sweeps.quantizers.layout.display == display
        assert f"Float ÷ {result}" in columns(made.results.latency.modules)
        assert result in made.results.time.tooltip
        assert f"SQNR of {result}" in str(made.panes.graph.pickers)
        assert made.settings.check.description.endswith("int8?" if shown[flow] else "converted?")
        assert ("qconfig" in made.drawer.titles) == shown[flow]
        assert ("Base config" in made.drawer.titles) != shown[flow]
        export = made.takehome.parts["exporting"]
        assert export.start.disabled != shown[flow]
        assert ("Not in this flow" in export.status.html) != shown[flow]


def test_the_tab_of_the_base_config_says_its_fields() -> None:
    made = explorer("torchao")
    panel = made.base_config
    assert panel.words.html == ""  # it is made when its tab is opened
    made.drawer.show_panel(panel)
    until(lambda: "weight_dtype" in visible_text(panel.words.html))
    text = visible_text(panel.words.html)
    assert "Int8DynamicActivationIntxWeightConfig, for linear layers" in text
    assert "The model comes to: converted (int4 weights, int8 inputs)." in text
    panel.words._handle_custom_msg({"ask": "panel:settings"}, [])
    assert made.drawer.in_sight(made.settings)


def test_tips_of_what_is_taken_home_are_true_of_the_flow() -> None:
    tips = {name: (script_tip(flow()), export_tip(flow())) for name, flow in FLOWS.items()}
    assert "needs torch and NumPy only" in tips["eager"][0]
    assert "needs torch, torchao and NumPy only" in tips["pt2e"][0]
    assert "ONNX" in tips["fx"][1]
    assert "ONNX" not in tips["pt2e"][1]
    flow = FLOWS["torchao"]()
    assert "not written as a script" in cannot_script(flow)
    assert "torchao's own tensors" in cannot_export(flow)
    assert not any(cannot_script(FLOWS[n]()) for n in ("eager", "fx", "pt2e"))


@pytest.mark.parametrize(("mode", "metric"), [("max", 528 / 540), ("min", 1.31112)])
def test_the_wish_that_is_offered_is_reached_by_what_is_there(mode: Any, metric: float) -> None:
    panel = explorer("torchao").sensitivity
    found = Sensitivity(
        "shadow", (), metric_mode=mode, float_metric=metric, quantized_metric=metric
    )
    panel._offer_wish(found)
    wished = panel.wished.value
    assert wished <= metric if mode == "max" else wished >= metric
    assert math.isclose(wished, metric, abs_tol=2e-4)


def test_no_ledger_yet_says_when_fake_quants_come() -> None:
    session = explorer("pt2e").session
    assert session is not None
    with pytest.raises(qx.QatExplorerError) as caught:
        session.ledger()
    assert caught.value.why == "They come with stage 'insert'."


def test_the_training_is_shown_by_what_is_rounded_at_every_stage() -> None:
    made = explorer("pt2e")
    session = made.session
    assert session is not None
    session.train(epochs=1, progress=False)
    made.drawer.show_panel(made.live)

    def names() -> list[str]:
        return [row["name"] for row in made.live.multiples.rows]

    until(lambda: names())
    before = names()
    assert "weight of 0" in before
    made.select(f"site:{made.live.multiples.rows[before.index('weight of 0')]['path']}")
    until(lambda: "weight of 0: values" in str(made.live.histograms.plot.figure.value))
    assert "weight of 0: scale and range" in str(made.live.scales.plot.figure.value)
    session.goto("convert")  # where no fake quant is left
    until(lambda: made.panes.tree.state_label == "Computes in" or session.stage == "convert")
    made.live.draw()
    until(lambda: sorted(names()) == sorted(before))


def test_a_run_has_the_name_of_the_users_model(tmp_path: Path) -> None:
    session = explorer("pt2e").session
    assert session is not None
    session.train(epochs=1, progress=False, run_dir=tmp_path / "run")
    assert qx.open_run(tmp_path / "run").about["model"] == "Sequential"
