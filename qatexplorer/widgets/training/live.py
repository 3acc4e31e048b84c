"""The panel that shows a training from inside: all fake quants, and the selected one over time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from qatexplorer.runs.opened import OpenedRun
from qatexplorer.session.session import Session
from qatexplorer.snapshot.records import Snapshot
from qatexplorer.views.common.names import TensorNames
from qatexplorer.views.training.multiples import ORDERS, multiples, summary_words
from qatexplorer.views.training.ridges import ridges_figure
from qatexplorer.views.training.scales import scales_figure
from qatexplorer.views.training.telemetry import oscillation_figure, overhead_words
from qatexplorer.widgets.common.assets import css
from qatexplorer.widgets.common.bridge import Bridge
from qatexplorer.widgets.common.controls import labelled, row
from qatexplorer.widgets.common.packed import Packed
from qatexplorer.widgets.common.page import PageState
from qatexplorer.widgets.common.panel import HtmlPanel
from qatexplorer.widgets.common.plot import FigureSlot, PackedFigure, packed
from qatexplorer.widgets.training.multiples import Multiples

if TYPE_CHECKING:
    from qatexplorer.runs.records import Marker
    from qatexplorer.runs.store import Telemetry

REDRAW_S = 1.0
_PAUSE_PER_COST = 25
_SHOW = (("values", "values"), ("change since the first", "change"))


class CostPanel(HtmlPanel):
    """What the sampling costs; carries the style of the whole panel."""

    _css = css("common/panel.css", "training/live.css")


@dataclass(frozen=True)
class _Picture:
    """What the panel shows, ready for the page."""

    words: str
    cost: str
    rows: Packed
    order: str
    selected: str
    ridges: PackedFigure | None = None
    scales: PackedFigure | None = None
    oscillation: PackedFigure | None = None


class LivePanel(widgets.VBox):
    """Telemetry of the session's run, or of one that was opened from its folder: small multiples,
    histograms over steps, scale and range, oscillation.

    ``page`` is where a click selects. ``dark`` themes the figures. What is shown is made off the
    kernel's loop, and while a model trains at most for four per cent of the time.
    """

    def __init__(self, bridge: Bridge, page: PageState) -> None:
        self._bridge, self._page = bridge, page
        self._session: Session | None = None
        self._opened: Telemetry | None = None
        self._opened_path: Path | None = None
        self._opened_markers: Sequence[Marker] = ()
        self._showing = False
        self._instead_of: Any = None
        self._name = ""
        self._took = 0.0
        self.dark = False
        self.order = labelled(
            widgets.Dropdown(options=[(order.words, name) for name, order in ORDERS.items()]),
            "Worst first by",
            "What the fake quants are sorted by, and what their lines show over the steps",
            width="270px",
        )
        self.show_as = labelled(
            widgets.Dropdown(options=_SHOW),
            "Histograms show",
            "The values of each step, or what each step has more or less than the first one",
            width="290px",
        )
        self.words = widgets.HTML("")
        self.cost = CostPanel()
        self.multiples = Multiples()
        self.histograms, self.scales, self.oscillation = FigureSlot(), FigureSlot(), FigureSlot()
        figures = widgets.Box([self.histograms, self.scales, self.oscillation])
        figures.add_class("qx-live-figures")
        for control in (self.order, self.show_as):
            control.observe(lambda _change: self.draw(), "value")
        self.multiples.observe(lambda change: self._clicked(change["new"]), "picked")
        super().__init__(
            [row(self.order, self.show_as, self.words), self.cost, self.multiples, figures]
        )
        self.add_class("qx-panel")
        self.draw()

    def use(self, session: Session | None) -> None:
        """Show the newest run of ``session``."""
        self._session, self._opened, self._showing = session, None, False
        self._opened_path = None
        self.draw()

    def show(self, run: OpenedRun | Telemetry | None) -> None:
        """Show a run that was opened (``qatexplorer.open_run``), of a session or of a watch, until
        the session begins a run of its own. None empties the panel."""
        self._opened_markers, self._opened_path = (), None
        if isinstance(run, OpenedRun):
            self._opened, self._name = run.telemetry, f"{run.path.name}: "
            self._opened_markers, self._opened_path = run.history.markers, run.path
        else:
            self._opened, self._name = run, ""
        self._instead_of = self._session.run if self._session is not None else None
        self._showing = True
        self.draw()

    def follow(self, run: OpenedRun) -> None:
        """``run`` was opened again while another process trains it; if it is the one that was
        shown, the next drawing shows what it has more."""
        if run.path == self._opened_path:
            self._opened, self._opened_markers = run.telemetry, run.history.markers

    def on_training(self) -> None:
        """A run has moved on; may come from any thread, draws at most once a second."""
        pause = max(REDRAW_S, _PAUSE_PER_COST * self._took)
        self._bridge.post("telemetry:due", self.draw, every_s=pause)

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

    @property
    def _markers(self) -> Sequence[Marker]:
        """Of the run that is shown."""
        run = self._session.run if self._session is not None else None
        if self._showing and run is self._instead_of:
            return self._opened_markers
        return run.history.markers if run is not None else ()

    def _tensors(self, telemetry: Telemetry) -> dict[str, str]:
        """What the fake quants round, by path, as far as the stage that trains knows them. A run
        from a folder may be that of another model, with the same paths for other tensors."""
        snapshot = self._trained
        if snapshot is None or telemetry is self._opened:
            return {}
        names = TensorNames(snapshot)
        return {p: names.of(p).text for p in telemetry.paths if p in snapshot.site_by_path}

    @property
    def _trained(self) -> Snapshot | None:
        """The stage that trains, else the one in view."""
        session = self._session
        if session is None:
            return None
        return session.snapshots.get(session.flow.train_stage) or session.snapshot

    def _title(self, path: str, tensors: Mapping[str, str]) -> str:
        """What a fake quant rounds, where its path does not say so: a name that torch made up."""
        site = self._trained.site_by_path.get(path) if self._trained is not None else None
        return tensors.get(path, "") if site is not None and site.mechanism == "node" else ""

    @property
    def _nothing_words(self) -> str:
        """Why there is nothing to show."""
        run = self._session.run if self._session is not None else None
        if self._opened is not None and self._showing and run is self._instead_of:
            return f"{escape(self._name)}no sample of a fake quant was taken in this run."
        if run is None:
            return "Nothing seen yet: train, and the fake quants show here."
        if run.config.telemetry_every == 0:
            return "This run samples nothing: “Sample every … steps” (in Schedules) is 0."
        return "No sample of this run yet."

    def draw(self) -> None:
        """Draw what was seen so far: made off the loop, shown on it."""
        self._bridge.make("telemetry", self._picture, self._show_picture)

    def _picture(self) -> _Picture:
        telemetry, order = self.telemetry, self.order.value
        if telemetry is None or not telemetry.steps:
            return _Picture(self._nothing_words, "", Packed([]), order, "")
        started = time.thread_time()
        path, markers = self.path, self._markers
        name = escape(self._name) if telemetry is self._opened else ""
        tensors = self._tensors(telemetry)
        title, show = self._title(path, tensors), self.show_as.value
        made = _Picture(
            name + summary_words(telemetry),
            f'<p class="qx-live-cost">{escape(overhead_words(telemetry))}</p>',
            Packed(multiples(telemetry, order, tensors)),
            order,
            f"site:{path}",
            packed(ridges_figure(telemetry, path, self.dark, show, title)),
            packed(scales_figure(telemetry, path, self.dark, markers, title)),
            packed(oscillation_figure(telemetry, self.dark)),
        )
        self._took = time.thread_time() - started
        return made

    def _show_picture(self, made: _Picture) -> None:
        self.words.value = made.words
        self.cost.html = made.cost
        self.multiples.title = f"Fake quants, worst first by {ORDERS[made.order].words}"
        self.multiples.order = made.order
        self.multiples.rows = made.rows
        self.multiples.selected = made.selected
        for slot, figure in (
            (self.histograms, made.ridges),
            (self.scales, made.scales),
            (self.oscillation, made.oscillation),
        ):
            slot.show(figure)

    def _clicked(self, selection: str) -> None:
        if selection:
            self.multiples.picked = ""
            self._page.select(selection)
            self.draw()
