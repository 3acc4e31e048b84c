"""Plotly figures as widgets whose whole state is the figure.

Plotly's own ``FigureWidget`` sends changes to the page: those that come while it is still loading
are lost, and every figure carries a copy of the library (4.8 MB). Here the newest figure is a
trait, so that it survives a late page, a reload and a reconnect. The library is no trait: a page
that has none yet asks a figure for it and gets it in a message, so that it holds up no first
picture and is in no saved notebook.
"""

from __future__ import annotations

import asyncio
import gzip
import importlib
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

import anywidget
import ipywidgets as widgets
import plotly.graph_objects as go
import traitlets
from plotly.offline import get_plotlyjs

from qatexplorer.runs.records import History
from qatexplorer.views.training.figures import curves_figure
from qatexplorer.widgets.common.assets import css, esm
from qatexplorer.widgets.common.background import in_background
from qatexplorer.widgets.common.packed import Packed, PackedTrait


@cache
def _library() -> bytes:
    """plotly.js of the plotly package that is installed, compressed: 1.4 MB instead of 4.8."""
    return gzip.compress(get_plotlyjs().encode(), compresslevel=6)


_warming = threading.Lock()


def _warm_up() -> None:
    """Make what the first figure needs, off the loop: Plotly's first one takes 0.4 s."""
    with suppress(Exception):  # whoever draws a figure next gets the error
        _library()
        curves_figure(History()).to_json()


def _start_warm_up() -> None:
    if _warming.acquire(blocking=False):  # never released: once is enough
        with suppress(ImportError):  # of Plotly 6 on
            # Scikit-learn imports it too: of two threads that do so at once one fails.
            importlib.import_module("narwhals.stable")
        in_background(_warm_up, "warm-up")


def _answer(plot: Plot, message: Any, _buffers: Any) -> None:
    """Send the library to a page that has asked for it."""
    if not isinstance(message, dict) or message.get("kind") != "plotly":
        return
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        plot.send({"kind": "plotly"}, [_library()])
        return
    made = loop.run_in_executor(None, _library)
    made.add_done_callback(lambda done: plot.send({"kind": "plotly"}, [done.result()]))


class PackedFigure(Packed):
    """A figure made ready for the page; ``label`` is what a screen reader says of it."""

    def __init__(self, figure: go.Figure) -> None:
        self.data = figure.to_json().encode()
        meta = figure.layout.meta
        self.label = str((meta.get("alt") if isinstance(meta, dict) else "") or "figure")


def packed(figure: go.Figure | None) -> PackedFigure | None:
    """A figure as its trait holds it, made wherever that costs the least: not on the loop."""
    return None if figure is None else PackedFigure(figure)


class Plot(anywidget.AnyWidget):
    """One figure.

    Attributes:
        figure: a dict with ``data`` and ``layout``, packed; ``{}`` hides it.
        label: what a screen reader says.
    """

    _esm = esm("plot")
    _css = css("common/plot.css")

    figure: Any = PackedTrait({})
    label: Any = traitlets.Unicode("").tag(sync=True)

    def __init__(self) -> None:
        super().__init__()
        self.on_msg(_answer)
        _start_warm_up()

    def on_pick(self, callback: Callable[[str], Any]) -> None:
        """Call ``callback`` with the id of a point that was clicked (``ids`` of its trace; of a
        cell of a heat map its ``customdata``)."""

        def receive(_plot: Any, message: Any, _buffers: Any) -> None:
            if isinstance(message, dict) and isinstance(message.get("picked"), str):
                callback(message["picked"])

        self.on_msg(receive)


class FigureSlot(widgets.Box):
    """The place of one figure, hidden when there is none to show."""

    def __init__(self) -> None:
        self.plot = Plot()
        super().__init__([self.plot])
        self.layout.width = "100%"
        self.layout.display = "none"
        self.plot.layout.width = "100%"
        self.add_class("qx-figure-slot")

    def show(self, figure: go.Figure | PackedFigure | None) -> None:
        """Show ``figure``, None to hide. One that was packed on a worker thread costs the loop
        nothing."""
        if figure is None:
            self.layout.display = "none"
            self.plot.figure = {}
            return
        ready = figure if isinstance(figure, PackedFigure) else PackedFigure(figure)
        with self.plot.hold_sync():
            self.plot.label, self.plot.figure = ready.label, ready
        self.layout.display = ""
