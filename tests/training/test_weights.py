"""Codes of all weights in every step: measured as published, dampened, frozen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import (
    FakeQuantize,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    QConfig,
    default_fused_act_fake_quant,
)

import qatexplorer as qx
from qatexplorer.errors import InputError
from qatexplorer.quantizers.facts import kinds_of
from qatexplorer.runs.opened import open_run
from qatexplorer.runs.records import TrainingConfig
from qatexplorer.runs.samples import REVERSING
from qatexplorer.telemetry.watched import followed_paths
from qatexplorer.telemetry.weights import FollowedWeights, annealed
from qatexplorer.training.run import TrainingRun
from tests.support.scripts import assert_the_same
from tests.support.training_models import SmallNet, batches, data, one_thread, prepared, same, state  # noqa: F401

PATHS = ("conv.weight_fake_quant", "fc.weight_fake_quant")


def weights_of(bits: int, per_channel: bool) -> Any:
    observer: Any = MovingAverageMinMaxObserver
    scheme = torch.per_tensor_symmetric
    if per_channel:
        observer, scheme = MovingAveragePerChannelMinMaxObserver, torch.per_channel_symmetric
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return FakeQuantize.with_args(
        observer=observer, quant_min=low, quant_max=high, dtype=torch.qint8, qscheme=scheme
    )


def narrow(bits: int = 3, per_channel: bool = False) -> QConfig:
    return QConfig(default_fused_act_fake_quant, weights_of(bits, per_channel))


def published(codes: list[np.ndarray], momentum: float) -> tuple[np.ndarray, np.ndarray]:
    """The rate of reversals after the last of ``codes`` and how many there were, weight by weight:
    the definition as it is written, a loop over the steps."""
    last = codes[0].reshape(-1)
    direction, rate, count = (np.zeros(last.size) for _ in range(3))
    for one in codes:
        step = one.reshape(-1)
        change = np.sign(step - last)
        back = (change != 0) & (change == -direction)
        rate = momentum * back + (1 - momentum) * rate
        count += back
        direction, last = np.where(change != 0, change, direction), step
    return rate, count


@contextmanager
def recorded(model: nn.Module) -> Iterator[dict[str, list[np.ndarray]]]:
    """The codes in each training forward, by path, taken by hooks of the test's own."""
    found: dict[str, list[np.ndarray]] = {}

    def note(path: str, site: Any, args: Any, output: Tensor) -> None:
        if model.training:
            shape = [-1 if d == site.ch_axis else 1 for d in range(output.dim())]
            scale = site.scale if site.scale.numel() == 1 else site.scale.reshape(shape)
            found.setdefault(path, []).append((output.detach() / scale).round().numpy())

    sites = {path: model.get_submodule(path) for path in followed_paths(model)}
    handles = [s.register_forward_hook(partial(note, path)) for path, s in sites.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def unlearnable() -> Any:
    """Classes that are not in the images, so that weights never come to rest."""
    generator = torch.Generator().manual_seed(4)
    many = [
        (torch.rand(8, 1, 8, 8, generator=generator), torch.randint(4, (8,), generator=generator))
        for _ in range(10)
    ]
    return many, many[:2]


def trained(
    model: nn.Module, source: Any = None, **settings: Any
) -> tuple[TrainingRun, dict[str, list[np.ndarray]]]:
    plain: dict[str, Any] = {"epochs": 6, "lr": 5e-2, "telemetry_every": 0}
    with recorded(model) as codes:
        run = TrainingRun(model, source or data(), TrainingConfig(**{**plain, **settings})).run()
    assert run.error is None, run.error.full_text()
    return run, codes


def reversals(codes: dict[str, list[np.ndarray]], since: int = 0) -> int:
    return sum(int(published(of[since:], 0.01)[1].sum()) for of in codes.values())


# -- measured --------------------------------------------------------------------------------------


class OneWeight(nn.Module):
    def __init__(self, fake_quant: Any, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(shape))
        self.weight_fake_quant = fake_quant()

    def forward(self) -> Tensor:
        return self.weight_fake_quant(self.weight)  # type: ignore[no-any-return]


def follow(model: nn.Module, weights: FollowedWeights, step: int) -> None:
    with weights.watching():
        model()
    weights.update(step)
    weights.hold()


def test_a_sequence_counted_by_hand() -> None:
    model = OneWeight(weights_of(4, False), (2,))
    site: Any = model.weight_fake_quant
    site.disable_observer()
    site.scale.fill_(0.5)
    weights = FollowedWeights(model, ["weight_fake_quant"], momentum=0.5)
    weights.begin_epoch()
    rates = []
    # The first goes up, back, stays, goes on back, up again: it reverses in steps 2 and 5. The
    # second is on its way, past the end of the grid, where its code is 7.
    for step, values in enumerate([(0, 5), (1, 6), (0, 7), (0, 9), (-1, 11), (2, 13)]):
        with torch.no_grad():
            model.weight.copy_(torch.tensor(values) * 0.5)
        follow(model, weights, step)
        rates.append(weights.weights[0].state["rate"].tolist())
    assert [rate for rate, _ in rates] == [0, 0, 0.5, 0.25, 0.125, 0.5625]
    assert {rate for _, rate in rates} == {0}
    assert weights.weights[0].state["code"].tolist() == [2, 7]


@pytest.mark.parametrize("per_channel", [False, True])
def test_the_rate_is_that_of_plain_loops(per_channel: bool) -> None:
    torch.manual_seed(0)
    model = OneWeight(weights_of(3, per_channel), (3, 5))
    weights = FollowedWeights(model, ["weight_fake_quant"], momentum=0.1)
    weights.begin_epoch()
    with recorded(model) as codes:
        for step in range(40):
            with torch.no_grad():
                model.weight.add_(torch.randn(3, 5) * 0.3)
            follow(model, weights, step)
    rates, counts = published(codes["weight_fake_quant"], 0.1)
    assert counts.sum() > 30
    assert np.allclose(weights.weights[0].state["rate"].reshape(-1), rates, atol=1e-6)


@pytest.mark.parametrize("bits", [3, 8])
def test_telemetry_has_the_published_measure_beside_ours(bits: int) -> None:
    model = prepared(qconfig=narrow(bits))
    run, codes = trained(model, oscillation="every step", telemetry_every=5)
    telemetry = run.telemetry
    assert telemetry is not None
    table = telemetry.to_pandas()
    seen = table[table.path.isin(PATHS) & (table.step > 0)]
    assert len(seen) == 2 * 7
    for row in seen.itertuples():
        rates, _ = published(codes[row.path][: row.step], 0.01)
        assert row.reversal_rate == pytest.approx(rates.mean(), abs=1e-6)
        assert row.reversing == pytest.approx((rates > REVERSING).mean(), abs=1e-6)
        assert row.frozen == 0
        assert 0 <= row.oscillating <= 1
    assert seen.reversal_rate.max() > 0
    assert table[~table.path.isin(PATHS)].reversal_rate.isna().all()
    overhead = telemetry.overhead
    assert overhead is not None
    assert overhead.followed_steps == 36
    assert 0 < overhead.followed_share < 1


def test_a_watch_has_the_published_measure_too_and_an_evaluation_is_no_step() -> None:
    model, other = prepared(qconfig=narrow(4)), prepared(qconfig=narrow(4))
    looped(other, None)
    with recorded(model) as codes, qx.watch(model, every=3, oscillation="every step") as watch:
        looped(model, watch)
    assert same(state(model), state(other))
    seen = watch.telemetry.to_pandas().dropna(subset=["reversal_rate"])
    assert sorted(set(seen.step)) == [3, 6, 9, 12, 15]
    for row in seen.itertuples():
        rates, _ = published(codes[row.path][: row.step], 0.01)
        assert row.reversal_rate == pytest.approx(rates.mean(), abs=1e-6)
    assert seen.reversal_rate.max() > 0
    overhead = watch.telemetry.overhead
    assert overhead is not None
    assert overhead.followed_steps == 18
    for path in PATHS:
        assert not model.get_submodule(path)._forward_hooks


def looped(model: nn.Module, watch: Any) -> None:
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        for x, y in batches():
            optimizer.zero_grad()
            nn.functional.cross_entropy(model.train()(x), y).backward()
            optimizer.step()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(1.0)
                model.eval()(x)
                for parameter in model.parameters():
                    parameter.sub_(1.0)
            if watch is not None:
                watch.step()


def test_following_changes_no_bit_and_is_not_done_unless_it_is_asked_for() -> None:
    one, two = prepared(), prepared()
    trained(one, oscillation="every step")
    run, _ = trained(two, telemetry_every=5)
    assert same(state(one), state(two))
    assert run.telemetry is not None
    assert run.telemetry.to_pandas().reversal_rate.isna().all()


def test_the_paths_are_those_of_the_weights() -> None:
    model = prepared()
    assert followed_paths(model) == PATHS
    assert [p for p, kind in kinds_of(model).items() if kind == "weight"] == list(PATHS)


# -- dampened and frozen ---------------------------------------------------------------------------


def test_annealing_begins_after_a_quarter_and_ends_at_the_last_step() -> None:
    assert [annealed(0.0, 2.0, step, 101) for step in (0, 25, 100)] == [0.0, 0.0, 2.0]
    half = 25 + 75 / 2
    assert annealed(1.0, 0.0, int(half), 101) == pytest.approx(0.5, abs=0.02)


def test_the_penalty_is_the_formula_and_its_gradient_pulls_to_the_code() -> None:
    model = OneWeight(weights_of(3, False), (4,))
    site: Any = model.weight_fake_quant
    site.disable_observer()
    site.scale.fill_(0.5)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([0.6, -0.1, 1.4, 9.0]))  # the last is clipped
    weights = FollowedWeights(
        model, ["weight_fake_quant"], dampening=3.0, freezing=None, total_steps=5
    )
    weights.begin_epoch()
    with weights.watching():
        model()
    assert weights.penalty(0) is None
    penalty = weights.penalty(4)
    assert penalty is not None
    assert penalty.item() == pytest.approx(3 * (0.1**2 + 0.1**2 + 0.1**2), rel=1e-5)
    penalty.backward()
    assert model.weight.grad is not None
    assert torch.allclose(model.weight.grad, 6 * torch.tensor([0.1, -0.1, -0.1, 0.0]), atol=1e-5)


NOISY: dict[str, Any] = {"optimizer": "sgd", "lr": 0.1, "epochs": 8}


@pytest.mark.parametrize("per_channel", [False, True])
def test_dampening_lowers_the_reversals(per_channel: bool) -> None:
    plain, much = (
        trained(prepared(qconfig=narrow(3, per_channel)), dampen_weights=factor, **NOISY)
        for factor in (0.0, 2.0)
    )
    assert reversals(plain[1]) > 300
    assert reversals(much[1]) < 0.5 * reversals(plain[1])


@pytest.mark.parametrize("per_channel", [False, True])
def test_a_frozen_weight_keeps_its_code_and_the_others_go_on(per_channel: bool) -> None:
    model = prepared(qconfig=narrow(3, per_channel))
    settings = {**NOISY, "freeze_observer_epoch": 4}
    run, codes = trained(model, unlearnable(), freeze_weights=0.015, **settings)
    _, free = trained(prepared(qconfig=narrow(3, per_channel)), unlearnable(), **settings)
    weights = run._loop.parts.weights.states()
    with recorded(model.train()) as after:
        model(batches(1)[0][0])
    for path, of in codes.items():
        frozen, held = weights[path]["frozen"].numpy(), weights[path]["held"].numpy()
        assert 0 < frozen.sum() < frozen.size
        assert (after[path][0][frozen] == held[frozen]).all()
        since = next(s for s in range(1, 80) if (published(of[:s], 0.01)[0] > 0.015).any())
        caught = (published(of[:since], 0.01)[0] > 0.015).reshape(frozen.shape)
        assert frozen[caught].all()
        assert all((step[caught] == held[caught]).all() for step in of[since:])
    assert reversals(free, 40) > 100
    assert reversals(codes, 40) < 0.8 * reversals(free, 40)
    marks = [m.note for m in run.history.markers if m.kind == "weight freezing"]
    assert marks == ["above a rate of 0.015"]


def test_a_weight_is_held_at_the_average_of_its_codes_from_the_step_on_that_is_too_many() -> None:
    model = OneWeight(weights_of(4, False), (2,))
    site: Any = model.weight_fake_quant
    site.disable_observer()
    site.scale.fill_(0.5)
    weights = FollowedWeights(model, ["weight_fake_quant"], momentum=0.25, freezing=0.4)
    weights.begin_epoch()
    walk = [(2, 0), (3, 1), (2, 1), (3, 1), (2, 2), (3, 2)]
    frozen = []
    for step, values in enumerate(walk):
        with torch.no_grad():
            model.weight.copy_(torch.tensor(values) * 0.5 + 0.1)
        follow(model, weights, step)
        frozen.append(weights.weights[0].state["frozen"].tolist())
    # 0.25, 0.4375 > 0.4 in the third change; the average is then 2 + 0.25 * 0.75² … < 2.5.
    assert frozen == [[False, False]] * 3 + [[True, False]] * 3
    assert model.weight[0].item() == 1.0
    assert model.weight[1].item() == pytest.approx(1.1)


def test_a_threshold_that_falls_freezes_nothing_in_the_first_quarter() -> None:
    weights = FollowedWeights(nn.Module(), [], freezing=0.1, freezing_from=0.9, total_steps=101)
    assert [weights.threshold(step) for step in (0, 25)] == [None, None]
    assert weights.threshold(26) == pytest.approx(0.9, abs=0.01)
    assert weights.threshold(100) == pytest.approx(0.1)


HELD: dict[str, Any] = {
    "epochs": 4,
    "lr": 5e-2,
    "dampen_weights": 0.01,
    "freeze_weights": 0.06,
    "freeze_weights_from": 0.15,
    "oscillation_momentum": 0.05,
    "clip_grad_norm": 1.0,
    "freeze_bn_epoch": 3,
}


@pytest.mark.parametrize("flow", ["eager", "fx"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_the_script_does_the_same_bit_for_bit(flow: str, per_channel: bool) -> None:
    def make() -> nn.Module:
        torch.manual_seed(0)
        return SmallNet().train()

    session = qx.Session(
        make(), batches(1)[0][0], flow=flow, qconfig=narrow(4, per_channel), data=data()
    )
    run = session.train(progress=False, telemetry_every=0, **HELD)
    frozen = [w["frozen"].sum() for w in run._loop.parts.weights.states().values()]
    assert all(count > 0 for count in frozen)
    session.goto(session.flow.int8_stage)
    text = session.script()
    assert "class FollowedWeights" in text
    assert "qatexplorer" not in text.partition('"""')[2].partition('"""')[2]
    assert_the_same(session, text, make)


def test_the_int8_model_has_the_codes_that_were_held() -> None:
    session = qx.Session(SmallNet().train(), batches(1)[0][0], qconfig=narrow(4), data=data())
    run = session.train(8, progress=False, lr=5e-2, freeze_weights=0.015, freeze_observer_epoch=4)
    session.goto("convert")
    held = run._loop.parts.weights.states()
    int8: Any = session.int8
    for name in ("conv", "fc"):
        frozen = held[f"{name}.weight_fake_quant"]["frozen"]
        codes = getattr(int8, name).weight().int_repr()
        assert frozen.any(), name
        assert torch.equal(codes[frozen].float(), held[f"{name}.weight_fake_quant"]["held"][frozen])


@pytest.mark.parametrize("stop", [7, 17])
def test_a_resumed_run_is_the_unbroken_one(stop: int, tmp_path: Path) -> None:
    settings = {**HELD, "oscillation": "every step", "telemetry_every": 3}
    make = partial(prepared, qconfig=narrow(4))
    whole_model, first, again = make(), make(), make(5)
    whole = TrainingRun(whole_model, data(), TrainingConfig(**settings)).run()
    run = TrainingRun(first, data(), TrainingConfig(**settings), run_dir=tmp_path / "a")
    report: Callable[[], None] = run._report

    def watch() -> None:
        report()
        if run.progress.step >= stop and run.state == "running":
            run.stop()

    run._loop._report = watch
    assert run.run().state == "stopped"
    opened = open_run(tmp_path / "a")
    assert opened.config() == TrainingConfig(**settings)
    second = TrainingRun(
        again, data(), opened.config(), run_dir=tmp_path / "a", saved=opened.read()
    ).run()
    assert second.error is None, second.error.full_text()
    assert [s.loss for s in second.history.steps] == [s.loss for s in whole.history.steps]
    assert same(state(whole_model), state(again))
    tables = [
        run.telemetry.to_pandas()[["step", "path", "reversal_rate", "frozen"]].dropna()
        for run in (whole, second)
        if run.telemetry is not None
    ]
    assert tables[0].reset_index(drop=True).equals(tables[1].reset_index(drop=True))
    read = open_run(tmp_path / "a").telemetry
    assert read is not None
    assert read.to_pandas().reversal_rate.max() > 0
    assert read.overhead is not None
    assert read.overhead.followed_steps > 0


# -- refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"dampen_weights": -1}, "dampen_weights is -1"),
        ({"freeze_weights": 1.5}, "freeze_weights is 1.5"),
        ({"freeze_weights": 0.01}, "One reversal would be enough"),
        ({"freeze_weights_from": 0.1}, "freeze_weights, where it ends"),
        ({"freeze_weights": 0.1, "ema_decay": 0.9}, "do not go together"),
        ({"oscillation": "always"}, "oscillation is 'always'"),
        ({"oscillation_momentum": 0}, "oscillation_momentum is 0"),
    ],
    ids=str,
)
def test_settings_that_cannot_work(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        TrainingConfig(**settings)
    assert words in caught.value.full_text()


def test_a_model_without_weights_to_follow_and_data_without_a_length() -> None:
    run = TrainingRun(nn.Linear(2, 2), data(), TrainingConfig(oscillation="every step")).run()
    assert run.error is not None
    assert "no fake quant of torch.ao on a weight" in str(run.error)

    class Endless:
        def __iter__(self) -> Iterator[Any]:
            return iter(batches(2))

    config = TrainingConfig(epochs=1, dampen_weights=1.0)
    ended = TrainingRun(prepared(), (Endless(), batches(1)), config).run()
    assert ended.error is not None
    assert "no length" in str(ended.error)
