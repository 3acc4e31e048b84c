"""The panel that compares float, fake-quant and int8."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from qatexplorer.evaluate.benchmark_records import Benchmark
from qatexplorer.evaluate.evaluation import Evaluation
from qatexplorer.session.session import Session
from qatexplorer.views.common.latency import progress_words
from qatexplorer.views.common.results import results_html
from qatexplorer.widgets.common.bridge import Bridge, Job
from qatexplorer.widgets.common.controls import Html, button, row
from qatexplorer.widgets.common.page import PageState
from qatexplorer.widgets.training.latency import LatencyView

EVALUATING, TIMING = "evaluating", "measuring latency"
"""Names of its jobs; both can be stopped."""

_PROGRESS_S = 0.25


def _timing_tip(form: str) -> str:
    return f"Float, compiled float and {form} by turns, batch of 1 and more; modules and operators"


class ResultsPanel(widgets.VBox):
    """Accuracy, size on disk and latency of every form of the model, measured on demand."""

    def __init__(
        self, bridge: Bridge, start_job: Callable[..., Any], page: PageState | None = None
    ) -> None:
        self._bridge, self._start_job = bridge, start_job
        self._session: Session | None = None
        self._job: Job | None = None
        self.measure = button(
            "Evaluate and measure", "Accuracy, size and latency, side by side", primary=True
        )
        self.time = button(
            "Measure latency",
            _timing_tip("int8"),
        )
        self.halt = button("Stop measuring", "What was measured by then is shown")
        self.halt.layout.display = "none"
        self.bar = widgets.FloatProgress(0.0, min=0.0, max=1.0)
        self.bar.layout.width = "220px"
        self.bar.layout.visibility = "hidden"
        self.words = widgets.HTML("")
        self.table = Html(kind="qx-results")
        self.latency = LatencyView(page or PageState())
        self.measure.on_click(lambda _: self.start())
        self.time.on_click(lambda _: self.start_timing())
        self.halt.on_click(lambda _: self._stop())
        head = row(self.measure, self.time, self.halt, self.bar, self.words)
        super().__init__([head, self.table, self.latency])
        self.add_class("qx-panel")

    def use(self, session: Session | None) -> None:
        self._session = session
        self.table.html = ""
        self.forget_latency()
        self.words.value = "Nothing measured yet." if session is not None else ""

    def start(self) -> None:
        """Measure on a worker thread; Stop ends it early."""
        session = self._session
        if session is None:
            return

        def work(job: Job) -> Evaluation:
            self._job = job
            return session.evaluate(should_stop=job.should_stop, progress=self._progress)

        self._begin()
        if not self._start_job(EVALUATING, work, self.show):
            self._end()

    def start_timing(self) -> None:
        """Make a benchmark on a worker thread; Stop ends it early."""
        session = self._session
        if session is None:
            return
        begun = time.perf_counter()

        def heard(what: str, share: float) -> None:
            def report() -> None:
                if self._job is None:  # it has ended: this report was held back
                    return
                self.bar.value = share
                if not self._stopping:
                    self.words.value = progress_words(what, share, time.perf_counter() - begun)

            self._bridge.post("results", report, every_s=_PROGRESS_S)

        def work(job: Job) -> Benchmark:
            self._job = job
            return session.benchmark(should_stop=job.should_stop, progress=heard)

        self._begin()
        if not self._start_job(TIMING, work, self.show_latency):
            self._end()

    _stopping = False

    def _begin(self) -> None:
        self._stopping = False
        self.bar.value, self.words.value = 0.0, "measuring: beginning …"
        self.bar.layout.visibility = "visible"
        self.halt.layout.display, self.halt.disabled = "", False

    def _stop(self) -> None:
        if self._job is not None:
            self._stopping, self.halt.disabled = True, True
            self._job.stop()
            self.words.value = "measuring: stopping …"

    def _progress(self, what: str, share: float) -> None:
        def report() -> None:
            self.bar.value = share
            if not self._stopping:
                self.words.value = f"measuring: {what} …"

        self._bridge.post("results", report)

    def show(self, evaluation: Evaluation) -> None:
        """Draw the table; called on the loop."""
        self._end()
        self.table.html = results_html(evaluation)

    def show_latency(self, made: Benchmark) -> None:
        """Draw what a benchmark found; called on the loop."""
        self._end()
        self.latency.show(made)

    def forget_latency(self) -> None:
        """Settings are others: what was timed is not what they make."""
        self.latency.use(self._session)
        if self._session is not None:
            self.time.tooltip = _timing_tip(self._session.flow.result)

    def show_selection(self) -> None:
        """Mark in the tables what is selected on the page."""
        self.latency.show_selection()

    @property
    def dark(self) -> bool:
        """The theme of the figure."""
        return self.latency.dark

    @dark.setter
    def dark(self, value: bool) -> None:
        self.latency.dark = value

    def _end(self) -> None:
        self._job = None
        self.bar.layout.visibility = "hidden"
        self.halt.layout.display = "none"
        self.words.value = ""

    def idle(self) -> None:
        """No job is going on (any more)."""
        self._job = None
        self.bar.layout.visibility = "hidden"
        self.halt.layout.display = "none"
        if self.words.value.startswith("measuring"):
            nothing = not self.table.html and self.latency.benchmark is None
            self.words.value = "Stopped." if nothing else ""

    def set_enabled(self, enabled: bool) -> None:
        self.measure.disabled = self.time.disabled = not enabled or self._session is None
