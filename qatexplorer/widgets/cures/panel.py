"""The panel "Cures": what wins accuracy back, tried, measured, and taken back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ipywidgets as widgets

from qatexplorer.cures import CURES, Cured, Offer
from qatexplorer.cures.batch_norms import BATCHES as NORM_BATCHES
from qatexplorer.cures.biases import BATCHES as BIAS_BATCHES
from qatexplorer.cures.ranges import OBSERVERS
from qatexplorer.flows.quant_spec import QuantSpec
from qatexplorer.session.session import Session
from qatexplorer.views.common.busy import left_words
from qatexplorer.views.common.html import Html
from qatexplorer.views.common.story import message_html
from qatexplorer.views.cures.words import (
    STOPPED,
    before_training_html,
    offer_html,
    on_html,
    outcome_html,
)
from qatexplorer.widgets.common.assets import css
from qatexplorer.widgets.common.bridge import Bridge
from qatexplorer.widgets.common.confirm import Confirm
from qatexplorer.widgets.common.controls import button, labelled, row
from qatexplorer.widgets.common.in_sight import InSight
from qatexplorer.widgets.common.long_job import Heard, LongJob
from qatexplorer.widgets.common.panel import HtmlPanel

JOB = "trying a cure"
_FIRST = ("equalization", "ranges")
"""The cards that come first: they need no prepared model."""


class CuresHtml(HtmlPanel):
    """HTML of the cures' views."""

    _css = css("common/html.css", "common/panel.css", "cures/cures.css")


class Card(widgets.VBox):
    """One cure: its button, its settings, and what it would do to this model."""

    def __init__(self, name: str, fields: dict[str, Any], on_try: Callable[[str], Any]) -> None:
        self.name, self.fields = name, fields
        self.applies = False
        self.attempt = button(
            f"Try: {CURES[name].title}", "Make it and measure before and after", primary=True
        )
        self.attempt.on_click(lambda _: on_try(name))
        self.words = widgets.HTML("")
        super().__init__([row(self.attempt, *fields.values()), self.words])
        self.add_class("qx-cures-card")

    @property
    def settings(self) -> dict[str, Any]:
        """As :meth:`Session.cure` takes them; what is left as it is, is left out."""
        values = {name: field.value for name, field in self.fields.items()}
        if "percentile" in values and "percentile" not in (values["activation"], values["weight"]):
            values["percentile"] = None
        return {name: value for name, value in values.items() if value is not None}

    def show(self, offer: Offer) -> None:
        """Say what it would do, or why it does not apply."""
        self.applies = offer.applies and offer.cost is not None
        self.words.value = offer_html(offer)


@dataclass(frozen=True)
class _State:
    """What is true of a session's model now, ready for the page."""

    session: Session
    offers: tuple[Offer, ...]
    on: tuple[Cured, ...]
    before: Html


class CuresPanel(InSight, widgets.VBox):
    """Lists the cures with what each would do, tries one, and takes it back.

    Args:
        bridge: runs callbacks on the page's loop.
        start_job: starts a long call on a worker thread, as the other panels get it.
        say_before: called with HTML of what speaks for something else than training first, ``""``
            for nothing.
        wanted: whether somebody sees what ``say_before`` shows.
        sweeps: what stands below the cures.

    The widgets inside are made when ``active`` says for the first time that the panel is in sight.
    """

    def __init__(
        self,
        bridge: Bridge,
        start_job: Callable[..., Any],
        say_before: Callable[[str], Any],
        wanted: Callable[[], bool],
        sweeps: widgets.Widget | None = None,
    ) -> None:
        self._bridge, self._start_job = bridge, start_job
        self._say_before, self._wanted = say_before, wanted
        self._below = () if sweeps is None else (sweeps,)
        self._session: Session | None = None
        self._last: Cured | None = None
        self._advice: widgets.Widget | None = None
        self._enabled, self._built = True, False
        super().__init__([])
        for name in ("qx-panel", "qx-cures"):
            self.add_class(name)

    def _build(self) -> None:
        self._built = True
        self.slot = widgets.VBox([])
        self.before, self.outcome, self.on = CuresHtml(), CuresHtml(), CuresHtml()
        names = dict.fromkeys((*_FIRST, *CURES))
        self.cards = {name: Card(name, _fields(name), self.start) for name in names}
        cards = widgets.Box(list(self.cards.values()))
        cards.add_class("qx-cures-cards")
        self.job = LongJob(
            self._bridge,
            self._start_job,
            tip="Stop; the model is then as it was",
            stopping="Stopping after this batch …",
            on_busy=lambda busy: None if busy else self.refresh(),
        )
        self.halt, self.status = self.job.halt, self.job.status
        self.confirm = Confirm()
        self.undo = button("Undo", "Take the last cure back")
        self.undo.on_click(lambda _: self._undo())
        done = widgets.VBox(
            [
                self.confirm,
                row(self.halt, self.job.bar, self.status),
                self.outcome,
                row(self.undo, self.on),
            ]
        )
        parts = widgets.Box([cards, done])
        parts.add_class("qx-cures-parts")
        self.children = [self.slot, self.before, parts, *self._below]
        self.place_advice(self._advice)

    def place_advice(self, advice: widgets.Widget | None) -> None:
        """Show ``advice`` above all else; it comes with the rest when the panel is opened."""
        self._advice = advice
        if self._built:
            self.slot.children = [] if advice is None else [advice]

    # -- what the explorer calls ----------------------------------------------------------------

    def use(self, session: Session) -> None:
        """Show another session."""
        self._session, self._last = session, None
        self._say_before("")
        if self._built:
            self.confirm.put_away()
            self.job.forget()
            self.outcome.html = self.status.html = ""
        self.refresh()

    def refresh(self) -> None:
        """The stage or the model is another: look again at what would help."""
        session = self._session
        if session is not None and (self._active or self._wanted()):
            self._bridge.make("cures", lambda: _state(session), self._show, self._failed)

    def _opened(self) -> None:
        if not self._built:
            self._build()
        self.refresh()

    def set_enabled(self, enabled: bool) -> None:
        self._enabled = enabled
        self._enable()

    # -- trying and taking back -----------------------------------------------------------------

    def start(self, name: str) -> None:
        """Try a cure on a worker thread, having asked where a trained model would go."""
        session = self._session
        if session is None:
            return
        settings = self.cards[name].settings
        if CURES[name].judged == "ptq":
            self.confirm.start_again(
                session, lambda: self._try(name, settings), "A cure of the float model starts"
            )
        else:
            self.confirm.put_away()
            self._try(name, settings)

    def _try(self, name: str, settings: dict[str, Any]) -> None:
        session = self._session
        if session is None:
            return

        def work(heard: Heard, should_stop: Callable[[], bool]) -> Cured:
            return session.cure(name, progress=heard, should_stop=should_stop, **settings)

        def done(found: Cured) -> None:
            self._last, self.outcome.html = found, outcome_html(found)

        self.job.run(JOB, work, done, words=left_words, stopped=STOPPED)

    def _undo(self) -> None:
        session = self._session
        if session is None or not session.cured:
            return
        last = session.cured[-1]
        if last.judged == "ptq":
            self.confirm.start_again(
                session, self._take_back, "Taking a cure of the float model back starts"
            )
        else:
            self.confirm.put_away()
            self._take_back()

    def _take_back(self) -> None:
        session = self._session
        if session is None:
            return

        def done(_snapshot: Any) -> None:
            if self._last is not None and self._last not in session.cured:
                self.outcome.html = outcome_html(self._last, taken_back=True)
            self.refresh()

        self._start_job("taking a cure back", lambda _job: session.undo_cure(), done)

    # -- drawing --------------------------------------------------------------------------------

    def _show(self, state: _State) -> None:
        if state.session is not self._session:
            return
        self._say_before(state.before)
        if self._built:
            self.before.html = state.before
            for offer in state.offers:
                self.cards[offer.name].show(offer)
            self.on.html = on_html(state.on)
            self.undo.layout.display = "" if state.on else "none"
            self._enable()

    def _failed(self, error: Exception) -> None:
        self._say_before("")
        if self._built:
            self.before.html = message_html(error)
            for card in self.cards.values():
                card.applies, card.words.value = False, ""
            self._enable()

    def _enable(self) -> None:
        if not self._built:
            return
        on = self._enabled and self._session is not None
        for card in self.cards.values():
            card.attempt.disabled = not (on and card.applies)
        self.undo.disabled = not on


def _state(session: Session) -> _State:
    offers = session.cures
    return _State(session, offers, session.cured, before_training_html(session.before_training))


def _fields(name: str) -> dict[str, Any]:
    if name == "ranges":
        rules = [("as it is", None), *((rule, rule) for rule in OBSERVERS)]
        activation = widgets.Dropdown(options=rules, value="histogram")
        weight = widgets.Dropdown(options=rules)
        percentile = widgets.BoundedFloatText(
            QuantSpec().percentile, min=50.0001, max=100.0, step=0.01
        )
        return {
            "activation": labelled(activation, "Activations", "Their range rule", width="210px"),
            "weight": labelled(weight, "Weights", "Their range rule", width="190px"),
            "percentile": labelled(
                percentile, "Percentile", "Of the rule of that name", width="160px"
            ),
        }
    usual = {"biases": BIAS_BATCHES, "batch_norms": NORM_BATCHES}
    if name not in usual:
        return {}
    batches = widgets.BoundedIntText(usual[name], min=1, max=1_000_000)
    return {"batches": labelled(batches, "Batches", "Of the training data", width="140px")}
