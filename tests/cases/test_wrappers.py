"""``torch.compile``, ``DataParallel``, DDP and ``AveragedModel`` around a model or a part of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.ao.quantization import (
    DeQuantStub,
    QConfigMapping,
    QuantStub,
    get_default_qat_qconfig,
)
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

import qatexplorer as qx
from qatexplorer import errors

from .models import FLOWS, assert_untouched, batches, fake_quants, session_of, state_of, to_int8

pytestmark = pytest.mark.slow


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.conv, self.bn, self.relu = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()
        self.deconv = nn.ConvTranspose2d(4, 4, 2)
        self.head = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.deconv(self.relu(self.bn(self.conv(self.quant(x)))))
        return self.dequant(self.head(x.mean([2, 3])))


def image() -> Tensor:
    return torch.rand(4, 3, 6, 6)


def data() -> Any:
    return batches(image, lambda x: x.mean((2, 3)).argmax(1))


def compiled(model: nn.Module) -> nn.Module:
    # backend="eager" needs no C++ compiler; the wrapper is the same.
    return torch.compile(model, backend="eager")  # type: ignore[return-value]


def part_compiled(model: nn.Module) -> nn.Module:
    model.head = compiled(model.head)
    return model


def in_place(model: nn.Module) -> nn.Module:
    model.compile(backend="eager")
    return model


def forward_compiled(model: nn.Module) -> nn.Module:
    model.forward = torch.compile(model.forward, backend="eager")  # type: ignore[method-assign]
    return model


@pytest.fixture(scope="module", autouse=True)
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    path = Path(tmp_path_factory.mktemp("gloo")) / "meet"
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


# What wraps the model, and the prefixes that its paths have then.
WRAPS: dict[str, tuple[Callable[[nn.Module], nn.Module], str]] = {
    "compile": (compiled, "_orig_mod."),
    "DataParallel": (nn.DataParallel, "module."),
    "DDP": (DistributedDataParallel, "module."),
    "AveragedModel": (AveragedModel, "module."),
    "compile in DDP": (lambda m: DistributedDataParallel(compiled(m)), "module._orig_mod."),
    "DDP in compile": (lambda m: compiled(DistributedDataParallel(m)), "_orig_mod.module."),
    "compiled part": (part_compiled, ""),
    "compiled part in DDP": (lambda m: DistributedDataParallel(part_compiled(m)), "module."),
    "compiled in place": (in_place, ""),
    "compiled forward": (forward_compiled, ""),
}


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("wrap", WRAPS)
def test_from_float_to_int8(wrap: str, flow: str) -> None:
    torch.manual_seed(0)
    inner = Small().train()
    names = [path for path, _ in inner.named_modules()]
    model = WRAPS[wrap][0](inner)
    x = image()
    before = state_of(model)
    session = session_of(model, (x,), flow, data=data())
    assert [m.path for m in session.snapshot.modules] == names
    wrapper = type(model).__name__
    if WRAPS[wrap][1]:
        assert wrapper in " ".join(session.snapshot.notes)
        assert "taken off on the session's copy" in session.snapshot.notes[0]
    to_int8(session)
    assert_untouched(model, before)


def test_the_copy_is_of_the_values_inside() -> None:
    inner = Small().train()
    session = qx.Session(compiled(inner), (image(),))
    with torch.no_grad():
        inner.conv.weight.zero_()
    assert session.model.conv.weight.abs().sum() > 0
    assert set(session.model.state_dict()) == set(inner.state_dict())


@pytest.mark.parametrize("prefix", ["", "module._orig_mod."], ids=["plain", "prefixed"])
@pytest.mark.parametrize("flow", FLOWS)
def test_settings_take_the_names_of_either(flow: str, prefix: str) -> None:
    model = DistributedDataParallel(compiled(Small().train()))
    settings: dict[str, Any] = {"qconfig": {"": "qnnpack", f"{prefix}head.0": None}}
    if flow == "eager":
        settings["fusion"] = [[f"{prefix}conv", f"{prefix}bn"]]
    else:
        settings["non_traceable"] = [f"{prefix}relu"]
    session = qx.Session(model, (image(),), flow=flow, **settings)
    session.goto("insert")
    assert "head.0" not in fake_quants(session)
    assert "head.2" in fake_quants(session)
    if flow == "eager":
        assert session.fusion == (("conv", "bn"),)
        session.configure(fusion=f"{prefix}conv,{prefix}bn,{prefix}relu".split(" "))
        assert session.fusion == (("conv", "bn", "relu"),)
    one = get_default_qat_qconfig("qnnpack")
    mapping = QConfigMapping().set_global(one).set_module_name(f"{prefix}head.2", None)
    session.configure(qconfig=mapping)
    session.goto("insert")
    assert {"head.0"} <= set(fake_quants(session))
    assert "head.2" not in fake_quants(session)
    assert list(mapping.module_name_qconfigs) == [f"{prefix}head.2"]


def test_a_real_module_called_module_keeps_its_name() -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Sequential(nn.Linear(3, 3), nn.ReLU())

        def forward(self, x: Tensor) -> Tensor:
            return self.module(x)

    session = qx.Session(nn.DataParallel(Holder().train()), (torch.rand(2, 3),))
    assert "module.0" in session.snapshot.by_path
    session.configure(qconfig={"": "qnnpack", "module.0": None})
    session.goto("insert")
    assert fake_quants(session) == []


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_a_state_dict_with_a_prefix_says_what_helps(prefix: str) -> None:
    state = {prefix + name: t for name, t in Small().state_dict().items()}
    with pytest.raises(errors.NotAModuleError) as caught:
        qx.Session(state, (image(),))
    assert repr(prefix) in caught.value.why
    # The advice is tried as it stands.
    code = caught.value.fix.split("`")[1]
    names: dict[str, Any] = {"state": state, "model": Small()}
    exec(code, names)
    assert all(
        torch.equal(t, state[prefix + name]) for name, t in names["model"].state_dict().items()
    )
