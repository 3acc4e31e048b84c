"""Schedules do what they say, against loops written by hand, and leave their mark."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.ao.quantization import FakeQuantizeBase, disable_fake_quant
from torch.nn import functional as F

from qatexplorer.errors import InputError
from qatexplorer.runs.records import TrainingConfig
from qatexplorer.training.run import TrainingRun
from qatexplorer.training.schedules import lr_factor
from qatexplorer.views.training.figures import curves_figure
from tests.support.training_models import batches, data, one_thread, prepared, same, state  # noqa: F401


def still(model: nn.Module) -> nn.Module:
    """Without dropout: a loop by hand then needs no random numbers."""
    model.drop.p = 0.0  # type: ignore[union-attr,assignment]
    return model


def trained(model: nn.Module, **settings: Any) -> TrainingRun:
    run = TrainingRun(model, data(), TrainingConfig(**settings)).run()
    assert run.state == "finished", run.error
    return run


def by_hand(
    epochs: int,
    make: Any,
    loss: Any = F.cross_entropy,
    before_step: Any = None,
    after_step: Any = None,
) -> nn.Module:
    model = still(prepared())
    optimizer = make(model.parameters())
    step = 0
    for _ in range(epochs):
        for x, y in batches():
            optimizer.zero_grad()
            loss(model(x), y).backward()
            if before_step is not None:
                before_step(model, optimizer, step)
            optimizer.step()
            step += 1
            if after_step is not None:
                after_step(model, step)
    return model


def marks(run: TrainingRun) -> list[tuple[int, str, str]]:
    return [(m.step, m.kind, m.note) for m in run.history.markers]


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("adam", lambda p: torch.optim.Adam(p, lr=2e-3)),
        ("adamw", lambda p: torch.optim.AdamW(p, lr=2e-3)),
        ("sgd", lambda p: torch.optim.SGD(p, lr=2e-3, momentum=0.9)),
    ],
)
def test_optimizers_by_name(name: str, make: Any) -> None:
    model = still(prepared())
    trained(model, epochs=1, lr=2e-3, optimizer=name)
    assert same(state(model), state(by_hand(1, make)))


def test_cosine_with_warm_up_as_by_hand() -> None:
    model = still(prepared())
    run = trained(model, epochs=2, lr=1e-2, scheduler="cosine", warmup_steps=3)
    rates = [s.lr for s in run.history.steps]

    def expected(step: int) -> float:
        if step < 3:
            return 1e-2 * (step + 1) / 4
        return 1e-2 * 0.5 * (1 + math.cos(math.pi * (step - 3) / 9))

    assert rates == pytest.approx([expected(i) for i in range(12)])

    def set_rate(_model: Any, optimizer: Any, step: int) -> None:
        optimizer.param_groups[0]["lr"] = rates[step]

    reference = by_hand(2, lambda p: torch.optim.Adam(p, lr=1e-2), before_step=set_rate)
    assert same(state(model), state(reference))
    assert marks(run)[0] == (0, "learning rate", "cosine")


def test_schedules_by_name_end_where_they_should() -> None:
    assert lr_factor("linear", 50, 100, 0) == pytest.approx(0.5)
    assert lr_factor("linear", 100, 100, 0) == 0.0
    assert [lr_factor("step", n, 100, 0) for n in (0, 49, 50, 74, 75, 99)] == [
        1.0,
        1.0,
        0.1,
        0.1,
        0.01,
        0.01,
    ]
    assert lr_factor("cosine", 200, 100, 0) == pytest.approx(0.0)


def test_a_jump_of_the_learning_rate_is_marked() -> None:
    run = trained(prepared(), epochs=4, lr=1e-2, scheduler="step")
    jumps = [(step, note) for step, kind, note in marks(run) if kind == "learning rate"][1:]
    assert jumps == [(12, "0.01 → 0.001"), (18, "0.001 → 0.0001")]
    assert run.history.steps[11].lr == 1e-2
    assert run.history.steps[12].lr == pytest.approx(1e-3)


def test_label_smoothing_as_by_hand() -> None:
    model = still(prepared())
    run = trained(model, epochs=1, label_smoothing=0.2)

    def smooth(output: Any, target: Any) -> Any:
        return F.cross_entropy(output, target, label_smoothing=0.2)

    reference = by_hand(1, lambda p: torch.optim.Adam(p, lr=1e-3), smooth)
    assert same(state(model), state(reference))
    assert marks(run) == [(0, "label smoothing", "0.2")]
    with pytest.raises(InputError, match="default loss"):
        TrainingRun(prepared(), data(), TrainingConfig(label_smoothing=0.1), loss=smooth)


def test_clipping_as_by_hand_and_its_first_act_is_marked() -> None:
    model = still(prepared())
    run = trained(model, epochs=1, optimizer="sgd", lr=0.05, clip_grad_norm=0.5)

    def clip(net: nn.Module, optimizer: Any, step: int) -> None:
        nn.utils.clip_grad_norm_(net.parameters(), 0.5)

    reference = by_hand(1, lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9), before_step=clip)
    assert same(state(model), state(reference))
    assert marks(run)[0] == (0, "gradient clipping", "at 0.5")
    assert marks(run)[1][2].startswith("first acts: norm")
    assert len(marks(run)) == 2
    assert len(marks(trained(prepared(), epochs=1, clip_grad_norm=1e9))) == 1


def test_average_of_weights_and_copy_of_ranges_as_by_hand() -> None:
    model = still(prepared())
    average = [p.detach().clone() for p in still(prepared()).parameters()]

    def update(net: nn.Module, step: int) -> None:
        decay = min(0.9, (1 + step) / (10 + step))
        for held, now in zip(average, net.parameters(), strict=True):
            held.lerp_(now.detach(), 1 - decay)

    run = trained(model, epochs=2, ema_decay=0.9)
    reference = by_hand(2, lambda p: torch.optim.Adam(p, lr=1e-3), after_step=update)
    assert all(torch.equal(a, p) for a, p in zip(average, model.parameters(), strict=True))
    buffers = dict(reference.named_buffers())
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, buffers[name]), f"{name} is copied, not averaged"
    assert not torch.equal(model.fc.weight, reference.fc.weight)  # type: ignore[union-attr,arg-type]
    # The evaluation has seen the averaged weights, the training has not.
    plain = trained(still(prepared()), epochs=2)
    assert [s.loss for s in plain.history.steps] == [s.loss for s in run.history.steps]
    assert (0, "weight averaging", "decay 0.9") in marks(run)


def test_evaluation_sees_the_average() -> None:
    seen: list[Any] = []
    model = still(prepared())

    def metric(output: Any, target: Any) -> float:
        seen.append(model.fc.weight.detach().clone())  # type: ignore[union-attr,operator]
        return 0.0

    run = TrainingRun(
        model, (batches(), batches(1)), TrainingConfig(epochs=2, ema_decay=0.99), metric=metric
    )
    run.run()
    assert torch.equal(seen[-1], model.fc.weight)  # type: ignore[union-attr,arg-type]
    assert not torch.equal(seen[0], seen[1])


def test_fake_quants_wait_and_their_ranges_do_not() -> None:
    model = still(prepared())
    fake_quants = [m for m in model.modules() if isinstance(m, FakeQuantizeBase)]
    flags: list[set[int]] = []

    class Watched(list):  # type: ignore[type-arg]
        def __iter__(self) -> Any:
            for batch in list.__iter__(self):
                flags.append({int(m.fake_quant_enabled[0]) for m in fake_quants})
                yield batch

    config = TrainingConfig(epochs=2, fake_quant_start_epoch=1)
    run = TrainingRun(model, (Watched(batches()), batches(1)), config).run()
    assert run.state == "finished", run.error
    assert flags == [{0}] * 6 + [{1}] * 6
    off = still(prepared()).apply(disable_fake_quant)
    first = TrainingRun(off, data(), TrainingConfig(epochs=1)).run()
    assert [s.loss for s in run.history.steps[:6]] == [s.loss for s in first.history.steps]
    assert marks(run) == [(0, "fake quants off", "until epoch 1"), (6, "fake quants on", "")]


def test_frozen_when_switched_on_they_round_on_what_was_observed() -> None:
    model = still(prepared())
    trained(model, epochs=3, fake_quant_start_epoch=1, freeze_observer_epoch=1)
    for path, module in model.named_modules():
        if isinstance(module, FakeQuantizeBase):
            scale, zero_point = module.calculate_qparams()
            # The fused kernel and calculate_qparams divide by 255 and 256.
            assert torch.allclose(module.scale, scale, rtol=0.005), path  # type: ignore[arg-type]
            assert torch.equal(module.zero_point, zero_point), path  # type: ignore[arg-type]
            assert not bool((module.scale == 1).any()), path  # type: ignore[union-attr,operator]


def test_stopped_before_they_were_due_they_are_on_all_the_same() -> None:
    model = prepared()
    run = TrainingRun(model, data(), TrainingConfig(epochs=9, fake_quant_start_epoch=8))
    run._loop._report = lambda: run.stop() if run.progress.step == 4 else None
    run.run()
    assert run.state == "stopped"
    for module in model.modules():
        if isinstance(module, FakeQuantizeBase):
            assert int(module.fake_quant_enabled[0]) == 1
            assert not bool((module.scale == 1).any())  # type: ignore[union-attr,operator]


def test_plateau_follows_the_training_loss() -> None:
    def make(optimizer: Any) -> Any:
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=0)

    def constant(output: Any, target: Any) -> Any:
        return output.sum() * 0 + 1.0

    config = TrainingConfig(epochs=3, scheduler=make, lr=1e-2)
    run = TrainingRun(prepared(), data(), config, loss=constant).run()
    assert run.state == "finished", run.error
    assert [e.lr for e in run.history.epochs] == pytest.approx([1e-2, 1e-2, 1e-3])


@pytest.mark.parametrize(
    "bad",
    [
        {"scheduler": "cosines"},
        {"optimizer": "adamax"},
        {"label_smoothing": 1.0},
        {"ema_decay": 1.0},
        {"clip_grad_norm": 0.0},
        {"warmup_steps": 3},
        {"scheduler_interval": "batch"},
        {"metric_mode": "high"},
        {"keep_checkpoints": 0},
        {"fake_quant_start_epoch": 3},
    ],
)
def test_settings_that_cannot_work_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(bad))):
        TrainingConfig(**bad)


def test_a_schedule_by_name_needs_a_length_and_yours_must_be_one() -> None:
    class Stream:
        def __iter__(self) -> Any:
            return iter(batches())

    run = TrainingRun(prepared(), (Stream(), batches(1)), TrainingConfig(scheduler="cosine")).run()
    assert "number of steps" in str(run.error)
    run = TrainingRun(prepared(), data(), TrainingConfig(scheduler=lambda o: 1 / 0)).run()  # type: ignore[arg-type,return-value]
    assert "scheduler cannot be made" in str(run.error)


def test_every_schedule_is_on_the_curves() -> None:
    run = trained(
        prepared(),
        epochs=4,
        scheduler="step",
        label_smoothing=0.1,
        clip_grad_norm=0.5,
        ema_decay=0.9,
        fake_quant_start_epoch=1,
        freeze_observer_epoch=2,
        freeze_bn_epoch=3,
    )
    words = " ".join(str(a.text) for a in curves_figure(run.history).layout.annotations)
    for expected in (
        "lr step",
        "lr 0.001 → 0.0001",
        "label smoothing 0.1",
        "clipping at 0.5",
        "EMA decay 0.9",
        "fake quants off until epoch 1",
        "fake quants on",
        "observers frozen",
        "BN frozen",
    ):
        assert expected in words
