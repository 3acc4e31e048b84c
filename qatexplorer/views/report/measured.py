"""What was measured, in a report: comparison, sensitivity, accuracy and latency; and on what."""

from __future__ import annotations

from collections.abc import Iterable

from qatexplorer.accuracy.records import Comparison, Sensitivity
from qatexplorer.quantizers.environment import Environment
from qatexplorer.session.report_part import Reported
from qatexplorer.views.accuracy.compare_figures import channels_figure, depth_figure
from qatexplorer.views.accuracy.compare_table import COLUMNS, compare_rows
from qatexplorer.views.accuracy.compare_words import cost_words, headline_html
from qatexplorer.views.accuracy.lost import lost_html
from qatexplorer.views.common.html import Html, folded, join, tag, terms
from qatexplorer.views.common.latency import MODULE_COLUMNS, benchmark_html, module_rows
from qatexplorer.views.common.names import count
from qatexplorer.views.common.results import results_html
from qatexplorer.views.report.pieces import (
    Section,
    figure_html,
    figures_html,
    missing,
    records_html,
    table_html,
)
from qatexplorer.views.report.still import without_buttons
from qatexplorer.views.sensitivity.figures import bars_figure
from qatexplorer.views.sensitivity.tables import ranking_columns, ranking_rows
from qatexplorer.views.sensitivity.words import METHODS, SCORES, summary_html

_COMPARE_COLUMNS = 8  # up to the cause; the others are in session.compare().to_pandas()


def comparison_section(known: Reported) -> Section:
    """Float, fake quant and int8, place by place."""
    found = known.comparison
    if found is None:
        return Section("comparison", "Comparison", missing("Not compared: session.compare()."))
    parts = [
        without_buttons(headline_html(found)),
        tag("p", cost_words(found), class_="muted"),
        figures_html((figure_html(depth_figure(found)), figure_html(channels_figure(found)))),
        _places(found),
        folded("Lost samples", lost_html(found), open_=bool(found.lost)),
    ]
    return Section("comparison", "Float, fake quant and int8", join(parts))


def _places(found: Comparison) -> Html:
    rows = compare_rows(found)
    label = "Places, the lowest SQNR first"
    return folded(
        f"All {count(len(rows), 'place')}",
        records_html(label, COLUMNS, rows, _COMPARE_COLUMNS),
        open_=True,
    )


def sensitivity_section(known: Reported) -> Section:
    """A ranking for each method that was run."""
    if not known.sensitivities:
        text = "Not measured: session.sensitivity()."
        return Section("sensitivity", "Sensitivity", missing(text))
    parts = [_ranking(one) for one in known.sensitivities.values()]
    return Section("sensitivity", "Sensitivity", join(parts))


def _ranking(found: Sensitivity) -> Html:
    return tag(
        "div",
        tag("h3", METHODS[found.method]),
        summary_html(found),
        figure_html(bars_figure(found)) if found.rows else None,
        records_html(
            f"Fake quants by {SCORES[found.method]}", ranking_columns(found), ranking_rows(found)
        ),
    )


def accuracy_section(known: Reported) -> Section:
    """Metric, size and latency of each form."""
    found = known.evaluation
    body = missing("Not evaluated: session.evaluate().") if found is None else results_html(found)
    return Section("accuracy", "Accuracy", Html(body))


def benchmark_section(known: Reported) -> Section:
    """Latency, throughput, memory and size."""
    made = known.benchmark
    if made is None:
        return Section("benchmark", "Latency", missing("Not measured: session.benchmark()."))
    modules = None
    if made.modules:
        modules = folded(
            "Time by module",
            records_html("Time by module", MODULE_COLUMNS, module_rows(made)),
        )
    return Section("benchmark", "Latency", join([benchmark_html(made), modules]))


def environment_section(found: Environment, title: str = "Environment") -> Section:
    """CPU, engines and versions."""
    cpu = found.cpu
    features = cpu["features"]
    pairs = [
        ("CPU", f"{cpu['name']} ({cpu['architecture']})"),
        ("CPU features for int8", "unknown" if features is None else " ".join(features)),
        ("threads", f"{found.threads:,} of {cpu['usable']} CPUs"),
        ("torch's own kernels", found.kernels),
        ("set in the environment", ", ".join(f"{k}={v}" for k, v in cpu["environment"].items())),
        ("operating system", found.platform),
        *found.versions.items(),
    ]
    rows = [
        (
            probe.engine,
            probe.verdict,
            probe.error or "",
            *("" if (off := probe.error_at(codes)) is None else f"{off:.0f}"
              for codes in (255, 127)),
        )
        for probe in found.probes
    ]  # fmt: skip
    heads = ("engine", "verdict", "error", "steps off, codes 0..255", "steps off, codes 0..127")
    engines = table_html("int8 engines, run on this CPU", heads, rows, (3, 4))
    return Section("environment", title, join([terms(pairs), engines]))


def sections(known: Reported) -> Iterable[Section]:
    """All of this file, in order."""
    return (
        accuracy_section(known),
        comparison_section(known),
        sensitivity_section(known),
        benchmark_section(known),
        environment_section(known.environment),
    )
