"""The sweeps of the page without a browser: what the fields say, trained, stopped, applied."""

from __future__ import annotations

from pathlib import Path

import pytest

from qatexplorer.training.sweep import Sweep
from qatexplorer.widgets.explorer.explorer import Explorer
from tests.support.sweeps import sweeping_explorer, swept
from tests.support.training_models import one_thread  # noqa: F401


@pytest.fixture
def explorer(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    one_thread: None,  # noqa: F811
) -> Explorer:
    return sweeping_explorer(tmp_path / "runs", monkeypatch)


def test_the_fields_say_what_is_swept_over_as_the_method_does(explorer: Explorer) -> None:
    panel, session = explorer.sweeps, explorer.session
    assert session is not None
    assert explorer.cures.children[-1] is panel
    panel.observers.value = " 0, Never "
    said = swept(explorer)
    shared = explorer.training.settings()
    del shared["freeze_observer_epoch"]
    alone = session.sweep({"freeze_observer_epoch": (0, None)}, seeds=(0, 1), **shared)
    assert "4 trainings of 4 done" in said
    for row in alone.rows:
        assert f"{row.mean:.4g}" in said
    assert session.run is None


def test_learned_step_sizes_stand_beside_moving_averages(explorer: Explorer) -> None:
    panel = explorer.sweeps
    panel.quantizers.value = "moving average beside learned"
    panel.seeds.value = 1
    said = swept(explorer)
    assert "moving average" in said
    assert "learned" in said


def test_then_the_model_is_trained_with_the_best(explorer: Explorer) -> None:
    panel, session = explorer.sweeps, explorer.session
    assert session is not None
    panel.batch_norms.value, panel.best.value, panel.seeds.value = "0", True, 1
    swept(explorer)
    assert session.run is not None
    assert session.run.config.freeze_bn_epoch == 0


def test_it_can_be_stopped(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    panel, session = explorer.sweeps, explorer.session
    assert session is not None
    asked = []

    def sweep(over: dict[str, list[int]], **more: object) -> Sweep:
        stop = more["should_stop"]
        assert callable(stop)
        panel.halt.click()
        asked.append(stop())
        return Sweep((), "accuracy", "max", None, None, 2, False)

    monkeypatch.setattr(session, "sweep", sweep)
    panel.observers.value = "0"
    assert "0 trainings of 2 done" in swept(explorer)
    assert asked == [True]
    assert panel.halt.layout.display == "none"
    assert panel.status.html == ""
