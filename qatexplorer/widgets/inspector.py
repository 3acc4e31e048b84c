"""The inspector as a widget: a page of HTML and figures below it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
        self._shown: dict[str, Any] = {}

    def show(self, figure: go.Figure | None) -> None:
        """Show ``figure``, None to hide. Traces of the same types are kept and changed."""
        if figure is None:
            self.layout.display = "none"
            return
        wanted = figure.to_plotly_json()
        if self.figure is None:
            self.figure = go.FigureWidget(figure)
            self.children = (self.figure,)
        else:
            _update(self.figure, self._shown, wanted)
        self._shown = wanted
        self.layout.display = ""


def _update(widget: go.FigureWidget, shown: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Set what differs, and only that: plotly checks every property that is set."""
    if [t["type"] for t in shown["data"]] != [t["type"] for t in wanted["data"]]:
        widget.data = ()
        widget.add_traces(wanted["data"])
        shown = {**shown, "data": wanted["data"]}
    with widget.batch_update():
        for trace, old, new in zip(widget.data, shown["data"], wanted["data"], strict=True):
            for path, value in _changes(old, new):
                trace[path] = value
        for path, value in _changes(shown["layout"], wanted["layout"]):
            widget.layout[path] = value


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(path, value) of every property that differs; None for one that is gone."""
    for key in [*new, *(key for key in old if key not in new)]:
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            for path, value in _changes(before, after):
                yield f"{key}.{path}", value
        elif not _equal(before, after):
            yield key, after


def _equal(one: Any, other: Any) -> bool:
    if hasattr(one, "tolist") or hasattr(other, "tolist"):
        return type(one) is type(other) and one.tolist() == other.tolist()
    return bool(one == other)


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
