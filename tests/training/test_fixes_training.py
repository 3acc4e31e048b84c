"""Each fix for a training that cannot start or go on, done to the letter: then it trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import convert

import qatexplorer as qx
from qatexplorer.errors import QatExplorerError
from qatexplorer.runs.config import TrainingConfig
from qatexplorer.training.run import TrainingRun
from tests.support.training_models import data, prepared

pytestmark = pytest.mark.slow

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
BATCH = (X, torch.tensor([0, 1, 2, 3]))


class NoLength:
    """Batches that do not know how many they are; ``length`` gives them a __len__."""

    def __iter__(self) -> Any:
        return iter([BATCH] * 3)


class Length(NoLength):
    def __len__(self) -> int:
        return 3


def train(train_data: Any = (BATCH,), model: nn.Module | None = None, **settings: Any) -> None:
    model = model or nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 4))
    session = qx.Session(model.train(), X, data={"train": train_data, "eval": [BATCH]})
    session.train(**{"epochs": 1, **settings})


def frozen(back: bool) -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 4)).requires_grad_(False)
    if back:
        model[0].requires_grad_(True)
    return model


def run(model: nn.Module) -> None:
    run = TrainingRun(model, data(), TrainingConfig(epochs=1))
    run.run()
    if run.error is not None:
        raise run.error


def int8() -> nn.Module:
    return convert(prepared().eval())


def log_of(least: float) -> Callable[[Any, Any], Tensor]:
    def loss(output: Tensor, target: Tensor) -> Tensor:
        return (output.softmax(1) * 0.0 + least).log().mean() + output.sum() * 0.0

    return loss


def with_loss(loss: Any) -> None:
    model = nn.Sequential(nn.Linear(6, 4)).train()
    qx.Session(model, X, data=([BATCH], [BATCH]), loss=loss).train(epochs=1)


def zero_gamma(gamma: float, slow: bool = False) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 4))
    nn.init.constant_(model[1].weight, gamma)  # type: ignore[arg-type]
    batch = (torch.randn(4, 1, 8, 8), BATCH[1])
    session = qx.Session(model.train(), batch[0], data=([batch], [batch]), stubs="none")
    session.goto("train")
    if slow:
        fused: Any = session.model[0]  # type: ignore[index]
        fused._enable_slow_path_for_better_numerical_stability = True
    session.train(epochs=1)


CASES: list[tuple[str, Callable[[], Any], Callable[[], Any]]] = [
    ("1e-4 to 1e-3 is usual", lambda: train(lr=-1), lambda: train(lr=1e-4)),
    (
        "Use scheduler= one of cosine",
        lambda: train(warmup_steps=1),
        lambda: train(warmup_steps=1, scheduler="cosine"),
    ),
    (
        "or warm up in your own",
        lambda: train(warmup_steps=1),
        lambda: train(scheduler=lambda o: torch.optim.lr_scheduler.LinearLR(o)),
    ),
    (
        "Start them earlier",
        lambda: train(fake_quant_start_epoch=1),
        lambda: train(fake_quant_start_epoch=0),
    ),
    (
        "or train longer",
        lambda: train(fake_quant_start_epoch=1),
        lambda: train(fake_quant_start_epoch=1, epochs=2),
    ),
    (
        "Give the data a __len__",
        lambda: train(NoLength(), scheduler="cosine"),
        lambda: train(Length(), scheduler="cosine"),
    ),
    (
        "or pass a scheduler of your own",
        lambda: train(NoLength(), scheduler="cosine"),
        lambda: train(NoLength(), scheduler=lambda o: torch.optim.lr_scheduler.StepLR(o, 1)),
    ),
    ("Pass a DataLoader or a list", lambda: train([]), lambda: train([BATCH])),
    (
        "Call requires_grad_(True)",
        lambda: train(model=frozen(False)),
        lambda: train(model=frozen(True)),
    ),
    ("Train the prepared model, before", lambda: run(int8()), lambda: run(prepared())),
    ("Check the loss for log(0)", lambda: with_loss(log_of(0.0)), lambda: with_loss(log_of(1e-6))),
    ("Train the float model first", lambda: zero_gamma(0.0), lambda: zero_gamma(1e-2)),
    ("zero_init_last=False", lambda: zero_gamma(0.0), lambda: zero_gamma(1.0)),
    (
        "module._enable_slow_path_for_better_numerical_stability = True",
        lambda: zero_gamma(0.0),
        lambda: zero_gamma(0.0, slow=True),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[c[0][:40] for c in CASES])
def test_the_fix_works(case: Any) -> None:
    text, before, after = case
    with pytest.raises(QatExplorerError) as caught:
        before()
    assert text in caught.value.fix, caught.value
    after()


def test_runs_that_are_kept(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 4)).train()

    def session(**settings: Any) -> qx.Session:
        return qx.Session(model, X, data=([BATCH] * 3, [BATCH]), **settings)

    first, other = tmp_path / "first", tmp_path / "other"
    session().train(epochs=2, run_dir=first)

    def reported(call: Callable[[], Any]) -> str:
        with pytest.raises(QatExplorerError) as caught:
            call()
        return caught.value.fix

    assert "Pass more epochs=" in reported(
        lambda: session().resume(first, background=False, epochs=1)
    )
    session().resume(first, background=False, epochs=3)
    used = reported(lambda: session().train(epochs=1, run_dir=first))
    assert "Go on with it by session.resume(path), or choose a new run_dir" in used
    session().resume(first, background=False, epochs=4)
    session().train(epochs=1, run_dir=other)
    nothing = reported(lambda: qx.open_run(tmp_path / "nothing"))
    assert "Pass the folder that was given as run_dir=" in nothing
    assert qx.open_run(first).checkpoints
    scheduled = reported(
        lambda: session().resume(first, background=False, epochs=5, scheduler="cosine")
    )
    assert "Pass scheduler= as it was" in scheduled
    session().resume(first, background=False, epochs=5)
    settings = reported(lambda: qx.open_run(first).config(learning_rate=1))
    assert "fields of qatexplorer.TrainingConfig" in settings
    session().resume(first, background=False, epochs=6, lr=1e-4)


class Hungry(nn.Module):
    """Takes memory that grows steeply with the batch, so that more than one sample is too much."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        torch.empty(len(x) ** 30, dtype=torch.uint8)
        return self.fc(x)


def test_a_batch_that_memory_cannot_hold() -> None:
    def train_in(size: int) -> None:
        parts = list(zip(X.split(size), BATCH[1].split(size), strict=True))
        one = [(X[:1], BATCH[1][:1])]
        session = qx.Session(Hungry().train(), X[:1], data=(parts, one), stubs="model")
        session.train(epochs=1, progress=False)

    with pytest.raises(QatExplorerError, match="Out of memory") as caught:
        train_in(4)
    assert "Use a smaller batch. A fake quant keeps one more copy" in caught.value.fix
    train_in(1)


def test_data_that_raises() -> None:
    """The data alone shows it, the model is as it was, and whole data trains it."""

    class Torn:
        def __iter__(self) -> Any:
            raise ZeroDivisionError("a transform")
            yield BATCH

    session = qx.Session(nn.Sequential(nn.Linear(6, 4)).train(), X, data=(Torn(), [BATCH]))
    session.goto("train")
    before = {name: t.clone() for name, t in session.copy_model().state_dict().items()}
    with pytest.raises(QatExplorerError) as caught:
        session.train(epochs=1, progress=False)
    assert "Iterate over your data alone to see it; the model is kept as it was" in caught.value.fix
    with pytest.raises(ZeroDivisionError, match="a transform"):
        list(Torn())
    after = session.copy_model().state_dict()
    assert all(torch.equal(after[name], t) for name, t in before.items())


def test_a_run_that_has_run() -> None:
    model = prepared()
    run = TrainingRun(model, data(), TrainingConfig(epochs=1)).run()
    with pytest.raises(QatExplorerError) as caught:
        run.run()
    assert "Make a new TrainingRun; it goes on from the weights that the model has" in (
        caught.value.fix
    )
    losses = [step.loss for step in run.history.steps]
    again = TrainingRun(model, data(), TrainingConfig(epochs=1)).run()
    assert again.history.steps[0].loss < losses[0]
