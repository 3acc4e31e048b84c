"""The panel of the advice without a browser: made when it is in sight, pressed, selected."""

from __future__ import annotations

from typing import Any

import pytest

import qatexplorer as qx
from qatexplorer.advice import Action, Advice, Cost, Proposal, Sureness
from qatexplorer.views.common.html import Html
from qatexplorer.widgets.common.bridge import Bridge
from qatexplorer.widgets.common.page import PageState
from qatexplorer.widgets.cures.advice import AdvicePanel, perform, starts_again
from tests.cures.nets import session_of, usual
from tests.support.advice import small
from tests.support.page_text import visible_text
from tests.support.training_models import one_thread  # noqa: F401


def panel_of(session: qx.Session) -> tuple[AdvicePanel, list[Proposal], PageState]:
    pressed: list[Proposal] = []
    page = PageState()
    panel = AdvicePanel(Bridge(), page, pressed.append)
    panel.use(session)
    return panel, pressed, page


def ask(panel: AdvicePanel, what: str) -> None:
    body: Any = panel.body
    body._handle_custom_msg({"ask": what}, [])


def test_nothing_is_made_before_it_is_in_sight() -> None:
    panel, _, _ = panel_of(session_of(usual(), "eager"))
    assert panel.children == ()
    assert panel.advice is None
    panel.active = True
    assert panel.advice is not None
    assert panel.body is not None
    assert "session.check()" in panel.body.html


def test_a_button_hands_over_its_proposal_and_it_is_done() -> None:
    session = session_of(usual(), "eager", qconfig="onednn")
    panel, pressed, _ = panel_of(session)
    panel.active = True
    assert panel.advice is not None
    ask(panel, "do:0")
    assert pressed == [panel.advice[0]]
    perform(session, pressed[0], should_stop=lambda: False)
    assert session.last_check is not None
    panel.refresh()
    ask(panel, "do:0")
    assert pressed[1].recipe == "evaluate"
    perform(session, pressed[1])  # what comes before it
    assert session.stage == session.flow.prepared_stage


def test_training_goes_on_in_the_background() -> None:
    session = small()
    action = Action("train", "Train", "", "train", (("epochs", 1), ("telemetry_every", 0)))
    sure = Sureness("rule", "1 epoch")
    run = perform(session, Proposal("train", action, (), Cost(), sure))
    assert run is session.run
    run.wait()
    assert run.state == "finished"


START_AGAIN = {"configure", "set_qconfig", "apply", "edit", "use_train_mode"}


def proposed(call: str, *arguments: tuple[str, Any]) -> Proposal:
    action = Action(call, call, f"session.{call}()", call, arguments)
    return Proposal(call, action, (), Cost(), Sureness("rule", "a test"))


def test_a_trained_model_is_not_left_without_asking() -> None:
    session = small()
    panel, pressed, _ = panel_of(session)
    panel.active = True
    asking = [
        *map(proposed, sorted(START_AGAIN)),
        proposed("cure", ("name", "equalization")),
        proposed("train"),
    ]
    not_asking = [proposed("evaluate"), proposed("cure", ("name", "biases"))]
    every = [*asking, *not_asking]
    panel.advice = Advice("Net", "train", tuple(every))
    for number in range(len(every)):
        ask(panel, f"do:{number}")
    assert pressed == every  # nothing was trained

    session.train(1, progress=False)
    panel.advice, pressed[:] = Advice("Net", "train", tuple(every)), []
    for number, one in enumerate(asking):
        ask(panel, f"do:{number}")
        assert pressed == []
        said = visible_text(Html(panel.confirm.words.html))
        assert said.startswith("There is a trained model.")
        assert ("What is advised starts again" in said) == (one.action.call != "train")
        panel.confirm.no.click()
        assert (pressed, panel.confirm.layout.display) == ([], "none")
        ask(panel, f"do:{number}")
        panel.confirm.yes.click()
        assert pressed == [one]
        pressed.clear()
    for number in range(len(asking), len(every)):
        ask(panel, f"do:{number}")
    assert pressed == not_asking


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("set_qconfig", {"where": "", "to_float": True}),
        ("configure", {"stubs": "none"}),
        ("use_train_mode", {}),
        ("cure", {"name": "ranges", "weight": "moving average"}),
        ("cure", {"name": "biases", "batches": 1}),
        ("evaluate", {"latency": False}),
    ],
)
def test_what_asks_is_what_starts_again(call: str, arguments: dict[str, Any]) -> None:
    session = small()
    action = Action("x", "", "", call, tuple(arguments.items()))
    asks = starts_again(session, action)
    action.apply(session)
    assert (session.stage == session.stages[0]) == asks


def test_switched_off_it_does_nothing() -> None:
    panel, pressed, _ = panel_of(session_of(usual(), "eager"))
    panel.active = True
    panel.set_enabled(False)
    assert panel.body is not None
    assert 'data-ask="do:' not in panel.body.html
    ask(panel, "do:0")
    assert pressed == []
    panel.set_enabled(True)
    assert 'data-ask="do:0"' in panel.body.html


def test_a_place_is_selected_and_an_error_is_shown(monkeypatch: Any) -> None:
    session = session_of(usual(), "eager")
    panel, _, page = panel_of(session)
    panel.active = True
    ask(panel, "select:module:body.0")
    assert page.selection == "module:body.0"

    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no advice today")

    monkeypatch.setattr(session, "advice", fails)
    panel.refresh()
    assert panel.body is not None
    assert "no advice today" in visible_text(Html(panel.body.html))
