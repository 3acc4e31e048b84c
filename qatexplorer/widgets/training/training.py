"""The panel that trains: settings, buttons, progress, curves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from qatexplorer.runs.records import Progress
from qatexplorer.session.session import Session
from qatexplorer.views.training.figures import curves_figure
from qatexplorer.views.training.progress import progress_words
from qatexplorer.widgets.common.bridge import Bridge
from qatexplorer.widgets.common.controls import button, labelled, row
from qatexplorer.widgets.common.plot import FigureSlot
from qatexplorer.widgets.training.schedules import ScheduleFields

REDRAW_S = 1.0


class TrainingPanel(widgets.VBox):
    """Train, Pause, Resume, Stop and Calibrate, and what the run has recorded.

    Args:
        bridge: carries calls to the kernel's event loop, where widgets are drawn.
        act: ``act(call)`` runs a call that may raise and shows its error.
        start_job: ``start_job(name, work)`` runs ``work(job)`` on a worker thread, one job at a
            time, and shows its error.
        run_dir: ``run_dir()`` is the folder for the next run, None to keep it nowhere.
    """

    def __init__(
        self,
        bridge: Bridge,
        act: Callable[[Callable[[], Any]], Any],
        start_job: Callable[[str, Callable[..., Any]], Any],
        run_dir: Callable[[], Path | None],
    ) -> None:
        self._bridge, self._act, self._start_job = bridge, act, start_job
        self._run_dir = run_dir
        self._session: Session | None = None
        self.dark = False
        self.epochs = labelled(
            widgets.BoundedIntText(3, min=1, max=10_000), "Epochs", width="120px"
        )
        self.lr = labelled(widgets.FloatText(1e-3, step=1e-4), "Learning rate", width="170px")
        self.schedules = ScheduleFields()
        more = widgets.Accordion([self.schedules], selected_index=None)
        more.set_title(0, "Schedules: freezing, learning rate, smoothing, averaging, checkpoints")
        self.train = button("Train", "Real QAT epochs in the background", primary=True)
        self.pause = button("Pause", "Stand still after the step in hand")
        self.resume = button("Resume", "Go on")
        self.stop = button("Stop", "End after the step in hand; the model is kept")
        self.calibrate = button(
            "Calibrate only", "Observers see 8 training batches; no weight changes"
        )
        self.bar = widgets.FloatProgress(0.0, min=0.0, max=1.0)
        self.bar.layout.width = "220px"
        self.words = widgets.HTML("")
        self.curves = FigureSlot()
        self.before = widgets.HTML("")
        self.say_before("")
        self.train.on_click(lambda _: self._act(self._start))
        self.pause.on_click(lambda _: self._act(self._pause))
        self.resume.on_click(lambda _: self._act(self._resume))
        self.stop.on_click(lambda _: self._act(self._stop))
        self.calibrate.on_click(lambda _: self._calibrate())
        super().__init__(
            [
                self.before,
                row(self.epochs, self.lr),
                more,
                row(
                    self.train,
                    self.pause,
                    self.resume,
                    self.stop,
                    self.calibrate,
                    self.bar,
                    self.words,
                ),
                self.curves,
            ]
        )
        self.add_class("qx-panel")

    def use(self, session: Session | None, suggested: dict[str, Any]) -> None:
        """Show ``session``; ``suggested`` fills the fields."""
        self._session = session
        self.epochs.value = int(suggested.get("epochs", 3))
        self.lr.value = float(suggested.get("lr", 1e-3))
        self.schedules.use(session, suggested)
        self.follow()
        self.redraw()

    def follow(self) -> None:
        """The session's flow may be another: offer what means something in it."""
        session = self._session
        observers = session is None or session.flow.calibrates
        self.calibrate.layout.display = "" if observers else "none"
        self.schedules.follow(session)

    def say_before(self, html: str) -> None:
        """Show what speaks for something else than training first; ``""`` for nothing. It is put
        into the page as it is: it must come from a view."""
        self.before.value = html
        self.before.layout.display = "" if html else "none"

    def settings(self) -> dict[str, Any]:
        """What the fields say, as fields of TrainingConfig. Raises InputError for text that is no
        number."""
        return {
            "epochs": self.epochs.value,
            "lr": self.lr.value,
            **self.schedules.settings(),
        }

    def _settings(self) -> dict[str, Any]:
        return {**self.settings(), "run_dir": self._run_dir()}

    def _start(self) -> None:
        if self._session is not None:
            settings = self._settings()
            session = self._session
            self._start_job("preparing to train", lambda _job: session.start_training(**settings))

    def _pause(self) -> None:
        if self._session is not None and self._session.run is not None:
            self.words.value = "pausing after this step …"
            self._session.run.pause(timeout=0)

    def _resume(self) -> None:
        if self._session is not None and self._session.run is not None:
            self._session.run.resume(timeout=0)

    def _stop(self) -> None:
        if self._session is not None and self._session.run is not None:
            self.words.value = "stopping after this step …"
            self._session.run.stop(timeout=0)

    def _calibrate(self) -> None:
        if self._session is not None:
            session = self._session
            self._start_job("calibrating", lambda _job: session.calibrate())

    def on_progress(self, progress: Progress) -> None:
        """A run has moved on; called on the loop."""
        total = progress.total_steps
        self.bar.value = progress.step / total if total else 0.0
        self.bar.bar_style = {"failed": "danger", "paused": "warning"}.get(progress.state, "")
        self.words.value = progress_words(progress)
        self._enable()
        final = progress.state in ("stopped", "finished", "failed")
        if final or self._in_sight:
            self._bridge.post("curves", self.draw_curves, every_s=0.0 if final else REDRAW_S)

    @property
    def in_sight(self) -> bool:
        """Whether the panel is shown; its curves follow a run only then."""
        return self._in_sight

    @in_sight.setter
    def in_sight(self, value: bool) -> None:
        if value and not self._in_sight:
            self._bridge.post("curves", self.draw_curves)
        self._in_sight = value

    def redraw(self) -> None:
        """Show the newest run, or that there is none."""
        run = self._session.run if self._session is not None else None
        if run is not None:
            self.on_progress(run.progress)
        else:
            self.bar.value, self.words.value = 0.0, ""
            self.curves.show(None)
        self._enable()

    def draw_curves(self) -> None:
        """Loss and metric as recorded so far."""
        run = self._session.run if self._session is not None else None
        if run is not None and run.history.steps:
            self.curves.show(curves_figure(run.history, self.dark))

    def set_enabled(self, enabled: bool) -> None:
        """Whether a new run may start (no other job is going on)."""
        self._may_start = enabled
        self._enable()

    _may_start = True
    _in_sight = True

    def _enable(self) -> None:
        run = self._session.run if self._session is not None else None
        state = run.state if run is not None else "ready"
        active = state in ("running", "paused")
        has_data = self._session is not None and self._session.data is not None
        self.train.disabled = self.calibrate.disabled = (
            active or not self._may_start or self._session is None
        )
        self.pause.disabled = state != "running"
        self.resume.disabled = state != "paused"
        self.stop.disabled = not active
        if not has_data and self._session is not None:
            self.words.value = "No data was given: pass data= to explore() to train."
