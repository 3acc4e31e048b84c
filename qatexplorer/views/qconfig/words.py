"""Rules in force, previews and warnings of the qconfig editor as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qatexplorer.flows.qconfig_rules import PARTS, Part, QConfigRule
from qatexplorer.views.common.html import Html, code, tag
from qatexplorer.views.common.names import number

_ORDER = (
    "A path counts before a pattern, a pattern before a type, a type before the whole model; of "
    "two patterns the upper one."
)


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


def rule_place(rule: QConfigRule) -> str:
    """What a rule names, for a table: a path as it is, all else with what it is."""
    if rule.by == "model":
        return "(model)"
    return rule.where if rule.by == "path" else f"{rule.by} {rule.where}"


def rule_mark(ruling: Mapping[Part, QConfigRule]) -> tuple[str, str]:
    """Two words for the tree, and a sentence, on the rules that say each part of a module."""
    said = {part: rule.of(part) for part, rule in ruling.items()}
    bits = {part: spec.bits for part, spec in said.items() if spec is not None}
    short = [f"{part[0]}{bits[part]}" for part in reversed(PARTS) if part in bits]
    rules = dict.fromkeys(ruling[part] for part in PARTS if part in ruling)
    sentences = [_sentence(rule, said) for rule in rules]
    return " ".join(short) or "float", "; ".join(sentences)


def _sentence(rule: QConfigRule, said: Mapping[Part, object]) -> str:
    if rule.to_float:
        return f"Rule for {rule_place(rule)}: left in float"
    parts = [f"{part} {rule.of(part)}" for part in PARTS if rule.of(part) is said.get(part, 0)]
    return f"Rule for {rule_place(rule)}: {'; '.join(parts)}"


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
    caption = tag("caption", "Rules in force", class_="qx-sr")
    table = tag("table", caption, tag("thead", head), tag("tbody", *rows), class_="qx-options")
    order = [tag("p", _ORDER, class_="qx-muted")] if len(rules) > 1 else []
    return tag("div", table, *order, class_="qx-qconfig-rules")


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
