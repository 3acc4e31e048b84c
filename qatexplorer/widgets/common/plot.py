"""Plotly figures as widgets whose whole state is the figure.

Plotly's own ``FigureWidget`` sends changes to the page: those that come while it is still loading
are lost, and every figure carries a copy of the library (4.8 MB). Here the newest figure is a
trait, so that it survives a late page, a reload and a reconnect, and the library is sent once.
"""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from typing import Any

import anywidget
import ipywidgets as widgets
import plotly.graph_objects as go
import traitlets
from plotly.offline import get_plotlyjs

from qatexplorer.runs.records import History
from qatexplorer.views.training.figures import curves_figure
from qatexplorer.widgets.common.assets import css, esm


def _source_module() -> str:
    """An ES module that only holds plotly.js as text.

    anywidget gives a model two seconds to start, and running 4.8 MB of JavaScript on a busy
    machine takes longer: the text is run when the first figure is drawn (see plot.js).
    """
    return f"""const SOURCE = {json.dumps(get_plotlyjs())};
globalThis[Symbol.for("qatexplorer.plotly.source")] ??= SOURCE;
globalThis.dispatchEvent(new Event("qatexplorer-plotly-source"));
export default {{ render() {{}} }};
"""


class PlotlySource(anywidget.AnyWidget):
    """Carries plotly.js into the page, from the plotly package that is installed. Draws nothing."""

    _esm = _source_module()


_source: PlotlySource | None = None


def plotly_source() -> PlotlySource:
    """The one source of this kernel, made on first use (and anew after it was closed)."""
    global _source
    if _source is None or _source.comm is None:
        _source = PlotlySource()
        _source.layout.display = "none"
        # Plotly's first figure takes 0.4 s, on the loop it would hold up a click for as long.
        threading.Thread(target=_warm_up, name="qatexplorer-warm-up", daemon=True).start()
    return _source


def _warm_up() -> None:
    with suppress(Exception):  # whoever draws a figure next gets the error
        curves_figure(History()).to_json()


class Plot(anywidget.AnyWidget):
    """One figure.

    Attributes:
        figure: ``go.Figure.to_json`` as a dict with ``data`` and ``layout``; ``{}`` hides it.
        label: what a screen reader says.
    """

    _esm = esm("plot")
    _css = css("common/plot.css")

    figure: Any = traitlets.Dict().tag(sync=True)
    label: Any = traitlets.Unicode("").tag(sync=True)


def ready(figure: go.Figure | None) -> dict[str, Any] | None:
    """A figure as its trait holds it, made wherever that costs the least: not on the loop."""
    return None if figure is None else json.loads(figure.to_json())


class FigureSlot(widgets.Box):
    """The place of one figure, hidden when there is none to show."""

    def __init__(self) -> None:
        self.plot = Plot()
        super().__init__([self.plot, plotly_source()])
        self.layout.width = "100%"
        self.layout.display = "none"
        self.plot.layout.width = "100%"
        self.add_class("qx-figure-slot")

    def show(self, figure: go.Figure | dict[str, Any] | None) -> None:
        """Show ``figure`` or what :func:`ready` made of it, None to hide."""
        if figure is None:
            self.layout.display = "none"
            self.plot.figure = {}
            return
        self.layout.display = ""
        shown = figure if isinstance(figure, dict) else ready(figure) or {}
        self.plot.label = shown["layout"].get("meta", {}).get("alt") or "figure"
        self.plot.figure = shown
