"""Sweeps on the page: when to freeze, and learned step sizes beside moving averages."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as widgets

from qatexplorer.errors import InputError
from qatexplorer.session.session import Session
from qatexplorer.session.sweep_part import QUANTIZERS
from qatexplorer.training.sweep import Sweep
from qatexplorer.views.common.html import text
from qatexplorer.views.cures.sweeps import sweep_html
from qatexplorer.views.sensitivity.words import busy_words
from qatexplorer.widgets.common.assets import css
from qatexplorer.widgets.common.bridge import Bridge, Job
from qatexplorer.widgets.common.controls import Html, button, labelled, row
from qatexplorer.widgets.common.panel import HtmlPanel

JOB = "sweeping"
_PROGRESS_S = 0.25
_AS_THEY_ARE, _BESIDE = "as they are", "moving average beside learned"


class SweepHtml(HtmlPanel):
    """HTML of a sweep's view."""

    _css = css("common/html.css", "common/panel.css", "cures/cures.css")


class SweepPanel(widgets.VBox):
    """Trains copies of the model with different settings, and says which are the best.

    Args:
        bridge: runs callbacks on the page's loop.
        start_job: starts a long call on a worker thread, as the other panels get it.
        settings: gives the settings of the Train tab, which all trainings share.

    The widgets inside are made when ``active`` says for the first time that the panel is in sight.
    """

    def __init__(
        self,
        bridge: Bridge,
        start_job: Callable[..., Any],
        settings: Callable[[], Mapping[str, Any]],
    ) -> None:
        self._bridge, self._start_job, self._settings = bridge, start_job, settings
        self._session: Session | None = None
        self._job: Job | None = None
        self._enabled, self._active, self._built = True, False, False
        super().__init__([])
        self.add_class("qx-sweeps")

    def _build(self) -> None:
        self._built = True
        tip = "0-based epochs to try, with commas; never is one of them; empty is the Train tab's"
        self.observers = _values_field("Freeze observers at", tip)
        self.batch_norms = _values_field("Freeze batch norms at", tip)
        self.quantizers = labelled(
            widgets.Dropdown(options=(_AS_THEY_ARE, _BESIDE)),
            "Step sizes",
            "Learned ones (LSQ) beside moving averages; each begins with the float model",
            width="300px",
        )
        self.seeds = labelled(
            widgets.BoundedIntText(3, min=1, max=100), "Seeds", "Trainings a combination", "120px"
        )
        self.best = widgets.Checkbox(False, description="then train with the best", indent=False)
        self.best.layout.width = "auto"
        self.attempt = button("Sweep", "Train copies with every combination", primary=True)
        self.halt = button("Stop", "Stop; what is trained to its end is shown")
        self.bar = widgets.FloatProgress(0.0, min=0.0, max=1.0)
        self.bar.layout.width = "160px"
        self.status = Html(kind="qx-muted", role="status")
        self.outcome = SweepHtml()
        self.attempt.on_click(lambda _: self.start())
        self.halt.on_click(lambda _: self._stop())
        self._show_job(False)
        self.children = [
            row(self.attempt, self.observers, self.batch_norms, self.quantizers, self.seeds),
            row(self.best, self.halt, self.bar, self.status),
            self.outcome,
        ]
        self.follow()
        self._enable()

    # -- what the explorer calls ----------------------------------------------------------------

    def use(self, session: Session) -> None:
        """Show another session."""
        self._session = session
        if self._built:
            self.outcome.html = self.status.html = ""
            self.follow()
            self._enable()

    @property
    def active(self) -> bool:
        """Whether the panel is in sight."""
        return self._active

    @active.setter
    def active(self, value: bool) -> None:
        self._active = value
        if value and not self._built:
            self._build()

    def follow(self) -> None:
        """The session's flow may be another: offer what means something in it."""
        if self._built and self._session is not None:
            flow = self._session.flow
            self.observers.layout.display = "" if flow.calibrates else "none"
            self.quantizers.layout.display = "" if flow.offers_qconfig else "none"

    def set_enabled(self, enabled: bool) -> None:
        self._enabled = enabled
        self._enable()

    def idle(self) -> None:
        """No job is going on (any more)."""
        self._job = None
        if self._built:
            self._show_job(False)

    # -- sweeping -------------------------------------------------------------------------------

    def start(self) -> None:
        """Sweep on a worker thread."""
        session = self._session
        if session is None:
            return
        begun, then = time.perf_counter(), bool(self.best.value)
        seeds = range(self.seeds.value)

        def heard(what: str, share: float) -> None:
            words = busy_words(what, share, time.perf_counter() - begun)
            self._bridge.post(
                "sweep progress", lambda: self._progressed(words, share), every_s=_PROGRESS_S
            )

        def work(job: Job) -> Sweep:
            self._job = job
            over = self._over()
            shared = {k: v for k, v in self._settings().items() if k not in over}
            return session.sweep(
                over,
                seeds=seeds,
                progress=heard,
                should_stop=job.should_stop,
                apply=then,
                **shared,
            )

        def done(found: Sweep) -> None:
            self.status.html = ""
            if session is self._session:
                self.outcome.html = sweep_html(found)

        self._show_job(True)
        self.status.html = "beginning …"
        if not self._start_job(JOB, work, done):
            self._show_job(False)
            self.status.html = ""

    def _over(self) -> dict[str, list[Any]]:
        """What to sweep over. Raises InputError where nothing is said, or what is no epoch."""
        over: dict[str, list[Any]] = {}
        for name, field in (
            ("freeze_observer_epoch", self.observers),
            ("freeze_bn_epoch", self.batch_norms),
        ):
            if field.layout.display != "none" and field.value.strip():
                over[name] = [_epoch(field, part) for part in field.value.split(",")]
        if self.quantizers.layout.display != "none" and self.quantizers.value == _BESIDE:
            over["quantizers"] = list(QUANTIZERS)
        if not over:
            raise InputError(
                "there is nothing to sweep over.",
                fix="Write epochs to try, such as “never, 1, 2”, or choose step sizes.",
            )
        return over

    def _progressed(self, words: str, share: float) -> None:
        if self.halt.layout.display == "" and not self.halt.disabled:
            self.bar.value, self.status.html = share, text(f"{words} …")

    def _stop(self) -> None:
        if self._job is not None:
            self._job.stop()
        self.halt.disabled = True
        self.status.html = "Stopping after this step …"

    def _show_job(self, going_on: bool) -> None:
        self.bar.value, self.halt.disabled = 0.0, False
        if not going_on and self.status.html.endswith("…"):
            self.status.html = ""
        for part in (self.halt, self.bar):
            part.layout.display = "" if going_on else "none"

    def _enable(self) -> None:
        if self._built:
            session = self._session
            usable = session is not None and session.data is not None
            self.attempt.disabled = not (self._enabled and usable)


def _values_field(label: str, tip: str) -> Any:
    field = widgets.Text("", placeholder="never, 1, 2")
    return labelled(field, label, tip, width="270px")


def _epoch(field: Any, part: str) -> int | None:
    part = part.strip().lower()
    if part in ("never", ""):
        return None
    if not part.isdigit():
        raise InputError(
            f"“{field.description}” has {part!r}.",
            fix="Write whole numbers (0 is from the start) and never, with commas between.",
        )
    return int(part)
