"""Training in a report: curves, settings, and the fake quants over the steps."""

from __future__ import annotations

import math

from qatexplorer.runs.records import History
from qatexplorer.runs.samples import Sample
from qatexplorer.runs.store import Telemetry
from qatexplorer.session.report_part import Reported
from qatexplorer.views.common.html import Html, folded, join, tag, terms
from qatexplorer.views.common.names import KINDS, count, number, share
from qatexplorer.views.report.pieces import (
    Section,
    figure_html,
    figures_html,
    missing,
    table_html,
)
from qatexplorer.views.training.figures import curves_figure
from qatexplorer.views.training.ridges import ridges_figure, ridges_of
from qatexplorer.views.training.runs import run_html, settings_in_words
from qatexplorer.views.training.scales import scales_figure
from qatexplorer.views.training.telemetry import oscillation_figure, overhead_words

MAX_COURSES = 8
"""Fake quants whose scale and histograms over the steps are drawn."""


def training_section(known: Reported) -> Section:
    """The newest run of the session, or what it was calibrated on; and a run beside it."""
    training = known.training
    parts = []
    if training.history is not None:
        pairs = [("state", training.state), ("kept in", training.folder or "nowhere"),
                 *settings_in_words(training.config)]  # fmt: skip
        parts += [terms(pairs), history_html(training.history)]
    elif training.calibrated:
        samples = count(training.calibrated, "sample")
        parts.append(tag("p", f"Calibrated on {samples}; not trained."))
    elif known.run is None:
        parts.append(missing("Neither trained nor calibrated."))
    if known.run is not None:
        parts += [tag("h3", f"The run in {known.run.path}"), run_html(known.run),
                  history_html(known.run.history)]  # fmt: skip
    return Section("training", "Training", join(parts))


def history_html(history: History) -> Html:
    """Curves, markers, and the samples of the fake quants."""
    parts: list[Html] = []
    if history.steps or history.epochs:
        parts.append(figure_html(curves_figure(history), 900.0))
        parts.append(_epochs(history))
    else:
        parts.append(missing("There are no curves."))
    telemetry = history.telemetry
    if telemetry is not None and telemetry.steps:
        parts.append(telemetry_html(telemetry, history))
    else:
        parts.append(missing("No samples of the fake quants were kept."))
    return join(parts)


def _epochs(history: History) -> Html:
    rows = [
        (
            f"{one.epoch + 1:,}",
            number(one.train_loss),
            "–" if one.metric is None else number(one.metric),
            number(one.lr),
            "yes" if one.observers_frozen else "no",
            "yes" if one.bn_frozen else "no",
            f"{one.seconds:.1f}",
        )
        for one in history.epochs
    ]
    heads = ("epoch", "mean loss", history.metric_name, "learning rate", "observers frozen",
             "BN frozen", "seconds")  # fmt: skip
    epochs = folded(f"Epochs: {len(rows):,}", table_html("Epochs", heads, rows, (0, 1, 2, 3, 6)))
    marks = [(f"{m.step:,}", m.kind, m.note) for m in history.markers]
    if not marks:
        return epochs
    events = table_html("What happened", ("step", "what", "how much"), marks, (0,))
    return join([epochs, folded(f"What happened: {len(marks):,}", events)])


def telemetry_html(telemetry: Telemetry, history: History | None = None) -> Html:
    """The newest sample of each fake quant as a row, and the course of those that clip the most."""
    newest = {info.path: telemetry.sample(info.path, details=False) for info in telemetry.infos}
    ordered = sorted(telemetry.infos, key=lambda info: -_clipped(newest[info.path]))
    rows = []
    for info in ordered:
        one = newest[info.path]
        cells = ("–",) * 5 if one is None else (
            _text(one.sqnr_db, "dB"),
            _share(one.clipped_low + one.clipped_high),
            _share(one.codes_used),
            number(one.scale_median),
            _share(one.oscillating),
        )  # fmt: skip
        rows.append((tag("span", info.path, class_="mono"), KINDS[info.kind].word, *cells))
    heads = ("fake quant", "kind", "SQNR", "clipped", "codes used", "scale", "oscillating")
    markers = history.markers if history is not None else ()
    drawn = ordered[:MAX_COURSES]
    figures = [
        figures_html(
            (
                figure_html(scales_figure(telemetry, info.path, markers=markers)),
                figure_html(ridges_figure(telemetry, info.path))
                if ridges_of(telemetry, info.path) is not None
                else Html(""),
            )
        )
        for info in drawn
    ]
    title = f"Fake quants at step {telemetry.steps[-1]:,}, the most clipped first"
    return join(
        [
            tag("h3", "Fake quants during training"),
            tag("p", overhead_words(telemetry), class_="muted"),
            table_html(title, heads, rows, range(2, 7)),
            figure_html(oscillation_figure(telemetry)),
            *(
                folded(tag("span", info.path, class_="mono"), figure, open_=at == 0)
                for at, (info, figure) in enumerate(zip(drawn, figures, strict=True))
            ),
        ]
    )


def _clipped(one: Sample | None) -> float:
    value = math.nan if one is None else one.clipped_low + one.clipped_high
    return -1.0 if math.isnan(value) else value


def _share(value: float) -> str:
    return "–" if math.isnan(value) else share(value)


def _text(value: float, unit: str) -> str:
    return "–" if math.isnan(value) else f"{number(value, 3)} {unit}"
