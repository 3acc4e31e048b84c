"""What a check found, as the page writes it: counts, rows, card, marks, and how far a check is."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape

import pytest
import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.checks.records import Finding, Findings, Fix, Skipped
from qatexplorer.checks.rules import RULES
from qatexplorer.errors import InputError
from qatexplorer.views.checks.card import (
    PutRight,
    below_html,
    card_html,
    failure_html,
    is_code,
    nothing_html,
)
from qatexplorer.views.checks.marks import finding_marks
from qatexplorer.views.checks.state import CheckState, header_of, state_html, state_words
from qatexplorer.views.checks.table import COLUMNS, finding_filters, finding_rows
from qatexplorer.views.common.findings import selection_of
from tests.support.page_text import visible_text

DIFF = "-self.conv = nn.Conv2d(1, 4, 3, padding='same')\n+self.conv = nn.Conv2d(1, 4, 3, padding=1)"
FIX = Fix("Pad by a <number>", "edit", (("path", "body.0"),), "session.edit('pad', 'body.0')", DIFF)
ERROR = Finding(
    "QX907", "no-stub", "error", "body.0", "convert", "<b> has no stub.", "model.x = 1", (FIX,)
)
WARNING = Finding("QX001", "padding", "warning", "body", "insert", "It is slow.")
NOTE = Finding("QX002", "note", "info", "", "insert", "Good to know.", "Do nothing.", (), "m.py:7")
ALL = (ERROR, WARNING, NOTE)


class Adds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x) + x


@pytest.fixture(scope="module")
def session() -> qx.Session:
    made = qx.Session(Adds(), torch.randn(2, 1, 4, 4), stubs="model")
    made.warns = False
    made.goto(made.flow.prepared_stage)
    return made


def asked(html: str) -> list[str]:
    return [unescape(found) for found in re.findall(r'data-ask="([^"]*)"', html)]


# -- places ----


def test_the_place_follows_a_wrapper_and_a_line_is_its_operation(session: qx.Session) -> None:
    first, now = session.snapshots["float"], session.snapshot
    assert selection_of(ERROR, first) == "module:body.0"
    moved = selection_of(ERROR, now, first)
    assert moved.endswith("body.0")
    assert moved != "module:body.0"
    assert moved.partition(":")[2] in now.by_path
    site = now.sites[0].path
    assert selection_of(replace(ERROR, path=site), now, first) == f"site:{site}"
    assert selection_of(replace(ERROR, path="nowhere"), now, first) == ""
    assert first.graph is not None
    add = next(node for node in first.graph.nodes if node.label == "add")
    for source in (add.source, f"/home/me/{add.source}"):
        assert selection_of(replace(NOTE, source=source), first) == f"node:{add.id}"
    assert selection_of(replace(NOTE, source="other.py:1"), first) == ""
    assert selection_of(replace(NOTE, source=""), first) == ""


def test_marks_have_the_worst_there_and_around(session: qx.Session) -> None:
    first = session.snapshots["float"]
    marks = finding_marks([WARNING, ERROR, replace(WARNING, path="body.0"), NOTE], first, first)
    own = marks["module:body.0"]
    assert (own["severity"], own["mark"], own["inside"]) == ("error", "✖", "")
    assert own["words"] == "1 error, 1 warning"
    assert marks["module:body"]["severity"] == "warning"  # its own, not the worse one inside
    around = marks["module:"]
    assert (around["severity"], around["inside"]) == ("error", "1")
    assert around["words"] == "1 error, 2 warnings inside"
    assert set(marks) == {"module:body.0", "module:body", "module:"}
    assert finding_marks([], first) == {}


def test_a_fake_quant_and_an_operation_mark_what_they_lie_in(session: qx.Session) -> None:
    now, first = session.snapshot, session.snapshots["float"]
    site = next(one for one in now.sites if one.kind == "weight")
    marks = finding_marks([replace(ERROR, path=site.path)], now)
    assert marks[f"site:{site.path}"]["inside"] == ""
    assert marks[f"module:{site.owner}"]["inside"] == "1"
    assert first.graph is not None
    add = next(node for node in first.graph.nodes if node.label == "add")
    marks = finding_marks([replace(NOTE, source=add.source)], first)
    assert set(marks) == {f"node:{add.id}", "module:"}


# -- table and header ----


def test_rows_say_mark_word_rule_place_sentence_and_stage() -> None:
    rows = finding_rows(ALL, str.title)
    assert rows[0]["cells"] == ["✖ error", "QX907", "body.0", "<b> has no stub.", "Convert"]
    assert rows[2]["cells"][:3] == ["● info", "QX002", "(m.py:7)"]
    assert [row["sort"][0] for row in rows] == [0, 1, 2]
    assert len({row["sel"] for row in rows}) == 3
    assert {len(row["cells"]) for row in rows} == {len(COLUMNS)}
    assert [one["label"] for one in finding_filters(ALL)] == [
        "✖ 1 error",
        "▲ 1 warning",
        "● 1 info",
    ]
    assert finding_filters([ERROR]) == []


def test_the_header_counts_and_says_how_the_check_stands() -> None:
    found = [ERROR, replace(ERROR, path="other"), NOTE]
    running = header_of(CheckState("running", share=0.4), found)
    assert [(one["mark"], one["n"], one["word"]) for one in running["counts"]] == [
        ("✖", 2, "errors"),
        ("●", 1, "info"),
    ]
    assert (running["said"], running["busy"]) == ("checking 40 %", True)
    assert header_of(CheckState(), [])["said"] == "not checked"
    done = CheckState("done", findings=Findings())
    assert header_of(done, [])["said"] == "no findings"
    assert header_of(done, found)["said"] == ""
    assert header_of(CheckState("failed"), [])["said"] == "check failed"


# -- how far it is ----


def test_an_estimate_is_made_only_of_what_was_measured() -> None:
    begun = CheckState("running", what="Float run", share=0.02, seconds=9.0)
    assert begun.seconds_left is None  # too little of it is done
    assert state_words(begun) == "Checking, 2 % after 9.0 s: float run …"
    later = replace(begun, share=0.25, seconds=10.0)
    assert later.seconds_left == pytest.approx(30.0)
    assert state_words(later) == "Checking, 25 %, about 30 s left: float run …"
    again = replace(begun, before=12.0)
    assert again.seconds_left == pytest.approx(3.0)
    assert replace(again, seconds=20.0).seconds_left is None  # it takes longer than the last one
    assert replace(later, seconds=1.0).seconds_left is None


def test_words_of_every_state() -> None:
    findings = Findings(
        ALL,
        (replace(WARNING, silenced="known"),),
        ("QX1", "QX2"),
        (Skipped("QX3", "c", "no data"),),
    )
    done = CheckState("done", seconds=2.13, findings=findings)
    assert state_words(done) == "2 rules checked in 2.1 s, 1 could not be, 1 silenced."
    assert "1 error, 1 warning, 1 info." in visible_text(state_html(done, ALL)).replace("E", "e")
    assert "<progress" not in state_html(done, ALL)
    assert 'value="0.500"' in state_html(CheckState("running", share=0.5), ())
    assert state_words(CheckState("none", "a run is going on.")) == (
        "Not checked yet: a run is going on."
    )
    assert state_words(CheckState("stopped")).startswith("Stopped")
    empty = CheckState("done", findings=Findings(checked=("QX1", "QX2")))
    assert visible_text(nothing_html(empty)).strip() == "✓ No findings: 2 rules checked."
    assert "being checked" in nothing_html(CheckState("running"))
    failed = CheckState("failed", error=InputError("<it> broke.", fix="Do this."))
    assert "&lt;it&gt; broke." in failure_html(failed)
    assert "Do this." in nothing_html(failed)
    assert failure_html(done) == ""


# -- the card ----


def test_the_card_says_all_of_a_finding_and_escapes_it() -> None:
    html = card_html(ERROR, "module:body.0", "Convert")
    words = " ".join(visible_text(html).split())
    assert "✖ error" in words
    assert f"QX907 {RULES['QX907'].title}" in words
    assert "<b> has no stub." in words
    assert "<b> has" not in html
    assert asked(html) == ["select:module:body.0", f"fix:{ERROR.key}:0"]
    copied = [unescape(one) for one in re.findall(r'data-copy="([^"]*)"', html)]
    assert copied == ["model.x = 1", "session.edit('pad', 'body.0')"]
    assert 'class="qx-diff-line qx-diff-minus"' in html
    assert "taken out: " in html
    assert "put in: " in html
    for part in ("symptom", "cause", "fix"):
        first = " ".join(getattr(RULES["QX907"], part).split())[:40]
        assert first in words
    for source in RULES["QX907"].sources:
        assert f'href="{source}"' in html
    assert "noopener" in html
    assert "<script" not in html


def test_a_finding_without_place_rule_or_fix_has_a_card_too() -> None:
    html = card_html(NOTE, "", "Insert")
    assert asked(html) == []
    assert "data-copy" not in html  # its fix is words
    assert "Do nothing." in html
    assert "<details" not in html


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("model.body.padding = (1,)", True),
        ("session.calibrate()", True),
        ("import torch", True),
        ("Train", False),
        ("Pass qconfig='x86'.", False),
        ("a, b", False),
        ("", False),
    ],
)
def test_only_what_can_be_run_is_shown_as_code(text: str, code: bool) -> None:
    assert is_code(text) is code


def test_what_stands_below_says_what_was_put_right_skipped_and_silenced() -> None:
    findings = Findings(
        silenced=(replace(WARNING, silenced="we know"),), skipped=(Skipped("QX3", "c", "no data"),)
    )
    html = below_html([PutRight("QX907", "body.0", FIX, "undo:0")], findings)
    words = " ".join(visible_text(html).split())
    assert asked(html) == ["undo:0"]
    for part in ("Put right (1)", "Pad by a <number>", "padding=1", "QX3 c", "no data", "we know"):
        assert part in words
    assert asked(below_html([PutRight("QX907", "", FIX)], None)) == []
    assert below_html([], Findings()) == "" == below_html([], None)
