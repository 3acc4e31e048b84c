"""Each fix of a session that is busy, at the wrong stage or on another device, to the letter."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

import qatexplorer as qx
from qatexplorer.errors import QatExplorerError
from qatexplorer.quantizers.engine_choice import default_backend, engine_concern
from tests.support.engines import fake_machine, faked
from tests.support.waiting import PATIENCE_S

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
BATCH = (X, torch.tensor([0, 1, 2, 3]))


class Slowly:
    """Batches of which each takes its time, so that a run is still going on."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self.count):
            time.sleep(0.02)
            yield BATCH


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 4)).train()


def session(flow: str = "eager", count: int = 3) -> qx.Session:
    stubs = {"stubs": "model"} if flow == "eager" else {}
    return qx.Session(net(), X, flow=flow, data=(Slowly(count), [BATCH]), **stubs)


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(QatExplorerError) as caught:
        call()
    return caught.value.fix


def other_look(ask: str, s: qx.Session) -> Any:
    """What the fix names in place of what was refused."""
    stage = s.flow.prepared_stage
    return s.copy_model(stage) if ask == "copy" else s.ledger(stage)


ASK: dict[str, tuple[str, Callable[[qx.Session], Any]]] = {
    "copy": ("Stop the run, wait for it, or look at stage", lambda s: s.copy_model()),
    "ledger": ("wait for it, or look at the ledger of stage", lambda s: s.ledger()),
    "calibrate": ("Stop the run first, or wait for it", lambda s: s.calibrate(1)),
    "convert": ("Stop the run first, or wait for it", lambda s: s.goto(s.flow.int8_stage)),
    "train": ("Stop the run first, or wait for it", lambda s: s.train(1, progress=False)),
}


@pytest.mark.parametrize("flow", ["eager", pytest.param("fx", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ASK)
def test_while_a_run_is_going_on(name: str, flow: str) -> None:
    text, ask = ASK[name]
    busy = session(flow, 10**6)
    run = busy.start_training(1)
    fix = refused(lambda: ask(busy))
    assert text in fix
    if "look at" in fix:
        assert f"stage {busy.flow.prepared_stage!r}" in fix
        assert other_look(name, busy) is not None
        assert busy.running
    run.stop(timeout=PATIENCE_S)
    stopped = {key: t.clone() for key, t in busy.copy_model().state_dict().items()}
    kept = busy.copy_model(busy.flow.train_stage).state_dict()
    assert all(torch.equal(kept[key], t) for key, t in stopped.items()), "the model is kept"
    if name != "train":
        ask(busy)
    waits = session(flow)
    waits.start_training(1).wait()
    ask(waits)


def test_a_fake_quant_that_no_data_reaches() -> None:
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.wide = nn.Linear(6, 4), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.wide(x) if len(x) > 8 else self.fc(x)

    def looked(x: Tensor) -> Any:
        s = qx.Session(Sometimes().train(), x, stubs="model")
        s.goto("insert")
        return s.histogram("module.wide.weight_fake_quant")

    fix = refused(lambda: looked(X))
    assert "If its layer runs only sometimes, choose example inputs that reach it" in fix
    assert looked(torch.randn(9, 6)).total == 24


def test_a_state_dict_with_a_prefix() -> None:
    source = net()
    state = nn.DataParallel(source).state_dict()
    fix = refused(lambda: qx.Session(state, X))
    assert "Build the module, and load it without the prefix: `" in fix
    model = net()
    exec(fix.split("`")[1], {"model": model, "state": state})
    assert torch.equal(model[0].weight, source[0].weight)  # type: ignore[index,arg-type]
    assert qx.Session(model, X).goto("insert").sites


class Elsewhere(Tensor):
    """A parameter that says that it lies on another device; its values are on the CPU."""

    raw: Tensor

    @staticmethod
    def __new__(cls, raw: Tensor, device: str) -> Elsewhere:
        made: Elsewhere = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, raw.shape, dtype=raw.dtype, device=torch.device(device, 0)
        )
        made.raw = raw
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if op is torch.ops.aten.detach.default:
            return cls(args[0].raw, args[0].device.type)
        args, kwargs = tree_map(lambda a: getattr(a, "raw", a), (args, kwargs or {}))
        return op(*args, **kwargs)


def on(device: str, *, all_of_it: bool = True) -> nn.Module:
    model = net()
    for layer in model if all_of_it else [model[2]]:  # type: ignore[index,union-attr]
        for name, p in list(layer.named_parameters()):  # type: ignore[union-attr]
            setattr(layer, name, nn.Parameter(Elsewhere(p.detach(), device)))
    return model


@pytest.fixture
def new_parameters() -> Iterator[None]:
    """Moving a module makes new parameters: the wrapper of ours cannot be filled with others."""
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    yield
    torch.__future__.set_overwrite_module_params_on_conversion(False)


@pytest.mark.usefixtures("new_parameters")
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the GPU")
def test_a_model_on_a_gpu_that_is_not_there() -> None:
    fix = refused(lambda: qx.Session(on("cuda"), X))
    assert fix == "Call model.cpu() before you hand it over."
    assert qx.Session(on("cuda").cpu(), X).goto("insert").sites


def test_a_model_on_a_device_without_fake_quants() -> None:
    fix = refused(lambda: qx.Session(on("xla"), X))
    assert "Call model.cpu() before you hand it over, and train on the CPU or CUDA" in fix
    moved = qx.Session(on("xla").cpu(), X, data=([BATCH], [BATCH]))
    assert moved.train(1, progress=False).state == "finished"


@pytest.mark.usefixtures("new_parameters")
def test_a_model_on_two_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    model = on("cuda", all_of_it=False)
    fix = refused(lambda: qx.Session(model, X))
    assert fix == "Call model.to('cpu') before you hand it over."
    monkeypatch.undo()
    assert qx.Session(model.to("cpu"), X).goto("insert").sites


def test_engines_that_are_better_than_the_chosen_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a concern says to choose has no concern of its own."""
    fake_machine(monkeypatch, faked("onednn", full=63), faked("qnnpack"))
    saturates = engine_concern("onednn", 255, 255)
    assert saturates is not None
    assert saturates.fix == "engine='qnnpack' computes right here."
    assert engine_concern("qnnpack", 255, 255) is None
    fake_machine(monkeypatch, faked("onednn", full=63), faked("x86", full=63))
    saturates = engine_concern("onednn", 255, 255)
    assert saturates is not None
    assert saturates.fix == "engine='x86' with qconfig='x86' computes right here."
    clamps = engine_concern("x86", 127, 127)  # the codes that qconfig='x86' trains on
    assert clamps is not None
    assert clamps.kind == "clamps"
    fake_machine(monkeypatch, faked("x86"))
    clamps = engine_concern("x86", 127, 127)
    assert clamps is not None
    assert "qconfig='onednn' trains on all codes that int8 has" in clamps.fix
    assert engine_concern("x86", 255, 255) is None  # the codes that qconfig='onednn' trains on


def test_a_machine_without_a_right_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_machine(monkeypatch, faked("onednn", full=63))
    concern = engine_concern("onednn", 255, 255)
    assert concern is not None
    assert "No engine here is better; trust the fake-quant model" in concern.fix
    monkeypatch.undo()
    s = session()
    s.train(1, progress=False)
    assert set(s.evaluate(latency=False)) >= {"fake_quant"}


def test_a_build_of_torch_without_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel that these tests run on is torch's official one."""
    with monkeypatch.context() as patch:
        fake_machine(patch)
        fix = refused(default_backend)
    assert fix == "Install torch's official wheel for your platform."
    assert default_backend().engine in torch.backends.quantized.supported_engines
