"""The explorer: stage bar, tree, graph, inspector and panels over one session.

No view talks to another: a click calls the session, the session emits an event, views redraw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

import ipywidgets as widgets

from qatexplorer import zoo
from qatexplorer.advice import Proposal
from qatexplorer.checks.records import Finding, Fix
from qatexplorer.errors import BusyError, QatExplorerError
from qatexplorer.flows.base import FlowKind
from qatexplorer.flows.edits import Edit
from qatexplorer.garbage import cycles_collected_later
from qatexplorer.runs.opened import OpenedRun
from qatexplorer.session.inputs import describe_inputs
from qatexplorer.session.overlays import COMPARED, checked_name
from qatexplorer.session.session import Session, SessionEvent
from qatexplorer.snapshot.overlay import Groups, Overlay
from qatexplorer.views.checks.marks import finding_marks
from qatexplorer.views.checks.state import header_of
from qatexplorer.views.common.findings import finding_entries
from qatexplorer.views.common.names import count
from qatexplorer.views.common.news import news_of
from qatexplorer.views.common.options import header_html
from qatexplorer.views.common.story import stage_entries, story_html
from qatexplorer.views.inspector.switching import ASKS as SWITCHES
from qatexplorer.views.static.page import still_html
from qatexplorer.widgets.accuracy.compare import ComparePanel
from qatexplorer.widgets.annotations.panel import AnnotationsPanel
from qatexplorer.widgets.checks.checker import Checker
from qatexplorer.widgets.checks.panel import ChecksPanel
from qatexplorer.widgets.common.bridge import Bridge, Job, Jobs
from qatexplorer.widgets.common.controls import Html, Message, Note, labelled
from qatexplorer.widgets.common.page import PageState
from qatexplorer.widgets.cures.advice import ADVISED, AdvicePanel, perform
from qatexplorer.widgets.cures.panel import CuresPanel
from qatexplorer.widgets.cures.sweeps import SweepPanel
from qatexplorer.widgets.explorer.drawer import Drawer
from qatexplorer.widgets.explorer.frame import Frame
from qatexplorer.widgets.explorer.news import NewsBar
from qatexplorer.widgets.explorer.panes import Panes, StagePicture
from qatexplorer.widgets.explorer.settings import SettingsPanel
from qatexplorer.widgets.explorer.splitter import Splitter
from qatexplorer.widgets.explorer.stagebar import StageBar
from qatexplorer.widgets.explorer.still import Still, metadata_of, still_of
from qatexplorer.widgets.ledger.ledger import LedgerPanel
from qatexplorer.widgets.migration.panel import MigrationPanel
from qatexplorer.widgets.qconfig.base_config import BaseConfigPanel
from qatexplorer.widgets.qconfig.panel import QConfigPanel
from qatexplorer.widgets.sensitivity.panel import SensitivityPanel
from qatexplorer.widgets.takehome.panel import TakeHomePanel
from qatexplorer.widgets.training.live import LivePanel
from qatexplorer.widgets.training.results import ResultsPanel
from qatexplorer.widgets.training.runs import RunsPanel
from qatexplorer.widgets.training.training import TrainingPanel

_PROGRESS_S = 0.25
_STILL_S = 2.0


@dataclass(frozen=True)
class _StagePage:
    """All that the page shows of a stage: entries of the bar, what happened in one line and in
    full, what is wrong, and the panes' picture."""

    session: Session
    entries: list[dict[str, Any]]
    news: str
    story: str
    found: tuple[Finding, ...]
    picture: StagePicture


class Explorer(widgets.VBox):
    """See :func:`qatexplorer.explore`. ``session`` is None while the input cannot be used."""

    def __init__(self, model: Any = None, example_inputs: Any = None, **settings: Any) -> None:
        self.session: Session | None = None
        self._example = ""
        self._tried_for: tuple[Any, ...] = ()
        self._led_to: Session | None = None  # for which the panel that trains has been opened
        self._edited: dict[str, tuple[Edit, ...]] = {}  # by what takes it back
        self._unsubscribe: Callable[[], None] | None = None
        self.bridge = Bridge()
        self.jobs = Jobs(self.bridge, self._on_jobs)
        self.checker = Checker(self.bridge, self._on_check, lambda: self.jobs.current is None)
        self.page = PageState()
        self.page.signal.subscribe(lambda _: self.bridge.post("selection", self._on_selection))
        self.still = Still(self.static_html)
        self._build()
        if model is None:
            self._offer_examples(settings.pop("example", zoo.names()[0]), settings)
        elif isinstance(model, Session):
            self.examples.layout.display = "none"
            self.show_session(model, settings.get("suggested"))
        else:
            self.examples.layout.display = "none"
            self.show_model(model, example_inputs, **settings)
        if self.session is None:
            self.panes.show_nothing()
        super().__init__([self._top(), self.panes, self.drawer, self._height_handle()])
        for name in ("qx", "qx-explorer"):
            self.add_class(name)

    # -- as an output of a notebook ------------------------------------------------------------

    def static_html(self) -> str:
        """The stage in view as one piece of HTML, a few dozen kB: tree, graph, and the figures of
        what is selected. It needs no widget, no kernel and no script; notebooks keep it beside the
        page, and it can be written to a file."""
        session = self.session
        if session is None:
            return f'<div class="qx-still">{self.message.html}</div>'
        return still_html(still_of(session, self.selection, self.panes.drawn_of(session)))

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The live page, and the picture for where no widget can be shown."""
        bundle: dict[str, Any] = super()._repr_mimebundle_(**kwargs) or {}
        return {**bundle, "text/html": self.static_html()}

    def _ipython_display_(self, **_kwargs: Any) -> None:
        bundle = super()._repr_mimebundle_() or {"text/plain": repr(self)}
        self.still.show(bundle, metadata_of(self.frame))

    def _keep_still(self) -> None:
        """The picture in the notebook follows the page, when a training does not run."""
        session = self.session
        if self.still.is_shown and session is not None and not session.running:
            self.bridge.post("still", self._draw_still, every_s=_STILL_S)

    def _draw_still(self) -> None:
        self.bridge.make("still picture", self.static_html, self.still.update)

    # -- building -------------------------------------------------------------------------------

    def _build(self) -> None:
        self.header = Html(kind="qx-title")
        self.examples = labelled(
            widgets.Dropdown(options=[(zoo.title(n), n) for n in zoo.names()]),
            "Example",
            "The embedded examples: scikit-learn's digits, and a small language model",
            width="min(380px, 38vw)",
        )
        self.description = Note(kind="qx-about-note", label="about it")
        self.frame = Frame()
        self.bar = StageBar()
        self.bar.on_action(self._on_action)
        self.message = Message()
        self.news = NewsBar()
        self.news.on_fix(self._on_fix)
        self.news.on_select(self.select)
        self.news.on_checks(lambda: self.drawer.show_panel(self.checks))
        self.panes = Panes(self.bridge, self.page)
        self.panes.inspector.on_ask(self._on_ask)
        self.panes.wanted = lambda: self.jobs.current is not None
        self.panes.settled = self._on_settled
        self._build_panels()
        self.panes.graph.observe(lambda change: self._on_theme(change["new"]), "dark")

    def _build_panels(self) -> None:
        self.runs = RunsPanel(
            self.bridge,
            self._act,
            self.start_job,
            self.show_session,
            self._look_inside,
            self._on_grown,
        )
        self.training = TrainingPanel(
            self.bridge, self._act, self.start_job, lambda: self.runs.run_dir()
        )
        self.live = LivePanel(self.bridge, self.page)
        self.ledger = LedgerPanel(self.bridge, self.start_job, self.page, self._on_ledger)
        self.results = ResultsPanel(self.bridge, self.start_job, self.page)
        self.compare = ComparePanel(
            self.bridge, self.start_job, self.page, self.overlay, self._on_compared
        )
        self.settings = SettingsPanel(self.start_job)
        self.qconfig = QConfigPanel(self.bridge, self.start_job, self.page)
        self.annotations: AnnotationsPanel | None = None  # made when a flow has annotations
        self.base_config = BaseConfigPanel(self.bridge, self._on_ask)
        self.checks = ChecksPanel(self.checker, self.page, self._on_fix, self._on_undo)
        self.sensitivity = SensitivityPanel(self.bridge, self.start_job, self.page)
        self.sweeps = SweepPanel(self.bridge, self.start_job, self.training.settings)
        self.cures = CuresPanel(
            self.bridge,
            self.start_job,
            self.training.say_before,
            lambda: self._in_sight(self.training),
            self.sweeps,
        )
        self.advice = AdvicePanel(self.bridge, self.page, self._on_advice)
        self.cures.place_advice(self.advice)
        self.takehome = TakeHomePanel(self.bridge, self.start_job)
        self.migration = MigrationPanel(self.bridge, self.start_job, self.page)
        panels = {
            "Train": self.training,
            "Inside the training": self.live,
            "Who put it there?": self.ledger,
            "Float, fake-quant, int8": self.results,
            "qconfig": self.qconfig,
            "Compare": self.compare,
            "Settings": self.settings,
            "Runs": self.runs,
            "Checks": self.checks,
            "Sensitivity": self.sensitivity,
            "Cures": self.cures,
            "Flows": self.migration,
            "Take home": self.takehome,
        }
        self.drawer = Drawer(panels, self._on_drawer)
        # Those that show a session and are switched off while a job goes on.
        self._panels = (
            self.checks, self.ledger, self.results, self.compare, self.settings, self.runs,
            self.sensitivity, self.qconfig, self.cures, self.advice,
            self.sweeps, self.takehome, self.migration,
        )  # fmt: skip

    def _top(self) -> widgets.Widget:
        """What is above tree and graph: all of it in three rows of at most 110 px together."""
        self.header.add_class("qx-grows")
        self.description.add_class("qx-about")
        title = widgets.HBox([self.header, self.description, self.examples, self.frame])
        title.add_class("qx-title-row")
        # Each takes its room only while it has something to say; their texts open over the page.
        news = widgets.HBox([self.message, self.news])
        news.add_class("qx-news")
        self.message.add_class("qx-grows")
        self.news.add_class("qx-fills")
        top = widgets.VBox([title, self.bar, news])
        top.add_class("qx-top")
        return top

    def _height_handle(self) -> Splitter:
        handle = Splitter("height")
        handle.add_class("qx-height-handle")
        return handle

    def _offer_examples(self, name: str, settings: dict[str, Any]) -> None:
        if self._open_example(name, settings):
            self.examples.value = name
        elif self._open_example(zoo.names()[0], settings):
            self._open_example(name, settings)  # again, so that what is wrong stays on the page
        self.examples.observe(lambda change: self._change_example(change, settings), "value")

    def _change_example(self, change: Any, settings: dict[str, Any]) -> None:
        if change["new"] != self._example and not self._open_example(change["new"], settings):
            self.examples.value = self._example

    def _open_example(self, name: str, settings: dict[str, Any]) -> bool:
        try:
            example = zoo.load(name)
        except QatExplorerError as error:
            self._report(error)
            return False
        given = {"data": example.data, **example.settings, **settings}
        if not self.show_model(
            example.model, example.example_inputs, suggested=example.training, **given
        ):
            return False
        self._example = name
        self.description.html = f"<p>{escape(example.description)}</p>"
        return True

    def show_model(
        self,
        model: Any,
        example_inputs: Any = None,
        *,
        suggested: dict[str, Any] | None = None,
        **settings: Any,
    ) -> bool:
        """Show another model. Input that cannot be used is reported in the widget; the session that
        was there before stays, and the answer is False."""
        if self.session is not None and self.session.running:
            self._report(BusyError("A run is going on.", fix="Stop it before opening a model."))
            return False
        try:
            session = Session(model, example_inputs, **settings)
        except Exception as error:
            self._report(error)
            return False
        self.show_session(session, suggested)
        return True

    def show_session(self, session: Session, suggested: dict[str, Any] | None = None) -> None:
        """Show a session that exists, such as one whose training goes on without a page. The one
        that was shown goes on too, if it trains."""
        if self._unsubscribe is not None:
            self._unsubscribe()
        self.session = session
        session.warns = False  # its notes are on the page
        self.page.start_over()
        self._unsubscribe = session.signal.subscribe(self._on_event)
        self.message.clear()
        first = session.snapshot.modules[0]
        about = f"{count(first.param_count, 'parameter')}, input "
        about += describe_inputs(session.options.example_inputs)
        self.header.html = header_html(first.type_name, about)
        self.panes.use(session)
        self.training.use(session, suggested or {})
        for panel in (self.live, *self._panels):
            panel.use(session)
        self._follow_flow()
        self.checker.use(session)
        self._on_jobs()
        self.refresh()

    def _follow_flow(self) -> None:
        """The session's flow may be another: tabs and panels call things as it does."""
        self._say_who_rounds()
        session = self.session
        if session is not None:
            title = f"Float, fake-quant, {session.flow.result}"
            self.drawer.call(self.results, title)
            self.panes.overlays.call(session.flow.result)
            self.training.follow()
            self.sweeps.follow()
            self.takehome.follow()

    def _say_who_rounds(self) -> None:
        """One tab is of what says how a tensor is rounded: qconfigs, or, in a flow that has none, a
        quantizer's annotations or a base config."""
        session = self.session
        if session is None:
            return
        kind = session.flow.kind()
        if kind == "annotation" and self.annotations is None:
            self.annotations = AnnotationsPanel(
                self.page, self.overlay, lambda: bool(self.panes.overlays.name)
            )
        tabs: dict[FlowKind, tuple[widgets.Widget | None, str]] = {
            "modules": (self.qconfig, "qconfig"),
            "annotation": (self.annotations, "Annotations"),
            "layers": (self.base_config, "Base config"),
        }
        wanted, title = tabs[kind]
        assert wanted is not None
        for panel in (self.annotations, self.base_config):
            if panel is not None:
                panel.use(session if panel is wanted else None)
        before = self._who_rounds()
        if before is not wanted:
            self.drawer.exchange(wanted, before, title)
            self._on_drawer()

    # -- events of the session ------------------------------------------------------------------

    def _on_event(self, event: SessionEvent) -> None:
        """May come on any thread: redrawing is left to the loop."""
        if event.kind == "progress":
            final = event.detail.state not in ("running", "paused")
            wait = 0.0 if final or event.detail.state == "paused" else _PROGRESS_S
            self.bridge.post("progress", self._on_progress, every_s=wait)
        elif event.kind == "config":
            self.bridge.post("config", self._on_config)
        elif event.kind == "stepping":
            title = self.session.flow.stage(event.detail).title if self.session else ""
            self.bridge.post("stepping", lambda: self._busy(f"running: {title} …"))
        elif event.kind in ("stage", "trained", "run"):
            if event.kind != "stage":
                self.bridge.post("trained", self.checker.changed)
            self.refresh()
            if event.kind != "stage":
                self.bridge.post("runs", self.runs.on_training)

    def _on_config(self) -> None:
        self.checker.changed()
        self.settings.refresh()
        self.qconfig.refresh()
        self._follow_flow()
        self.results.forget_latency()
        self.panes.compare.start_over()

    def _try_int8(self, session: Session) -> None:
        """Find out off the loop whether a copy gets to int8, and show what stands in its way: once
        for the settings in force, and after the picture, which comes first. Where converting takes
        its time it would keep the first click waiting: there it waits to be asked for."""
        if not session.flow.quick_to_convert:
            return
        training = session.snapshots[session.stages[0]].training
        settings = (session, session.options, session.flow.name, training)
        known = len(self._tried_for) == len(settings) and all(
            one is other for one, other in zip(settings, self._tried_for, strict=True)
        )
        if known:
            self.checker.want()
            return
        self._tried_for = settings
        self.bridge.make(
            "findings",
            lambda: (session, session.findings()),
            self._on_tried,
            lambda _error: self.checker.want(),
        )

    def _on_tried(self, tried: tuple[Session, tuple[Finding, ...]]) -> None:
        session, found = tried
        if session is self.session:
            self._show_found(session, found)
            self.panes.look_again()
            self.checker.want()

    # -- checks ---------------------------------------------------------------------------------

    def _show_found(self, session: Session, known: Sequence[Finding]) -> None:
        """Show what is known to be wrong: in the line of news, in the panel, in tree and graph."""
        last = session.last_check
        silenced = {one.key for one in last.silenced} if last is not None else set()
        found = tuple(one for one in known if one.key not in silenced)
        snapshot, first = session.snapshot, session.snapshots.get(session.stages[0])
        self.news.findings = finding_entries(found, snapshot, first)
        self.panes.mark_findings(finding_marks(found, snapshot, first))
        self.checks.show(found)
        self._say_counts()

    def _say_counts(self) -> None:
        self.news.checks = header_of(self.checker.state, self.checks.findings)

    def _on_check(self) -> None:
        """A check has begun, moved on or ended."""
        session, state = self.session, self.checker.state
        if session is not None and state.kind == "done":
            self._show_found(session, session.findings(try_int8=False))
            self.panes.look_again()
        else:
            self.checks.draw_state()
            self._say_counts()

    def _on_undo(self, wanted: str) -> None:
        """A button asks to take back what another one did."""
        session, edits = self.session, self._edited.get(wanted)
        if session is not None and edits:
            self.start_job(
                "taking it back",
                lambda _job: session.take_back(*edits),
                lambda _made: self.checks.taken_back(wanted),
            )

    def _on_progress(self) -> None:
        if self.session is not None and self.session.run is not None:
            self.training.on_progress(self.session.run.progress)
            self.panes.on_training()
            # Drawing what nobody sees would take its time from the training.
            if self._in_sight(self.live):
                self.live.on_training()
            run = self.session.run
            error = run.error if run.state == "failed" else run.trouble
            if error is not None:
                self.message.error(error)

    def refresh(self) -> None:
        """Draw the stage in view: made on the thread that has made it, shown on the loop."""
        session = self.session
        if session is not None:
            self.bridge.make(
                "stage",
                lambda: self._stage_page(session),
                self._show_stage,
                self.panes.show_failure,
            )

    def _stage_page(self, session: Session) -> _StagePage:
        stage, stages = session.flow.stage(session.stage), session.flow.stages
        news = news_of(stages, session.snapshots)
        found = session.findings(try_int8=False)
        with cycles_collected_later():
            return _StagePage(
                session,
                stage_entries(stages, stage.name, session.reached, news),
                news[stage.name],
                story_html(stage, session.snapshot, session.diff, news[stage.name]),
                found,
                self.panes.picture(session),
            )

    def _show_stage(self, page: _StagePage) -> None:
        session = page.session
        if session is not self.session:
            return
        self.bar.stages = page.entries
        title = session.flow.stage(session.stage).title
        self.news.show(title, page.news, page.story)
        self.panes.show(page.picture)
        self.checker.look()
        self._show_found(session, page.found)
        self._try_int8(session)
        self._keep_still()
        self.ledger.refresh()
        self.compare.refresh()
        if self.annotations is not None:
            self.annotations.refresh()
        self.migration.refresh()
        self.sensitivity.refresh()
        self.cures.refresh()
        self.advice.refresh()
        self.training.set_enabled(self.jobs.current is None)
        if session.stage == session.flow.train_stage and self._led_to is not session:
            self._led_to = session
            self.drawer.show_panel(self.training)

    def select(self, selection: str) -> None:
        """Select ``"module:<path>"``, ``"site:<path>"``, ``"node:<id>"`` or
        ``"edge:<source>:<target>"`` in all views; ``""`` selects nothing."""
        self.page.select(selection)

    def overlay(
        self,
        values: str | Mapping[str, Any] | Overlay | None,
        title: str = "",
        unit: str = "",
        high_is: Literal["bad", "good", ""] = "",
        groups: Groups | None = None,
    ) -> None:
        """Colour the graph by a number of each part.

        ``values`` is a mapping from module paths, paths of fake quants or ids of graph nodes to
        numbers (or words), an :class:`~qatexplorer.Overlay`, the name of a built-in overlay (see
        :meth:`Session.overlay`), or None for no colours. The others are as for
        :meth:`Overlay.of`. Raises OverlayError for what the model does not have.
        """
        session = self.session
        if values is None or session is None:
            self.panes.overlays.choose("")
        elif isinstance(values, str):
            self.panes.overlays.choose(checked_name(values))
        else:
            if not isinstance(values, Overlay):
                values = Overlay.of(values, title, unit, high_is, groups)
            self.panes.overlays.show(values.checked(session.snapshots.values()))

    @property
    def selection(self) -> str:
        """What is selected."""
        return self.page.selection

    def _on_selection(self) -> None:
        self.panes.show_selection()
        if self._in_sight(self.live):
            self.live.draw()

    def _on_settled(self) -> None:
        """The inspector has been drawn: what else follows the selection must not delay it."""
        self._keep_still()
        self.ledger.show_selection()
        self.qconfig.show_selection()
        if self.annotations is not None:
            self.annotations.show_selection()
        self.results.show_selection()
        self.compare.show_selection()
        self.sensitivity.show_selection()

    def _in_sight(self, panel: widgets.Widget) -> bool:
        return self.drawer.in_sight(panel)

    def _on_drawer(self) -> None:
        self.ledger.active = self._in_sight(self.ledger)
        self.compare.active = self._in_sight(self.compare)
        self.training.in_sight = self._in_sight(self.training)
        for panel in (self.qconfig, self.base_config):
            panel.active = self._in_sight(panel)
        in_sight = self._in_sight(self.cures)
        self.cures.active = self.advice.active = self.sweeps.active = in_sight
        if self._in_sight(self.training):
            self.cures.refresh()
        self.takehome.active = self._in_sight(self.takehome)
        self.migration.active = self._in_sight(self.migration)
        if self._in_sight(self.live):
            self.live.draw()

    def _look_inside(self, run: OpenedRun) -> None:
        """Show the fake quants of a run that was opened from its folder."""
        self.live.show(run)
        self.drawer.show_panel(self.live)

    def _on_grown(self, run: OpenedRun) -> None:
        """A run that another process trains was read again."""
        self.live.follow(run)
        if self._in_sight(self.live):
            self.live.draw()

    def _on_ledger(self) -> None:
        """A ledger has been made: it knows which edges are quantized twice."""
        self.panes.mark_redundant()

    def _on_compared(self) -> None:
        """The model has been compared anew: what is coloured by it is another."""
        if self.panes.overlays.name in COMPARED:
            self.panes.overlays.refresh()

    def _on_theme(self, dark: bool) -> None:
        for panel in (
            self.training,
            self.live,
            self.runs,
            self.results,
            self.compare,
            self.sensitivity,
            self.qconfig,
        ):
            panel.dark = dark
        self.training.redraw()
        self.compare.draw()
        self.sensitivity.redraw()
        if self._in_sight(self.live):
            self.live.draw()

    # -- what a click does ----------------------------------------------------------------------

    def _on_action(self, action: str, stage: str) -> None:
        session = self.session
        if action == "stop" and self.jobs.current is not None:
            self.jobs.current.stop()
            self._busy("stopping …")
        elif session is not None:
            calls: dict[str, Callable[[], Any]] = {
                "next": session.step,
                "back": session.back,
                "reset": session.reset,
                "goto": lambda: session.goto(stage),
            }
            if action in calls:
                self.start_job("stepping", lambda _job: calls[action]())

    def _on_ask(self, wanted: str) -> None:
        """A button of the inspector's page: see :func:`views.inspector.glance.glance_html`."""
        what, _, rest = wanted.partition(":")
        panels: dict[str, widgets.Widget] = {
            "checks": self.checks,
            "training": self.training,
            "inside": self.live,
            "ledger": self.ledger,
            "results": self.results,
            "qconfig": self._who_rounds(),
            "settings": self.settings,
            "sensitivity": self.sensitivity,
            "cures": self.cures,
        }
        if what == "search":
            self.panes.tree.query = rest
        elif what == "stage" and self.session is not None:
            self._on_action("goto", rest)
        elif what == "panel" and rest in panels:
            self.drawer.show_panel(panels[rest])
        elif what == "int8":
            self.panes.int8.choose(rest)
        elif what == SWITCHES and (session := self.session) is not None:
            self.start_job(
                "switching fake quants off",
                lambda _job: session.switching(),
                lambda _found: self.panes.inspect_again(),
            )
        elif what == "fix":
            key, _, index = rest.rpartition(":")
            self._on_fix(key, int(index))

    def _who_rounds(self) -> widgets.Widget:
        """The panel in the tab of the qconfig."""
        those = (self.annotations, self.base_config)
        return next((p for p in those if p is not None and p in self.drawer.panels), self.qconfig)

    def _on_fix(self, key: str, index: int) -> None:
        """A button against a finding was pressed."""
        session = self.session
        if session is None:
            return
        known = session.findings(try_int8=False)
        finding = next((found for found in known if found.key == key), None)
        if finding is not None and index < len(finding.fixes):
            fix = finding.fixes[index]
            before = session.edits
            self.start_job(
                "putting it right",
                lambda _job: fix.apply(session),
                lambda _made: self._applied(session, finding, fix, before),
            )

    def _on_advice(self, proposal: Proposal) -> None:
        """A button of the advice was pressed."""
        session = self.session
        if session is not None:
            self.start_job(
                ADVISED,
                lambda job: perform(session, proposal, job.should_stop),
                lambda _done: self.advice.refresh(),
                can_stop=True,
            )

    def _applied(
        self, session: Session, finding: Finding, fix: Fix, before: Sequence[Edit]
    ) -> None:
        """List what was done; changes of the float model can be taken back one by one."""
        new = tuple(edit for edit in session.edits if edit not in before)
        undo = f"undo:{len(self._edited)}" if new else ""
        self._edited[undo] = new
        self.checks.applied(finding, fix, undo)

    def start_job(
        self,
        name: str,
        work: Callable[[Job], Any],
        done: Callable[[Any], Any] = lambda _value: None,
        *,
        ended: Callable[[], Any] = lambda: None,
        can_stop: bool = False,
    ) -> bool:
        """Run a call of the session off the loop; its error, if any, is reported in the widget."""
        self.message.clear()
        self.checker.give_way()
        started = self.jobs.start(name, work, done, self._report, ended=ended, can_stop=can_stop)
        if not started:
            current = self.jobs.current
            self._report(BusyError(f"Still {current.name if current else 'busy'}; one at a time."))
        return started

    def _act(self, call: Callable[[], Any]) -> None:
        self.message.clear()
        try:
            call()
        except Exception as error:
            self._report(error)

    def _report(self, error: Exception) -> None:
        self.message.error(error)

    def _busy(self, words: str) -> None:
        if self.jobs.current is not None:
            self.bar.busy = words

    def _on_jobs(self) -> None:
        job = self.jobs.current
        self.bar.busy = f"{job.name} …" if job is not None else ""
        self.bar.can_stop = job is not None and job.can_stop
        self.news.busy = job is not None
        for panel in (self.training, *self._panels):
            panel.set_enabled(job is None)
        if job is None:
            self.checker.resume()
