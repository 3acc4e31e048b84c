"""The panel that compares float, fake-quant and int8."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from qatexplorer.evaluate.evaluation import Evaluation
from qatexplorer.session.session import Session
from qatexplorer.views.common.results import results_html
from qatexplorer.widgets.common.bridge import Bridge, Job
from qatexplorer.widgets.common.controls import Html, button, row


class ResultsPanel(widgets.VBox):
    """Accuracy, size on disk and latency of every form of the model, measured on demand."""

    def __init__(self, bridge: Bridge, start_job: Callable[..., Any]) -> None:
        self._bridge, self._start_job = bridge, start_job
        self._session: Session | None = None
        self.measure = button(
            "Evaluate and measure", "Accuracy, size and latency, side by side", primary=True
        )
        self.bar = widgets.FloatProgress(0.0, min=0.0, max=1.0)
        self.bar.layout.width = "220px"
        self.bar.layout.visibility = "hidden"
        self.words = widgets.HTML("")
        self.table = Html(kind="qx-results")
        self.measure.on_click(lambda _: self.start())
        super().__init__([row(self.measure, self.bar, self.words), self.table])
        self.add_class("qx-panel")

    def use(self, session: Session | None) -> None:
        self._session = session
        self.table.html = ""
        self.words.value = "Nothing measured yet." if session is not None else ""

    def start(self) -> None:
        """Measure on a worker thread; Stop in the stage bar ends it early."""
        session = self._session
        if session is None:
            return

        def work(job: Job) -> Evaluation:
            return session.evaluate(should_stop=job.should_stop, progress=self._progress)

        if self._start_job("evaluating", work, self.show):
            self.bar.layout.visibility = "visible"

    def _progress(self, what: str, share: float) -> None:
        def report() -> None:
            self.bar.value, self.words.value = share, f"measuring: {what} …"

        self._bridge.post("results", report)

    def show(self, evaluation: Evaluation) -> None:
        """Draw the table; called on the loop."""
        self.bar.layout.visibility = "hidden"
        self.words.value = ""
        self.table.html = results_html(evaluation)

    def idle(self) -> None:
        """No job is going on (any more)."""
        self.bar.layout.visibility = "hidden"
        if self.words.value.startswith("measuring"):
            self.words.value = "Stopped." if not self.table.html else ""

    def set_enabled(self, enabled: bool) -> None:
        self.measure.disabled = not enabled or self._session is None
