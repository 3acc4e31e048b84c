"""Findings as Python shows them: order, counts, repr, HTML, tables, plain data."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from typing import Any

import pytest

import qatexplorer as qx
from qatexplorer.checks.records import Finding, Findings, Fix, Skipped, worst_first
from qatexplorer.errors import InputError

TAG = "<script>alert('&')</script>"


def finding(severity: Any = "error", **given: Any) -> Finding:
    usual = {"id": "QX908", "name": "int8-fails", "path": "a", "stage": "s", "message": "m"}
    return Finding(severity=severity, **{**usual, **given})


SOME = Findings(
    worst_first([finding("info", id="QX914"), finding("error", path="b"), finding("warning")]),
    (finding(silenced="why"),),
    ("QX908", "QX914"),
    (Skipped("QX913", "bad-scale", "no data"),),
    "Net",
)


class Cells(HTMLParser):
    """Texts of the cells of a table, and all tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += f"{data}\n"


def test_they_are_a_sequence_with_the_worst_first() -> None:
    assert [one.severity for one in SOME] == ["error", "warning", "info"]
    assert (len(SOME), SOME[0].path, SOME[1:]) == (3, "b", SOME.found[1:])
    assert SOME.counts == {"error": 1, "warning": 1, "info": 1}
    assert SOME.errors == SOME.of("error") == (SOME[0],)
    assert SOME.with_id("QX914") == (SOME[2],)
    assert len(SOME.with_id("int8-fails")) == 3
    assert SOME.summary() == "1 error, 1 warning, 1 info"
    assert (Findings().summary(), bool(Findings())) == ("no findings", False)


def test_the_repr_has_what_counts() -> None:
    lines = repr(SOME).splitlines()
    assert lines[0] == (
        "Findings in Net: 1 error, 1 warning, 1 info (2 rules checked, 1 could not be, 1 silenced)"
    )
    assert [line.split()[:3] for line in lines[1:]] == [
        ["error", "QX908", "b"],
        ["warning", "QX908", "a"],
        ["info", "QX914", "a"],
    ]


def test_the_repr_is_short_whatever_they_are() -> None:
    long = finding(path="layer." * 60, message="word " * 200 + "\nmore", source="net.py:3")
    lines = repr(Findings((long,) * 500)).splitlines()
    assert len(lines) <= 20
    assert max(map(len, lines)) <= 160
    assert "484 more" in lines[-1]


def test_html_shows_every_finding_with_its_fix() -> None:
    html = Findings((finding(fix="model.a = 1"), finding("info", path="")))._repr_html_()
    cells = Cells(html)
    assert cells.tags.count("tr") == 3
    assert all(text in cells.text for text in ("error", "QX908", "model.a = 1", "the model itself"))
    assert Cells(Findings()._repr_html_()).tags == ["div", "b"]


def test_html_of_many_findings_counts_the_rest() -> None:
    cells = Cells(Findings((finding(),) * 1234)._repr_html_())
    assert cells.tags.count("tr") == 101
    assert "1,134 more" in cells.text


@pytest.mark.parametrize("where", ["path", "message", "fix", "source", "id"])
def test_html_escapes_what_comes_from_the_model(where: str) -> None:
    html = Findings((finding(**{where: TAG}),), model=TAG)._repr_html_()
    cells = Cells(html)
    assert not {"script"} & set(cells.tags)
    assert TAG in cells.text.replace("\n", "")
    assert html.count(TAG) == 0


def test_html_has_no_colour_of_its_own() -> None:
    """The page's colours hold, on light and on dark."""
    html = SOME._repr_html_()
    assert not re.search(r"colou?r|background|class=|#[0-9a-f]{3}", html)


def test_a_table_has_a_row_a_finding() -> None:
    pytest.importorskip("pandas")
    table = SOME.to_pandas()
    assert table.severity.tolist() == ["error", "warning", "info"]
    assert table.path.tolist() == ["b", "a", "a"]
    empty = Findings().to_pandas()
    assert (list(empty.columns), len(empty)) == (list(table.columns), 0)


def test_without_pandas_there_is_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="pandas is not installed"):
        SOME.to_pandas()


def test_plain_data_is_json_whatever_a_fix_holds() -> None:
    fix = Fix("Do", "configure", (("qconfig", object()),), "session.configure()", "- a\n+ b")
    data = json.loads(json.dumps(Findings((finding(fixes=(fix,)),)).to_json()))
    assert data["findings"][0]["fixes"] == [
        {"label": "Do", "code": "session.configure()", "diff": "- a\n+ b"}
    ]
    assert json.loads(json.dumps(SOME.to_json()))["silenced"][0]["silenced"] == "why"


@pytest.mark.parametrize(
    ("path", "source", "place"),
    [
        ("a.b", "", "a.b"),
        ("a.b", "net.py:3", "a.b (net.py:3)"),
        ("", "net.py:3", "(net.py:3)"),
        ("", "", "the model itself"),
    ],
)
def test_a_place_says_where(path: str, source: str, place: str) -> None:
    assert finding(path=path, source=source).place == place


def test_they_are_at_the_front_door_and_load_late() -> None:
    assert (qx.Finding, qx.Findings) == (Finding, Findings)
    code = (
        "import sys, qatexplorer as qx\n"
        "assert {'Finding', 'Findings'} <= set(dir(qx))\n"
        "assert 'qatexplorer.checks' not in sys.modules and 'torch' not in sys.modules\n"
        "qx.Findings\n"
        "assert 'qatexplorer.checks.records' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
