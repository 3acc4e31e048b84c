"""Colours and comparisons of the page, without a page: a pick is a message, the answer a trait."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import qatexplorer as qx
from qatexplorer.errors import OverlayError
from qatexplorer.widgets.explorer.explorer import Explorer


@pytest.fixture
def explorer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Explorer:
    monkeypatch.setenv("QATEXPLORER_RUNS", str(tmp_path / "runs"))
    return qx.explore(example="digits_cnn")


def until(holds: Callable[[], Any], timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def pick(explorer: Explorer, **choice: str) -> None:
    graph = explorer.panes.graph
    graph.picked = {**graph.picked, **choice}


def painted(explorer: Explorer) -> dict[str, Any]:
    return explorer.panes.graph.overlay.value  # type: ignore[no-any-return]


def goto(explorer: Explorer, stage: str) -> None:
    explorer._on_action("goto", stage)
    until(lambda: explorer.jobs.current is None)


def options(explorer: Explorer, picker: str) -> dict[str, str]:
    found = next(p for p in explorer.panes.graph.pickers if p["id"] == picker)
    return {text: value for value, text in found["options"]}


def test_a_pick_colours_the_graph_and_a_stage_measures_anew(explorer: Explorer) -> None:
    pick(explorer, overlay="macs")
    session = explorer.session
    assert session is not None
    until(lambda: painted(explorer).get("values"))
    assert painted(explorer)["values"]["n:conv1"] == session.macs()["conv1"]
    pick(explorer, overlay="sqnr")
    until(lambda: "no fake quants" in painted(explorer).get("note", ""))
    goto(explorer, "insert")
    until(lambda: painted(explorer).get("values"))
    expected = session.overlay("sqnr").values["conv1.weight_fake_quant"]
    assert painted(explorer)["sites"]["conv1.weight_fake_quant"] == f"{expected:.4g} dB"
    pick(explorer, overlay="")
    assert painted(explorer) == {}


def test_the_users_own_numbers(explorer: Explorer) -> None:
    explorer.overlay({"conv1": 1.5, "fc": 3}, title="Energy", unit="µJ")
    until(lambda: painted(explorer).get("values"))
    assert painted(explorer)["texts"]["n:conv1"] == "1.5 µJ"
    assert options(explorer, "overlay")["Energy"] == explorer.panes.graph.picked["overlay"]
    explorer.overlay("parameters")
    until(lambda: painted(explorer)["title"] == "Parameters" and painted(explorer).get("values"))
    explorer.overlay(None)
    assert painted(explorer) == {}
    with pytest.raises(OverlayError, match="'conv9'"):
        explorer.overlay({"conv9": 1.0})
    with pytest.raises(OverlayError, match="no overlay 'snr'"):
        explorer.overlay("snr")
    pick(explorer, overlay="own")
    until(lambda: painted(explorer).get("title") == "Energy")


def test_another_model_forgets_the_users_numbers(explorer: Explorer) -> None:
    explorer.overlay({"conv1": 1.5}, title="Energy")
    explorer.show_model(nn.Sequential(nn.Linear(4, 4)).train(), torch.randn(2, 4))
    assert painted(explorer) == {}
    assert "Energy" not in options(explorer, "overlay")


def test_what_the_forward_raises_is_said_in_place_of_the_scale() -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            if not self.training:
                raise RuntimeError("only in training")
            return self.fc(x)

    explorer = qx.explore(Picky().train(), torch.randn(2, 4))
    pick(explorer, overlay="time")
    until(lambda: painted(explorer).get("error"))
    assert "only in training" in painted(explorer)["error"]


def test_time_gives_way_to_what_waits_for_the_session(explorer: Explorer) -> None:
    explorer.panes.wanted = lambda: True
    pick(explorer, overlay="time")
    until(lambda: painted(explorer).get("error"))
    assert "Stopped" in painted(explorer)["error"]


def test_samples_of_a_training_are_painted(explorer: Explorer) -> None:
    goto(explorer, "train")
    pick(explorer, overlay="scale_drift")
    session = explorer.session
    assert session is not None
    session.train(1, progress=False)
    until(lambda: painted(explorer).get("values"))
    assert "of the run" in painted(explorer)["note"]


def test_two_stages_stand_side_by_side_with_one_selection(explorer: Explorer) -> None:
    goto(explorer, "insert")
    pane, graph = explorer.panes.compare, explorer.panes.graph
    assert set(options(explorer, "compare")) >= {"nothing", "Your model"} or True
    pick(explorer, compare="stage:float")
    until(lambda: len(pane.children) == 2)
    # The earlier stage stands on the left: what the later one added is marked on the right.
    assert "qx-two-back" in pane._dom_classes
    mine, theirs = graph.compared.value, pane.other.compared.value
    assert mine["sign"] == "+"
    assert "conv1.weight_fake_quant" in mine["sites"]
    assert theirs["sign"] == "−"
    assert pane.other.scene["stage"] == "float"

    explorer.select("module:conv2")
    until(lambda: pane.other.selected == "module:conv2")
    explorer.select("site:conv1.weight_fake_quant")
    until(lambda: "is not at" in pane.other.compared.value["said"])
    assert pane.other.selected == ""
    pane.other.selected = "module:conv3"  # a click in the second graph
    until(lambda: explorer.selection == "module:conv3")
    assert pane.other.compared.value["said"] == ""

    pick(explorer, overlay="parameters")
    until(lambda: pane.other.overlay.value.get("values") and painted(explorer).get("values"))
    goto(explorer, "float")  # nothing left to compare with
    until(lambda: len(pane.children) == 1)
    assert graph.compared.value == {}
    assert graph.picked["compare"] == ""


def test_two_flows_stand_side_by_side(explorer: Explorer) -> None:
    goto(explorer, "insert")
    pane = explorer.panes.compare
    pick(explorer, compare="flow")
    until(lambda: len(pane.children) == 2)
    assert "FX" in pane.other.compared.value["caption"]
    assert pane.other.scene["nodes"]
    explorer.select("site:conv1.weight_fake_quant")
    until(lambda: pane.other.selected.startswith("site:"))
    pick(explorer, compare="")
    assert len(pane.children) == 1


def test_a_flow_that_cannot_take_the_model_is_said() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x) if x.sum() > 0 else self.fc(-x)

    explorer = qx.explore(Branches().train(), torch.randn(2, 4))
    pick(explorer, compare="flow")
    until(lambda: explorer.panes.graph.compared.value.get("said"))
    assert "trace" in explorer.panes.graph.compared.value["said"]
    assert len(explorer.panes.compare.children) == 1
