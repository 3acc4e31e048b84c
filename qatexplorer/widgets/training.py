"""The panel that trains: settings, buttons, progress, curves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from qatexplorer.session import Session
from qatexplorer.training.records import Progress
from qatexplorer.views.figures_training import curves_figure
from qatexplorer.views.progress import progress_words
from qatexplorer.widgets.bridge import Bridge
from qatexplorer.widgets.controls import button, labelled, row
from qatexplorer.widgets.plot import FigureSlot

REDRAW_S = 0.5


class TrainingPanel(widgets.VBox):
    """Train, Pause, Resume, Stop and Calibrate, and what the run has recorded.

    ``act(name, call)`` runs a call that may raise and shows its error; ``busy_job(name, call)``
    does so on a worker thread. Both come from the explorer.
    """

    def __init__(
        self,
        bridge: Bridge,
        act: Callable[[Callable[[], Any]], Any],
        start_job: Callable[[str, Callable[..., Any]], Any],
    ) -> None:
        self._bridge, self._act, self._start_job = bridge, act, start_job
        self._session: Session | None = None
        self.dark = False
        self.epochs = labelled(
            widgets.BoundedIntText(3, min=1, max=10_000), "Epochs", width="120px"
        )
        self.lr = labelled(widgets.FloatText(1e-3, step=1e-4), "Learning rate", width="170px")
        self.freeze_observers = labelled(
            widgets.Text("", placeholder="never"),
            "Freeze observers from epoch",
            "0-based epoch from which on the observers' ranges stand still; empty is never",
            width="235px",
        )
        self.freeze_bn = labelled(
            widgets.Text("", placeholder="never"),
            "Freeze BN statistics from epoch",
            "0-based epoch from which on batch-norm running statistics stand still",
            width="255px",
        )
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
        self.train.on_click(lambda _: self._act(self._start))
        self.pause.on_click(lambda _: self._act(self._pause))
        self.resume.on_click(lambda _: self._act(self._resume))
        self.stop.on_click(lambda _: self._act(self._stop))
        self.calibrate.on_click(lambda _: self._calibrate())
        super().__init__(
            [
                row(self.epochs, self.lr, self.freeze_observers, self.freeze_bn),
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
        for field, name in (
            (self.freeze_observers, "freeze_observer_epoch"),
            (self.freeze_bn, "freeze_bn_epoch"),
        ):
            value = suggested.get(name)
            field.value = "" if value is None else str(value)
        self.redraw()

    def _settings(self) -> dict[str, Any]:
        return {
            "epochs": self.epochs.value,
            "lr": self.lr.value,
            "freeze_observer_epoch": _epoch(self.freeze_observers.value, "observers"),
            "freeze_bn_epoch": _epoch(self.freeze_bn.value, "BN statistics"),
        }

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
        self._bridge.post("curves", self.draw_curves, every_s=0.0 if final else REDRAW_S)

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


def _epoch(text: str, what: str) -> int | None:
    from qatexplorer.errors import InputError

    text = text.strip()
    if not text or text.lower() == "never":
        return None
    if not text.isdigit():
        raise InputError(
            f"the epoch from which to freeze {what} is {text!r}.",
            remedy="Write a whole number (0 is from the start), or leave it empty for never.",
        )
    return int(text)
