"""The results panel measures latency: off the loop, with a stop, linked by selection."""

from __future__ import annotations

import time
from typing import Any

import pytest

import qatexplorer as qx
from qatexplorer.session.session import Session
from qatexplorer.widgets.explorer.explorer import Explorer
from tests.support.waiting import until


@pytest.fixture
def explorer(monkeypatch: pytest.MonkeyPatch) -> Explorer:
    """Its benchmarks are short, and compile nothing."""
    made = Session.benchmark

    def short(self: Session, *args: Any, **kwargs: Any) -> Any:
        return made(self, *args, **{"seconds": 0.3, "compiled": False, **kwargs})

    monkeypatch.setattr(Session, "benchmark", short)
    return qx.explore(example="digits_cnn")


def measure(explorer: Explorer) -> None:
    explorer.results.time.click()
    until(lambda: explorer.jobs.current is None and not explorer.results.time.disabled)


def test_a_click_measures_and_shows_it(explorer: Explorer) -> None:
    results, latency = explorer.results, explorer.results.latency
    assert latency.layout.display == "none"
    measure(explorer)
    assert explorer.message.html == ""
    assert latency.layout.display == ""
    assert latency.words.html.count("<tr") == 5
    assert "batch of 1" in latency.words.html
    assert len(latency.bars.plot.figure.value["data"]) == 2
    made = latency.benchmark
    assert made is not None
    assert len(latency.operators.rows) == len(made.operators)
    assert {row["sel"] for row in latency.modules.rows} >= {"module:conv1", "module:fc"}
    assert (results.job.bar.layout.display, results.halt.layout.display) == ("none", "none")
    assert results.status.html == ""
    latency.pages.value = "Operators"
    assert (latency.modules.layout.display, latency.operators.layout.display) == ("none", "")
    assert "profiler" in latency.about.html


def test_rows_and_the_page_have_one_selection(explorer: Explorer) -> None:
    measure(explorer)
    latency = explorer.results.latency
    latency.modules.selected = "module:conv2"
    assert explorer.selection == "module:conv2"
    until(lambda: latency.operators.selected == "module:conv2")
    explorer.select("module:fc")
    until(lambda: latency.modules.selected == "module:fc")
    latency.modules.selected = "module:not.there"
    assert explorer.selection == "module:fc"


def test_a_stop_shows_what_there_is(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    short = Session.benchmark
    monkeypatch.setattr(
        Session, "benchmark", lambda self, **given: short(self, seconds=300, **given)
    )
    results = explorer.results
    begun = time.perf_counter()
    results.time.click()
    until(lambda: "timing all forms" in results.status.html)
    assert explorer.bar.can_stop
    assert results.time.disabled
    assert results.halt.layout.display == ""
    time.sleep(0.5)
    results.halt.click()
    until(lambda: explorer.jobs.current is None and not results.time.disabled)
    assert time.perf_counter() - begun < 60
    assert "Stopped before all was measured." in results.latency.words.html
    assert results.latency.benchmark is not None
    assert not results.latency.benchmark.complete
    assert not results.time.disabled


def test_other_settings_take_it_away(explorer: Explorer) -> None:
    measure(explorer)
    assert explorer.session is not None
    explorer.session.configure(engine="qnnpack")
    until(lambda: explorer.results.latency.layout.display == "none")
    assert explorer.results.latency.modules.rows == []


def test_the_figure_follows_the_theme(explorer: Explorer) -> None:
    measure(explorer)
    plot = explorer.results.latency.bars.plot
    light = plot.figure.value
    explorer.panes.graph.dark = True
    until(lambda: plot.figure.value != light)


def test_a_failure_is_reported(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_session: Session, **_given: Any) -> None:
        raise qx.errors.InputError("Nothing works today.")

    monkeypatch.setattr(Session, "benchmark", fails)
    measure(explorer)
    assert "Nothing works today." in explorer.message.html
    assert explorer.results.job.bar.layout.display == "none"
    assert explorer.results.status.html == ""
