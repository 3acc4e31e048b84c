"""The question before something takes a trained model out of the stages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from qatexplorer.session.session import Session
from qatexplorer.views.common.trained import another_run_html, starts_again_html
from qatexplorer.widgets.common.controls import Html, button, row


class Confirm(widgets.VBox):
    """Asks before something takes a trained model out of the stages; hidden otherwise."""

    def __init__(self) -> None:
        self._then: Callable[[], Any] | None = None
        self.words = Html(role="alert")
        self.yes = button("Start again", "Do it; the stages are made anew", primary=True)
        self.no = button("Leave it as it is", "Change nothing")
        self.yes.on_click(lambda _: self._answer(True))
        self.no.on_click(lambda _: self._answer(False))
        super().__init__([self.words, row(self.yes, self.no)])
        self.add_class("qx-qconfig-confirm")
        self.put_away()

    def start_again(
        self, session: Session, then: Callable[[], Any], what: str = "A changed qconfig starts"
    ) -> None:
        """Call ``then``, which starts again from the float stage, or ask before if there is a
        trained model. ``what`` begins the sentence that says so."""
        self._ask(
            session,
            then,
            lambda folder: starts_again_html(folder, what),
            ("Start again", "Do it; the stages are made anew"),
        )

    def train(self, session: Session, then: Callable[[], Any]) -> None:
        """Call ``then``, which starts a run, or ask before if there is a trained model."""
        self._ask(session, then, another_run_html, ("Train", "Start another run"))

    def put_away(self) -> None:
        """Ask no more."""
        self._then, self.words.html, self.layout.display = None, "", "none"

    def _ask(
        self,
        session: Session,
        then: Callable[[], Any],
        words: Callable[[str], str],
        yes: tuple[str, str],
    ) -> None:
        self.put_away()
        run = session.run
        if run is None:
            then()
            return
        self.yes.description, self.yes.tooltip = yes
        self.words.html = words(run.run_dir.name if run.run_dir else "")
        self._then, self.layout.display = then, ""

    def _answer(self, yes: bool) -> None:
        then = self._then
        self.put_away()
        if yes and then is not None:
            then()
