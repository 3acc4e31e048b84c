"""The int8 engines of this machine as a probe found them, and what is wrong with the one in use."""

from __future__ import annotations

from collections.abc import Sequence

from qatexplorer.quantizers.engine_choice import Backend, EngineConcern
from qatexplorer.quantizers.engine_probe import FULL_CODES, HALF_CODES, EngineProbe
from qatexplorer.views.common.html import Html, folded, join, tag

VERDICTS = {
    "exact": "✓ exact",
    "clamps": "△ clamps at other codes",
    "saturates": "✗ saturates on this CPU",
    "fails": "✗ does not run",
}
_CLASSES = {"exact": "qx-ok", "clamps": "", "saturates": "qx-bad", "fails": "qx-bad"}


def engines_html(probes: Sequence[EngineProbe], current: str, best: Backend) -> Html:
    """Table of the engines, ``current`` marked; under it the rule that chooses ``best``, folded."""
    heads = (
        "Int8 engine",
        f"Sums of codes 0..{FULL_CODES}",
        f"Sums of codes 0..{HALF_CODES}",
        "Its own qconfig trains on",
        "With its own qconfig",
    )
    table = tag(
        "table",
        tag("caption", "What each engine computes on this CPU, run and compared with integers"),
        tag("thead", tag("tr", *(tag("th", head, scope="col") for head in heads))),
        tag("tbody", *(_row(probe, probe.engine == current) for probe in probes)),
        class_="qx-options",
    )
    return join([table, folded("How is the engine chosen?", *_rule(best))])


def _row(probe: EngineProbe, current: bool) -> Html:
    trained = "–" if probe.trained is None else f"0..{probe.trained}"
    verdict = tag("span", VERDICTS[probe.verdict], class_=_CLASSES[probe.verdict] or None)
    lines = [verdict, tag("br"), probe.error] if probe.error else [verdict]
    return tag(
        "tr",
        tag("th", probe.engine + (" (in use)" if current else ""), scope="row"),
        tag("td", _error(probe, FULL_CODES)),
        tag("td", _error(probe, HALF_CODES)),
        tag("td", trained),
        tag("td", *lines),
        aria_current="true" if current else None,
    )


def _error(probe: EngineProbe, codes: int) -> str:
    error = probe.error_at(codes)
    if error is None:
        return "–"
    return "right" if probe.holds(codes) else f"up to {error:.0f} of 127 steps off"


def _rule(best: Backend) -> list[Html]:
    return [
        tag(
            "p",
            "Right before fast: the fastest engine whose sums are right on all codes 0..255, with "
            "the qconfig that trains on all of them. If there is none, the fastest that is right "
            "on the halved range that its own qconfig trains on. ",
            tag("b", f"Here: engine {best.engine}, qconfig {best.qconfig}."),
            f" {best.reason}",
        ),
        tag(
            "p",
            "Saturates: the engine adds pairs of products in 16 bits and cuts off what does not "
            "fit, as the fast kernels do on CPUs without VNNI. Clamps: the fake quants of the "
            "qconfig stop at code 127 and int8 at 255, so a value past the range that an observer "
            "has seen is clipped in training and not in int8.",
        ),
    ]


def concern_html(concern: EngineConcern | None) -> Html:
    """What is wrong with the engine in use, ``""`` if nothing is."""
    if concern is None:
        return Html("")
    mark = "△" if concern.kind == "clamps" else "⚠"
    return tag("p", tag("b", f"{mark} {concern.message}"), f" {concern.fix}", class_="qx-concern")
