"""What to try with a model, as a list with a button for each."""

from __future__ import annotations

from qatexplorer.advice import Advice, Proposal, Reason
from qatexplorer.snapshot.records import Snapshot
from qatexplorer.views.checks.card import code_line, is_code
from qatexplorer.views.common.html import Html, ask, tag, terms
from qatexplorer.views.common.names import count

PHASES = {
    "fix": "put right first",
    "measure": "measure",
    "win": "win back",
    "take home": "take home",
}
_SHOWN = 12


def advice_html(advice: Advice, snapshot: Snapshot, enabled: bool = True) -> Html:
    """The proposals in their order, all text escaped.

    A button asks for ``"do:<number>"`` (from 0), or for ``"select:<selection>"`` of a place in
    ``snapshot``. ``enabled`` False leaves out the first kind. ``""`` for no proposals.
    """
    if not advice.proposals:
        return Html("")
    shown = advice.proposals[:_SHOWN]
    items = [_item(number, one, snapshot, enabled) for number, one in enumerate(shown)]
    more = len(advice) - len(shown)
    return tag(
        "section",
        tag("h4", f"What to try: {count(len(advice), 'proposal')}"),
        tag("p", advice.state) if advice.state else None,
        tag("ol", *items),
        tag("p", f"{more:,} more: session.advice()") if more > 0 else None,
        class_="qx-inspect qx-advice",
        aria_label="Advice",
    )


def _item(number: int, one: Proposal, snapshot: Snapshot, enabled: bool) -> Html:
    return tag(
        "li",
        tag(
            "header",
            tag("span", PHASES[one.phase], class_="qx-badge"),
            tag("b", one.action.label),
            _button(number, one) if enabled and one.next.call else None,
        ),
        tag("ul", *(tag("li", _reason(reason, snapshot)) for reason in one.reasons)),
        code_line(one.action.code) if is_code(one.action.code) else tag("p", one.action.code),
        terms(
            [
                ("First", one.first),
                ("Costs", str(one.cost)),
                ("Rests on", str(one.sureness)),
            ]
        ),
    )


def _button(number: int, one: Proposal) -> Html:
    label = "Do it" if one.now else f"First: {one.next.label}"
    return tag(
        "button",
        label,
        type="button",
        class_="qx-button qx-fix",
        data_ask=f"do:{number}",
        title=one.next.code,
        aria_label=f"{label}: {one.action.label}" if one.now else label,
    )


def _reason(reason: Reason, snapshot: Snapshot) -> Html:
    place = place_of(reason.path, snapshot)
    show = ask(f"select:{place}", "Show", reason.path) if place else None
    return tag("span", reason.text, " " if place else None, show)


def place_of(path: str, snapshot: Snapshot) -> str:
    """The selection string of a module or fake quant of ``snapshot``, ``""`` where it has none."""
    if path and path in snapshot.site_by_path:
        return f"site:{path}"
    found = path if path in snapshot.by_path else f"module.{path}"  # a QuantWrapper around it
    return f"module:{found}" if path and found in snapshot.by_path else ""
