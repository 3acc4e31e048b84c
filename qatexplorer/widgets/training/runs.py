"""The panel of runs kept on disk: look at one, go on with one, find one that still runs."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from qatexplorer.errors import InputError, RunFolderError
from qatexplorer.runs.opened import OpenedRun, list_runs, open_run
from qatexplorer.runs.place import DEFAULT_FOLDER, default_folder
from qatexplorer.session import running as registry
from qatexplorer.session.session import Session
from qatexplorer.views.common.story import message_html
from qatexplorer.views.training.figures import curves_figure
from qatexplorer.views.training.runs import run_html, run_line
from qatexplorer.widgets.common.bridge import Bridge
from qatexplorer.widgets.common.controls import Html, button, labelled, row
from qatexplorer.widgets.common.plot import FigureSlot

FOLLOW_S = 2.0


class RunsPanel(widgets.VBox):
    """Where new runs are kept, and those that are there.

    Args:
        bridge, act, start_job: as for the training panel.
        attach: called with the session of this kernel that trains the chosen run, to show it in
            place of the present one (a page that was opened anew finds its training so).
        look_inside: called with the chosen run, to show its fake quants over the steps.
        on_grown: called with the chosen run each time it is read again while another process
            trains it.
    """

    def __init__(
        self,
        bridge: Bridge,
        act: Callable[[Callable[[], Any]], Any],
        start_job: Callable[..., Any],
        attach: Callable[[Session], Any] | None = None,
        look_inside: Callable[[OpenedRun], Any] | None = None,
        on_grown: Callable[[OpenedRun], Any] | None = None,
    ) -> None:
        self._bridge, self._act, self._start_job, self._attach = bridge, act, start_job, attach
        self._look_inside, self._on_grown = look_inside, on_grown
        self._session: Session | None = None
        self._opened: OpenedRun | None = None
        self._drawn: Any = None
        self._may_start = True
        self.dark = False
        self.keep = widgets.Checkbox(True, description="Keep runs", indent=False)
        self.keep.layout.width = "120px"
        self.folder = labelled(
            widgets.Text(default_folder(), continuous_update=False),
            "in the folder",
            "Folder of runs; each run gets a folder of its own below it",
            width="420px",
        )
        self.refresh = button("Refresh", "Read the folder again")
        self.list = labelled(widgets.Select(options=[], rows=4), "Runs", width="99%")
        self.resume = button("Resume", "Go on from the last checkpoint", primary=True)
        self.attach = button("Show its session", "The run goes on in this kernel: show it here")
        self.inside = button("Look inside", "Its fake quants over the steps, in another tab")
        self.pause = button("Pause there", "The kernel that trains it stands still after its step")
        self.go_on = button("Go on there", "The kernel that trains it goes on")
        self.stop = button("Stop there", "The kernel that trains it ends after its step")
        self.details = Html()
        self.curves = FigureSlot()
        self.refresh.on_click(lambda _: self._act(self.read))
        self.folder.observe(lambda _: self._act(self.read), "value")
        self.list.observe(lambda _: self._act(self._open), "value")
        self.resume.on_click(lambda _: self._act(self._resume))
        self.attach.on_click(lambda _: self._act(self._show_session))
        self.inside.on_click(lambda _: self._act(self._show_inside))
        for control, what in ((self.pause, "pause"), (self.go_on, "run"), (self.stop, "stop")):
            control.on_click(lambda _, what=what: self._act(lambda: self._request(what)))
        super().__init__(
            [
                row(self.keep, self.folder, self.refresh),
                self.list,
                row(self.resume, self.inside, self.attach, self.pause, self.go_on, self.stop),
                self.details,
                self.curves,
            ]
        )
        self.add_class("qx-panel")

    # -- for the panel that trains --------------------------------------------------------------

    def run_dir(self) -> Path | None:
        """A folder for a new run, None if runs are not to be kept."""
        if not self.keep.value:
            return None
        if self._session is None:
            raise InputError("There is no model to train.")
        now = datetime.datetime.now().strftime("%Y-%m-%d-%H%M%S")
        name = self._session.snapshot.modules[0].type_name.rpartition(".")[2]
        root = self.root / f"{now}-{name}"
        taken = 1
        while root.exists():
            taken += 1
            root = self.root / f"{now}-{name}-{taken}"
        return root

    @property
    def root(self) -> Path:
        """The folder of runs."""
        return Path(self.folder.value.strip() or DEFAULT_FOLDER).expanduser().absolute()

    # -- what is shown --------------------------------------------------------------------------

    def use(self, session: Session | None) -> None:
        """Runs are resumed in ``session``."""
        self._session = session
        self.read()

    def on_training(self) -> None:
        """A run has begun or ended: the list has changed."""
        self.read()

    def read(self) -> None:
        """Read the folder of runs again; what was chosen stays chosen."""
        chosen = self.list.value
        lines = list_runs(self.root)
        options = [(run_line(line), str(line.path)) for line in lines]
        if list(self.list.options) != options:
            self.list.options = options
        known = [value for _, value in options]
        self.list.value = chosen if chosen in known else (known[0] if known else None)
        self._open()

    def _open(self) -> None:
        path, started = self.list.value, time.perf_counter()
        opened = self._opened = None
        self.details.html = "<p>No run is kept here yet.</p>"
        try:
            if path:
                opened = self._opened = open_run(path)
                self.details.html = str(run_html(opened))
        except RunFolderError as error:  # of an older format, or removed meanwhile
            self.details.html = message_html(error)
        self._draw(opened)
        self._enable()
        # A run of this kernel shows itself; that of another one sends no signal, so its folder is
        # read again while it is looked at.
        away = opened is not None and registry.session_of(opened.path) is None
        if opened is not None and opened.state == "running" and away and self._bridge.has_loop:
            took = time.perf_counter() - started
            self._bridge.post("runs:follow", self._follow, every_s=max(FOLLOW_S, 20 * took))

    def _draw(self, opened: OpenedRun | None) -> None:
        steps = opened.history.steps if opened is not None else ()
        drawn = (opened.path, len(steps), steps[-1], self.dark) if opened and steps else None
        if drawn != self._drawn:
            self._drawn = drawn
            self.curves.show(curves_figure(opened.history, self.dark) if opened and steps else None)

    def _follow(self) -> None:
        if self._opened is not None and self.list.value == str(self._opened.path):
            self._open()
            if self._opened is not None and self._on_grown is not None:
                self._on_grown(self._opened)

    def set_enabled(self, enabled: bool) -> None:
        """Whether a run may be resumed (no other job is going on)."""
        self._may_start = enabled
        self._enable()

    def _enable(self) -> None:
        opened, session = self._opened, self._session
        alive = opened is not None and opened.state in ("running", "paused")
        steered = alive and opened is not None and opened.kind == "session"
        here = registry.session_of(opened.path) if opened is not None and alive else None
        free = session is not None and session.data is not None and not session.running
        self.resume.disabled = not (
            opened is not None and not alive and opened.checkpoints and free and self._may_start
        )
        self.attach.layout.display = (
            "" if here is not None and here is not session and self._attach is not None else "none"
        )
        self.inside.disabled = opened is None or opened.telemetry is None
        self.pause.disabled = not steered or opened is None or opened.state != "running"
        self.go_on.disabled = not steered or opened is None or opened.state != "paused"
        self.stop.disabled = not steered

    # -- what a click does ----------------------------------------------------------------------

    def _resume(self) -> None:
        opened, session = self._opened, self._session
        if opened is not None and session is not None:
            self._start_job(
                "resuming", lambda _job: session.resume(opened.path), lambda _run: self.read()
            )

    def _show_session(self) -> None:
        here = registry.session_of(self._opened.path) if self._opened is not None else None
        if here is not None and self._attach is not None:
            self._attach(here)

    def _show_inside(self) -> None:
        if self._opened is not None and self._look_inside is not None:
            self._look_inside(self._opened)

    def _request(self, what: Any) -> None:
        if self._opened is not None:
            self._opened.request(what)
            if self._bridge.has_loop:
                self._bridge.post("runs:follow", self._follow, every_s=1.0)
