"""The panel "Sensitivity": what each fake quant costs, and what to leave in float for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from qatexplorer.accuracy.records import Method, Proposal, ProposalPoint, Sensitivity
from qatexplorer.session.sensitivity_part import BATCHES
from qatexplorer.session.session import Session
from qatexplorer.views.common.busy import left_words
from qatexplorer.views.sensitivity import tables as views
from qatexplorer.views.sensitivity.figures import bars_figure, curve_figure
from qatexplorer.views.sensitivity.words import (
    METHODS,
    STALE,
    Size,
    applied_words,
    method_words,
    proposal_html,
    summary_html,
)
from qatexplorer.widgets.common.assets import css
from qatexplorer.widgets.common.bridge import Bridge
from qatexplorer.widgets.common.confirm import Confirm
from qatexplorer.widgets.common.controls import Html, button, labelled, row
from qatexplorer.widgets.common.long_job import Heard, LongJob
from qatexplorer.widgets.common.page import PageState
from qatexplorer.widgets.common.panel import HtmlPanel
from qatexplorer.widgets.common.plot import FigureSlot, packed
from qatexplorer.widgets.common.table import TableWidget

MEASURING, SEARCHING = "measuring the sensitivity", "measuring mixed precision"
_TREATMENTS = (("left in float", "float"), ("with 8 bits for the weight", 8))


class SensitivityHtml(HtmlPanel):
    """HTML of the sensitivity's views."""

    _css = css("common/html.css", "common/panel.css", "sensitivity/sensitivity.css")


class SensitivityPanel(widgets.VBox):
    """Ranks the fake quants when it is asked to, searches what to leave in float, and applies it.

    Args:
        bridge: runs callbacks on the page's loop.
        start_job: starts a long call on a worker thread, as the other panels get it.
        page: where a click selects.

    ``dark`` themes the figures.
    """

    def __init__(self, bridge: Bridge, start_job: Callable[..., Any], page: PageState) -> None:
        self._start_job, self._page = start_job, page
        self._session: Session | None = None
        self._shown: dict[Method, Sensitivity] = {}
        self._proposal: Proposal | None = None
        self._chosen: ProposalPoint | None = None
        self._following = False  # a table is marked, not clicked
        self._stale = False  # what is shown is of another model than the session's now
        self._enabled = True
        self.dark = False
        self.job = LongJob(
            bridge,
            start_job,
            tip="Stop after this step; what was measured stays",
            stopping="Stopping after this step …",
            on_busy=lambda _busy: self._draw_status(),
        )
        self._build_ranking()
        self._build_proposal()
        super().__init__(
            [
                row(self.method, self.batches, self.measure, self.halt, self.job.bar, self.status),
                self.cost,
                self.summary,
                self.ranking,
                self.wish,
                self.points_part,
                self.outcome,
                self.confirm,
                row(self.apply, self.undo, self.applied),
            ]
        )
        for name in ("qx-panel", "qx-sens"):
            self.add_class(name)
        self._draw()

    def _build_ranking(self) -> None:
        options = [(title, method) for method, title in METHODS.items()]
        self.method = labelled(
            widgets.Dropdown(options=options), "Method", "How the ranking is made", width="400px"
        )
        self.batches = labelled(
            widgets.BoundedIntText(BATCHES, min=1, max=1_000_000),
            "Batches",
            "Of the evaluation data, the first ones",
            width="140px",
        )
        self.measure = button("Measure", "Rank the fake quants by what they cost", primary=True)
        self.halt, self.status = self.job.halt, self.job.status
        self.cost, self.summary = Html(kind="qx-muted"), SensitivityHtml()
        self.table = TableWidget(
            label="Fake quants by what they cost",
            columns=list(views.COLUMNS),
            filters=list(views.FILTERS),
            details=False,
            height=300,
            nothing="Nothing measured yet.",
        )
        self.bars = FigureSlot()
        self.ranking = widgets.Box([self.table, self.bars])
        self.ranking.add_class("qx-sens-parts")
        self.method.observe(lambda _: self._draw(), "value")
        self.batches.observe(lambda _: self._draw_cost(), "value")
        self.measure.on_click(lambda _: self.start())
        self.table.observe(lambda change: self._on_selected(change["new"]), "selected")

    def _build_proposal(self) -> None:
        self.wished = labelled(
            widgets.FloatText(0.0),
            "Wished metric",
            "What the model shall reach with some modules not quantized, or with more bits",
            width="220px",
        )
        self.treatment = labelled(
            widgets.Dropdown(options=_TREATMENTS), "Modules are", "What is done", width="290px"
        )
        self.search = button("Find the smallest set", "Measures one set of modules after another")
        self.wish = row(self.wished, self.treatment, self.search)
        self.points = TableWidget(
            label="Points of the curve",
            columns=list(views.POINT_COLUMNS),
            details=False,
            height=230,
            nothing="Nothing measured yet.",
        )
        self.curve = FigureSlot()
        self.points_part = widgets.Box([self.points, self.curve])
        self.points_part.add_class("qx-sens-parts")
        self.outcome, self.confirm = SensitivityHtml(), Confirm()
        self.apply = button(
            "Leave these in float",
            "Changes the settings and starts again from the float stage",
            primary=True,
        )
        self.undo = button(
            "Take it back", "The settings as they were before; starts again from float"
        )
        self.applied = Html(kind="qx-muted", role="status")
        self.wished.observe(lambda _: self._on_wished(), "value")
        self.treatment.observe(lambda _: self._forget_proposal(), "value")
        self.search.on_click(lambda _: self.propose())
        self.points.observe(lambda change: self._on_point(change["new"]), "selected")
        self.apply.on_click(lambda _: self._apply())
        self.undo.on_click(lambda _: self._undo())

    # -- what the explorer calls ----------------------------------------------------------------

    def use(self, session: Session) -> None:
        """Show another session."""
        self._session, self._stale = session, False
        self._shown = dict(session.last_sensitivity)
        self._proposal = self._chosen = None
        self.confirm.put_away()
        self._choose(session.last_proposal)
        self._draw()

    def refresh(self) -> None:
        """The stage or the model is another: say what is no longer true of it."""
        self._draw_cost()
        self._draw_status()
        self._draw_applied()

    def show_selection(self) -> None:
        """Mark in the table what is selected on the page: the fake quant, or the worst one of the
        module."""
        found = self.shown
        kind, _, path = self._page.selection.partition(":")
        rows = found.rows if found is not None else ()
        hit = next((r.path for r in rows if path == (r.path if kind == "site" else r.owner)), None)
        mark = f"site:{hit}" if hit is not None and kind in ("site", "module") else ""
        if self.table.selected != mark:
            self._following = True
            try:
                self.table.selected = mark
            finally:
                self._following = False
            self._draw_bars()

    def set_enabled(self, enabled: bool) -> None:
        self._enabled = enabled
        self._draw_buttons()

    def redraw(self) -> None:
        """The theme is another."""
        self._draw_bars()
        self._draw_curve()

    @property
    def shown(self) -> Sensitivity | None:
        """The ranking of the method chosen."""
        return self._shown.get(self.method.value)

    # -- jobs -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Measure on a worker thread, from where it was stopped if it was."""
        session = self._session
        if session is None:
            return
        method, batches = self.method.value, self.batches.value

        def work(heard: Heard, should_stop: Callable[[], bool]) -> Sensitivity:
            return session.sensitivity(
                method, batches=batches, totals=True, progress=heard, should_stop=should_stop
            )

        def done(found: Sensitivity) -> None:
            if self._stale:
                self._choose(None)
            self._stale = False
            self._shown = dict(session.last_sensitivity)
            self._offer_wish(found)
            self._draw()
            self.show_selection()

        self.job.run(MEASURING, work, done, words=lambda what, _share, _seconds: f"{what} …")

    def propose(self) -> None:
        """Search on a worker thread; what was measured before is not measured again."""
        session = self._session
        if session is None:
            return
        wished, treatment = self.wished.value, self.treatment.value
        ranking = self.shown

        def work(heard: Heard, should_stop: Callable[[], bool]) -> Proposal:
            return session.propose(
                wished_metric=wished,
                treatment=treatment,
                ranking=ranking,
                progress=heard,
                should_stop=should_stop,
            )

        self.job.run(SEARCHING, work, self._choose, words=left_words)

    def _apply(self) -> None:
        session, point = self._session, self._chosen
        if session is not None and point is not None:
            self._ask_and_do("changing the settings", session, lambda: session.apply(point))

    def _undo(self) -> None:
        session = self._session
        if session is not None:
            self._ask_and_do("taking it back", session, session.take_back_point)

    def _ask_and_do(self, name: str, session: Session, call: Callable[[], Any]) -> None:
        self.confirm.start_again(
            session,
            lambda: self._start_job(name, lambda _job: call(), lambda _made: self.refresh()),
        )

    # -- choosing -------------------------------------------------------------------------------

    def _on_selected(self, selection: str) -> None:
        if self._following:
            return
        session = self._session
        _, _, path = selection.partition(":")
        if session is not None and path in session.snapshot.site_by_path:
            self._page.select(selection)
        self._draw_bars()

    def _on_point(self, selection: str) -> None:
        found = self._proposal
        if found is not None and selection and not self._following:
            self._chosen = found.points[int(selection.partition(":")[2])]
            self._draw_curve()
            self._draw_buttons()

    def _on_wished(self) -> None:
        if self._proposal is not None:
            self._chosen = self._proposal.first_that_reaches(self.wished.value)
            self._draw_points()

    def _offer_wish(self, found: Sensitivity) -> None:
        """Nine tenths of the way from all fake quants on to none."""
        full, none = found.quantized_metric, found.float_metric
        if self._proposal is None and full is not None and none is not None:
            least = none + (full - none) / 10
            # Rounded towards what is easier to reach: what is there already must be enough.
            towards = math.ceil if found.metric_mode == "min" else math.floor
            self.wished.value = towards(least * 1e4) / 1e4

    def _choose(self, found: Proposal | None) -> None:
        self._proposal = found
        self._chosen = None if found is None else found.chosen
        self._draw_points()
        self._draw_buttons()

    def _forget_proposal(self) -> None:
        self._choose(None)

    # -- drawing --------------------------------------------------------------------------------

    def _draw(self) -> None:
        found = self.shown
        with self.table.hold_sync():
            if found is not None:
                self.table.columns = views.ranking_columns(found)
            self.table.rows = [] if found is None else views.ranking_rows(found)
        self.summary.html = "" if found is None else summary_html(found)
        self._draw_bars()
        self._draw_points()
        self.refresh()
        self._draw_buttons()

    def _draw_bars(self) -> None:
        found = self.shown
        self.ranking.layout.display = "none" if found is None else ""
        path = self.table.selected.partition(":")[2]
        figure = None if found is None or not found.rows else bars_figure(found, self.dark, path)
        self.bars.show(packed(figure))

    def _draw_points(self) -> None:
        found = self._proposal
        self.points_part.layout.display = "none" if found is None or not found.points else ""
        self._following = True
        try:
            self.points.rows = [] if found is None else views.point_rows(found)
            at = -1 if found is None or self._chosen is None else found.points.index(self._chosen)
            self.points.selected = f"point:{at}" if at >= 0 else ""
        finally:
            self._following = False
        self._draw_curve()
        self._draw_buttons()

    def _draw_curve(self) -> None:
        found, wished = self._proposal, self.wished.value
        if found is None:
            self.curve.show(None)
            self.outcome.html = ""
            return
        figure = curve_figure(found, self._chosen, wished, self.dark) if found.points else None
        self.curve.show(packed(figure))
        self.outcome.html = proposal_html(found, self._chosen, wished)

    def _draw_cost(self) -> None:
        session = self._session
        if session is None:
            self.cost.html = ""
            return
        prepared = session.snapshots.get(session.flow.prepared_stage)
        sites = prepared.sites if prepared is not None else ()
        size = Size(sum(site.calls_per_forward != 0 for site in sites), self.batches.value)
        self.cost.html = method_words(self.method.value, size, session.last_sensitivity)

    def _draw_status(self) -> None:
        session = self._session
        if session is not None and not self.job.busy:
            self._stale |= bool(self._shown) and not session.last_sensitivity
            self.status.html = STALE if self._stale else ""

    def _draw_applied(self) -> None:
        point = self._session.applied if self._session is not None else None
        self.undo.layout.display = "none" if point is None else ""
        self.applied.html = "" if point is None else applied_words(point)

    def _draw_buttons(self) -> None:
        session, found, point = self._session, self.shown, self._chosen
        on = self._enabled and session is not None
        go_on = found is not None and not found.complete
        self.measure.description = "Go on" if go_on else "Measure again" if found else "Measure"
        self.measure.disabled = not on
        self.wish.layout.display = "none" if found is None else ""
        self.search.disabled = not on
        in_float = self.treatment.value == "float"
        self.apply.description = "Leave these in float" if in_float else "Give these 8 bits"
        self.apply.layout.display = "none" if self._proposal is None else ""
        in_force = session.applied if session is not None else None
        self.apply.disabled = not on or point is None or not point.modules or point is in_force
        self.undo.disabled = not on
