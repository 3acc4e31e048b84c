"""Float, PTQ, fake-quant and int8 model side by side, as an HTML table."""

from __future__ import annotations

from collections.abc import Sequence

from qatexplorer.evaluate.evaluation import (
    Evaluation,
    ModelResult,
    format_latency,
    format_metric,
    format_size,
)
from qatexplorer.evaluate.won_back import WonBack
from qatexplorer.views.common.html import Html, tag


def results_html(evaluation: Evaluation) -> str:
    """An accessible table: one row per model, and in each cell the number with a bar under it.

    Bars of the metric start at zero; those of size and latency are in proportion to the largest.
    A missing number is a dash, and the note says why.
    """
    results = list(evaluation.items())
    metrics = [r.metric.value if r.metric else None for _, r in results]
    sizes = [r.size_bytes for _, r in results]
    times = [r.latency.median_s if r.latency else None for _, r in results]
    rows = [
        tag(
            "tr",
            tag("th", result.words, scope="row"),
            _cell(format_metric(result.metric), metrics[i], metrics, "metric"),
            _cell(format_size(result.size_bytes), sizes[i], sizes, "size"),
            _cell(format_latency(result.latency), times[i], times, "latency"),
            tag("td", *_notes(result), class_="qx-results-note"),
            class_="qx-is-int8" if name == "int8" else None,
        )
        for i, (name, result) in enumerate(results)
    ]
    heads = ("model", evaluation.metric_name, "size on disk", "latency", "")
    head = tag("thead", tag("tr", *(tag("th", text, scope="col") for text in heads)))
    caption = tag("caption", _caption([result for _, result in results], evaluation.won_back))
    return tag("table", caption, head, tag("tbody", *rows), class_="qx-results")


def _notes(result: ModelResult) -> list[Html]:
    notes = [tag("div", remark) for remark in result.remarks]
    if result.warning:
        notes.append(tag("div", f"⚠ {result.warning}", class_="qx-results-warning"))
    return notes


def _cell(text: str, value: float | None, column: Sequence[float | None], kind: str) -> Html:
    top = max((v for v in column if v is not None and v == v), default=0.0)
    if value is None or top <= 0:
        return tag("td", text)
    width = max(0.0, min(1.0, value / top)) * 100
    fill = tag("span", class_=f"qx-bar-fill qx-bar-{kind}", style=f"width:{width:.1f}%")
    bar = tag("span", fill, class_="qx-bar", aria_hidden="true")
    return tag("td", tag("span", text, class_="qx-number"), bar)


def _caption(results: Sequence[ModelResult], won: WonBack | None) -> str:
    timed = next((r.latency for r in results if r.latency), None)
    samples = next((r.metric.samples for r in results if r.metric), None)
    parts = [won.summary()] if won is not None else []
    if samples:
        parts.append(f"Metric over {samples:,} samples.")
    if timed:
        engines = dict.fromkeys(r.latency.engine for r in results if r.latency and r.latency.engine)
        parts.append(
            f"Latency: median of {timed.repeats} runs, batch of {timed.batch_size}, "
            f"{timed.threads} thread{'s' if timed.threads != 1 else ''}"
            + (f", int8 engine {', '.join(engines)}." if engines else ".")
        )
    return " ".join(parts) or "Nothing was measured yet."
