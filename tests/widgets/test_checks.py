"""Checks on the page: made in the background when nothing else wants the session, shown, stopped,
put right and taken back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.checks.records import Fix
from qatexplorer.checks.rules import RULES, Found, rule
from qatexplorer.checks.subject import Subject
from qatexplorer.widgets.explorer.explorer import Explorer
from tests.support.waiting import until, until_on_loop


@pytest.fixture(autouse=True)
def runs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QATEXPLORER_RUNS", str(tmp_path / "runs"))


@pytest.fixture
def slow() -> Iterator[threading.Event]:
    """A rule that finds each Dropout when the event is set, and waits until then."""
    going_on = threading.Event()
    fix = Fix(
        "Quantize nothing", "configure", (("qconfig", {nn.Linear: None}),), "code()", "-a\n+b"
    )

    def wait(subject: Subject) -> bool:
        """Waiting for the test"""
        while not going_on.wait(0.01):
            subject.stop_if_asked()
        return True

    @rule("QX999", "a-test-rule", "warning", "int8")
    def _ask(subject: Subject) -> Iterator[Found]:
        """A rule of the tests

        Symptom:
            none
        """
        subject.get(wait)
        for path, _ in subject.layers(nn.Dropout):
            yield Found(path, f"{path} is a Dropout.", "Take it out.", (fix,))

    yield going_on
    del RULES["QX999"]


def model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Dropout(), nn.Flatten()).train()


def opened() -> Explorer:
    return qx.explore(model(), torch.randn(2, 1, 6, 6), stubs="model")


def on_loop(body: Callable[[], Any]) -> None:
    """Run a test as a page in a notebook runs: with a loop."""

    async def whole() -> None:
        await body()
        # What goes on in the background would disturb the tests that follow.
        await until_on_loop(
            lambda: not any(t.name.startswith("qatexplorer-") for t in threading.enumerate()), 20
        )

    asyncio.run(whole())


def names(explorer: Explorer) -> list[str]:
    return [one.name for one in explorer.checks.findings]


def test_a_check_is_made_by_itself_after_the_first_picture(slow: threading.Event) -> None:
    async def body() -> None:
        explorer = opened()
        assert explorer.checker.state.kind == "none"  # not before there is a picture
        assert explorer.panes.tree.rows.value == []
        await until_on_loop(lambda: explorer.checker.state.what == "Waiting for the test")
        assert explorer.panes.tree.rows.value
        assert "checking" in explorer.news.checks["said"]
        assert explorer.checks.halt.layout.display == ""
        slow.set()
        await until_on_loop(lambda: explorer.checker.state.kind == "done")
        assert "a-test-rule" in names(explorer)
        counted = {one["severity"]: one["n"] for one in explorer.news.checks["counts"]}
        found = [one.severity for one in explorer.checks.findings]
        assert counted == {severity: found.count(severity) for severity in set(found)}
        assert explorer.checks.halt.layout.display == "none"
        assert "Dropout" in explorer.checks.card.html or len(names(explorer)) > 1

    on_loop(body)


def test_the_loop_answers_while_it_checks(slow: threading.Event) -> None:
    async def body() -> None:
        explorer = opened()
        await until_on_loop(lambda: explorer.checker.state.busy)
        # The rule waits for the event, which is not set before the loop has gone round.
        for _ in range(40):
            await asyncio.sleep(0)
        assert explorer.checker.state.busy
        slow.set()
        await until_on_loop(lambda: explorer.checker.state.kind == "done")

    on_loop(body)


def test_a_click_is_not_kept_waiting_and_the_check_begins_anew(slow: threading.Event) -> None:
    async def body() -> None:
        explorer = opened()
        session = explorer.session
        assert session is not None
        await until_on_loop(lambda: explorer.checker.state.what == "Waiting for the test")
        explorer._on_action("next", "")
        await until_on_loop(lambda: explorer.jobs.current is None)
        assert session.stage == "fuse"  # the rule goes on waiting: the click did not
        await until_on_loop(lambda: explorer.checker.state.what == "Waiting for the test")
        assert session.last_check is None
        slow.set()
        await until_on_loop(lambda: explorer.checker.state.kind == "done")
        assert session.last_check is not None
        explorer._on_action("next", "")
        await until_on_loop(lambda: explorer.jobs.current is None)
        last = session.last_check
        await until_on_loop(lambda: explorer.bar.stages[2]["state"] == "current")
        assert session.last_check is last  # a step changes nothing that was checked
        assert explorer.checker.state.kind == "done"
        assert "a-test-rule" in names(explorer)

    on_loop(body)


def test_who_stops_it_is_left_in_peace_until_the_model_changes(slow: threading.Event) -> None:
    async def body() -> None:
        explorer = opened()
        await until_on_loop(lambda: explorer.checker.state.what == "Waiting for the test")
        explorer.checks.halt.click()
        await until_on_loop(lambda: explorer.checker.state.kind == "stopped")
        assert explorer.news.checks["said"] == "not checked"
        assert "Stopped" in explorer.checks.status.html
        explorer._on_action("next", "")
        await until_on_loop(lambda: explorer.jobs.current is None)
        await asyncio.sleep(0.2)
        assert explorer.checker.state.kind == "stopped"
        slow.set()
        explorer.checks.check.click()
        await until_on_loop(lambda: explorer.checker.state.kind == "done")
        session = explorer.session
        assert session is not None
        slow.clear()
        explorer.start_job("changing", lambda _job: session.configure(stubs="none"))
        await until_on_loop(lambda: explorer.checker.state.what == "Waiting for the test")
        slow.set()
        await until_on_loop(lambda: explorer.checker.state.kind == "done")

    on_loop(body)


def test_a_check_that_fails_says_so_and_is_not_repeated(
    slow: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def fails(_self: qx.Session, **_given: Any) -> Any:
        calls.append(1)
        raise ZeroDivisionError("<no> check")

    monkeypatch.setattr(qx.Session, "check", fails)

    async def body() -> None:
        explorer = opened()
        await until_on_loop(lambda: explorer.checker.state.kind == "failed")
        assert explorer.news.checks["said"] == "check failed"
        assert "&lt;no&gt; check" in explorer.checks.notice.html
        explorer._on_action("next", "")
        await until_on_loop(lambda: explorer.jobs.current is None)
        await asyncio.sleep(0.1)
        assert len(calls) == 1
        assert explorer.checker.state.kind == "failed"

    on_loop(body)


def test_a_run_is_waited_for_and_what_it_trained_is_checked(slow: threading.Event) -> None:
    slow.set()
    x, y = torch.randn(8, 1, 6, 6), torch.zeros(8, dtype=torch.long)
    loader = [(x, y)] * 2

    async def body() -> None:
        explorer = qx.explore(model(), x, stubs="model", data=[loader, loader])
        session = explorer.session
        assert session is not None
        await until_on_loop(lambda: session.last_check is not None)
        first = session.last_check
        explorer.start_job("training", lambda _job: session.start_training(epochs=1))
        await until_on_loop(lambda: session.run is not None and not session.running)
        await until_on_loop(lambda: session.last_check not in (None, first))
        assert session.last_check is not first
        assert "never-observed" not in names(explorer)

    on_loop(body)


def test_nothing_is_checked_while_a_run_is_going_on(
    slow: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow.set()
    monkeypatch.setattr(qx.Session, "running", property(lambda _self: True))

    async def body() -> None:
        explorer = opened()
        await until_on_loop(lambda: "a run is going on" in explorer.checks.status.html)
        await asyncio.sleep(0.1)
        assert not explorer.checker.state.busy
        assert explorer.news.checks["said"] == "not checked"

    on_loop(body)


def test_without_a_loop_it_is_made_when_it_is_asked_for(slow: threading.Event) -> None:
    slow.set()
    explorer = opened()
    assert explorer.checker.state.kind == "none"
    assert explorer.news.checks["said"] == "not checked"
    explorer.checks.check.click()
    until(lambda: explorer.checker.state.kind == "done")
    assert "a-test-rule" in names(explorer)


@pytest.fixture
def checked(slow: threading.Event) -> Explorer:
    slow.set()
    explorer = opened()
    explorer.checks.check.click()
    until(lambda: explorer.checker.state.kind == "done")
    until(lambda: explorer.checks.findings)
    return explorer


def key_of(explorer: Explorer, name: str) -> str:
    return next(one.key for one in explorer.checks.findings if one.name == name)


def test_choosing_a_finding_selects_its_place_and_shows_it(checked: Explorer) -> None:
    checked.checks.table.selected = key_of(checked, "a-test-rule")
    assert checked.selection == "module:2"
    assert "2 is a Dropout." in checked.checks.card.html
    marks = checked.panes.tree.findings
    assert marks["module:2"]["severity"] == "warning"
    assert checked.panes.graph.findings == marks
    checked.select("module:0")
    checked.checks.card._handle_custom_msg({"ask": "select:module:2"}, [])
    assert checked.selection == "module:2"


def test_the_counts_open_the_panel(checked: Explorer) -> None:
    checked.news._handle_custom_msg({"action": "checks"}, [])
    assert checked.drawer.in_sight(checked.checks)
    checked.drawer.close_drawer()
    checked._on_ask("panel:checks")
    assert checked.drawer.in_sight(checked.checks)


def test_a_fix_is_applied_and_listed(checked: Explorer) -> None:
    key = key_of(checked, "a-test-rule")
    checked.checks.card._handle_custom_msg({"ask": f"fix:{key}:0"}, [])
    until(lambda: checked.jobs.current is None)
    assert checked.message.html == ""
    assert checked.session is not None
    assert checked.session.options.qconfig.by_type
    assert checked.checker.state.kind == "none"  # what was found was of the model before
    assert "a-test-rule" not in names(checked)
    assert "Put right (1)" in checked.checks.below.html
    assert "code()" in checked.checks.below.html
    assert "undo" not in checked.checks.below.html  # settings are changed back in the settings
    other = qx.Session(model(), torch.randn(2, 1, 6, 6))
    checked.show_session(other)
    assert checked.checks.below.html == ""


def test_what_is_silenced_is_not_counted(checked: Explorer) -> None:
    session = checked.session
    assert session is not None
    session.check(silence=[{"id": "QX999", "path": "*", "reason": "we know"}])
    checked.refresh()
    assert "a-test-rule" not in names(checked)
    assert not any(one["name"] == "a-test-rule" for one in checked.news.findings)
    assert "we know" in checked.checks.below.html


def test_filter_and_choice_survive_a_new_check_and_vanish_with_what_they_chose(
    checked: Explorer,
) -> None:
    table = checked.checks.table
    key = key_of(checked, "a-test-rule")
    table.selected = key
    checked.checks.show(checked.checks.findings)
    assert table.selected == key
    checked.checks.show(())
    assert table.selected == ""
    assert checked.checks.card.html == ""
    assert "No findings" in checked.checks.notice.html


def test_an_edit_of_the_model_can_be_taken_back(
    slow: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Padding given as a word: put right by an edit, which the page takes back."""
    slow.set()
    padded = nn.Sequential(nn.Conv2d(1, 2, 3, padding="same"), nn.Dropout()).train()
    explorer = qx.explore(padded, torch.randn(2, 1, 6, 6), stubs="model")
    session = explorer.session
    assert session is not None
    session.edit("number_padding", "0")
    added = session.edits
    session.take_back(*added)
    fix = Fix("Pad by a number", "edit", (("name", "number_padding"), ("path", "0")), added[0].code,
              added[0].diff)  # fmt: skip
    explorer.checks.check.click()
    until(lambda: explorer.checker.state.kind == "done")
    found = explorer.checks.findings[0]
    monkeypatch.setattr(
        qx.Session, "findings", lambda _self, **_given: (found.__class__(
            found.id, found.name, found.severity, found.path, found.stage, found.message,
            fixes=(fix,)),)
    )  # fmt: skip
    explorer._on_fix(found.key, 0)
    until(lambda: explorer.jobs.current is None)
    assert session.edits == added
    assert 'data-ask="undo:0"' in explorer.checks.below.html
    assert "padding=" in explorer.checks.below.html
    explorer.checks.below._handle_custom_msg({"ask": "undo:0"}, [])
    until(lambda: explorer.jobs.current is None)
    assert session.edits == ()
    assert explorer.checks.below.html.count("undo") == 0
