"""The tab of a flow whose base config decides how layers are rounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from qatexplorer.flows.torchao import parts_in_words
from qatexplorer.session.session import Session
from qatexplorer.views.qconfig.base_config import base_config_html
from qatexplorer.widgets.common.bridge import Bridge
from qatexplorer.widgets.common.in_sight import InSight
from qatexplorer.widgets.common.panel import HtmlPanel


class BaseConfigPanel(InSight, widgets.VBox):
    """What the base config in force says; drawn when the panel is in sight.

    ``on_ask`` is called with what a button of it asks the page for.
    """

    def __init__(self, bridge: Bridge, on_ask: Callable[[str], Any]) -> None:
        self._bridge = bridge
        self._session: Session | None = None
        self.words = HtmlPanel()
        self.words.on_ask(on_ask)
        super().__init__([self.words])
        self.add_class("qx-panel")

    def use(self, session: Session | None) -> None:
        """Show the settings of ``session``; None has none."""
        self._session = session
        self.refresh()

    def _opened(self) -> None:
        self.refresh()

    def refresh(self) -> None:
        """Settings may be others: say them anew, off the loop."""
        session = self._session
        if session is None or not self._active:
            return
        self._bridge.make("base config", lambda: _html(session), self._show)

    def _show(self, html: str) -> None:
        self.words.html = html


def _html(session: Session) -> str:
    options = session.options
    return base_config_html(session.flow.form(options), parts_in_words(options))
