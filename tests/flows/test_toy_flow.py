"""A flow is one file: what the package shows of one follows from its stages and their roles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import qatexplorer as qx
from qatexplorer.flows import FLOWS
from qatexplorer.migration.pairs import paired
from qatexplorer.views.inspector.page import inspect_html
from qatexplorer.views.tree import build_tree
from tests.support.waiting import until

STAGES = ("begin", "make", "place", "learn", "finish")
OTHERS = {"fuse", "propagate", "swap", "insert", "train", "convert", "trace", "lower"}


@pytest.fixture(autouse=True)
def toy() -> Iterator[None]:
    from tests.support.toy_flow import ToyFlow

    qx.flows.register(ToyFlow)
    yield
    FLOWS.pop("toy")


def make(flow: str = "toy") -> qx.Session:
    example = qx.zoo.load("digits_cnn")
    return qx.Session(example.model, example.example_inputs, data=example.data, flow=flow)


def test_from_float_to_int8_as_in_eager_mode(tmp_path: Path) -> None:
    outputs = []
    for flow in ("toy", "eager"):
        session = make(flow)
        session.train(epochs=1, run_dir=tmp_path / flow)
        session.goto(session.stages[-1])
        outputs.append(session.int8(*session.options.example_inputs))
    assert torch.equal(*outputs)
    assert qx.open_run(tmp_path / "toy").state == "finished"


def test_the_session_knows_the_stages_by_role() -> None:
    session = make()
    assert session.stages == STAGES
    for stage in STAGES[1:]:
        session.step()
        assert session.stage == stage
    assert session.diff_at("make").swapped  # type: ignore[union-attr]
    made = session.diff_at("place").sites_added  # type: ignore[union-attr]
    assert {site.kind for site in made} == {"input", "output"}
    assert {site.stage for site in made} == {"place"}
    assert {site.call for site in made} == {"toy.place(model)"}
    assert session.snapshot.role == "int8"
    assert any("No observer has seen data" in note for note in session.snapshot.notes)
    session.goto("place")
    session.calibrate(1)
    assert session.stage == "learn"
    assert list(session.evaluate(latency=False)) == ["float", "ptq", "fake_quant", "int8"]
    assert session.preflight().ok


def test_ledger_answers_and_both_flows() -> None:
    session = make()
    session.goto("learn")
    session.calibrate(2)
    ledger = session.ledger()
    assert {row.stage for row in ledger.sites} == {"make", "place"}
    reported = {answer.key: answer.text for answer in session.answers()}
    assert len(reported) == 7
    weights = sum(row.kind == "weight" for row in ledger.sites)
    assert (
        f"convert swapped {weights} modules here and made {weights} fake quants"
        in (reported["three_calls"])
    )
    assert "DigitsCNN" not in reported["two_converts"]
    assert "qat" in reported["two_converts"]
    assert paired(session, session.in_other_flow())


def test_pages_speak_of_its_own_stages_only() -> None:
    session = make()
    session.goto("finish")
    weight = "conv1.weight_fake_quant"
    for stage in STAGES:
        for selection in (f"site:{weight}", "module:conv1", "module:fc", "module:"):
            page = inspect_html(session.snapshots, stage, selection)
            found = {name for name in OTHERS if f">{name}<" in page or f"“{name}”" in page}
            assert not found, (stage, selection)
    site = inspect_html(session.snapshots, "place", f"site:{weight}")
    assert "in stage “make” by" in site
    assert "toy.make(model)" in site
    strip = inspect_html(session.snapshots, "finish", "module:conv1")
    assert "since stage “finish”, put there by <code>toy.finish(model)</code>" in strip
    rows = build_tree(session.snapshots["make"], session.diff_at("make"))
    assert not any(row["float"] for row in rows), "not all fake quants are in yet"
    assert any(row["what"] == ["type", "qconfig", "fake quant"] for row in rows)
    converted = build_tree(session.snapshot, session.diff)
    assert any(row["int8"] for row in converted)


def test_the_explorer_steps_through_it() -> None:
    example = qx.zoo.load("digits_cnn")
    explorer = qx.explore(example.model, example.example_inputs, data=example.data, flow="toy")
    assert explorer.settings.flow.value == "toy"
    for stage in STAGES[1:]:
        explorer._on_action("next", "")
        until(lambda: explorer.jobs.current is None)
        assert explorer.message.html == ""
        assert explorer.session is not None
        assert explorer.session.stage == stage
        assert next(e for e in explorer.bar.stages if e["state"] == "current")["name"] == stage
        assert explorer.panes.graph.scene["stage"] == stage
        assert explorer.panes.tree.rows
    explorer.select("site:conv1.weight_fake_quant")
    assert "toy.make(model)" in explorer.panes.inspector.details.html


def test_roles_that_every_flow_has_are_asked_for() -> None:
    from qatexplorer.flows.eager import EagerFlow

    class NoInt8(EagerFlow):
        name = "no_int8"
        stages = EagerFlow.stages[:-1]

    class Backwards(EagerFlow):
        name = "backwards"
        stages = EagerFlow.stages[::-1]

    class Namesake(EagerFlow):
        pass

    for flow in (NoInt8, Backwards, Namesake):
        with pytest.raises(qx.errors.InputError):
            qx.flows.register(flow)
    assert {"eager", "fx", "toy"} <= set(FLOWS)
    assert not {"no_int8", "backwards", "namesake"} & set(FLOWS)
