"""What to try with the model, above the cures: a list whose buttons do it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from qatexplorer.advice import Action, Advice, Proposal
from qatexplorer.cures import CURES
from qatexplorer.session.session import Session
from qatexplorer.views.advice import advice_html
from qatexplorer.views.common.story import message_html
from qatexplorer.widgets.common.assets import css
from qatexplorer.widgets.common.bridge import Bridge
from qatexplorer.widgets.common.confirm import Confirm
from qatexplorer.widgets.common.in_sight import InSight
from qatexplorer.widgets.common.page import PageState
from qatexplorer.widgets.common.panel import HtmlPanel

ADVISED = "doing what is advised"
_STARTS_AGAIN = ("configure", "edit", "use_train_mode", "set_qconfig", "apply")
_STOPPABLE = ("cure", "check", "evaluate", "sensitivity", "propose", "ledger")


class AdviceHtml(HtmlPanel):
    """HTML of the advice's view."""

    _css = css("common/html.css", "common/panel.css", "checks/checks.css", "cures/advice.css")


class AdvicePanel(InSight, widgets.VBox):
    """The advice of a session, made off the page's loop while the panel is in sight.

    Args:
        bridge: runs callbacks on the page's loop.
        page: where a click on a place selects it.
        on_do: called with the proposal whose button was pressed; :func:`perform` does it. The panel
            asks before where that takes a trained model out of the stages.

    What is inside is made when ``active`` says for the first time that the panel is in sight.
    """

    def __init__(self, bridge: Bridge, page: PageState, on_do: Callable[[Proposal], Any]) -> None:
        self._bridge, self._page, self._on_do = bridge, page, on_do
        self._session: Session | None = None
        self._enabled = True
        self.advice: Advice | None = None
        self.body: AdviceHtml | None = None
        super().__init__([])
        self.add_class("qx-advice-panel")

    def use(self, session: Session) -> None:
        """Show another session."""
        self._session, self.advice = session, None
        if self.body is not None:
            self.confirm.put_away()
        self._draw()
        self.refresh()

    def refresh(self) -> None:
        """The stage, the model or what is known of it is another."""
        session = self._session
        if session is not None and self._active:
            self._bridge.make(
                "advice",
                lambda: (session, session.advice()),
                lambda made: self._show(*made),
                self._failed,
            )

    def _opened(self) -> None:
        if self.body is None:
            self.body, self.confirm = AdviceHtml(), Confirm()
            self.body.on_ask(self._on_ask)
            self.children = [self.confirm, self.body]
        self.refresh()

    def set_enabled(self, enabled: bool) -> None:
        self._enabled = enabled
        self._draw()

    # -- inside ---------------------------------------------------------------------------------

    def _show(self, session: Session, advice: Advice) -> None:
        if session is self._session:
            self.advice = advice
            self._draw()

    def _failed(self, error: Exception) -> None:
        self.advice = None
        if self.body is not None:
            self.body.html = message_html(error)

    def _draw(self) -> None:
        session, advice = self._session, self.advice
        if self.body is None:
            return
        if session is None or advice is None:
            self.body.html = ""
        else:
            self.body.html = advice_html(advice, session.snapshot, self._enabled)

    def _on_ask(self, wanted: str) -> None:
        what, _, rest = wanted.partition(":")
        if what == "select":
            self._page.select(rest)
        elif what == "do" and self.advice is not None and self._enabled:
            self._do(self.advice[int(rest)])

    def _do(self, proposal: Proposal) -> None:
        session, action = self._session, proposal.next
        if session is None:
            return
        if action.call == Session.train.__name__:
            self.confirm.train(session, lambda: self._on_do(proposal))
        elif starts_again(session, action):
            self.confirm.start_again(
                session, lambda: self._on_do(proposal), "What is advised starts"
            )
        else:
            self.confirm.put_away()
            self._on_do(proposal)


def starts_again(session: Session, action: Action) -> bool:
    """Whether the session stands at the float stage after it, without what was trained."""
    if action.call == Session.cure.__name__:
        return CURES[dict(action.arguments)["name"]].judged == "ptq"
    if action.call == Session.undo_cure.__name__:
        return bool(session.cured) and session.cured[-1].judged == "ptq"
    return action.call in _STARTS_AGAIN


def perform(
    session: Session, proposal: Proposal, should_stop: Callable[[], bool] | None = None
) -> Any:
    """Do what is proposed, or what comes before it; training goes on in the background.

    Call it off the page's loop. Raises what the call raises.
    """
    action = proposal.next
    if action.call == Session.train.__name__:
        return session.start_training(**dict(action.arguments))
    more = {"should_stop": should_stop} if action.call in _STOPPABLE and should_stop else {}
    return action.apply(session, **more)
