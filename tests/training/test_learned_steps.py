"""Step sizes that training learns (torch's ``_LearnableFakeQuantize``) in all that a run can do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.flows.quant_spec import QuantSpec
from tests.support.training_models import SmallNet, batches, data, one_thread, same  # noqa: F401

pytestmark = pytest.mark.usefixtures("one_thread")

KIND = "_LearnableFakeQuantize"
WEIGHT = QuantSpec(signed=True, scheme="symmetric", per_channel=True, fake_quant=KIND)
FLOWS = ("eager", "fx")


def session_of(flow: str) -> qx.Session:
    torch.manual_seed(0)
    session = qx.Session(
        SmallNet().train(), batches(1)[0][0], flow=flow, qconfig="onednn", data=data(4)
    )
    session.set_qconfig("", weight=WEIGHT, activation=QuantSpec(fake_quant=KIND))
    return session


def learned(model: nn.Module) -> list[Any]:
    return [m for m in model.modules() if type(m).__name__ == KIND]


def state_of(session: qx.Session) -> dict[str, torch.Tensor]:
    return session.copy_model(session.flow.train_stage).state_dict()


@pytest.mark.parametrize("flow", FLOWS)
def test_a_run_that_was_stopped_goes_on_bit_for_bit(flow: str, tmp_path: Path) -> None:
    whole = session_of(flow)
    whole.train(3, lr=1e-2, progress=False)
    first = session_of(flow)
    first.train(1, lr=1e-2, progress=False, run_dir=tmp_path / "run")
    again = session_of(flow)
    again.resume(tmp_path / "run", epochs=3, background=False)
    assert same(state_of(again), state_of(whole))
    assert learned(again.model)


def test_before_fake_quants_round_nothing_is_learned() -> None:
    session = session_of("eager")
    session.goto(session.flow.train_stage)
    sites = learned(session.model)
    flags: list[set[tuple[int, int]]] = []

    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        flags.append({(int(s.fake_quant_enabled[0]), int(s.learning_enabled[0])) for s in sites})
        return nn.functional.cross_entropy(output, target)

    session.loss = loss
    session.train(2, lr=1e-2, progress=False, fake_quant_start_epoch=1)
    assert flags[:4] == [{(0, 0)}] * 4
    assert flags[-1] == {(1, 1)}


def test_averaged_weights_have_averaged_step_sizes() -> None:
    """The average is over parameters, and a learned scale is one."""
    plain, averaged = session_of("eager"), session_of("eager")
    plain.train(2, lr=1e-2, progress=False)
    averaged.train(2, lr=1e-2, progress=False, ema_decay=0.9)
    pairs = list(zip(learned(plain.model), learned(averaged.model), strict=True))
    assert any(not torch.equal(a.scale, b.scale) for a, b in pairs)
    assert all(bool((b.scale > 0).all()) for _, b in pairs)


def test_snapshot_and_telemetry_show_the_scale_that_was_learned() -> None:
    session = session_of("eager")
    run = session.train(2, lr=1e-2, progress=False, telemetry_every=1)
    for site in session.snapshot.sites:
        module: Any = session.model.get_submodule(site.path)
        assert site.fake_quant_class == KIND
        assert site.scale == tuple(module.scale.detach().reshape(-1).tolist())
    assert run.telemetry is not None
    found = run.telemetry.to_pandas()
    last = found[found["step"] == found["step"].max()]
    by_path = {row.path: row for row in last.itertuples()}
    for path, row in by_path.items():
        scale: Any = session.model.get_submodule(path).scale
        if scale.numel() == 1:
            assert row.scale_median == pytest.approx(float(scale), rel=0.2)
