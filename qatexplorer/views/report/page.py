"""The page of a report: one file, no network, no script, light and dark."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence

from qatexplorer.migration.records import Migration
from qatexplorer.quantizers.environment import environment
from qatexplorer.runs.opened import OpenedRun
from qatexplorer.session.report_part import Reported
from qatexplorer.views.common.html import Html, join, tag, terms
from qatexplorer.views.common.names import count
from qatexplorer.views.migration import page as migration
from qatexplorer.views.report import measured, model
from qatexplorer.views.report.measured import environment_section
from qatexplorer.views.report.model import histograms_html
from qatexplorer.views.report.pieces import Section, missing, section_html
from qatexplorer.views.report.stages import settings_section, stages_section
from qatexplorer.views.report.style import style_sheet
from qatexplorer.views.report.training import history_html, training_section
from qatexplorer.views.training.runs import run_html

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""A browser holds to it: nothing is loaded, nothing runs."""


def report_html(known: Reported | OpenedRun | Migration) -> str:
    """The whole page, of a session, of a run on disk alone, or of one model in several flows."""
    if isinstance(known, Migration):
        about = f"in {', '.join(column.flow for column in known.flows)}"
        return _page(known.model, about, migration.sections(known))
    if isinstance(known, OpenedRun):
        return _page(*_of_run(known))
    return _page(*_of_session(known))


def _of_session(known: Reported) -> tuple[str, str, Sequence[Section]]:
    first = next(iter(known.snapshots.values()))
    about = (
        f"{count(first.modules[0].param_count, 'parameter')}, {known.flow.title}, at stage "
        f"{known.flow.stage(known.stage).title}"
    )
    parts = (
        settings_section(known),
        stages_section(known),
        *model.sections(known),
        training_section(known),
        *measured.sections(known),
    )
    return known.model, about, parts


def _of_run(run: OpenedRun) -> tuple[str, str, Sequence[Section]]:
    name = str(run.about.get("model") or "A model")
    parts = [
        Section("run", "Run", run_html(run)),
        Section("training", "Training", history_html(run.history)),
        Section("histograms", "Histograms", _newest_histograms(run)),
        Section("versions", "Versions that it was run with", terms(_versions(run))),
        environment_section(environment(), "Environment that this page was written in"),
        Section("missing", "Not in this page", missing(
            "Stages, graph, ledger, findings and what was measured need the model: "
            "qatexplorer report package.module:factory --run-dir FOLDER.")),
    ]  # fmt: skip
    return name, f"run {run.state}, kept in {run.path}", parts


def _newest_histograms(run: OpenedRun) -> Html:
    telemetry = run.telemetry
    if telemetry is None:
        return missing("No samples of the fake quants were kept.")
    found = {
        info.path: (info, one)
        for info in telemetry.infos
        if (one := telemetry.histogram(info.path)) is not None
    }
    if not found:
        return missing("No histograms were kept.")
    head = tag("p", "The newest that was kept of each fake quant.", class_="muted")
    return join([head, histograms_html(found)])


def _versions(run: OpenedRun) -> list[tuple[str, str]]:
    about = run.about
    return [(name, str(about.get(name) or "not known")) for name in ("qatexplorer", "torch")]


def _page(name: str, about: str, parts: Iterable[Section]) -> str:
    parts = list(parts)
    title = f"{name}: report of qatexplorer"
    when = datetime.datetime.now().astimezone().isoformat(" ", "minutes")
    links = [tag("li", tag("a", part.title, href=f"#{part.id}")) for part in parts]
    head = join(
        [
            Html('<meta charset="utf-8">'),
            Html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
            Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            tag("title", title),
            tag("style", Html(style_sheet())),
        ]
    )
    body = join(
        [
            tag("a", "Skip to the report", href="#report", class_="skip"),
            tag("header", tag("h1", name), tag("p", f"{about}. Written {when}.", class_="muted"),
                class_="top"),
            tag("nav", tag("ul", *links), aria_label="Sections"),
            tag("main", *map(section_html, parts), id="report", tabindex="-1"),
        ]
    )  # fmt: skip
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{body}</body></html>\n'
