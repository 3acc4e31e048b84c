"""What a rule would do, beside the form: made off the loop, one at a time, the newest last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ipywidgets as widgets

from qatexplorer.errors import QatExplorerError
from qatexplorer.session.preview_part import PreviewedSite
from qatexplorer.session.session import Session
from qatexplorer.views.common.html import text
from qatexplorer.views.inspector.figures import histogram_figure
from qatexplorer.views.qconfig.words import PreviewWords, preview_html
from qatexplorer.widgets.common.assets import css
from qatexplorer.widgets.common.bridge import Bridge
from qatexplorer.widgets.common.controls import Html
from qatexplorer.widgets.common.panel import HtmlPanel
from qatexplorer.widgets.common.plot import FigureSlot, PackedFigure
from qatexplorer.widgets.qconfig.request import Request

MOST_ROWS = 40


class QConfigHtml(HtmlPanel):
    """HTML of the editor's views."""

    _css = css("common/html.css", "common/panel.css", "qconfig/qconfig.css")


@dataclass(frozen=True)
class _Made:
    """A preview ready for the page, or why there is none."""

    request: Request
    html: str = ""
    figures: tuple[PackedFigure | None, ...] = ()
    error: Exception | None = None


class Preview(widgets.VBox):
    """SQNR now and with the rule of each fake quant concerned, and the histograms of the first
    weight and of the first activation against the new grid.

    ``on_refused`` is called with the reason, or with None, for what was asked for last.
    """

    def __init__(
        self, bridge: Bridge, on_refused: Callable[[Exception | None], Any], kinds: int = 2
    ) -> None:
        self._bridge, self._on_refused = bridge, on_refused
        self._session: Session | None = None
        self._wanted: Request | None = None
        self._making = False
        self.dark = False
        self.words = Html(kind="qx-muted", role="status")
        self.table = QConfigHtml()
        self.slots = tuple(FigureSlot() for _ in range(kinds))
        super().__init__([self.words, self.table, *self.slots])
        self.add_class("qx-qconfig-preview")

    def use(self, session: Session | None) -> None:
        """Preview changes of another session."""
        self._session = session
        self.want(None)

    def want(self, request: Request | None) -> None:
        """Show what this would do, soon; None for nothing."""
        self._wanted = request
        if request is None:
            self._show(None)
            self._on_refused(None)
        elif not self._making:
            self._make(request)

    def _make(self, request: Request) -> None:
        session = self._session
        if session is None:
            return
        self._making = True
        self.words.html = "<span>Preparing a copy to see what it does …</span>"
        self._bridge.make(
            "qconfig preview", lambda: self._made(session, request), self._on_made, self._on_failed
        )

    def _made(self, session: Session, request: Request) -> _Made:
        try:
            sites = session.preview_rules(request.rules(session), request.scope.paths)
        except QatExplorerError as error:
            return _Made(request, error=error)
        shown = (
            next((s for s in sites if s.kind == "weight" and s.histogram is not None), None),
            next((s for s in sites if s.kind != "weight" and s.histogram is not None), None),
        )
        rows = [_row(site) for site in sites[:MOST_ROWS]]
        more = len(sites) - len(rows)
        html = preview_html(rows) + (f"<p>and {more:,} more</p>" if more > 0 else "")
        return _Made(request, html, tuple(self._figure(site) for site in shown))

    def _figure(self, site: PreviewedSite | None) -> PackedFigure | None:
        if site is None or site.site is None or site.histogram is None:
            return None
        return PackedFigure(histogram_figure(site.histogram, site.site, self.dark))

    def _on_made(self, made: _Made) -> None:
        self._making = False
        wanted = self._wanted
        if wanted is not None and wanted != made.request:
            self._make(wanted)
            return
        if wanted is not None:
            self._show(made)
            self._on_refused(made.error)

    def _on_failed(self, error: Exception) -> None:
        self._making = False
        self._show(None)
        self._on_refused(error)

    def _show(self, made: _Made | None) -> None:
        ready = made is not None and made.error is None
        said = "Both as fresh fake quants that have seen the example input, and nothing else."
        if ready and made is not None and not made.html:
            said = "There are no fake quants there, with this rule or without."
        self.words.html = text(said) if ready else ""
        self.table.html = made.html if made is not None else ""
        figures = made.figures if made is not None else ()
        for i, slot in enumerate(self.slots):
            slot.show(figures[i] if i < len(figures) else None)


def _row(site: PreviewedSite) -> PreviewWords:
    there = site.site is not None
    what = f"{site.kind} of {site.owner or 'the model'}"
    return PreviewWords(what, site.before_db, site.after_db, "" if there else "left in float")
