"""What was measured, in a report: comparison, sensitivity, accuracy and latency; and on what."""

from __future__ import annotations

from collections.abc import Iterable

from qatexplorer.accuracy.records import Comparison, Sensitivity
from qatexplorer.cures import CURES, Cured
from qatexplorer.evaluate.evaluation import format_metric
from qatexplorer.quantizers.environment import Environment
from qatexplorer.session.report_part import Reported
from qatexplorer.views.accuracy.compare_figures import channels_figure, depth_figure
from qatexplorer.views.accuracy.compare_table import columns_of, compare_rows
from qatexplorer.views.accuracy.compare_words import cost_words, headline_html
from qatexplorer.views.accuracy.lost import lost_html
from qatexplorer.views.common.html import Html, folded, join, tag, terms
from qatexplorer.views.common.latency import (
    benchmark_html,
    module_columns,
    module_rows,
    short_words,
)
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
from qatexplorer.views.sensitivity.figures import bars_figure, curve_figure
from qatexplorer.views.sensitivity.tables import (
    POINT_COLUMNS,
    point_rows,
    ranking_columns,
    ranking_rows,
)
from qatexplorer.views.sensitivity.words import METHODS, SCORES, proposal_html, summary_html

MOST_CHANGES = 100
"""Lines of what a cure has changed."""

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
    return Section("comparison", f"Float, fake quant and {found.form}", join(parts))


def _places(found: Comparison) -> Html:
    rows = compare_rows(found)
    label = "Places, the lowest SQNR first"
    return folded(
        f"All {count(len(rows), 'place')}",
        records_html(label, columns_of(found.form), rows, _COMPARE_COLUMNS),
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


def proposal_section(known: Reported) -> Section:
    """What to leave in float, with every point that was measured."""
    found = known.proposal
    if found is None:
        return Section("proposal", "Mixed precision", missing("Not searched: session.propose()."))
    heads = [str(column["label"]) for column in POINT_COLUMNS]
    rows = [row["cells"] for row in point_rows(found)]
    numbers = [at for at, column in enumerate(POINT_COLUMNS) if column.get("number")]
    figure = curve_figure(found, found.chosen, found.wished) if found.points else None
    old = "Of the model as it was then: it has been changed since." if known.proposal_is_old else ""
    parts = [
        missing(old) if old else None,
        without_buttons(proposal_html(found, found.chosen, found.wished)),
        figure_html(figure),
        table_html("Points that were measured", heads, rows, numbers),
    ]
    return Section("proposal", "Mixed precision", join(parts))


def cures_section(known: Reported) -> Section:
    """The cures that are on, each with what it gave."""
    if not known.cured:
        return Section("cures", "Cures", missing("None is on: session.cure()."))
    rows = [_cured(one) for one in known.cured]
    heads = ("cure", "settings", "metric of", "before", "after", "what is another now")
    table = table_html("Cures that are on, in the order they were applied", heads, rows, (3, 4))
    words = "Before and after are on the same data, and of the moment when the cure was applied."
    return Section("cures", "Cures", join([table, tag("p", words, class_="muted")]))


def _cured(one: Cured) -> tuple[str | Html, ...]:
    changes = one.changes
    more = len(changes) - MOST_CHANGES
    lines = [tag("li", line) for line in changes[:MOST_CHANGES]]
    lines += [tag("li", f"{more:,} more")] if more > 0 else []
    return (
        CURES[one.name].title,
        ", ".join(f"{name}={value!r}" for name, value in one.settings.items()),
        f"{one.form}, {one.before.name}",
        format_metric(one.before),
        format_metric(one.after),
        folded(count(len(changes), "change"), tag("ul", *lines)) if changes else "",
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
            records_html(
                "Time by module", module_columns(short_words(made, "int8")), module_rows(made)
            ),
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
        proposal_section(known),
        cures_section(known),
        benchmark_section(known),
        environment_section(known.environment),
    )
