"""The panel that shows a training from inside: all fake quants, and the selected one over time."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from qatexplorer.runs.opened import OpenedRun
from qatexplorer.session.session import Session
from qatexplorer.views.training.sites import ORDERS, sites_html, summary_words
from qatexplorer.views.training.telemetry import (
    histograms_figure,
    oscillation_figure,
    scales_figure,
)
from qatexplorer.widgets.common.assets import css
from qatexplorer.widgets.common.bridge import Bridge
from qatexplorer.widgets.common.controls import labelled, row
from qatexplorer.widgets.common.page import PageState
from qatexplorer.widgets.common.panel import HtmlPanel
from qatexplorer.widgets.common.plot import FigureSlot

if TYPE_CHECKING:
    from qatexplorer.runs.store import Telemetry

REDRAW_S = 1.0


class SitesPanel(HtmlPanel):
    """The table of all fake quants."""

    _css = css("common/panel.css", "training/live.css")


class LivePanel(widgets.VBox):
    """Telemetry of the session's run, or of one that was opened from its folder: small multiples,
    histograms over steps, scales, oscillation.

    ``page`` is where a click selects. ``dark`` themes the figures.
    """

    def __init__(self, bridge: Bridge, page: PageState) -> None:
        self._bridge, self._page = bridge, page
        self._session: Session | None = None
        self._opened: Telemetry | None = None
        self._showing = False
        self._instead_of: Any = None
        self._name = ""
        self.dark = False
        self.order = labelled(
            widgets.Dropdown(options=[(words[0], name) for name, words in ORDERS.items()]),
            "Worst first by",
            "What the fake quants are sorted by",
            width="270px",
        )
        self.words = widgets.HTML("")
        self.sites = SitesPanel()
        self.histograms, self.scales, self.oscillation = FigureSlot(), FigureSlot(), FigureSlot()
        self.order.observe(lambda _change: self.draw(), "value")
        self.sites.observe(lambda change: self._clicked(change["new"]), "selected")
        super().__init__(
            [
                row(self.order, self.words),
                self.sites,
                self.histograms,
                self.scales,
                self.oscillation,
            ]
        )
        self.add_class("qx-panel")
        self.draw()

    def use(self, session: Session | None) -> None:
        """Show the newest run of ``session``."""
        self._session, self._opened, self._showing = session, None, False
        self.draw()

    def show(self, run: OpenedRun | Telemetry | None) -> None:
        """Show a run that was opened (``qatexplorer.open_run``), of a session or of a watch, until
        the session begins a run of its own. None empties the panel."""
        if isinstance(run, OpenedRun):
            self._opened, self._name = run.telemetry, f"{run.path.name}: "
        else:
            self._opened, self._name = run, ""
        self._instead_of = self._session.run if self._session is not None else None
        self._showing = True
        self.draw()

    def on_training(self) -> None:
        """A run has moved on; may come from any thread, draws at most once a second."""
        self._bridge.post("telemetry", self.draw, every_s=REDRAW_S)

    @property
    def telemetry(self) -> Telemetry | None:
        """What is shown."""
        run = self._session.run if self._session is not None else None
        if self._showing and run is self._instead_of:
            return self._opened
        return run.telemetry if run is not None else None

    @property
    def path(self) -> str:
        """The fake quant whose figures are shown: the selected one, else the first."""
        telemetry = self.telemetry
        if telemetry is None or not telemetry.paths:
            return ""
        kind, _, path = self._page.selection.partition(":")
        if kind == "site" and path in telemetry.paths:
            return path
        if kind == "module":
            owned = [i.path for i in telemetry.infos if i.owner == path]
            return owned[-1] if owned else telemetry.paths[0]
        return telemetry.paths[0]

    def draw(self) -> None:
        """Draw what was seen so far."""
        telemetry = self.telemetry
        if telemetry is None or not telemetry.steps:
            self.words.value = "Nothing seen yet: train, and the fake quants show here."
            self.sites.html = ""
            for slot in (self.histograms, self.scales, self.oscillation):
                slot.show(None)
            return
        path = self.path
        name = escape(self._name) if telemetry is self._opened else ""
        self.words.value = name + summary_words(telemetry)
        self.sites.html = sites_html(telemetry, self.order.value, path)
        self.histograms.show(histograms_figure(telemetry, path, self.dark))
        self.scales.show(scales_figure(telemetry, path, self.dark))
        self.oscillation.show(oscillation_figure(telemetry, self.dark))

    def _clicked(self, selection: str) -> None:
        if selection:
            self._page.select(selection)
        self.draw()
