"""The list of proposals as a page."""

from __future__ import annotations

from dataclasses import replace

import pytest

import qatexplorer as qx
from qatexplorer.advice import Advice, Reason, advise
from qatexplorer.views.advice import advice_html, place_of
from tests.support.advice import conv_pair, facts_of, small, values
from tests.support.page_text import visible_text


@pytest.fixture(scope="module")
def session() -> qx.Session:
    return small(conv_pair(64.0))


@pytest.fixture(scope="module")
def advice(session: qx.Session) -> Advice:
    return advise(facts_of(session, metrics=values(float=0.9, ptq=0.5)))


def test_each_proposal_has_its_facts_its_cost_and_a_button(
    session: qx.Session, advice: Advice
) -> None:
    page = advice_html(advice, session.snapshot)
    text = visible_text(page)
    for number, one in enumerate(advice):
        assert f'data-ask="do:{number}"' in page
        assert one.action.label in text
        assert " ".join(one.reasons[0].text.split()) in " ".join(text.split())
        assert str(one.cost) in text
    assert f"{len(advice)} proposals" in text


def test_what_cannot_be_done_has_no_button(session: qx.Session, advice: Advice) -> None:
    assert 'data-ask="do:' not in advice_html(advice, session.snapshot, enabled=False)
    waiting = advise(facts_of(session, metrics=values(float=0.9, ptq=0.5), running=True))
    page = advice_html(waiting, session.snapshot)
    assert 'data-ask="do:' not in page
    assert "session.run.stop()" in page


def test_what_comes_first_is_on_the_button(session: qx.Session) -> None:
    made = advise(facts_of(session, metrics={}, snapshots={}))
    assert "First: Go to insert" in visible_text(advice_html(made, session.snapshot))


def test_a_place_can_be_selected(session: qx.Session, advice: Advice) -> None:
    page = advice_html(advice, session.snapshot)
    assert 'data-ask="select:module:body.0"' in page
    assert place_of("body.0.weight_fake_quant", session.snapshot) == "site:body.0.weight_fake_quant"
    assert place_of("nowhere", session.snapshot) == ""
    assert place_of("", session.snapshot) == ""


def test_what_users_wrote_is_escaped(session: qx.Session, advice: Advice) -> None:
    bad = replace(advice[0], reasons=(Reason("<b>1</b>"),))
    page = advice_html(replace(advice, proposals=(bad,)), session.snapshot)
    assert "<b>1</b>" not in page
    assert "&lt;b&gt;1&lt;/b&gt;" in page


def test_too_many_are_counted(session: qx.Session, advice: Advice) -> None:
    many = replace(advice, proposals=advice.proposals * 5)
    assert f"{len(many) - 12} more" in visible_text(advice_html(many, session.snapshot))


def test_nothing_to_propose_takes_no_room(session: qx.Session, advice: Advice) -> None:
    assert advice_html(replace(advice, proposals=()), session.snapshot) == ""
