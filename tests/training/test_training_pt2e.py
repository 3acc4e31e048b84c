"""An exported model trains as torchao's own does, is watched, stopped and gone on with."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

import qatexplorer as qx
from qatexplorer.quantizers.facts import kinds_of
from qatexplorer.runs.config import TrainingConfig
from qatexplorer.telemetry.watched import find_watched
from qatexplorer.telemetry.weights import FollowedWeights
from qatexplorer.training.modes import train_mode
from qatexplorer.training.run import TrainingRun
from tests.support.pt2e_runs import Normed, plain, prepared_by_torchao, session
from tests.support.training_models import batches, data, one_thread, same, state  # noqa: F401


def losses(run: Any) -> list[float]:
    return [step.loss for step in run.history.steps]


@pytest.fixture(scope="module")
def normed() -> qx.Session:
    one = session(Normed)
    one.goto("train")
    return one


def test_training_is_the_plain_loop_on_what_torchao_prepares() -> None:
    train, _ = data(3)
    by_hand = prepared_by_torchao(plain(), train[0][0])
    optimizer = torch.optim.Adam(by_hand.parameters(), lr=1e-3)
    found = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for x, y in train:
            optimizer.zero_grad()
            loss = F.cross_entropy(by_hand(x), y)
            loss.backward()
            optimizer.step()
            found.append(loss.item())
    mine = session()
    run = mine.train(1, progress=False)
    assert losses(run) == found
    assert same(state(by_hand), state(mine.copy_model("train")))


def test_frozen_observers_and_batch_norms_stand_still() -> None:
    one = session(Normed)
    one.train(1, progress=False, freeze_observer_epoch=0, freeze_bn_epoch=0)
    trained = one.copy_model("train")
    fresh = plain(Normed)
    for norm in ("bn", "own"):
        for name in ("running_mean", "running_var"):
            assert torch.equal(
                trained.get_buffer(f"{norm}.{name}"), fresh.get_buffer(f"{norm}.{name}")
            )
    assert not torch.equal(trained.get_parameter("bn.weight"), fresh.get_parameter("bn.weight"))
    assert one.run is not None
    assert one.run.history.epochs[-1].bn_frozen
    # The next run says anew whether they are frozen.
    one.train(1, progress=False, freeze_observer_epoch=None, freeze_bn_epoch=None)
    moved = one.copy_model("train").get_buffer("bn.running_mean")
    assert not torch.equal(moved, fresh.get_buffer("bn.running_mean"))


def test_frozen_batch_norms_are_in_eval_mode_in_the_graph(normed: qx.Session) -> None:
    model = normed.copy_model("train")
    assert isinstance(model, fx.GraphModule)

    def modes() -> set[bool]:
        nodes = [n for n in model.graph.nodes if "batch_norm" in str(n.target)]
        assert len(nodes) == 2
        return {n.args[5] for n in nodes}

    train_mode(model, bn_frozen=True)
    assert modes() == {False}
    model.eval()
    model.train()
    assert modes() == {False}
    train_mode(model, bn_frozen=False)
    assert modes() == {True}


def test_telemetry_knows_whose_weight_each_fake_quant_rounds(normed: qx.Session) -> None:
    one = normed
    model = one.copy_model("train")
    infos = {w.info.path: w for w in find_watched(model, None)}
    weights = {w.info.owner: w for w in infos.values() if w.info.kind == "weight"}
    assert {path: w.info.owner_type for path, w in weights.items()} == {
        "conv": "Conv2d",
        "fc": "Linear",
    }
    sites = {site.path: site.kind for site in one.snapshot.sites}
    assert {path: kinds_of(model)[path] for path in sites} == sites
    run = one.train(1, progress=False, telemetry_every=1, oscillation="every step")
    telemetry = run.history.telemetry
    assert telemetry is not None
    path = weights["conv"].info.path
    rows = telemetry.samples(path)
    assert [row.step for row in rows] == [0, 1, 2]
    assert rows[-1].bn_frozen is False
    assert rows[-1].histogram is not None
    assert sum(rows[-1].histogram.counts) == 36  # of every weight of the convolution


def test_weights_scaled_by_a_batch_norm_are_frozen(normed: qx.Session) -> None:
    model = normed.copy_model("train")
    path = next(w.info.path for w in find_watched(model, None) if w.info.owner == "conv")
    follower = FollowedWeights(model, [path], freezing=0.5)
    follower.begin_epoch()
    x, y = batches()[0]
    with follower.watching():
        loss = F.cross_entropy(model(x), y)
    loss.backward()
    follower.update(0)
    followed = follower.weights[0]
    weight, norm = followed.source()
    assert weight is model.get_parameter("conv.weight")
    assert norm.running_var is model.get_buffer("bn.running_var")
    followed.state["frozen"][:] = True
    with torch.no_grad():
        weight.add_(0.01)  # a step
    follower.hold()
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    codes = weight * scale.reshape(-1, 1, 1, 1) / followed.fake_quant.scale.reshape(-1, 1, 1, 1)
    assert torch.allclose(codes, followed.state["held"], atol=1e-3)


def test_watching_a_loop_of_ones_own_changes_nothing() -> None:
    """As ExecuTorch's ``train_fn`` is called: with the prepared GraphModule alone."""
    seen: list[qx.Watch] = []

    def train_fn(model: nn.Module, watched: bool = True) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        watch = qx.watch(model, every=1).start() if watched else None
        for x, y in batches(3):
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
            if watch is not None:
                watch.step()
        if watch is not None:
            watch.close()
            seen.append(watch)

    models = [prepared_by_torchao(plain(), batches()[0][0]) for _ in range(2)]
    for watched, model in zip((True, False), models, strict=True):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            train_fn(model, watched)
    assert same(state(models[0]), state(models[1]))
    telemetry = seen[0].telemetry
    owners = {info.owner for info in telemetry.infos if info.kind == "weight"}
    assert owners == {"conv", "mix", "fc"}
    assert all(len(telemetry.samples(info.path)) == 3 for info in telemetry.infos)


def test_a_killed_run_goes_on_in_another_session_bit_for_bit(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"epochs": 2, "ema_decay": 0.9, "scheduler": "linear"}
    whole = session(quantizer="arm").train(progress=False, **settings)
    path, killed = tmp_path / "run", tmp_path / "killed"
    calls = 0

    def loss(output: Tensor, target: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 5:  # what lies on the disk when the process is killed in this step
            shutil.copytree(path, killed)
        return F.cross_entropy(output, target)

    first = session(quantizer="arm", loss=loss)
    first.train(progress=False, run_dir=path, checkpoint_every=2, **settings)
    second = session()
    run = second.resume(killed, background=False)
    assert second.options.quantizer == "arm"  # as the run had it
    assert losses(run) == losses(whole)
    assert qx.open_run(killed).state == "finished"


def test_a_quantizer_of_ones_own_must_be_brought_again(tmp_path: Path) -> None:
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    def quantizer() -> Any:
        config = x86.get_default_x86_inductor_quantization_config(is_qat=True)
        return x86.X86InductorQuantizer().set_module_type_qconfig(nn.Linear, config)

    session(quantizer=quantizer()).train(1, progress=False, run_dir=tmp_path / "a")
    with pytest.raises(qx.errors.RunFolderError, match="a quantizer of its own") as raised:
        session().resume(tmp_path / "a", background=False, epochs=2)
    assert "quantizer=" in raised.value.fix
    run = session(quantizer=quantizer()).resume(tmp_path / "a", background=False, epochs=2)
    assert run.state == "finished"


@pytest.mark.parametrize(("gamma", "fails"), [(0.0, True), (1e-2, False)])
def test_a_step_that_diverges_names_the_users_module(
    normed: qx.Session, gamma: float, fails: bool
) -> None:
    one = normed.copy_model("train")
    with torch.no_grad():
        one.get_parameter("bn.weight").fill_(gamma)
    run = TrainingRun(one, data(1), TrainingConfig(epochs=1))
    run.run()
    assert (run.error is not None) == fails
    if isinstance(run.error, qx.errors.DivergedError):
        assert run.error.where == "conv"
        assert "prepare_qat_pt2e divides by gamma" in run.error.why


def test_a_weight_that_is_infinite_is_found_in_the_users_module() -> None:
    one = session()
    one.goto("train")
    with torch.no_grad():
        one.model.get_parameter("fc.bias").fill_(float("inf"))
    with pytest.raises(qx.errors.DivergedError) as raised:
        one.train(1, progress=False)
    assert raised.value.where == "fc"
