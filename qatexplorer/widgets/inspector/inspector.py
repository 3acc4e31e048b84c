"""The inspector as a widget: a page of HTML and figures below it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as widgets
import plotly.graph_objects as go
import traitlets

from qatexplorer.widgets.common.panel import HtmlPanel
from qatexplorer.widgets.common.plot import FigureSlot, PackedFigure


class InspectorWidget(widgets.VBox):
    """The inspector's page, and below it figures that stay in place from click to click.

    Attributes:
        selected: selection string of the last link clicked inside, both ways.
        dark: True or False to force a theme, None to follow the page.
    """

    selected: Any = traitlets.Unicode("")
    dark: Any = traitlets.Bool(None, allow_none=True)

    def __init__(self, figures: tuple[str, ...] = ("histogram", "channels", "scales")) -> None:
        self.panel, self.details = HtmlPanel(), HtmlPanel()
        self.slots = {name: FigureSlot() for name in figures}
        super().__init__(children=(self.panel, *self.slots.values(), self.details))
        for panel in (self.panel, self.details):
            traitlets.link((self, "selected"), (panel, "selected"))
            traitlets.link((self, "dark"), (panel, "dark"))

    def show(
        self, html: str, figures: Mapping[str, go.Figure | PackedFigure | None] | None = None
    ) -> None:
        """Show a page, and in each named slot its figure; slots not named are hidden.

        Raises KeyError for a figure that has no slot.
        """
        self.show_page(html)
        self.show_figures(figures or {})

    def on_ask(self, callback: Callable[[str], Any]) -> None:
        """Call ``callback`` with what a clicked button of the page asks for."""
        for panel in (self.panel, self.details):
            panel.on_ask(callback)

    def show_page(self, html: str) -> None:
        """Show a page: what it is above the figures, its sections below them."""
        head, mark, sections = html.partition("<section")
        self.panel.html = head
        self.details.html = f'<article class="qx-inspect">{mark}{sections}' if mark else ""

    def show_figures(self, figures: Mapping[str, go.Figure | PackedFigure | None]) -> None:
        """Change the figures only, for those that take longer than the page."""
        unknown = set(figures) - set(self.slots)
        if unknown:
            raise KeyError(f"no slot for {', '.join(sorted(unknown))}")
        for name, slot in self.slots.items():
            slot.show(figures.get(name))
