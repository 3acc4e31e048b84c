"""Sweeps over settings of training: from one start, kept, resumed, in processes, applied."""

from __future__ import annotations

import json
import pickle
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.errors import BusyError, InputError, NoDataError, QConfigError
from qatexplorer.flows.quant_spec import LEARNED
from qatexplorer.session import sweep_part
from qatexplorer.training.sweep import Sweep
from qatexplorer.training.trials import trials
from tests.support.training_models import SmallNet, batches, data, one_thread, same  # noqa: F401

OVER: dict[str, Any] = {"freeze_observer_epoch": (0, None), "freeze_bn_epoch": (1, None)}


def session_of(flow: str = "eager", **more: Any) -> qx.Session:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"qconfig": "onednn", "data": data(2), **more}
    session = qx.Session(SmallNet().train(), batches(1)[0][0], flow=flow, **settings)
    session.calibrate(1)
    return session


def state_of(session: qx.Session) -> dict[str, torch.Tensor]:
    return session.copy_model(session.flow.train_stage).state_dict()


def test_each_combination_is_what_a_training_of_the_session_gives(tmp_path: Path) -> None:
    session = session_of()
    before, seen = state_of(session), []
    found = session.sweep(
        OVER,
        seeds=(0, 1),
        epochs=2,
        lr=1e-2,
        folder=tmp_path,
        progress=lambda what, share: seen.append((what, share)),
    )
    assert same(state_of(session), before)
    assert session.run is None
    assert found.complete
    assert found.trainings == 8
    assert [dict(row.settings) for row in found.rows] == [
        {"freeze_observer_epoch": a, "freeze_bn_epoch": b} for a in (0, None) for b in (1, None)
    ]
    for row in found.rows[:2]:
        for seed, metric, loss in zip(row.seeds, row.metrics, row.losses, strict=True):
            alone = session_of()
            alone.train(2, lr=1e-2, seed=seed, progress=False, **row.settings)
            assert alone.run is not None
            last = alone.run.history.epochs[-1]
            assert (last.metric, last.train_loss) == (metric, loss)
    assert seen[0] == ("0 of 8 trainings done", 0.0)
    assert seen[-1][1] == 1.0
    assert "s left" in seen[3][0]
    table = found.to_pandas()
    assert list(table.columns) == [*OVER, "mean", "spread", "seeds", "seconds"]
    assert table.freeze_bn_epoch.tolist() == ["1", "never"] * 2
    row = found.rows[0]
    assert table["mean"][0] == statistics.fmean(m for m in row.metrics if m is not None)
    assert found.best.mean == max(table["mean"])
    assert "Sweep of 8 trainings" in repr(found)


def test_a_sweep_that_was_cut_short_goes_on_and_trains_nothing_twice(tmp_path: Path) -> None:
    session, asked = session_of(), []

    def stop() -> bool:
        asked.append(len(list(tmp_path.glob("*.json"))))
        return asked[-1] >= 2

    first = session.sweep(OVER, seeds=(0,), epochs=1, folder=tmp_path, should_stop=stop)
    assert not first.complete
    kept = {path: path.read_text() for path in tmp_path.glob("*.json")}
    assert 2 <= len(kept) < 4
    second = session_of().sweep(OVER, seeds=(0,), epochs=1, folder=tmp_path)
    assert second.complete
    assert all(path.read_text() == text for path, text in kept.items())
    assert [r.metrics for r in second.rows if r in first.rows] == [r.metrics for r in first.rows]
    # Another model is another key: nothing of the folder is taken for it.
    other = session_of()
    other.train(1, progress=False)
    other.sweep({"freeze_bn_epoch": (None,)}, seeds=(0,), epochs=1, folder=tmp_path)
    assert len(list(tmp_path.glob("*.json"))) == 5
    starts = {json.loads(p.read_text())["key"]["start"] for p in tmp_path.glob("*.json")}
    assert len(starts) == 2


@pytest.mark.parametrize("flow", ["eager", "fx"])
def test_learned_step_sizes_beside_moving_averages(flow: str) -> None:
    session = session_of(flow)
    found = session.sweep(
        {"quantizers": ("moving average", "learned")}, seeds=(0, 1), epochs=2, lr=1e-2
    )
    assert [row.settings["quantizers"] for row in found.rows] == ["moving average", "learned"]
    for row in found.rows:
        alone = session_of(flow)
        if row.settings["quantizers"] == "learned":
            whole = alone.qconfig_at()
            assert whole.weight is not None
            assert whole.activation is not None
            alone.set_qconfig(
                "",
                activation=_learned(whole.activation),
                weight=_learned(whole.weight),
            )
        else:
            alone.configure(qconfig="onednn")
        alone.goto("float")
        alone.train(2, lr=1e-2, seed=1, progress=False)
        assert alone.run is not None
        assert row.losses[1] == alone.run.history.epochs[-1].train_loss
    assert found.rows[0].losses != found.rows[1].losses
    assert found.float_metric is not None
    assert found.before is not None
    assert not session.qconfig_rules


def _learned(spec: Any) -> Any:
    return replace(spec, fake_quant=LEARNED)


def test_apply_trains_the_session_s_own_model_with_the_best() -> None:
    session = session_of()
    found = session.sweep({"lr": (1e-2, 1e-5)}, seeds=(3, 4), epochs=2, apply=True)
    assert session.run is not None
    assert session.run.config.lr == found.best.settings["lr"]
    assert session.run.config.seed == 3
    assert session.run.history.epochs[-1].metric == found.best.metrics[0]
    assert f"lr={found.best.settings['lr']!r}" in session.script()


def test_what_goes_to_a_process_gives_the_same_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent is read back here: trials are tried in processes where they are defined."""
    sent: list[int] = []

    def here(jobs: Any, run: Any, folder: Any, processes: int, **more: Any) -> Any:
        sent.append(processes)
        return trials(jobs, pickle.loads(pickle.dumps(run)), folder, 1, **more)

    for flow in ("eager", "fx"):
        session = session_of(flow)
        alone = session.sweep({"lr": (1e-2, 1e-3)}, seeds=(0,), epochs=1)
        with monkeypatch.context() as patched:
            patched.setattr(sweep_part, "trials", here)
            apart = session.sweep({"lr": (1e-2, 1e-3)}, seeds=(0,), epochs=1, processes=2)
        assert [r.losses for r in apart.rows] == [r.losses for r in alone.rows]
    assert sent == [2, 2]


def test_a_training_that_diverges_is_a_row_without_a_metric() -> None:
    found = session_of().sweep({"lr": (1e-2, 1e30)}, seeds=(0,), epochs=3, optimizer="sgd")
    assert [row.mean is None for row in found.rows] == [False, True]
    assert found.best is found.rows[0]
    assert "diverged" in repr(found)


def test_the_best_of_a_metric_that_shall_be_low() -> None:
    def error(output: torch.Tensor, target: torch.Tensor) -> float:
        return float(output.argmax(1).ne(target).float().mean())

    session = session_of(metric=error)
    found = session.sweep({"lr": (2e-2, 1e-7)}, seeds=(0,), epochs=3, metric_mode="min")
    means = [row.mean for row in found.rows]
    assert found.best.mean == min(m for m in means if m is not None)


def test_what_cannot_be_swept_is_refused() -> None:
    session = session_of()
    for over, words in (
        ({"epoch": (1,)}, "'epoch' is nothing to sweep over"),
        ({"seed": (1,)}, "'seed' is nothing to sweep over"),
        ({"lr": ()}, "no value of lr"),
        ({"quantizers": ("other",)}, "no quantizers 'other'"),
        ({"lr": (-1.0,)}, "lr is -1.0"),
    ):
        with pytest.raises(InputError, match=words):
            session.sweep(over)
    with pytest.raises(InputError, match="no seed"):
        session.sweep(OVER, seeds=())
    with pytest.raises(NoDataError):
        qx.Session(SmallNet(), batches(1)[0][0], qconfig="onednn").sweep(OVER)
    own = torch.ao.quantization.QConfig(nn.Identity, nn.Identity)
    with pytest.raises(QConfigError, match="no rule can say"):
        session_with(own).sweep({"quantizers": ("learned",)})
    assert not Sweep((), "accuracy", "max", None, None, 0, True).rows
    with pytest.raises(InputError, match="trained to its end"):
        _ = Sweep((), "accuracy", "max", None, None, 0, True).best


def session_with(qconfig: Any) -> qx.Session:
    return qx.Session(
        nn.Sequential(nn.Linear(4, 4)), torch.randn(2, 4), qconfig=qconfig, data=([], [])
    )


def test_while_it_sweeps_nothing_else_is_begun() -> None:
    session, heard = session_of(), list[str]()

    def during(what: str, share: float) -> None:
        with pytest.raises(BusyError) as caught:
            session.train(1, progress=False)
        heard.append(str(caught.value))

    session.sweep({"lr": (1e-3,)}, seeds=(0,), epochs=1, progress=during)
    assert "a sweep" in heard[0]
    session.train(1, progress=False)
