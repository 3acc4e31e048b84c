"""Tree, graph and inspector side by side, following the session's stage and selection."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from qatexplorer.errors import QatExplorerError
from qatexplorer.session.session import Session
from qatexplorer.snapshot.records import FakeQuantSite
from qatexplorer.views.graph.scene import build_scene
from qatexplorer.views.inspector.figures import channel_figure, histogram_figure
from qatexplorer.views.inspector.page import inspect_html
from qatexplorer.views.training.figures import scale_trace_figure
from qatexplorer.views.tree import build_tree
from qatexplorer.widgets.common.bridge import Bridge
from qatexplorer.widgets.graph.graph import GraphWidget
from qatexplorer.widgets.inspector.inspector import InspectorWidget
from qatexplorer.widgets.tree.tree import TreeWidget

log = logging.getLogger(__name__)

_LIVE_S = 1.0
_HEIGHT = 600
_GRAPH_BARS = 72  # its tool bar and status line


class Panes(widgets.Box):
    """The three views of a snapshot. ``select`` is called with what a click has selected."""

    def __init__(self, bridge: Bridge, select: Callable[[str], Any]) -> None:
        self._bridge = bridge
        self._session: Session | None = None
        self._preparing = False
        self.tree = TreeWidget(height=_HEIGHT)
        self.graph = GraphWidget(height=_HEIGHT - _GRAPH_BARS)
        self.inspector = InspectorWidget()
        self.inspector.add_class("qx-inspector-pane")
        for widget in (self.tree, self.graph, self.inspector):
            widget.observe(lambda change: select(change["new"]), "selected")
        self.graph.observe(lambda _change: self._draw_figures(), "dark")
        super().__init__([self.tree, self.graph, self.inspector])
        self.add_class("qx-panes")

    def use(self, session: Session) -> None:
        """Show another session."""
        self._session = session
        self.graph.opened = []

    def show_stage(self) -> None:
        """Draw the stage in view."""
        session = self._session
        if session is None:
            return
        names = session.stages
        index = names.index(session.stage)
        before = session.snapshots[names[index - 1]] if index else None
        change = session.diff
        paths = change.paths if change is not None else frozenset()
        self.tree.rows = build_tree(session.snapshot, before)
        self._draw_scene(paths)
        self.show_selection()
        if session.snapshot.sites and not session.running:
            self._prepare_histograms()

    def mark_redundant(self) -> None:
        """Draw again which edges the ledger has found to be quantized twice."""
        if self._session is not None:
            change = self._session.diff
            self._draw_scene(change.paths if change is not None else frozenset())

    def _draw_scene(self, paths: frozenset[str]) -> None:
        session = self._session
        if session is not None:
            edges = session.redundant_edges
            self.graph.scene = build_scene(session.snapshot, paths, redundant=edges)

    def show_selection(self) -> None:
        """Mark the selection in tree and graph, and inspect it."""
        session = self._session
        if session is None:
            return
        selection = session.selection
        for widget in (self.tree, self.graph, self.inspector):
            if widget.selected != selection:
                widget.selected = selection
        self._draw_page()
        self._draw_figures()

    def _draw_page(self) -> None:
        session = self._session
        if session is not None:
            page = inspect_html(session.snapshots, session.stage, session.selection)
            self.inspector.show_page(page)

    def on_training(self) -> None:
        """A run has moved on: the selected fake quant's figures move with it."""
        self._bridge.post("live", self._draw_live, every_s=_LIVE_S)

    def _draw_live(self) -> None:
        session = self._session
        if session is not None and session.stage == session.flow.train_stage:
            self._draw_page()
            self._draw_figures()

    @property
    def site(self) -> FakeQuantSite | None:
        """The fake quant that is selected, or the output (else weight) one of the module."""
        session = self._session
        if session is None:
            return None
        kind, _, path = session.selection.partition(":")
        if kind == "site":
            return session.snapshot.site_by_path.get(path)
        if kind == "module":
            sites = sorted(session.snapshot.sites_of(path), key=lambda s: s.kind == "weight")
            return sites[0] if sites else None
        return None

    def _draw_figures(self) -> None:
        session, site = self._session, self.site
        if session is None or site is None:
            self.inspector.show_figures({})
            return
        dark = self.graph.dark
        figures: dict[str, Any] = {}
        if session.has_histogram(site.path):
            try:
                histogram = session.histogram(site.path)
                # After a ReLU half of the values are zero: one bar, beside which no other shows.
                crowded = max(histogram.counts, default=0) > 0.3 * histogram.sampled
                figures["histogram"] = histogram_figure(histogram, site, dark, log=crowded)
            except QatExplorerError:
                pass  # a fake quant that does not run has no histogram; the page says so
        else:
            self._prepare_histograms()
        if site.per_channel and len(site.scale) > 1:
            figures["channels"] = channel_figure(site, dark)
        samples = session.run.history.samples(site.path) if session.run is not None else ()
        if len(samples) > 1:
            kinds = {site.path: site.kind}
            figures["trace"] = scale_trace_figure({site.path: samples}, kinds, dark)
        self.inspector.show_figures(figures)

    def _prepare_histograms(self) -> None:
        """Run the model once, off the loop; the figures come when that is done."""
        session = self._session
        if session is None or self._preparing:
            return
        self._preparing = True

        def body() -> None:
            try:
                session.histograms()
            except QatExplorerError as error:
                log.info("no histograms of stage %s: %s", session.stage, error.message)
            except Exception:
                log.exception("the histograms of stage %s cannot be made", session.stage)
            else:
                self._bridge.post("figures", self._draw_figures)
            finally:
                self._preparing = False

        threading.Thread(target=body, name="qatexplorer-histograms", daemon=True).start()
