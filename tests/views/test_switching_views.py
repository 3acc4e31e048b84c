"""Whether switching fake quants off changes the output, as the inspector says it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.evaluate.switching import Switching
from qatexplorer.snapshot.records import FakeQuantSite
from qatexplorer.views.inspector.page import inspect_html
from qatexplorer.views.inspector.switching import SwitchSection, answer_words, switch_html
from tests.support.page_text import visible_text

QUESTION = "Does switching fake quants off change the output?"
FOUND = Switching(("a", "b", "c"), ("b",), ("c",), 0.25)


@pytest.fixture(scope="module")
def session() -> qx.Session:
    pytest.importorskip("torchao")
    torch.manual_seed(0)
    made = qx.Session(
        nn.Sequential(nn.Linear(32, 8), nn.ReLU()).train(), torch.randn(2, 32), flow="torchao"
    )
    made.goto("prepare")
    return made


@pytest.fixture(scope="module")
def site(session: qx.Session) -> FakeQuantSite:
    return next(one for one in session.snapshot.sites if one.kind == "weight")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("a", "a: on, it rounds; off, it passes the tensor on unchanged."),
        ("b", "b: on, it changes nothing in this tensor; off, it passes it on."),
        ("c", "c: rounds though it is off: its switch has no effect."),
        ("d", "d: did not run."),
    ],
)
def test_each_fake_quant_says_what_it_does(path: str, words: str, site: FakeQuantSite) -> None:
    html = switch_html(SwitchSection(FOUND), [replace(site, path=path, aliases=())])
    assert words in visible_text(html)
    assert ("its switch has no effect" in words) == ('<li class="qx-remark">' in html)


def test_one_object_of_several_names_is_found_by_each(site: FakeQuantSite) -> None:
    html = switch_html(SwitchSection(FOUND), [replace(site, path="d", aliases=("a",))])
    assert "on, it rounds" in visible_text(html)


def test_the_answer_is_yes_no_or_that_nothing_ran() -> None:
    assert answer_words(FOUND) == (
        "Yes: without the 3 fake quants an output differs by up to 0.25. "
        "1 of them rounds though switched off."
    )
    same = answer_words(replace(FOUND, stuck=(), output=0.0))
    assert same == "No: with the 3 fake quants on and off the output is the same."
    assert answer_words(replace(FOUND, ran=())) == "No fake quant ran."


def test_before_it_is_tried_there_is_a_button(session: qx.Session) -> None:
    for selection in ("module:0", "site:0.weight_fake_quantizer"):
        html = inspect_html(session.snapshots, "prepare", selection, switch=SwitchSection())
        assert QUESTION in visible_text(html)
        assert 'data-ask="switching"' in html
    without = inspect_html(session.snapshots, "prepare", "module:1", switch=SwitchSection())
    assert QUESTION not in without
    assert QUESTION not in inspect_html(session.snapshots, "prepare", "module:0")
