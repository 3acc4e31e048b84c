"""Each fix that only the page gives, done to the letter."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.errors import InputError
from qatexplorer.runs.config import TrainingConfig
from qatexplorer.widgets.qconfig.panel import decoded
from qatexplorer.widgets.takehome.panel import SCRIPT
from qatexplorer.widgets.training.schedules import ScheduleFields
from tests.support.waiting import until

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
BATCH = (X, torch.tensor([0, 1, 2, 3]))


class Slowly:
    """Batches of which each takes its time, so that a run is still going on."""

    def __iter__(self) -> Iterator[Any]:
        for _ in range(500):
            time.sleep(0.02)
            yield BATCH


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 4)).train()


def test_another_model_while_a_run_is_going_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QATEXPLORER_RUNS", str(tmp_path))
    explorer = qx.explore(net(), X, data=(Slowly(), [BATCH]), stubs="model")
    assert explorer.session is not None
    run = explorer.session.start_training(1)
    assert explorer.show_model(net(), X) is False
    assert "Stop it before opening a model" in explorer.message.html
    run.stop(timeout=20)
    assert explorer.show_model(net(), X) is True


@pytest.mark.parametrize(
    ("name", "wrong", "fix", "right"),
    [
        (
            "freeze_observers",
            "soon",
            "Write a whole number (0 is from the start), or leave it empty for never",
            {"0": 0, "2": 2, "": None},
        ),
        ("clip", "a bit", "Write a number, or leave it empty", {"1.5": 1.5, "": None}),
    ],
)
def test_what_is_written_into_a_field(name: str, wrong: str, fix: str, right: Any) -> None:
    fields = ScheduleFields()
    setting = {"freeze_observers": "freeze_observer_epoch", "clip": "clip_grad_norm"}[name]
    getattr(fields, name).value = wrong
    with pytest.raises(InputError) as caught:
        fields.settings()
    assert fix in caught.value.fix
    for text, value in right.items():
        getattr(fields, name).value = text
        assert fields.settings()[setting] == value
        TrainingConfig(epochs=3, **{setting: value})


def test_how_often_fake_quants_are_sampled_is_a_field() -> None:
    fields = ScheduleFields()
    assert fields.settings()["telemetry_every"] == TrainingConfig().telemetry_every
    fields.sampled.value = 7
    assert fields.settings()["telemetry_every"] == 7
    fields.use(None, {"telemetry_every": 3})
    assert fields.sampled.value == 3


@pytest.mark.parametrize("content", [b"\x80", b"x" * 1_000_001])
def test_a_file_that_is_none_of_rules(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QATEXPLORER_RUNS", str(tmp_path))
    with pytest.raises(InputError) as refused:
        decoded(content, "a.toml")
    assert refused.value.fix == "Choose a TOML or JSON file that was saved here."
    session = qx.Session(net(), X, stubs="model")
    session.set_qconfig("0", to_float=True)
    saved = session.qconfig_text()
    assert decoded(saved.encode(), "a.toml") == saved


@pytest.mark.parametrize(
    ("wrong", "fix"),
    [(" ", "Write one, such as "), ("~no-such-user/walk.py", "Write the path without ~")],
)
def test_a_name_for_what_is_taken_home(
    wrong: str, fix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QATEXPLORER_RUNS", str(tmp_path / "runs"))
    explorer = qx.explore(net(), X, stubs="model")
    panel = explorer.takehome
    explorer.drawer.show_panel(panel)
    for job, part in panel.parts.items():
        part.path.value = wrong
        panel.start(job)
        assert fix in part.result.html
    part = panel.parts[SCRIPT]
    example = "walk.py"
    part.path.value = "there.py"
    (tmp_path / "there.py").write_text("mine")
    panel.start(SCRIPT)
    until(lambda: "Give another name." in part.result.html)
    assert (tmp_path / "there.py").read_text() == "mine"
    part.path.value = example
    panel.start(SCRIPT)
    until(lambda: (tmp_path / example).exists())
