"""Rules in force, previews and warnings of the qconfig editor as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qatexplorer.views.common.html import Html, code, join, tag
from qatexplorer.views.common.names import number


@dataclass(frozen=True)
class RuleWords:
    """A rule as the page says it: for what, and what it asks of activations and of weights."""

    where: str
    activation: str
    weight: str


@dataclass(frozen=True)
class PreviewWords:
    """What a change would do to one fake quant: SQNR (dB) as it is and as it would be, None for
    one that is left in float or cannot be measured; ``note`` says why."""

    what: str
    before: float | None
    after: float | None
    note: str = ""


def rules_html(rules: Sequence[RuleWords]) -> Html:
    """The rules in force as a table, each with a button that asks to delete it
    (``"delete:<index>"``)."""
    if not rules:
        return tag(
            "p",
            "No rules: every module has the qconfig of the settings.",
            class_="qx-muted",
        )
    head = tag("tr", *(tag("th", one, scope="col") for one in ("Where", "Activation", "Weight")),
               tag("th", tag("span", "Delete", class_="qx-sr"), scope="col"))  # fmt: skip
    rows = [
        tag(
            "tr",
            tag("th", code(rule.where), scope="row"),
            tag("td", rule.activation),
            tag("td", rule.weight),
            tag("td", _delete(i, rule.where)),
        )
        for i, rule in enumerate(rules)
    ]
    caption = tag("caption", "Rules in force; the later one wins", class_="qx-sr")
    table = tag("table", caption, tag("thead", head), tag("tbody", *rows), class_="qx-options")
    return tag("div", table, class_="qx-qconfig-rules")


def _delete(index: int, where: str) -> Html:
    label = f"Delete the rule for {where}"
    return tag("button", "Delete", type="button", class_="qx-button", data_ask=f"delete:{index}",
               title=label, aria_label=label)  # fmt: skip


def preview_html(rows: Sequence[PreviewWords]) -> Html:
    """SQNR before and after of each fake quant that a change is previewed for."""
    if not rows:
        return Html("")
    head = [tag("th", one, scope="col") for one in ("Fake quant", "SQNR now", "→ with it", "")]
    body = [
        tag(
            "tr",
            tag("th", code(row.what), scope="row"),
            tag("td", _decibel(row.before)),
            tag("td", _decibel(row.after)),
            tag("td", row.note or _difference(row)),
        )
        for row in rows
    ]
    caption = tag("caption", "What the change does to each fake quant", class_="qx-sr")
    return tag("table", caption, tag("thead", tag("tr", *head)), tag("tbody", *body),
               class_="qx-options qx-qconfig-sqnr")  # fmt: skip


def _decibel(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} dB"


def _difference(row: PreviewWords) -> str:
    if row.before is None or row.after is None:
        return ""
    difference = row.after - row.before
    if abs(difference) < 0.05:
        return "the same"
    mark = "▲ better by" if difference > 0 else "▼ worse by"
    return f"{mark} {number(abs(difference), 3)} dB"


def starts_again_html(kept: str) -> Html:
    """What Apply does where there is a trained model, for whoever has to confirm it; ``kept`` says
    where that model is then."""
    return join(
        [
            tag("b", "There is a trained model. "),
            "A changed qconfig starts again from the float stage: the stages are made anew. ",
            kept,
        ]
    )
