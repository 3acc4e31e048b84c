"""What all cures have in common: progress, stopping, what is in force, and what is refused."""

from __future__ import annotations

import pytest
import torch

import qatexplorer as qx
from qatexplorer.cures import CURES
from qatexplorer.errors import BusyError, NoDataError, StoppedError
from tests.cases.models import assert_untouched, state_of
from tests.cures.nets import FLOWS, SETTINGS, session_of, usual, work_of


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("name", CURES)
def test_progress_goes_up_to_one_and_the_users_model_stays(name: str, flow: str) -> None:
    model = usual()
    before = state_of(model)
    session = session_of(model, flow)
    session.calibrate(2)
    said: list[tuple[str, float]] = []
    torch.manual_seed(5)
    random = torch.get_rng_state()
    found = session.cure(
        name, progress=lambda what, share: said.append((what, share)), **SETTINGS[name]
    )
    assert torch.equal(torch.get_rng_state(), random)
    shares = [share for _, share in said]
    assert shares == sorted(shares)
    assert shares[0] == 0.0
    assert shares[-1] == 1.0
    assert all(what for what, _ in said)
    assert found.settings == SETTINGS[name]
    assert found.changes
    assert found.before.name == "accuracy"
    assert found.before.samples == found.after.samples == 16
    assert session.cured == (found,)
    assert_untouched(model, before)


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("name", SETTINGS)
def test_stopped_it_leaves_all_as_it_was(name: str, flow: str) -> None:
    session = session_of(usual(), flow)
    session.calibrate(2)
    session.goto(session.flow.int8_stage)
    before, script = work_of(session).state_dict(), session.script()
    asked: list[int] = []
    whole = session_of(usual(), flow)
    whole.calibrate(2)
    whole.cure(name, should_stop=lambda: bool(asked.append(1)), **SETTINGS[name])
    # At the last question, when all has been changed, and then at those that are left: what is
    # measured of the model as it was is known by then.
    for at in (len(asked), 2, 1):
        left = iter([False] * (at - 1))
        with pytest.raises(StoppedError):
            session.cure(name, should_stop=lambda left=left: next(left, True), **SETTINGS[name])
        assert session.cured == ()
        assert session.script() == script
        after = work_of(session).state_dict()
        assert all(torch.equal(before[key], after[key]) for key in before)
    session.cure(name, **SETTINGS[name])  # nothing stands in its way


def test_one_after_the_other_they_are_taken_back_in_turn() -> None:
    session = session_of(usual(), "fx")
    session.cure("ranges", activation="min-max")
    session.cure("equalization")
    session.calibrate(2)
    session.cure("biases")
    assert [one.name for one in session.cured] == ["ranges", "equalization", "biases"]
    session.undo_cure()
    session.undo_cure()
    assert session.edits == ()
    assert len(session.qconfig_rules) == 1
    session.undo_cure()
    assert session.cured == ()
    assert session.qconfig_rules == ()


def test_what_training_has_gone_on_from_is_not_taken_back() -> None:
    session = session_of(usual(), "fx")
    session.calibrate(2)
    session.cure("biases")
    session.train(1, progress=False)
    assert session.cured == ()


def test_they_need_data_and_a_model_that_nothing_else_uses() -> None:
    session = qx.Session(usual(), (torch.randn(2, 1, 8, 8),), flow="fx")
    assert {one.name for one in session.cures if one.applies} == {"equalization", "ranges"}
    with pytest.raises(NoDataError):
        session.cure("equalization")
    busy = session_of(usual(), "fx")
    run = busy.start_training(200)
    try:
        with pytest.raises(BusyError):
            busy.cure("ranges", activation="min-max")
    finally:
        run.stop()
        run.wait()
