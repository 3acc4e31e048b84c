"""The advice of whole sessions, and how it is shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import qatexplorer as qx
from qatexplorer.advice import RECIPES, Advice, advise
from qatexplorer.errors import InputError
from tests.cures.nets import session_of, usual
from tests.support.advice import conv_pair, facts_of, small, values
from tests.support.training_models import one_thread  # noqa: F401


@pytest.fixture(scope="module")
def depthwise() -> qx.Session:
    """Evaluated, and nothing else."""
    example = qx.zoo.load("digits_depthwise")
    session = qx.Session(
        example.model,
        example.example_inputs,
        data=example.data,
        qconfig=example.suggested["qconfig"],
    )
    session.warns = False
    session.goto(session.flow.prepared_stage)
    session.evaluate(latency=False)
    return session


def test_on_the_depthwise_net_equalization_comes_before_training(depthwise: qx.Session) -> None:
    made = depthwise.advice()
    order = [one.recipe for one in made if one.phase == "win"]
    assert order[0] == "equalization"
    assert order.index("equalization") < order.index("train")
    one = made.of("equalization")
    assert one is not None
    assert one.now
    assert one.reasons[0].path == "block3.depthwise"
    ratio = re.search(r"has (\S+) times the range", one.reasons[0].text)
    assert ratio is not None
    assert float(ratio[1]) > 8
    lost = depthwise.last_evaluation
    assert lost is not None
    ptq = lost["ptq"].metric
    assert ptq is not None
    assert f"{ptq.value:.1%}" in one.reasons[-1].text
    assert "540 samples" in one.reasons[-1].text


def test_seconds_come_from_what_was_timed(depthwise: qx.Session) -> None:
    cost = depthwise.advice().of("equalization").cost  # type: ignore[union-attr]
    known = depthwise._assessor.known.values()
    slowest = max(value.seconds for value in known)
    batches = len(depthwise.data.eval)  # type: ignore[arg-type, union-attr]
    assert cost.passes == batches + 8  # evaluated once more, and calibrated
    assert cost.seconds == pytest.approx(cost.passes * slowest / batches)
    assert f"for {batches} batches" in cost.basis


def test_equalized_it_is_taken_home(depthwise: qx.Session) -> None:
    try:
        found = depthwise.cure("equalization")
        depthwise.goto(depthwise.flow.prepared_stage)
        depthwise.check()
        depthwise.evaluate(latency=False)
        made = depthwise.advice()
        assert [one.recipe for one in made] == ["take_home"]
        assert f"{found.after.value:.1%}" in made[0].reasons[0].text
        assert made[0].next.code == "session.calibrate()"
        assert made[0].first == "session.calibrate()"
    finally:
        depthwise.undo_cure()


def test_from_the_float_stage_on_each_step_is_the_first_proposal() -> None:
    session = session_of(usual(), "fx", qconfig="onednn")
    done = []
    for _ in range(3):
        one = session.advice()[0].next
        done.append(one.code)
        one.apply(session)
    prepared = f"session.goto({session.flow.prepared_stage!r})"
    assert done == ["session.check()", prepared, "session.evaluate()"]
    assert not [one for one in session.advice() if one.phase == "measure"]


def test_it_runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    session = small(conv_pair(64.0))

    def forward(*_: object, **__: object) -> None:
        raise AssertionError("the model ran")

    for module in (session._models.base, session._models.work):
        monkeypatch.setattr(module, "forward", forward)
    assert session.advice()


def test_what_is_tolerated_can_be_said() -> None:
    session = small()
    facts = facts_of(session, metrics=values(float=0.9, ptq=0.88))
    assert advise(facts).of("train") is not None
    assert advise(facts).tolerated == pytest.approx(0.009)
    session._assessor._float = values(float=0.9)["float"]
    session._assessor._ptq = (session._models.work, values(ptq=0.88)["ptq"])
    assert session.advice(tolerated=0.05).of("take_home") is not None
    assert "(5 % of float)" in session.advice(tolerated=0.05)[-1].reasons[0].text
    with pytest.raises(InputError, match="tolerated is -1"):
        session.advice(tolerated=-1)


def test_after_a_cure_what_it_measured_is_known() -> None:
    session = small()
    found = session.cure("biases", batches=2)
    facts = facts_of(session)
    assert facts.cured == (found,)
    assert facts.form == "fake_quant"
    assert facts.metrics["fake_quant"] == found.after
    found = session.cure("ranges", activation="min-max")
    assert facts_of(session).metrics["ptq"] == found.after


def test_as_text_as_a_table_and_in_a_notebook() -> None:
    made = advise(facts_of(small(conv_pair(64.0)), metrics=values(float=0.9, ptq=0.5)))
    assert len(repr(made).splitlines()) <= 20
    assert repr(made).startswith(f"Advice for Chain at stage 'train': {len(made)} proposals")
    assert "accuracy on 500 samples: float 90.0%" in repr(made)
    table = made.to_pandas()
    assert list(table["recipe"]) == [one.recipe for one in made]
    assert table["seconds"].dtype == "float64"
    page = made._repr_html_()
    assert page.count("<tr>") == len(made) + 1
    assert "session.cure(&quot;equalization&quot;)" in page
    assert made[0] in made
    assert made[:2] == made.proposals[:2]
    assert repr(Advice("Net", "float")) == "Advice for Net at stage 'float': 0 proposals"


def test_every_recipe_is_in_the_document() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "advice.md").read_text()
    rows = re.findall(r"^\| (`.*?`) \|", text, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(RECIPES)
