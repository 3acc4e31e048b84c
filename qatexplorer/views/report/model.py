"""Findings, ledger and histograms of a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from qatexplorer.checks.records import Finding, counted
from qatexplorer.checks.rules import RULES
from qatexplorer.forward.histograms import GridHistogram
from qatexplorer.ledger.records import Ledger, Redundancy
from qatexplorer.ledger.words import together_text
from qatexplorer.session.report_part import Reported
from qatexplorer.views.checks.card import is_code
from qatexplorer.views.common.findings import LOOKS
from qatexplorer.views.common.html import Html, code, folded, join, tag, terms
from qatexplorer.views.common.names import KINDS, count, number, share
from qatexplorer.views.inspector.figures import Site, histogram_figure
from qatexplorer.views.ledger.tables import (
    FLOAT_COLUMNS,
    KIND_WORDS,
    SITE_COLUMNS,
    float_table,
    site_table,
    summary_html,
)
from qatexplorer.views.report.pieces import (
    Section,
    figure_html,
    missing,
    records_html,
    table_html,
)

MAX_HISTOGRAMS = 60
"""Histograms that are drawn, those that clip the most first; the table has all."""


def findings_section(known: Reported) -> Section:
    """Each finding in full, the worst first, and whether all rules were asked."""
    parts = [_finding(one, known) for one in known.findings]
    head = counted(known.findings) or "Nothing is known to be wrong."
    check = known.check
    if check is None:
        asked = missing("Not all rules were asked: session.check() was not called on this model.")
    else:
        asked = tag("p", f"{count(len(check.checked), 'rule')} were asked.", class_="muted")
        if check.skipped:
            rows = [(f"{one.id} {one.name}", one.why) for one in check.skipped]
            asked = join([asked, folded(f"Not asked: {len(rows):,}", terms(rows))])
        if check.silenced:
            rows = [(f"{f.id} {f.place}", f"{f.message} {f.silenced}") for f in check.silenced]
            asked = join([asked, folded(f"Silenced: {len(rows):,}", terms(rows))])
    return Section("findings", "Findings", join([tag("p", head), asked, *parts]))


def _finding(one: Finding, known: Reported) -> Html:
    look, rule = LOOKS[one.severity], RULES.get(one.id)
    named = {stage.name: stage.title for stage in known.flow.stages}
    codes = [fix for fix in one.fixes if fix.code]
    words = one.fix if one.fix and one.fix not in {fix.code for fix in codes} else ""
    return tag(
        "article",
        tag("h3", f"{look.mark} {look.word} {one.id} {rule.title if rule else one.name}"),
        tag("p", one.message),
        terms([("where", code(one.place)), ("source", code(one.source) if one.source else ""),
               ("bites at", named.get(one.stage, one.stage))]),
        tag("pre" if is_code(words) else "p", words) if words else None,
        *(tag("div", tag("p", fix.label), tag("pre", fix.code),
              tag("pre", fix.diff) if fix.diff.strip() else None) for fix in codes),
        class_=f"finding {one.severity}",
    )  # fmt: skip


def ledger_section(known: Reported) -> Section:
    """Every fake quant, what stays float and why, and what is one too many."""
    ledger = known.ledger
    if ledger is None:
        why = known.missing.get("ledger", "")
        return Section(
            "ledger", "Ledger", missing(f"There is no ledger. {why[:1].upper()}{why[1:]}".strip())
        )
    parts = [
        Html(summary_html(ledger)),
        folded(f"Fake quants: {len(ledger.rows):,}",
               records_html("Fake quants", SITE_COLUMNS, site_table(ledger)), open_=True),
        folded(f"Stays float: {len(ledger.floats):,}",
               records_html("Stays float", FLOAT_COLUMNS, float_table(ledger))),
        _redundancies(ledger),
    ]  # fmt: skip
    return Section("ledger", "Ledger", join(parts))


def _redundancies(ledger: Ledger) -> Html:
    ordered = sorted(ledger.redundancies, key=lambda found: not found.fault)
    if not ordered:
        return tag("p", "No value is fake-quantized twice, and no fake quant is shared.")
    together = tag("p", together_text(ledger)) if ledger.together_sqnr_db is not None else None
    cards = [_redundancy(found) for found in ordered]
    return folded(f"Redundant or shared: {len(ordered):,}", together, *cards)


def _redundancy(found: Redundancy) -> Html:
    pairs = [
        ("which", join((code(path) for path in found.paths), " and ")),
        ("quantizes", ", ".join(place.label for place in found.places if place.label)),
        ("seen", found.evidence),
        ("costs", found.cost),
        ("to do", found.fix),
    ]
    return tag("div", tag("h4", KIND_WORDS[found.kind]), terms(pairs))


def histograms_section(known: Reported) -> Section:
    """What each fake quant sees in a forward of the example input."""
    sites = known.snapshots[known.histogram_stage].site_by_path
    found = {path: (sites[path], one) for path, one in known.histograms.items() if path in sites}
    if not found:
        why = known.missing.get("histograms", "No stage with fake quants that run was reached.")
        return Section("histograms", "Histograms", missing(f"There are none. {why}"))
    title = known.flow.stage(known.histogram_stage).title
    head = tag("p", f"Of one forward of the example input, at stage {title}.", class_="muted")
    return Section("histograms", "Histograms", join([head, histograms_html(found)]))


def histograms_html(
    found: Mapping[str, tuple[Site, GridHistogram]],
) -> Html:
    """A table of all, and the drawings of those that clip the most, each folded."""

    def clipped(one: GridHistogram) -> float:
        return one.clipped_low_share + one.clipped_high_share

    ordered = sorted(found.items(), key=lambda item: -clipped(item[1][1]))
    rows = [
        (
            tag("span", path, class_="mono"),
            KINDS[site.kind].word,
            f"{one.total:,}",
            share(clipped(one)),
            f"{one.codes_used:,} of {one.quant_max - one.quant_min + 1:,}",
            number(one.min),
            number(one.max),
        )
        for path, (site, one) in ordered
    ]
    heads = ("fake quant", "kind", "values", "clipped", "codes used", "lowest", "highest")
    table = table_html("Fake quants, the most clipped first", heads, rows, range(2, 7))
    drawn = ordered[:MAX_HISTOGRAMS]
    more = len(ordered) - len(drawn)
    rest = f"The {len(drawn):,} that clip the most are drawn; {more:,} are in the table only."
    return join(
        [
            table,
            tag("p", rest, class_="muted") if more else None,
            *(_histogram(path, *one, first=at == 0) for at, (path, one) in enumerate(drawn)),
        ]
    )


def _histogram(path: str, site: Site, one: GridHistogram, first: bool) -> Html:
    figure = figure_html(histogram_figure(one, site))
    words = figure or tag("p", one.note or "No values were seen.")
    return folded(tag("span", path, class_="mono"), words, open_=first)


def sections(known: Reported) -> Iterable[Section]:
    """All of this file, in order."""
    return findings_section(known), ledger_section(known), histograms_section(known)
