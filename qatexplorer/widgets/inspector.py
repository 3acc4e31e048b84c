"""The inspector as a widget: a page of HTML and figures below it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anywidget
import ipywidgets as widgets
import plotly.graph_objects as go
import traitlets

from qatexplorer.widgets.assets import css, read_static


class HtmlPanel(anywidget.AnyWidget):
    """HTML whose ``[data-select]`` buttons set ``selected``.

    ``html`` is put into the page as it is: it must come from a view, which escapes what users
    wrote. ``dark`` is True or False to force a theme, None to follow the page.
    """

    _esm = read_static("inspector.js")
    _css = css("inspector.css")

    html: Any = traitlets.Unicode("").tag(sync=True)
    selected: Any = traitlets.Unicode("").tag(sync=True)
    dark: Any = traitlets.Bool(None, allow_none=True).tag(sync=True)


class FigureSlot(widgets.Box):
    """One plotly figure that is updated in place, and hidden when there is none to show."""

    def __init__(self) -> None:
        super().__init__()
        self.layout.width = "100%"
        self.layout.display = "none"
        self.figure: go.FigureWidget | None = None

    def show(self, figure: go.Figure | None) -> None:
        """Show ``figure``, None to hide. Traces of the same types are kept and changed."""
        if figure is None:
            self.layout.display = "none"
            return
        if self.figure is None:
            self.figure = go.FigureWidget(figure)
            self.children = (self.figure,)
        else:
            update_figure(self.figure, figure)
        self.layout.display = ""


def update_figure(widget: go.FigureWidget, figure: go.Figure) -> None:
    """Make ``widget`` show ``figure`` with as few messages to the browser as it takes."""
    same = [trace.type for trace in widget.data] == [trace.type for trace in figure.data]
    with widget.batch_update():
        if same:
            for old, new in zip(widget.data, figure.data, strict=True):
                old.update(new.to_plotly_json(), overwrite=True)
        widget.layout.update(figure.layout.to_plotly_json(), overwrite=True)
    if not same:
        widget.data = ()
        widget.add_traces(figure.data)


class InspectorWidget(widgets.VBox):
    """The inspector's page, and below it figures that stay in place from click to click.

    Attributes:
        selected: selection string of the last link clicked inside, both ways.
        dark: True or False to force a theme, None to follow the page.
    """

    selected: Any = traitlets.Unicode("")
    dark: Any = traitlets.Bool(None, allow_none=True)

    def __init__(self, figures: tuple[str, ...] = ("histogram", "channels", "trace")) -> None:
        self.panel = HtmlPanel()
        self.slots = {name: FigureSlot() for name in figures}
        super().__init__(children=(self.panel, *self.slots.values()))
        traitlets.link((self, "selected"), (self.panel, "selected"))
        traitlets.link((self, "dark"), (self.panel, "dark"))

    def show(self, html: str, figures: Mapping[str, go.Figure | None] | None = None) -> None:
        """Show a page, and in each named slot its figure; slots not named are hidden.

        Raises KeyError for a figure that has no slot.
        """
        self.panel.html = html
        self.show_figures(figures or {})

    def show_figures(self, figures: Mapping[str, go.Figure | None]) -> None:
        """Change the figures only, for those that take longer than the page."""
        unknown = set(figures) - set(self.slots)
        if unknown:
            raise KeyError(f"no slot for {', '.join(sorted(unknown))}")
        for name, slot in self.slots.items():
            slot.show(figures.get(name))
