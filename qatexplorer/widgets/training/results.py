"""The panel that compares float, fake-quant and int8."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from qatexplorer.evaluate.benchmark_records import Benchmark
from qatexplorer.evaluate.evaluation import Evaluation
from qatexplorer.session.session import Session
from qatexplorer.views.common.latency import progress_words
from qatexplorer.views.common.results import results_html
from qatexplorer.widgets.common.bridge import Bridge
from qatexplorer.widgets.common.controls import Html, button, row
from qatexplorer.widgets.common.long_job import Heard, LongJob
from qatexplorer.widgets.common.page import PageState
from qatexplorer.widgets.training.latency import LatencyView

EVALUATING, TIMING = "evaluating", "measuring latency"


def _timing_tip(form: str) -> str:
    return f"Float, compiled float and {form} by turns, batch of 1 and more; modules and operators"


class ResultsPanel(widgets.VBox):
    """Accuracy, size on disk and latency of every form of the model, measured on demand."""

    def __init__(
        self, bridge: Bridge, start_job: Callable[..., Any], page: PageState | None = None
    ) -> None:
        self._session: Session | None = None
        self.measure = button(
            "Evaluate and measure", "Accuracy, size and latency, side by side", primary=True
        )
        self.time = button(
            "Measure latency",
            _timing_tip("int8"),
        )
        self.job = LongJob(
            bridge,
            start_job,
            tip="What was measured by then is shown",
            stopping="measuring: stopping …",
            beginning="measuring: beginning …",
            stop="Stop measuring",
            bar_width="220px",
        )
        self.halt, self.status = self.job.halt, self.job.status
        self.table = Html(kind="qx-results")
        self.latency = LatencyView(page or PageState())
        self.measure.on_click(lambda _: self.start())
        self.time.on_click(lambda _: self.start_timing())
        head = row(self.measure, self.time, self.halt, self.job.bar, self.status)
        super().__init__([head, self.table, self.latency])
        self.add_class("qx-panel")

    def use(self, session: Session | None) -> None:
        self._session = session
        self.job.forget()
        self.table.html = ""
        self.forget_latency()
        self.status.html = "Nothing measured yet." if session is not None else ""

    def start(self) -> None:
        """Measure on a worker thread; Stop ends it early."""
        session = self._session
        if session is not None:
            self._run(
                EVALUATING, session.evaluate, self.show, lambda what, *_: f"measuring: {what} …"
            )

    def start_timing(self) -> None:
        """Make a benchmark on a worker thread; Stop ends it early."""
        session = self._session
        if session is not None:
            self._run(TIMING, session.benchmark, self.show_latency, progress_words)

    def _run(
        self,
        name: str,
        call: Callable[..., Any],
        show: Callable[[Any], Any],
        words: Callable[[str, float, float], str],
    ) -> None:
        def work(heard: Heard, should_stop: Callable[[], bool]) -> Any:
            return call(should_stop=should_stop, progress=heard)

        self.job.run(name, work, show, words=words, stopped="Stopped.")

    def show(self, evaluation: Evaluation) -> None:
        """Draw the table; called on the loop."""
        self.table.html = results_html(evaluation)

    def show_latency(self, made: Benchmark) -> None:
        """Draw what a benchmark found; called on the loop."""
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

    def set_enabled(self, enabled: bool) -> None:
        self.measure.disabled = self.time.disabled = not enabled or self._session is None
