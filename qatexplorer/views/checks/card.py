"""One finding in full, and what stands below the table: what was put right, skipped, silenced."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass

from qatexplorer.checks.records import Finding, Findings, Fix
from qatexplorer.checks.rules import RULES, Rule
from qatexplorer.views.checks.state import CheckState, state_words
from qatexplorer.views.common.findings import LOOKS
from qatexplorer.views.common.html import Html, ask, code, folded, join, tag, terms
from qatexplorer.views.common.names import count
from qatexplorer.views.common.story import message_html


@dataclass(frozen=True)
class PutRight:
    """A fix that was applied on the page. ``undo`` is what is asked for to take it back, ``""``
    where that cannot be."""

    id: str
    place: str
    fix: Fix
    undo: str = ""


def card_html(finding: Finding, select: str, stage: str) -> Html:
    """A finding in full, all text escaped.

    ``select`` is the selection string of its place, ``""`` for none; ``stage`` the title of the
    stage at which it bites. Buttons with ``data-ask`` ask for ``"select:<selection>"`` or
    ``"fix:<key>:<index>"``; those with ``data-copy`` copy what it says.
    """
    look, rule = LOOKS[finding.severity], RULES.get(finding.id)
    place = ask(f"select:{select}", finding.place, "Select it") if select else finding.place
    return tag(
        "article",
        tag(
            "header",
            tag("span", f"{look.mark} {look.word}", class_=f"qx-badge qx-is-{finding.severity}"),
            tag("h3", finding.id, " ", rule.title if rule else finding.name),
        ),
        tag("p", finding.message, class_="qx-why"),
        terms([("Where", place), ("Bites at", stage)]),
        _what_to_do(finding),
        _rule(rule) if rule else None,
        class_="qx-inspect qx-check-card",
    )


def _what_to_do(finding: Finding) -> Html | None:
    codes = {fix.code for fix in finding.fixes}
    words = None
    if finding.fix and finding.fix not in codes:
        words = code_line(finding.fix) if is_code(finding.fix) else tag("p", finding.fix)
    fixes = [_fix(finding, index, fix) for index, fix in enumerate(finding.fixes)]
    if words is None and not fixes:
        return None
    return tag("section", tag("h4", "What to do"), words, *fixes, class_="qx-check-fixes")


def _fix(finding: Finding, index: int, fix: Fix) -> Html:
    button = tag(
        "button",
        fix.label,
        type="button",
        class_="qx-button qx-fix",
        data_ask=f"fix:{finding.key}:{index}",
        title=fix.code or None,
    )
    line = code_line(fix.code) if fix.code else None
    return tag("div", button, line, diff_html(fix.diff), class_="qx-check-fix")


def code_line(text: str) -> Html:
    """Code with a button that copies it."""
    copy = tag(
        "button",
        "Copy",
        type="button",
        class_="qx-button qx-copy",
        data_copy=text,
        aria_label=f"Copy {text}",
    )
    return tag("div", tag("pre", code(text)), copy, class_="qx-code-line")


def diff_html(diff: str) -> Html | None:
    """A change as lines that begin with ``-`` and ``+``; a screen reader hears which is which."""
    if not diff.strip():
        return None
    lines = []
    for line in diff.strip("\n").splitlines():
        kind = {"-": "minus", "+": "plus"}.get(line[:1], "")
        said = {"minus": "taken out: ", "plus": "put in: "}.get(kind)
        lines.append(
            tag(
                "span",
                tag("span", said, class_="qx-sr") if said else None,
                line or " ",
                class_=f"qx-diff-line qx-diff-{kind}" if kind else "qx-diff-line",
            )
        )
    return tag("pre", *lines, class_="qx-diff", role="group", aria_label="The change", tabindex="0")


def is_code(text: str) -> bool:
    """Whether it is Python: a call, an assignment or an import, not words that happen to parse."""
    try:
        body = ast.parse(text.strip()).body
    except (SyntaxError, ValueError):
        return False
    plain = (ast.Name, ast.Constant, ast.Compare, ast.BinOp, ast.Tuple)
    return bool(body) and not any(
        isinstance(line, ast.Expr) and isinstance(line.value, plain) for line in body
    )


def _rule(rule: Rule) -> Html:
    links = [
        tag(
            "li",
            tag("a", source, href=source, target="_blank", rel="noopener noreferrer")
            if source.startswith("https://")
            else source,
        )
        for source in rule.sources
    ]
    parts = [
        ("Symptom", tag("pre", code(rule.symptom)) if rule.symptom else None),
        ("Cause", _paragraphs(rule.cause)),
        ("Fix", _paragraphs(rule.fix)),
        ("Sources", tag("ul", *links) if links else None),
    ]
    inside = [join([tag("h4", name), part]) for name, part in parts if part]
    return folded(f"About {rule.id} {rule.name}", tag("div", *inside, class_="qx-rule"))


def _paragraphs(text: str) -> Html | None:
    found = [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]
    return join([tag("p", part) for part in found]) if found else None


# -- without a finding, and below the table -------------------------------------------------------


def nothing_html(state: CheckState) -> Html:
    """What stands where the table would be while nothing has been found."""
    if state.kind == "failed" and state.error is not None:
        return tag("div", Html(message_html(state.error)), class_="qx-checks-nothing qx-message")
    if state.kind == "done" and state.findings is not None:
        words = f"✓ No findings: {count(len(state.findings.checked), 'rule')} checked."
        return tag("div", tag("h3", words), class_="qx-checks-nothing qx-is-good")
    heading = "The model is being checked" if state.busy else "Nothing is known to be wrong yet"
    more = None if state.busy else tag("p", state_words(state))
    return tag("div", tag("h3", heading), more, class_="qx-checks-nothing")


def failure_html(state: CheckState) -> Html:
    """Why the newest check failed, ``""`` if it did not."""
    if state.kind != "failed" or state.error is None:
        return Html("")
    return tag("div", Html(message_html(state.error)), class_="qx-message qx-message-error")


def below_html(put_right: Sequence[PutRight], findings: Findings | None) -> Html:
    """What was put right, with a way back; the rules that could not be asked, and why; what the
    user does not want to hear of, and why. ``""`` for nothing of all that."""
    parts = []
    if put_right:
        items = [_put_right(one) for one in put_right]
        parts.append(folded(f"Put right ({len(items):,})", tag("ul", *items), open_=True))
    if findings is not None and findings.skipped:
        rows = [(f"{one.id} {one.name}", one.why) for one in findings.skipped]
        parts.append(folded(f"Rules that could not be asked ({len(rows):,})", terms(rows)))
    if findings is not None and findings.silenced:
        rows = [
            (f"{one.id} {one.place}", f"{one.message} Silenced: {one.silenced}")
            for one in findings.silenced
        ]
        parts.append(folded(f"Silenced ({len(rows):,})", terms(rows)))
    return tag("div", *parts, class_="qx-inspect qx-checks-below") if parts else Html("")


def _put_right(one: PutRight) -> Html:
    undo = None
    if one.undo:
        undo = tag(
            "button",
            "Undo",
            type="button",
            class_="qx-button",
            data_ask=one.undo,
            aria_label=f"Undo: {one.fix.label}",
        )
    head = tag("div", tag("b", f"{one.id} "), f"{one.fix.label} ({one.place}) ", undo)
    return tag("li", head, code_line(one.fix.code) if one.fix.code else None,
               diff_html(one.fix.diff))  # fmt: skip
