"""What is said of a model's int8 tensors is what torch does: on models of every kind, eager int8
stops exactly where an operation or an entry is named."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from typing import Any

import pytest
import torch

import qatexplorer as qx
from qatexplorer.checks.evidence import int8_ops
from qatexplorer.checks.evidence.int8_flow import int8_flow
from qatexplorer.checks.rules import RULES
from qatexplorer.checks.run import check
from qatexplorer.quantizers.engine import available_engines
from qatexplorer.session.known import Trial
from tests.cases.models import ChangeDetector, Yolo
from tests.checks.examples_operations import EAGER, REFUSED
from tests.support.models import NARROW_RESNET, SMALL, TIMM, Case
from tests.support.models_fx import TRANSFORMERS, WHOLE_TRANSFORMERS, WRITTEN

CASES = {case.name: case for case in (*SMALL, *WRITTEN)}
NO_INT8 = ("attending",)
"""torch's prepare refuses it: that is for another rule to say."""


def tried(session: qx.Session) -> Trial:
    session._known.try_int8(nullcontext(), lambda: True, thorough=False)
    trial = session._known._known(())
    assert trial is not None
    return trial


def agrees(model: Any, inputs: Any, stubs: Any, *, places: bool = True) -> None:
    session = qx.Session(model.train(), inputs, flow="eager", stubs=stubs)
    session.warns = False
    trial = tried(session)
    subject = session._checks._subject(None)
    found = check(subject, rules=[RULES["QX201"], RULES["QX202"]], strict=True)
    assert not found.skipped
    stopped = trial.prepared and not trial.flight.ok
    unmarked = session._known._needs_stub()  # no-stub says it
    assert bool(found) == (stopped and not unmarked), (found, trial.flight.error)
    if places and found and trial.flight.error is not None and trial.flight.error.where is not None:
        # torch stops at one of the places named.
        where = trial.flight.error.where
        if stubs == "model":
            where = where.removeprefix("module").removeprefix(".")
        assert any(where.startswith(one.path) for one in found), (where, found)
    assert max(Counter(one.key for one in found).values(), default=1) == 1


@pytest.mark.parametrize("stubs", ["none", "model", "layers"])
@pytest.mark.parametrize("name", [name for name in CASES if name not in NO_INT8])
def test_what_is_named_is_what_stops_int8(name: str, stubs: str) -> None:
    agrees(*CASES[name].make(), stubs)


def long(*cases: Case) -> list[Any]:
    return [pytest.param(case, marks=pytest.mark.long) for case in cases]


@pytest.mark.slow
@pytest.mark.parametrize("stubs", ["model", "layers"])
@pytest.mark.parametrize(
    "case", [NARROW_RESNET, *TRANSFORMERS, *long(*TIMM)], ids=lambda case: case.name
)
def test_larger_models(case: Any, stubs: str) -> None:
    model, inputs = case.make()
    if case.name == "transformers_vit" and stubs == "layers":
        pytest.skip("its code reads a weight through the wrapper, which no tensor can show")
    # Of whole transformers torch stops before, at token ids in a stub or at a weight that is read.
    agrees(model, inputs, stubs, places=case not in WHOLE_TRANSFORMERS)


def test_the_shared_activation_of_a_detector() -> None:
    session = qx.Session(Yolo().train(), (torch.rand(2, 3, 16, 16),), flow="eager", stubs="model")
    session.warns = False
    (found,) = session.check().with_id("QX201")
    assert found.path == "stem.act"
    assert "nn.SiLU (silu) gets int8 tensors, 5 times in one forward under 5 names" in found.message
    assert "aten::silu" in found.message
    (refused,) = session._checks._subject(None).get(int8_flow).refused
    names = [f"{path}.act" for path in ("stem", "block.cv1", "block.m.0", "block.cv2", "down")]
    assert refused.names == names


def test_two_images_in_one_wrapper_have_a_stub_each() -> None:
    pictures = torch.rand(4, 1, 8, 8), torch.rand(4, 1, 8, 8) * 30
    session = qx.Session(ChangeDetector().train(), pictures, flow="eager", stubs="model")
    session.warns = False
    found = session.check()
    assert not any(found.with_id(rule) for rule in ("QX201", "QX202", "QX907", "QX908"))
    assert "before, after can be quantized, each with a stub and scale" in str(
        [one.message for one in found.with_id("QX213")]
    )
    (shared,) = found.with_id("QX206")  # the layer that both go through has one
    assert shared.path == "shared.0"


@pytest.mark.parametrize("engine", available_engines())
@pytest.mark.parametrize("name", REFUSED)
def test_every_engine(name: str, engine: str) -> None:
    for make in REFUSED[name][:2]:
        model, inputs = make()
        session = qx.Session(model, inputs, flow="eager", qconfig=engine)
        session.warns = False
        found = check(session._checks._subject(None), rules=[RULES["QX201"]], strict=True)
        assert bool(found) != tried(session).good


class Sums(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) + x


def test_a_line_that_several_modules_run_is_one_finding() -> None:
    model, x = torch.nn.Sequential(*(Sums() for _ in range(5))), torch.rand(3, 4)
    session = qx.Session(model.train(), (x,), flow="eager", stubs="model")
    session.warns = False
    (found,) = session.check().with_id("QX201")
    assert found.path == "0"
    assert "add gets int8 tensors, 5 times in one forward (in 0, 1, 2 and 2 more)" in found.message


def test_an_operation_is_tried_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[str] = []
    tried_before = int8_ops._tried

    def counted(operation: Any, grids: Any, engine: str) -> Any:
        tries.append(operation.name)
        return tried_before(operation, grids, engine)

    monkeypatch.setattr(int8_ops, "_tried", counted)
    monkeypatch.setattr(int8_ops, "_KNOWN", {})
    for _ in range(2):
        model, inputs = REFUSED["add"][0]()
        session = qx.Session(model, inputs, **EAGER)
        session._checks._subject(None).get(int8_flow)
    assert tries == ["add"]


def test_trying_draws_nothing_and_leaves_the_engine() -> None:
    model, inputs = REFUSED["softmax"][0]()
    session = qx.Session(model, inputs, **EAGER)
    subject = session._checks._subject(None)
    rng, engine = torch.get_rng_state(), torch.backends.quantized.engine
    int8_ops._KNOWN.clear()
    assert subject.get(int8_flow).refused
    assert torch.equal(torch.get_rng_state(), rng)
    assert torch.backends.quantized.engine == engine
