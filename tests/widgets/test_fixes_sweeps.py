"""Each fix that the sweeps of the page give, done to the letter."""

from __future__ import annotations

from pathlib import Path

import pytest

from qatexplorer.errors import InputError
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


def test_nothing_to_sweep_over(explorer: Explorer) -> None:
    swept(explorer)
    assert "There is nothing to sweep over" in explorer.message.html
    assert "Write epochs to try, such as “never, 1, 2”, or choose step sizes" in (
        explorer.message.html
    )
    explorer.sweeps.observers.value = "never, 1, 2"
    assert explorer.sweeps._over() == {"freeze_observer_epoch": [None, 1, 2]}


def test_what_is_no_epoch(explorer: Explorer) -> None:
    panel = explorer.sweeps
    panel.observers.value = "0, soon"
    with pytest.raises(InputError, match="has 'soon'") as caught:
        panel._over()
    assert caught.value.fix == (
        "Write whole numbers (0 is from the start) and never, with commas between."
    )
    panel.observers.value = "0, never"
    assert panel._over() == {"freeze_observer_epoch": [0, None]}
