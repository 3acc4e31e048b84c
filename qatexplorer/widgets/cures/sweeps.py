"""Sweeps on the page: when to freeze, and learned step sizes beside moving averages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as widgets

from qatexplorer.errors import InputError
from qatexplorer.session.session import Session
from qatexplorer.session.sweep_part import QUANTIZERS
from qatexplorer.training.sweep import Sweep
from qatexplorer.views.common.busy import left_words
from qatexplorer.views.cures.sweeps import sweep_html
from qatexplorer.widgets.common.assets import css
from qatexplorer.widgets.common.bridge import Bridge
from qatexplorer.widgets.common.controls import button, labelled, row
from qatexplorer.widgets.common.in_sight import InSight
from qatexplorer.widgets.common.long_job import Heard, LongJob
from qatexplorer.widgets.common.panel import HtmlPanel

JOB = "sweeping"
_AS_THEY_ARE, _BESIDE = "as they are", "moving average beside learned"


class SweepHtml(HtmlPanel):
    """HTML of a sweep's view."""

    _css = css("common/html.css", "common/panel.css", "cures/cures.css")


class SweepPanel(InSight, widgets.VBox):
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
        self._enabled, self._built = True, False
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
        self.job = LongJob(
            self._bridge,
            self._start_job,
            tip="Stop; what is trained to its end is shown",
            stopping="Stopping after this step …",
        )
        self.halt, self.status = self.job.halt, self.job.status
        self.outcome = SweepHtml()
        self.attempt.on_click(lambda _: self.start())
        self.children = [
            row(self.attempt, self.observers, self.batch_norms, self.quantizers, self.seeds),
            row(self.best, self.halt, self.job.bar, self.status),
            self.outcome,
        ]
        self.follow()
        self._enable()

    # -- what the explorer calls ----------------------------------------------------------------

    def use(self, session: Session) -> None:
        """Show another session."""
        self._session = session
        if self._built:
            self.job.forget()
            self.outcome.html = self.status.html = ""
            self.follow()
            self._enable()

    def _opened(self) -> None:
        if not self._built:
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

    # -- sweeping -------------------------------------------------------------------------------

    def start(self) -> None:
        """Sweep on a worker thread."""
        session = self._session
        if session is None:
            return
        then = bool(self.best.value)
        seeds = range(self.seeds.value)

        def work(heard: Heard, should_stop: Callable[[], bool]) -> Sweep:
            over = self._over()
            shared = {k: v for k, v in self._settings().items() if k not in over}
            return session.sweep(
                over,
                seeds=seeds,
                progress=heard,
                should_stop=should_stop,
                apply=then,
                **shared,
            )

        def done(found: Sweep) -> None:
            self.outcome.html = sweep_html(found)

        self.job.run(JOB, work, done, words=left_words)

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
