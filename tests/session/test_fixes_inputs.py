"""Each fix for what a user hands in, done to the letter: then the session takes it.

A row is what the error says, what raises it, and what that says to do instead.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import (
    FakeQuantize,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    QConfig,
    default_weight_fake_quant,
    get_default_qat_qconfig,
    get_default_qconfig,
    prepare_qat,
)

import qatexplorer as qx
from qatexplorer.errors import NotAModuleError, QatExplorerError

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
BATCH = (X, torch.tensor([0, 1, 2, 3]))
DATA = {"train": [BATCH], "eval": [BATCH]}


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 4)).train()


def ok(model: Any = None, x: Any = X, **settings: Any) -> qx.Session:
    session = qx.Session(net() if model is None else model, x, **settings)
    session.goto("insert")
    return session


def prepared() -> nn.Module:
    model = net()
    model.qconfig = get_default_qat_qconfig("onednn")  # type: ignore[assignment]
    return prepare_qat(model)


def from_checkpoint() -> nn.Module:
    model, source = net(), prepared()
    model.load_state_dict(source.state_dict(), strict=False)
    assert torch.equal(model[0].weight, source[0].weight)  # type: ignore[index,arg-type]
    return model


def with_lock(own: type[nn.Module] = nn.Sequential) -> nn.Module:
    model = own(nn.Linear(6, 4)).train()
    model.lock = threading.Lock()  # type: ignore[assignment]
    return model


class CopiesItself(nn.Sequential):
    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
        return with_lock(CopiesItself)


def lazy(run: bool) -> nn.Module:
    model = nn.Sequential(nn.LazyLinear(4)).train()
    if run:
        model(X)
    return model


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return net()


def filled() -> nn.Module:
    model = on_meta().to_empty(device="cpu")
    model.load_state_dict(net().state_dict())
    return model


def on_two() -> nn.Module:
    model = net()
    model[2].to("meta")
    return model


def bn_first(order: tuple[str, ...]) -> qx.Session:
    model = nn.Sequential(nn.Conv1d(2, 4, 1), nn.BatchNorm1d(4)).train()
    return ok(model, torch.randn(4, 2, 5), fusion=[order], stubs="model")


def of_observers() -> QConfig:
    weight = FakeQuantize.with_args(
        observer=MovingAveragePerChannelMinMaxObserver,
        quant_min=-128,
        quant_max=127,
        dtype=torch.qint8,
        qscheme=torch.per_channel_symmetric,
    )
    activation = FakeQuantize.with_args(observer=MovingAverageMinMaxObserver)
    return QConfig(activation=activation, weight=weight)


class Needs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor, *, scale: Tensor) -> Tensor:
        return self.fc(x) * scale


def raising() -> FakeQuantize:
    raise RuntimeError("no arguments")


def of_inputs(x: Tensor) -> dict[str, Any]:
    return {"train": [(x, BATCH[1])], "eval": [BATCH]}


def of_targets(target: Tensor) -> dict[str, Any]:
    return {"train": [(X, target)], "eval": [BATCH]}


def diverging(lr: float) -> Any:
    torch.manual_seed(0)
    data = {"train": [BATCH] * 5, "eval": [BATCH]}
    return ok(data=data).train(1, optimizer=lambda p: torch.optim.SGD(p, lr=lr))


def used_train_mode() -> qx.Session:
    session = qx.Session(net().eval(), X)
    session.use_train_mode()
    session.goto("insert")
    return session


def at_the_end() -> qx.Session:
    session = ok(stubs="model", data=DATA)
    session.calibrate(1)
    session.goto("convert")
    return session


def float_stage() -> qx.Session:
    return qx.Session(net(), X)


KEYS = {"x": X, "scale": torch.ones(1)}
RAISING = QConfig(activation=raising, weight=default_weight_fake_quant)
PTQ = get_default_qconfig("onednn")


def kept_run() -> qx.OpenedRun:
    with TemporaryDirectory() as folder:
        ok(data=DATA).train(epochs=1, run_dir=f"{folder}/run")
        return qx.open_run(f"{folder}/run")


CASES: list[tuple[str, Callable[[], Any], Callable[[], Any]]] = [
    ("Pass Sequential(…)", lambda: ok(nn.Sequential), ok),
    ("Pass the module itself", lambda: ok("checkpoint.pt"), lambda: ok(from_checkpoint())),
    (
        "Build the module and call model.load_state_dict(state)",
        lambda: ok(net().state_dict()),
        lambda: ok(from_checkpoint()),
    ),
    (
        "Pass the Python module that it was made from",
        lambda: ok(torch.jit.script(nn.Sequential(nn.Linear(6, 4)))),
        lambda: ok(nn.Sequential(nn.Linear(6, 4)).train()),
    ),
    ("Start from the float model", lambda: ok(prepared()), lambda: ok(from_checkpoint())),
    ("Run the model once on a batch", lambda: ok(lazy(False)), lambda: ok(lazy(True))),
    ("Call model.float()", lambda: ok(net().half()), lambda: ok(net().half().float())),
    ("Build the model on the CPU", lambda: ok(on_meta()), ok),
    (
        "or model.to_empty(device='cpu') and load weights",
        lambda: ok(on_meta()),
        lambda: ok(filled()),
    ),
    ("Keep locks", lambda: ok(with_lock()), ok),
    (
        "give the module a __deepcopy__",
        lambda: ok(with_lock()),
        lambda: ok(with_lock(CopiesItself)),
    ),
    ("Pass a tensor, a tuple of arguments", lambda: ok(x=None), lambda: ok(x=(X,))),
    (
        "Every batch must be a pair",
        lambda: ok(x=None, data=[[X], [X]]),
        lambda: ok(x=None, data=DATA),
    ),
    ("a dict of keywords", lambda: ok(Needs().train(), X), lambda: ok(Needs().train(), KEYS)),
    ("session.use_train_mode()", lambda: ok(net().eval()), lambda: used_train_mode()),
    ("model.train() before you hand", lambda: ok(net().eval()), lambda: ok(net().eval().train())),
    ("Pass data={'train': loader", lambda: ok(data=5), lambda: ok(data=DATA)),
    ("a pair, or an object with", lambda: ok(data=5), lambda: ok(data=([BATCH], [BATCH]))),
    (
        "Pass a DataLoader or a list of",
        lambda: ok(data=[iter([BATCH]), [BATCH]]),
        lambda: ok(data=[[BATCH], [BATCH]]),
    ),
    ("Use 'none', 'model' (QuantWrapper)", lambda: ok(stubs="some"), lambda: ok(stubs="model")),
    ("Flows: 'eager'", lambda: ok(flow="egger"), lambda: ok(flow="eager")),
    ("Nearest: ", lambda: ok(fusion=[["0", "1.0"]]), lambda: ok(fusion=[["0", "1"]])),
    ("leave it out of one of", lambda: ok(fusion=["0,1", "0,1"]), lambda: ok(fusion=["0,1"])),
    (
        "List the modules in the order in which they run",
        lambda: bn_first(("1", "0")),
        lambda: bn_first(("0", "1")),
    ),
    ("Nearest: 2", lambda: ok(qconfig={"22": None}), lambda: ok(qconfig={"2": None})),
    ("Name '0' instead", lambda: ok(qconfig={"0.0": None}), lambda: ok(qconfig={"0": None})),
    (
        "leave it out of the groups to fuse",
        lambda: ok(qconfig={"0.0": None}),
        lambda: ok(qconfig={"0": None}, fusion=[]),
    ),
    ("paths like 'layer1.0'", lambda: ok(qconfig={3: None}), lambda: ok(qconfig={"0": None})),
    ("or nn.Linear", lambda: ok(qconfig={3: None}), lambda: ok(qconfig={nn.Linear: None})),
    ("Pass a backend name", lambda: ok(qconfig=8), lambda: ok(qconfig="onednn")),
    ("a dict, or None", lambda: ok(qconfig=8), lambda: ok(qconfig={"": None})),
    (
        "Build it with .with_args(…)",
        lambda: ok(qconfig=RAISING),
        lambda: ok(qconfig=of_observers()),
    ),
    (
        "Use get_default_qat_qconfig(backend)",
        lambda: ok(qconfig=PTQ),
        lambda: ok(qconfig=get_default_qat_qconfig("onednn")),
    ),
    (
        "or FakeQuantize.with_args(observer=…)",
        lambda: ok(qconfig=PTQ),
        lambda: ok(qconfig=of_observers()),
    ),
    ("Take one of those", lambda: ok(engine="tpu"), lambda: ok(engine="qnnpack")),
    ("Stages: ", lambda: ok().goto("prepare"), lambda: ok().goto("swap")),
    ("Go back, or reset", lambda: at_the_end().step(), lambda: at_the_end().back()),
    ("or reset to start again", lambda: at_the_end().step(), lambda: at_the_end().reset().sites),
    (
        "Call session.goto('convert') first",
        lambda: ok(stubs="model").int8,
        lambda: at_the_end().int8,
    ),
    ("session.goto('insert') first", lambda: float_stage().ledger(), lambda: ok().ledger()),
    (
        "Pass data={'train': loader, 'eval': loader}",
        lambda: ok().train(epochs=1),
        lambda: ok(data=DATA).train(epochs=1),
    ),
    (
        "fields of qatexplorer.TrainingConfig",
        lambda: kept_run().config(learning_rate=0.1),
        lambda: kept_run().config(lr=0.1),
    ),
    (
        "torch's cross_entropy takes label_smoothing=",
        lambda: ok(data=DATA, loss=nn.functional.cross_entropy).train(1, label_smoothing=0.1),
        lambda: ok(data=DATA, loss=nn.CrossEntropyLoss(label_smoothing=0.1)).train(1),
    ),
    (
        "lambda parameters: torch.optim.SGD(parameters, lr=1e-3, momentum=0.9)",
        lambda: ok(data=DATA).train(1, optimizer=lambda: None),
        lambda: ok(data=DATA).train(
            1, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e-3, momentum=0.9)
        ),
    ),
    (
        "lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 100)",
        lambda: ok(data=DATA).train(1, scheduler=lambda: None),
        lambda: ok(data=DATA).train(
            1, scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 100)
        ),
    ),
    (
        "Make the target fit the model's output",
        lambda: ok(data=of_targets(torch.rand(3, 2))).train(1),
        lambda: ok(data=DATA).train(1),
    ),
    (
        "Look for missing values or a division by zero in the data",
        lambda: ok(data=of_inputs(X / 0)).train(1),
        lambda: ok(data=of_inputs(X)).train(1),
    ),
    (
        "Use a lower lr, or limit",
        lambda: diverging(1e30),
        lambda: diverging(1e-3),
    ),
    (
        "Pass data whose eval part yields",
        lambda: ok(data={"train": [BATCH], "eval": []}).evaluate(latency=False),
        lambda: ok(data=DATA).evaluate(latency=False),
    ),
    (
        "Yield (input, target)",
        lambda: ok(data={"train": [X], "eval": [BATCH]}).train(1),
        lambda: ok(data=DATA).train(1),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[c[0][:40] for c in CASES])
def test_the_fix_works(case: Any) -> None:
    text, before, after = case
    with pytest.raises(QatExplorerError) as caught:
        before()
    assert text in caught.value.fix
    after()


def test_the_module_that_was_exported_is_passed() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    image = torch.randn(2, 3, 8, 8)
    exported = torch.export.export(model.eval(), (image,)).module()
    with pytest.raises(NotAModuleError) as raised:
        qx.Session(exported, image)
    assert raised.value.fix == "Pass the Python module that was exported, with flow='pt2e'."
    session = qx.Session(model.train(), image, flow="pt2e")
    session.goto(session.flow.prepared_stage)
    assert [site.kind for site in session.snapshot.sites].count("weight") == 1
