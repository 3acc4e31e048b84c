"""The script against the session that wrote it: the same weights and outputs, bit for bit."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import (
    DeQuantStub,
    FakeQuantize,
    MovingAverageMinMaxObserver,
    QConfig,
    QConfigMapping,
    QuantStub,
    default_weight_fake_quant,
    get_default_qat_qconfig,
)
from torch.utils.data import DataLoader, TensorDataset

import qatexplorer as qx
from qatexplorer.errors import InputError
from qatexplorer.flows.quant_spec import QuantSpec
from tests.support.scripts import assert_the_same, run_here
from tests.support.training_models import SmallNet, batches, data, one_thread, same  # noqa: F401

SCHEDULE: dict[str, Any] = {
    "freeze_observer_epoch": 1,
    "freeze_bn_epoch": 1,
    "scheduler": "cosine",
    "warmup_steps": 2,
    "clip_grad_norm": 1.0,
    "ema_decay": 0.9,
    "label_smoothing": 0.1,
    "seed": 7,
}


def small() -> nn.Module:
    torch.manual_seed(0)
    return SmallNet().train()


def per_tensor() -> QConfig:
    return QConfig(
        activation=FakeQuantize.with_args(
            observer=MovingAverageMinMaxObserver, quant_min=0, quant_max=255, averaging_constant=0.1
        ),
        weight=default_weight_fake_quant,
    )


QCONFIGS: dict[str, Callable[[], Any]] = {
    "by name": lambda: "fbgemm",
    "of my own": per_tensor,
    "by path": lambda: {"": "onednn", "fc": None},
    "by type": lambda: {"": per_tensor(), nn.Linear: get_default_qat_qconfig("qnnpack")},
    "mapping": lambda: (
        QConfigMapping()
        .set_global(get_default_qat_qconfig("onednn"))
        .set_module_name("fc", None)
        .set_object_type(torch.flatten, per_tensor())
        .set_module_name_regex("con.*", per_tensor())
    ),
}


@pytest.mark.parametrize("flow", ["eager", "fx"])
@pytest.mark.parametrize("name", QCONFIGS)
def test_every_form_of_a_qconfig(name: str, flow: str) -> None:
    session = qx.Session(
        small(), batches(1)[0][0], flow=flow, qconfig=QCONFIGS[name](), data=data(2)
    )
    session.train(1, progress=False)
    assert_the_same(session, session.script(), small)


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "adamw", "scheduler": "linear"},
        {"optimizer": "sgd", "scheduler": "step", "fake_quant_start_epoch": 1},
        {"freeze_observer_epoch": 1, "ema_decay": 0.5},
        {"clip_grad_norm": 0.01, "freeze_bn_epoch": 0, "seed": 3},
    ],
    ids=str,
)
def test_every_part_of_a_schedule(settings: dict[str, Any]) -> None:
    session = qx.Session(small(), batches(1)[0][0], qconfig="onednn", data=data(4))
    session.train(2, progress=False, **settings)
    session.goto("convert")
    assert_the_same(session, session.script(), small)


def loader() -> tuple[Any, Any]:
    """Shuffled with a generator of its own, so that the order of the batches is in the seed."""
    images, classes = map(torch.cat, zip(*batches(6), strict=True))
    shuffled = DataLoader(
        TensorDataset(images, classes), 8, shuffle=True, generator=torch.Generator().manual_seed(5)
    )
    return shuffled, batches(2, seed=2)


def test_the_order_of_shuffled_batches() -> None:
    session = qx.Session(small(), batches(1)[0][0], qconfig="onednn", data=loader())
    session.train(2, progress=False)
    assert_the_same(session, session.script(), small, loader())


def test_two_runs_after_one_another() -> None:
    session = qx.Session(small(), batches(1)[0][0], qconfig="onednn", data=data(3))
    session.calibrate(1)
    session.train(1, progress=False)
    session.train(2, progress=False, lr=1e-4)
    assert session.script().count("    train(\n") == 2
    assert_the_same(session, session.script(), small)


def test_a_run_that_was_stopped_is_repeated_as_far_as_it_went() -> None:
    session = qx.Session(small(), batches(1)[0][0], qconfig="onednn", data=data(6))
    run = session.start_training(50)
    while run.progress.step < 9:
        pass
    run.stop()
    run.wait()
    assert 9 <= run.progress.step < 300
    assert f"max_steps={run.progress.step}" in session.script()
    assert_the_same(session, session.script(), small)


def test_starting_again_forgets_what_was_done() -> None:
    session = qx.Session(small(), batches(1)[0][0], qconfig="onednn", data=data(2))
    session.calibrate(1)
    session.configure(qconfig="qnnpack")
    session.goto("insert")
    assert "calibrate(" not in session.script()


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, a: Tensor, values: Tensor) -> Tensor:
        return torch.relu(self.one(a)) if values is None else self.two(values)


@pytest.mark.parametrize("stubs", ["model", "layers"])
def test_stubs_of_several_inputs(stubs: Any) -> None:
    def make() -> nn.Module:
        torch.manual_seed(0)
        return TwoInputs().train()

    inputs = {"a": torch.randn(3, 4), "values": torch.randn(3, 4)}
    pairs = [(inputs, torch.tensor([0, 1, 2]))]
    session = qx.Session(make(), inputs, qconfig="onednn", stubs=stubs, data=(pairs, pairs))
    session.train(1, progress=False)
    made = run_here(session.script(), make(), inputs, pairs, pairs)
    assert same(session.copy_model("train").state_dict(), made["trained"].state_dict())


def test_edits_and_modes_and_qconfig_attributes() -> None:
    inputs = batches(1)[0][0]

    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv = nn.Conv2d(1, 4, 3, padding="same")
            self.drop = nn.Dropout(0.5).eval()
            self.out = nn.Conv2d(4, 4, 8)
            self.out.qconfig = None  # type: ignore[assignment]

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.drop(torch.relu(self.conv(x)))).flatten(1)

    def build() -> nn.Module:
        model = Padded().train()
        model.drop.eval()
        return model

    session = qx.Session(build(), inputs, flow="fx", qconfig="onednn", data=data(2))
    session.edit("number_padding", "conv")
    session.train(1, progress=False)
    text = session.script()
    assert "model.conv.padding = (1, 1)" in text
    assert "model.get_submodule('drop').eval()" in text
    assert_the_same(session, text, build)


def test_what_is_no_code_is_an_argument() -> None:
    def loss(output: Tensor, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(output, target) * 2

    def make_optimizer(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.RMSprop(parameters, lr=1e-3)

    session = qx.Session(small(), batches(1)[0][0], qconfig="onednn", data=data(2), loss=loss)
    session.train(1, progress=False, optimizer=make_optimizer)
    text = session.script()
    assert "loss: what the session was given" in text
    assert_the_same(session, text, small, loss=loss, make_optimizer=make_optimizer)


def test_functions_of_a_module_are_imported() -> None:
    session = qx.Session(
        small(), batches(1)[0][0], qconfig="onednn", data=data(2), loss=nn.functional.cross_entropy
    )
    session.train(1, progress=False)
    text = session.script()
    assert "from torch.nn.functional import cross_entropy" in text
    assert_the_same(session, text, small)


def test_the_script_is_python_that_needs_torch_and_numpy_only() -> None:
    session = qx.Session(small(), batches(1)[0][0], qconfig="onednn", data=data(2))
    session.train(1, progress=False, **SCHEDULE)
    tree = ast.parse(session.script("my.models:make", "my.data:make"))
    modules = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).partition(".")[0]  # type: ignore[union-attr]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    assert modules - set(sys.stdlib_module_names) == {"torch", "numpy", "my"}


def test_a_stage_before_training() -> None:
    session = qx.Session(small(), batches(1)[0][0], qconfig="onednn")
    session.goto("fuse")
    made = run_here(session.script(), small(), batches(1)[0][0], [], [])
    session.goto("insert")
    assert same(session.copy_model("insert").state_dict(), made["trained"].state_dict())


def test_refused() -> None:
    session = qx.Session(small(), batches(1)[0][0], qconfig="onednn")
    with pytest.raises(InputError, match="not of the form"):
        session.script("my.models")


class Rules(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.first, self.second = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3)
        self.third, self.out = nn.Linear(64, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.second(torch.relu(self.first(self.quant(x)))))
        return self.out(self.dequant(self.third(torch.flatten(x, 1))))


@pytest.mark.parametrize("qconfig", ["fbgemm", "mapping"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"optimizer": "sgd", "fake_quant_start_epoch": 1, "ema_decay": 0.5}],
    ids=["adam", "late"],
)
@pytest.mark.parametrize("flow", ["eager", "fx"])
def test_rules(flow: str, settings: dict[str, Any], qconfig: str) -> None:
    def make() -> nn.Module:
        torch.manual_seed(0)
        return Rules().train()

    torch.manual_seed(1)
    pairs = [(torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 3])) for _ in range(3)]
    given: Any = QConfigMapping().set_global(get_default_qat_qconfig("fbgemm"))
    session = qx.Session(
        make(),
        pairs[0][0],
        flow=flow,
        qconfig=qconfig if qconfig == "fbgemm" else given,
        data=(pairs, pairs),
    )
    weight = QuantSpec(bits=4, signed=True, scheme="symmetric", per_channel=True)
    session.set_qconfig("first", weight=weight)
    learned = replace(weight, bits=8, fake_quant="_LearnableFakeQuantize")
    session.set_qconfig(
        "second", weight=learned, activation=QuantSpec(fake_quant="_LearnableFakeQuantize")
    )
    session.set_qconfig("out", to_float=True)
    session.train(2, progress=False, **settings)
    trained: Any = session.copy_model(session.flow.train_stage)
    assert trained.first.weight_fake_quant.quant_max == 7
    assert int(trained.second.weight_fake_quant.learning_enabled[0]) == 1
    assert not hasattr(trained.out, "weight_fake_quant")
    session.goto(session.flow.int8_stage)
    assert_the_same(session, session.script(), make)
