"""The panel of the sensitivity without a browser: measured, stopped, gone on with, linked, applied
and taken back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import qatexplorer as qx
from qatexplorer.widgets.explorer.explorer import Explorer
from tests.support.narrow import narrow
from tests.support.page_text import visible_text
from tests.support.waiting import until


@pytest.fixture(autouse=True)
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QATEXPLORER_RUNS", str(tmp_path / "runs"))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield  # type: ignore[misc]
    torch.set_num_threads(before)


def opened(flow: str = "eager", bits: int = 2) -> Explorer:
    explorer = qx.explore(example="digits_cnn", flow=flow, qconfig=narrow(bits))
    assert explorer.session is not None
    explorer.session.calibrate(2)
    return explorer


def pressed(explorer: Explorer, button: Any) -> None:
    button.click()
    until(lambda: explorer.jobs.current is None)
    # Without a loop the job's own thread draws what it has found.
    until(lambda: not any(t.name.startswith("qatexplorer-") for t in threading.enumerate()))


def shown(widget: Any) -> bool:
    return bool(widget.layout.display != "none")


def test_before_anything_is_measured() -> None:
    explorer = qx.explore(example="digits_cnn")
    panel = explorer.sensitivity
    assert "Sensitivity" in explorer.drawer.titles
    assert "no fake quants yet" in visible_text(panel.cost.html)
    assert not shown(panel.wish)
    assert not shown(panel.apply)
    assert not shown(panel.undo)
    assert not shown(panel.ranking)
    pressed(explorer, panel.measure)
    assert "There are no fake quants yet" in visible_text(explorer.message.html)
    assert not shown(panel.halt)


@pytest.mark.parametrize("flow", ["eager", "fx"])
def test_ranked_searched_applied_and_taken_back(flow: str) -> None:
    explorer = opened(flow)
    session, panel = explorer.session, explorer.sensitivity
    assert session is not None
    for method in ("shadow", "exact"):
        panel.method.value = method
        pressed(explorer, panel.measure)
        found = session.last_sensitivity[method]
        assert [row["id"] for row in panel.table.rows] == [row.path for row in found.rows]
        assert panel.bars.plot.label
        assert panel.measure.description == "Measure again"
    panel.method.value = "shadow"
    said = visible_text(panel.summary.html)
    assert "Spearman with exact" in said
    assert f"{session.last_sensitivity['shadow'].spearman:.2g}".replace("-", "−") in said
    exact = session.last_sensitivity["exact"]
    assert exact.float_metric is not None
    assert exact.quantized_metric is not None
    assert exact.quantized_metric < panel.wished.value < exact.float_metric

    sites, plan = len(session.snapshot.sites), session.options.qconfig
    pressed(explorer, panel.search)
    proposal = session.last_proposal
    assert proposal is not None
    assert proposal.wished == panel.wished.value
    assert len(panel.points.rows) == len(proposal.points)
    chosen = proposal.chosen
    assert chosen is not None
    assert panel.points.selected == f"point:{proposal.points.index(chosen)}"
    assert "Smallest set found" in visible_text(panel.outcome.html)
    pressed(explorer, panel.apply)
    assert session.applied is chosen
    assert session.stage == "float"
    assert shown(panel.undo)
    assert visible_text(panel.applied.html).startswith("In force: left in float: ")
    assert "measure again" in visible_text(panel.status.html)
    session.goto(session.flow.prepared_stage)
    assert len(session.snapshot.sites) < sites
    pressed(explorer, panel.undo)
    assert session.options.qconfig is plan
    assert not shown(panel.undo)
    assert panel.applied.html == ""
    # What is shown is of the model before, until it is measured again.
    session.calibrate(1)
    assert panel.points.rows
    pressed(explorer, panel.measure)
    assert not panel.points.rows
    assert panel.status.html == ""


def test_another_wish_and_another_point_choose_without_measuring() -> None:
    explorer = opened()
    session, panel = explorer.session, explorer.sensitivity
    assert session is not None
    pressed(explorer, panel.measure)
    pressed(explorer, panel.search)
    proposal = session.last_proposal
    assert proposal is not None
    panel.points.selected = "point:0"
    assert panel.apply.disabled  # nothing to leave in float
    panel.points.selected = "point:2"
    assert not panel.apply.disabled
    assert ", ".join(proposal.points[2].modules) in visible_text(panel.outcome.html)
    for wished in (0.0, proposal.points[-1].metric, 2.0):
        panel.wished.value = wished
        first = proposal.first_that_reaches(panel.wished.value)
        expected = "" if first is None else f"point:{proposal.points.index(first)}"
        assert panel.points.selected == expected
    assert session.last_proposal is proposal
    panel.treatment.value = 8
    assert panel.points.rows == []
    pressed(explorer, panel.search)
    assert session.last_proposal is not None
    assert session.last_proposal.treatment == "8"
    assert panel.apply.description == "Give these 8 bits"


def test_stopped_and_gone_on_with() -> None:
    explorer = opened()
    session, panel = explorer.session, explorer.sensitivity
    assert session is not None
    usual = session.sensitivity
    stop: list[Callable[[], Any]] = [panel.halt.click]

    def slowly(*args: Any, **kwargs: Any) -> Any:
        heard = kwargs["progress"]

        def progress(what: str, share: float) -> None:
            heard(what, share)
            if share > 0.1 and stop:
                stop.pop()()

        return usual(*args, **{**kwargs, "progress": progress})

    session.sensitivity = slowly  # type: ignore[method-assign]
    panel.method.value = "exact"
    pressed(explorer, panel.measure)
    part = session.last_sensitivity["exact"]
    assert not part.complete
    assert panel.measure.description == "Go on"
    assert "Stopped before the end" in visible_text(panel.summary.html)
    pressed(explorer, panel.measure)
    whole = session.last_sensitivity["exact"]
    assert whole.complete
    assert panel.measure.description == "Measure again"
    fresh = opened().session
    assert fresh is not None
    assert whole.rows == fresh.sensitivity("exact").rows


def test_selection_is_linked_both_ways() -> None:
    explorer = opened()
    session, panel = explorer.session, explorer.sensitivity
    assert session is not None
    pressed(explorer, panel.measure)
    row = panel.table.rows[1]["sel"]
    panel.table.selected = row
    until(lambda: explorer.selection == row)
    other = session.last_sensitivity["shadow"].rows[0]
    explorer.select(f"module:{other.owner}")
    until(lambda: panel.table.selected == f"site:{other.path}")
    assert explorer.selection == f"module:{other.owner}"  # marking is not selecting
    explorer.select("")
    until(lambda: panel.table.selected == "")


def test_an_error_ends_the_job_and_is_shown() -> None:
    explorer = opened()
    session, panel = explorer.session, explorer.sensitivity
    assert session is not None
    session.loss = lambda output, target: 1 / 0
    panel.method.value = "gradient"
    pressed(explorer, panel.measure)
    assert explorer.message.html
    assert not shown(panel.halt)
    assert not panel.measure.disabled
