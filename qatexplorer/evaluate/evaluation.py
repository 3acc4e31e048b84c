"""Float, post-training quantized, fake-quant and int8 model side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from qatexplorer.evaluate.measure import Latency
from qatexplorer.evaluate.metric import MetricValue
from qatexplorer.evaluate.parity import Parity
from qatexplorer.evaluate.won_back import WonBack
from qatexplorer.shown import Shown, at_most, columns
from qatexplorer.tables import table

NAMES = ("float", "ptq", "fake_quant", "int8")
INT8_NAMES = ("ptq", "int8")
LABELS = {
    "float": "float",
    "ptq": "int8 after calibration only (PTQ)",
    "fake_quant": "fake-quant",
    "int8": "int8",
}


@dataclass(frozen=True, slots=True)
class ModelResult:
    """What one form of the model is worth. ``note`` says why a number is missing, ``warning`` why
    the numbers are not what they should be. ``parity``, of the int8 model, says how far its outputs
    are from the fake-quant model's on the example input; None where that was not measured.
    ``label`` is what a table calls the form, ``""`` for the usual word of :data:`LABELS`."""

    name: str
    metric: MetricValue | None = None
    size_bytes: int | None = None
    latency: Latency | None = None
    note: str = ""
    warning: str = ""
    parity: Parity | None = None
    label: str = ""

    @property
    def words(self) -> str:
        """What a table calls the form."""
        return self.label or LABELS.get(self.name, self.name)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Note and parity in words."""
        parity = () if self.parity is None else (f"{self.parity.summary()} (example input).",)
        return (*filter(None, (self.note,)), *parity)


class Evaluation(Shown, Mapping[str, ModelResult]):
    """Results by name (``"float"``, ``"ptq"``, ``"fake_quant"``, ``"int8"``), in that order.

    Immutable. ``repr`` is a table; :meth:`to_dict` is ready for JSON.
    """

    def __init__(self, results: Mapping[str, ModelResult]) -> None:
        known = [name for name in NAMES if name in results]
        others = [name for name in results if name not in NAMES]
        self._results = {name: results[name] for name in (*known, *others)}

    def __getitem__(self, name: str) -> ModelResult:
        return self._results[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._results)

    def __len__(self) -> int:
        return len(self._results)

    @property
    def metric_name(self) -> str:
        """Name of the metric, ``"metric"`` if none was measured."""
        return next((r.metric.name for r in self._results.values() if r.metric), "metric")

    @property
    def won_back(self) -> WonBack | None:
        """Which share of what converting alone loses training won back; None where that is not
        known, or it loses nothing."""
        forms = (self._results.get(name) for name in NAMES)
        return WonBack.of(*(None if form is None else form.metric for form in forms))

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Plain dicts, numbers and text."""
        return {name: asdict(result) for name, result in self._results.items()}

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame`` with a row per model: ``name``, ``metric.value``, ``size_bytes``,
        ``latency.median_s`` and the other fields of :class:`ModelResult`, missing ones NaN.

        Raises InputError if pandas is not installed.
        """
        return table(ModelResult, self._results.values())

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """(model, metric, size, latency, note) as text, one row per model."""
        return [
            (
                result.words,
                format_metric(result.metric),
                format_size(result.size_bytes),
                format_latency(result.latency),
                " ".join(filter(None, (*result.remarks, result.warning))),
            )
            for result in self._results.values()
        ]

    def __repr__(self) -> str:
        head = ("model", self.metric_name, "size", "latency", "note")
        # A note may be an error with its reason and its fix: at_most keeps its first line.
        lines = columns([head, *self.rows()])
        won = self.won_back
        lines += [won.summary()] if won is not None else []
        timed = next((r.latency for r in self._results.values() if r.latency), None)
        if timed:
            lines.append(
                f"latency: median of {timed.repeats} runs, batch of {timed.batch_size}, "
                f"{timed.threads} thread(s)" + (f", engine {timed.engine}" if timed.engine else "")
            )
        return at_most(lines)


def format_metric(metric: MetricValue | None) -> str:
    """Accuracy in per cent, any other metric as a number, a dash if there is none."""
    if metric is None:
        return "–"
    return f"{metric.value:.1%}" if metric.name == "accuracy" else f"{metric.value:.4g}"


def format_size(size_bytes: int | None) -> str:
    """Bytes in kB or MB (powers of 1,000)."""
    if size_bytes is None:
        return "–"
    if size_bytes < 1_000_000:
        return f"{size_bytes / 1_000:.1f} kB"
    return f"{size_bytes / 1_000_000:.2f} MB"


def format_latency(latency: Latency | None) -> str:
    """Median in milliseconds."""
    return "–" if latency is None else f"{latency.median_s * 1_000:.2f} ms"
