"""Tree, graph and inspector side by side, following the session's stage and the selection."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ipywidgets as widgets

from qatexplorer.errors import QatExplorerError
from qatexplorer.session.glance import glance_of
from qatexplorer.session.session import Session
from qatexplorer.snapshot.records import FakeQuantSite, Snapshot
from qatexplorer.views.common.cover import failed_html, loading_html, no_model_html
from qatexplorer.views.graph.scene import build_scene, redundant_edges
from qatexplorer.views.inspector.figures import histogram_figure, scales_of_site
from qatexplorer.views.inspector.page import inspect_html
from qatexplorer.views.inspector.switching import SwitchSection
from qatexplorer.views.qconfig.words import rule_mark
from qatexplorer.views.training.scales import scales_figure
from qatexplorer.views.tree import build_tree, state_label
from qatexplorer.widgets.common.background import in_background
from qatexplorer.widgets.common.bridge import Bridge
from qatexplorer.widgets.common.controls import Html
from qatexplorer.widgets.common.packed import Packed
from qatexplorer.widgets.common.page import PageState
from qatexplorer.widgets.common.plot import PackedFigure
from qatexplorer.widgets.explorer.compare import ComparePane
from qatexplorer.widgets.explorer.int8_numbers import Int8Numbers
from qatexplorer.widgets.explorer.overlays import OverlayControl
from qatexplorer.widgets.explorer.splitter import Splitter
from qatexplorer.widgets.graph.graph import GraphWidget
from qatexplorer.widgets.inspector.inspector import InspectorWidget
from qatexplorer.widgets.tree.tree import TreeWidget

log = logging.getLogger(__name__)

_LIVE_S = 1.0


@dataclass(frozen=True)
class Inspected:
    """What the inspector is to show of a stage: a page, and figures in its slots."""

    stage: str
    html: str
    figures: Mapping[str, Any]


@dataclass(frozen=True)
class StagePicture:
    """All that the panes show of a stage, ready for the page."""

    snapshot: Snapshot
    tree: Packed
    scene: Packed
    inspected: Inspected


class Panes(widgets.Box):
    """The three views of a snapshot, with bars between them; a click selects in ``page``.

    What they show is made off the kernel's loop (:meth:`picture`, :meth:`Bridge.make`) and handed
    over ready (:meth:`show`).
    """

    def __init__(self, bridge: Bridge, page: PageState) -> None:
        self._bridge, self._page = bridge, page
        self._session: Session | None = None
        self._preparing = False
        self._macs: Mapping[str, int] | Exception | None = None
        self._drawn: Snapshot | None = None
        self._stage = ""
        self.tree, self.graph = TreeWidget(), GraphWidget()
        self.inspector = InspectorWidget()
        self.cover = Html(html=loading_html(), role="status")
        for widget in (self.graph, self.inspector):
            widget.observe(lambda change: page.select(change["new"]), "selected")
        self.tree.observe(
            lambda _change: page.select(self.tree.selected, self.tree.chosen),
            ["selected", "chosen"],
        )
        self.graph.observe(lambda _change: self._inspect(), "dark")
        self.tree.add_class("qx-part-tree")
        self.compare = ComparePane(bridge, page, self.graph, self._paint)
        self.compare.add_class("qx-part-graph")
        self.overlays = OverlayControl(
            bridge, self.graph, lambda: self.compare.shown, lambda: self.wanted()
        )
        self.wanted: Callable[[], bool] = lambda: False  # whether a job waits for the session
        self.settled: Callable[[], None] = lambda: None  # called when the inspector has been drawn
        self.int8 = Int8Numbers(bridge, self._inspect)
        self.inspector.add_class("qx-part-inspector")
        self.inspector.tabbable = True  # it scrolls, and may hold nothing that takes the focus
        self.cover.add_class("qx-cover")
        super().__init__(
            [
                self.tree,
                Splitter("tree"),
                self.compare,
                Splitter("inspector"),
                self.inspector,
                self.cover,
            ]
        )
        self.add_class("qx-main")

    def use(self, session: Session) -> None:
        """Show another session."""
        self._session = session
        self.cover.html = loading_html()
        self.graph.opened = []
        self._macs = None
        self.int8.forget()
        self._count_macs(session)
        self.compare.use(session)
        self.overlays.forget()

    # -- made on any thread ---------------------------------------------------------------------

    def picture(self, session: Session) -> StagePicture:
        """What to show of the stage in view."""
        stage, snapshot = session.stage, session.snapshot
        change = session.diff_at(stage)
        before = session.snapshots.get(change.before) if change is not None else None
        return StagePicture(
            snapshot,
            Packed(build_tree(snapshot, change, before, rule_marks(session, snapshot))),
            self._scene(session),
            self._inspected(session, self._page.moved_to(snapshot)),
        )

    def _scene(self, session: Session) -> Packed:
        change = session.diff_at(session.stage)
        paths = change.paths if change is not None else frozenset()
        edges = redundant_edges(session.known_ledger)
        first = session.snapshots.get(session.stages[0])
        return Packed(build_scene(session.snapshot, paths, redundant=edges, before=first))

    def _inspected(self, session: Session, selection: str) -> Inspected:
        stage = session.stage
        glance = None if selection else glance_of(session, self._macs)
        int8 = self.int8.section(session, selection)
        snapshot = session.snapshot
        prepared = snapshot.is_from("inserted") and not snapshot.is_from("reference")
        switch = SwitchSection(session.last_switching) if prepared else None
        page = inspect_html(session.snapshots, stage, selection, glance, int8, switch)
        return Inspected(
            stage, page, self._figures(session, selected_site(session.snapshot, selection))
        )

    def _figures(self, session: Session, site: FakeQuantSite | None) -> dict[str, Any]:
        if site is None:
            return {}
        dark = self.graph.dark
        figures: dict[str, Any] = {}
        if session.has_histogram(site.path):
            with suppress(QatExplorerError):  # one that does not run has none; the page says so
                histogram = session.histogram(site.path)
                figures["histogram"] = histogram_figure(histogram, site, dark)
        else:
            self._prepare_histograms(session)
        scales = scales_of_site(site, dark)
        if scales is not None:
            figures["channels"] = scales
        run = session.run
        seen = run.telemetry if run is not None else None
        if run is not None and seen is not None and site.path in seen.paths and seen.steps:
            figures["scales"] = scales_figure(seen, site.path, dark, run.history.markers)
        return {name: PackedFigure(figure) for name, figure in figures.items()}

    def drawn_of(self, session: Session) -> tuple[Packed, Packed] | None:
        """Rows of the tree and the scene, if what is drawn is the stage in view."""
        shown = self._drawn is not None and self._drawn is session.snapshot
        return (self.tree.rows, self.graph.scene) if shown else None

    # -- on the loop ----------------------------------------------------------------------------

    def show(self, picture: StagePicture) -> None:
        """Draw a stage."""
        session = self._session
        self._page.follow(picture.snapshot)
        self.cover.html = ""
        self._drawn = picture.snapshot
        self.tree.rows = picture.tree
        self.tree.state_label = state_label(picture.snapshot)
        self.graph.scene = picture.scene
        self.compare.on_stage()
        self.overlays.refresh()
        self._stage = picture.inspected.stage
        self._show_inspected(picture.inspected)
        if session is not None and picture.snapshot.sites and not session.running:
            self._prepare_histograms(session)

    def show_failure(self, error: Exception) -> None:
        """Say that the stage in view cannot be drawn, and why."""
        self.cover.html = failed_html(error)

    def _paint(self) -> None:
        """A graph has come or gone."""
        self.overlays.refresh()

    def show_nothing(self) -> None:
        """Say that there is no model."""
        self.cover.html = no_model_html()

    def mark_redundant(self) -> None:
        """Draw again which edges the ledger has found to be quantized twice."""
        session = self._session
        if session is not None:
            self._bridge.make("scene", lambda: self._scene(session), self._show_scene)
            self.look_again()

    def show_selection(self) -> None:
        """Inspect the selection, and mark it in tree and graph. The marks come last: to show what
        is selected the graph may have to open groups, and the figures would wait for that."""
        self._inspect()

    def mark_findings(self, marks: Mapping[str, Any]) -> None:
        """Mark the places of findings, as :func:`views.checks.marks.finding_marks` has them."""
        for widget in (self.tree, self.graph):
            if widget.findings != marks:
                widget.findings = marks

    def on_training(self) -> None:
        """A run has moved on: the selected fake quant's figures move with it."""
        self._bridge.post("live", self._draw_live, every_s=_LIVE_S)
        self.overlays.on_training()

    def _draw_live(self) -> None:
        session = self._session
        if session is not None and session.stage == session.flow.train_stage:
            self._inspect()

    def _show_scene(self, scene: Packed) -> None:
        self.graph.scene = scene

    def _mark_selection(self) -> None:
        self.tree.mark(self._page.selection, self._page.chosen)
        for widget in (self.graph, self.inspector):
            if widget.selected != self._page.selection:
                widget.selected = self._page.selection

    def _inspect(self) -> None:
        session = self._session
        if session is not None:
            selection = self._page.selection
            self._bridge.make(
                "inspector",
                lambda: self._inspected(session, selection),
                self._show_inspected,
                lambda _error: self._settle(),
            )

    def _show_inspected(self, inspected: Inspected) -> None:
        if inspected.stage != self._stage:  # the stage has changed while this page was made
            if self._session is not None and self._session.stage == self._stage:
                self._inspect()
            return
        self.inspector.show(inspected.html, inspected.figures)
        self._settle()

    def _settle(self) -> None:
        self._mark_selection()
        self.settled()

    def inspect_again(self) -> None:
        """Draw the inspector again: more has become known of what is selected."""
        self._inspect()

    def look_again(self) -> None:
        """Draw the page at a glance again, if it is shown: more has become known."""
        if not self._page.selection:
            self._inspect()

    def _count_macs(self, session: Session) -> None:
        """Run the float model once, off the loop, for the page at a glance."""

        def body() -> None:
            found: Mapping[str, int] | Exception
            try:
                found = session.macs()
            except Exception as error:
                log.info("no MACs of %s: %s", session.flow.name, error)
                found = error
            if session is self._session:
                self._macs = found
                self._bridge.post("glance", self.look_again)

        in_background(body, "macs")

    def _prepare_histograms(self, session: Session) -> None:
        """Run the model once, off the loop; the figures come when that is done."""
        if self._preparing:
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
                self._bridge.post("figures", self._inspect)
            finally:
                self._preparing = False

        in_background(body, "histograms")


def selected_site(snapshot: Snapshot, selection: str) -> FakeQuantSite | None:
    """The fake quant that is selected, or the output (else weight) one of the module."""
    kind, _, path = selection.partition(":")
    if kind == "site":
        return snapshot.site_by_path.get(path)
    if kind == "module":
        sites = sorted(snapshot.sites_of(path), key=lambda s: s.kind == "weight")
        return sites[0] if sites else None
    return None


def rule_marks(session: Session, snapshot: Snapshot) -> dict[str, tuple[str, str]]:
    """Two words and a sentence of each module whose qconfig comes from a rule, by path."""
    ruled = session.ruled()
    found = {}
    for record in snapshot.modules:
        ruling = ruled.get(record.origin) if record.origin or not record.path else None
        if ruling is not None and record.path not in snapshot.site_by_path:
            found[record.path] = rule_mark(ruling)
    return found
