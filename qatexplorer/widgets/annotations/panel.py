"""The panel "Annotations": what a quantizer's patterns took, before anything is inserted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from qatexplorer.flows.pt2e_quantizers import title_of
from qatexplorer.session.session import Session
from qatexplorer.snapshot.overlay import Overlay
from qatexplorer.views.annotations.overlay import group_overlay, pattern_overlay
from qatexplorer.views.annotations.page import below_html, summary_html
from qatexplorer.views.annotations.tables import COLUMNS, FILTERS, annotation_rows
from qatexplorer.views.annotations.words import annotated_snapshot
from qatexplorer.widgets.common.assets import css
from qatexplorer.widgets.common.controls import Html, labelled, row
from qatexplorer.widgets.common.page import PageState
from qatexplorer.widgets.common.panel import HtmlPanel
from qatexplorer.widgets.common.table import TableWidget

PATTERNS, GROUPS, NOTHING = "patterns", "groups", ""
_OVERLAYS = {PATTERNS: pattern_overlay, GROUPS: group_overlay}


class AnnotationHtml(HtmlPanel):
    """HTML of the annotations' views."""

    _css = css("common/html.css", "common/panel.css", "annotations/annotations.css")


class AnnotationsPanel(widgets.VBox):
    """Patterns, specs, sharing groups, what was rewritten, and what lowering left over.

    Args:
        page: what is selected; a row selects its module or node.
        paint: colours the graph by an overlay, or by nothing for None.
        painted: whether the graph is coloured by something else.
    """

    def __init__(
        self,
        page: PageState,
        paint: Callable[[Overlay | None], Any],
        painted: Callable[[], bool],
    ) -> None:
        self._page, self._paint, self._painted = page, paint, painted
        self._session: Session | None = None
        self._by_itself = False  # the colours came with the stage, and go with it
        self.summary = Html(role="status")
        self.colour = labelled(
            widgets.ToggleButtons(
                options=[("Patterns", PATTERNS), ("Sharing groups", GROUPS), ("Nothing", NOTHING)],
                value=NOTHING,
            ),
            "Colour the graph by",
            "Patterns of the quantizer, or which results share one fake quant",
            width="auto",
        )
        self.colour.style.button_width = "auto"
        self.table = TableWidget(
            label="Annotations",
            columns=list(COLUMNS),
            filters=list(FILTERS),
            nothing="Nothing is annotated yet.",
            height=240,
        )
        self.below = AnnotationHtml()
        self.colour.observe(lambda change: self._on_colour(change["new"]), "value")
        for part in (self.table, self.below):
            part.observe(lambda change: self._on_selected(change["new"]), "selected")
        super().__init__([self.summary, row(self.colour), self.table, self.below])
        for name in ("qx-panel", "qx-annotations"):
            self.add_class(name)

    def use(self, session: Session | None) -> None:
        """Show another session."""
        self._session = session
        self._by_itself = False
        self.colour.value = NOTHING
        self.refresh()

    def refresh(self) -> None:
        """Show the stage in view. At the stage that has just been annotated the graph is coloured
        by patterns, unless it is coloured already."""
        session = self._session
        if session is None or not session.flow.offers_quantizer:
            return
        snapshots = session.snapshots
        self.summary.html = summary_html(snapshots, title_of(session.options.quantizer))
        rows = annotation_rows(snapshots)
        if rows != self.table.rows:
            self.table.rows = rows
        self.below.html = below_html(snapshots, session.snapshot)
        self.colour.disabled = annotated_snapshot(snapshots) is None
        just_annotated = session.snapshot is annotated_snapshot(snapshots)
        if just_annotated and self.colour.value == NOTHING and not self._painted():
            self.colour.value = PATTERNS
            self._by_itself = True
        elif not just_annotated and self._by_itself:
            self.colour.value = NOTHING
        self.show_selection()

    def show_selection(self) -> None:
        """Mark in the table what is selected on the page."""
        if self.table.selected != self._page.selection:
            self.table.selected = self._page.selection

    def set_enabled(self, enabled: bool) -> None:
        """Nothing here changes the session."""

    def _on_selected(self, selection: str) -> None:
        if selection:
            self._page.select(selection)

    def _on_colour(self, chosen: str) -> None:
        self._by_itself = False
        session = self._session
        if session is None:
            return
        overlay = _OVERLAYS[chosen](session.snapshots) if chosen else None
        self._paint(overlay)
