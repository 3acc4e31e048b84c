"""Each fix that the ledger names for a redundancy, done to the letter: then the redundancy is gone.

``fixed`` is the model as the fix says it should be written, or the settings that it names.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.ao.nn.qat as nnqat
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao.quantization import (
    DeQuantStub,
    QuantStub,
    get_default_qat_qconfig_mapping,
    prepare,
    prepare_qat,
    quantize_fx,
)
from torch.ao.quantization.backend_config import (
    BackendPatternConfig,
    DTypeConfig,
    ObservationType,
    get_native_backend_config,
)
from torch.ao.quantization.quantization_mappings import get_default_qat_module_mappings

import qatexplorer as qx
from qatexplorer.ledger import Redundancy, ledger_of
from tests.support.ledger_models import OldLinear, OwnName, TwoLinear, eager, old_style_fx, seen

IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
ROWS = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
ORDER = (3, 2, 1, 0)


class Between(nn.Module):
    """Two convolutions and ``function`` between them."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.function(self.first(x)))


class Stubs(nn.Module):
    """Stubs around ``parts``, in eager mode."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.body = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        return self.dequant(self.body(self.quant(x)))


def faults(session: qx.Session) -> list[Redundancy]:
    session.goto("insert")
    return [found for found in session.ledger().redundancies if found.fault]


def is_fixed(session: qx.Session) -> bool:
    """No fault is left, and the model gets to int8 and runs there."""
    return not faults(session) and session.preflight().ok


# -- FX: what only passes values on ---------------------------------------------------------------

WRITTEN: dict[str, tuple[Any, str, Any]] = {
    # name: (what was written, what the fix says, what it says to write instead)
    "x.flatten": (
        lambda y: y.flatten(2).view(4, 4, 6, 6),
        "Write torch.flatten(x, …) instead of x.flatten(…)",
        lambda y: torch.flatten(y, 2).view(4, 4, 6, 6),
    ),
    "nn.Flatten": (
        nn.Sequential(nn.Flatten(2), nn.Unflatten(2, (6, 6))),
        "Write torch.flatten(x, …) instead of torch.nn.Flatten",
        lambda y: torch.flatten(y, 2).view(4, 4, 6, 6),
    ),
    "x.narrow": (
        lambda y: torch.cat([y.narrow(1, 2, 2), y.narrow(1, 0, 2)], 1),
        "Write torch.narrow(x, …) instead of x.narrow(…)",
        lambda y: torch.cat([torch.narrow(y, 1, 2, 2), torch.narrow(y, 1, 0, 2)], 1),
    ),
    "torch.relu": (torch.relu, "Write nn.ReLU or F.relu right after its layer", F.relu),
    "nn.ReLU": (torch.relu, "Write nn.ReLU or F.relu right after its layer", nn.ReLU()),
    "chunk": (
        lambda y: torch.cat([y.chunk(2, 1)[1], y.chunk(2, 1)[0]], 1),
        "Take the pieces with torch.narrow(x, dim, start, length) instead of x.chunk(…)",
        lambda y: torch.cat([torch.narrow(y, 1, 2, 2), torch.narrow(y, 1, 0, 2)], 1),
    ),
    "torch.split": (
        lambda y: torch.cat([torch.split(y, 2, 1)[1], torch.split(y, 2, 1)[0]], 1),
        "Take the pieces with torch.narrow(x, dim, start, length) instead of ",
        lambda y: torch.cat([torch.narrow(y, 1, 2, 2), torch.narrow(y, 1, 0, 2)], 1),
    ),
    "index_select": (
        lambda y: y.index_select(1, torch.tensor(ORDER)),
        "torch.cat([torch.narrow(x, dim, i, 1) for i in …], dim), instead of x.index_select(…)",
        lambda y: torch.cat([torch.narrow(y, 1, i, 1) for i in ORDER], 1),
    ),
    "index": (
        lambda y: y[:, torch.arange(4)],
        "torch.cat([torch.narrow(x, dim, i, 1) for i in …], dim), instead of operator.getitem",
        lambda y: torch.cat([torch.narrow(y, 1, i, 1) for i in range(4)], 1),
    ),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_what_fx_says_to_write_instead(name: str) -> None:
    before, text, after = WRITTEN[name]
    found = faults(qx.Session(Between(before).train(), IMAGES, flow="fx"))
    assert any(text in fault.fix for fault in found)
    assert is_fixed(qx.Session(Between(after).train(), IMAGES, flow="fx"))


WITH_CONFIG: dict[str, Any] = {
    "x.clone": lambda y: y.clone(),
    "torch.clone": torch.clone,
    "x.flip": lambda y: y.flip(3),
    "x.roll": lambda y: y.roll(1, 3),
    "x.movedim": lambda y: y.movedim(2, 3),
    "x.expand": lambda y: y.expand(4, 4, 6, 6),
    "x.float": lambda y: y.float(),
    "unflatten": lambda y: torch.flatten(y.unflatten(1, (2, 2)), 1, 2),
    "slices": lambda y: torch.cat([y[:, 2:], y[:, :2]], 1),
    "F.dropout": lambda y: F.dropout(y, 0.1, True),
    "nn.Dropout": nn.Dropout(0.1),
    "nn.Dropout2d": nn.Dropout2d(0.1),
    "F.adaptive_max_pool2d": lambda y: F.adaptive_max_pool2d(y, 4),
    "nn.AdaptiveMaxPool2d": nn.AdaptiveMaxPool2d(4),
    "F.channel_shuffle": lambda y: F.channel_shuffle(y, 2),
}
NAMES = {
    "torch": torch,
    "operator": operator,
    "BackendPatternConfig": BackendPatternConfig,
    "DTypeConfig": DTypeConfig,
    "ObservationType": ObservationType,
    "get_native_backend_config": get_native_backend_config,
}


@pytest.mark.parametrize("name", WITH_CONFIG)
def test_the_backend_config_that_fx_needs(name: str) -> None:
    """The lines in the text are run as they stand."""
    assert quantize_fx  # imported: torch's backend config lacks an attribute without it
    (found,) = faults(qx.Session(Between(WITH_CONFIG[name]).train(), IMAGES, flow="fx"))
    lines = re.search(r"config = get_native.*\]\)\)", found.fix)
    assert lines is not None, found.fix
    names = dict(NAMES)
    exec(lines.group(), names)
    model = Between(WITH_CONFIG[name]).train()
    assert is_fixed(qx.Session(model, IMAGES, flow="fx", backend_config=names["config"]))


# -- eager: stubs and activations -----------------------------------------------------------------


class Restubbed(nn.Module):
    """Dequantizes between two layers, and quantizes again."""

    def __init__(self, stubs: bool, relu: bool) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.between, self.again = DeQuantStub(), QuantStub()
        self.stubs, self.relu = stubs, relu

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.quant(x))
        x = self.between(x) if self.stubs else x
        x = F.relu(x) if self.relu else x
        x = self.again(x) if self.stubs else x
        return self.dequant(self.second(x))


@pytest.mark.parametrize("relu", [False, True])
def test_stubs_between_two_int8_layers(relu: bool) -> None:
    (found,) = faults(qx.Session(Restubbed(True, relu).train(), ROWS))
    assert "Leave out again and the DeQuantStub before it" in found.fix
    assert is_fixed(qx.Session(Restubbed(False, relu).train(), ROWS))


def test_a_qconfig_of_none_for_the_stub_does_not_help_as_the_text_says() -> None:
    (found,) = faults(qx.Session(Restubbed(True, False).train(), ROWS))
    assert "None for the stub does not help" in found.fix
    session = qx.Session(Restubbed(True, False).train(), ROWS, qconfig={"again": None})
    assert not faults(session)
    assert not session.preflight().ok


def test_wrapped_layers_quantize_between_each_other() -> None:
    layers = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    (found,) = faults(qx.Session(layers.train(), ROWS, stubs="layers"))
    assert "stubs='model'" in found.fix
    assert is_fixed(qx.Session(layers, ROWS, stubs="model"))
    assert "one QuantStub before the first and one DeQuantStub after the last" in found.fix
    assert is_fixed(qx.Session(Stubs(*layers).train(), ROWS))


def test_an_activation_with_a_fake_quant_of_its_own() -> None:
    def parts(activation: nn.Module) -> tuple[nn.Module, ...]:
        return nn.Linear(8, 8), activation, nn.Linear(8, 8)

    (found,) = faults(qx.Session(Stubs(*parts(nn.ReLU6())).train(), ROWS))
    assert "Set body.1.qconfig = None before prepare" in found.fix
    model = Stubs(*parts(nn.ReLU6()))
    model.body[1].qconfig = None
    assert is_fixed(qx.Session(model.train(), ROWS))
    assert "Or use nn.ReLU right after the layer" in found.fix
    assert is_fixed(qx.Session(Stubs(*parts(nn.ReLU())).train(), ROWS))


# -- modules that fake-quantize their own output --------------------------------------------------


class Plain(nnqat.Linear):
    """:class:`OldLinear` and :class:`OwnName` with the call taken out of their forward."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight_fake_quant(self.weight), self.bias)


def mapped(kind: type) -> qx.Session:
    mapping = {**get_default_qat_module_mappings(), nn.Linear: kind}
    x = torch.randn(8, 6)
    return qx.Session(TwoLinear().train(), x, qat_mapping=mapping, fusion=[])


@pytest.mark.parametrize("kind", [OldLinear, OwnName])
def test_the_call_taken_out_of_a_modules_forward(kind: type) -> None:
    found = faults(mapped(kind))
    assert found
    assert all("out of the module's forward" in fault.fix for fault in found)
    assert not faults(mapped(Plain))


def test_the_call_taken_out_of_a_modules_forward_in_fx(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(8, 6)
    old = [f for f in ledger_of(old_style_fx(x), x).redundancies if f.fault]
    assert any("Take that call out of the module's forward" in fault.fix for fault in old)
    monkeypatch.setattr(OldLinear, "forward", Plain.forward)
    assert not ledger_of(old_style_fx(x), x).faults


# -- one fake quant run twice ---------------------------------------------------------------------


def test_prepared_twice() -> None:
    x = torch.randn(8, 6)
    model = seen(prepare(prepare_qat(eager(TwoLinear()))), x)
    found = ledger_of(model, x).faults
    assert "Call it once, on a model that is not prepared yet" in found[0].fix
    assert not ledger_of(seen(prepare_qat(eager(TwoLinear())), x), x).faults
    for fault in found:  # "or remove the extra entries of fc1._forward_hooks"
        path = fault.first.rpartition(".")[0]
        assert f"remove the extra entries of {path}._forward_hooks" in fault.fix
        hooks = model.get_submodule(path)._forward_hooks
        for key in list(hooks)[1:]:
            del hooks[key]
    assert not ledger_of(model, x).faults


@dataclass
class Container:
    """A fused container of torch without a QAT version in eager mode's mapping."""

    parts: Callable[[], tuple[nn.Module, ...]]
    x: Tensor
    path: str
    kind: str


CONTAINERS = [
    Container(
        lambda: (nn.Conv1d(3, 4, 3), nn.ReLU(), nn.Conv1d(4, 4, 1)),
        torch.randn(4, 3, 16),
        "body.0",
        "ConvReLU1d",
    ),
    Container(
        lambda: (nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.BatchNorm2d(4), nn.ReLU()),
        IMAGES,
        "body.2",
        "BNReLU2d",
    ),
    Container(
        lambda: (nn.Conv3d(3, 4, 1), nn.Identity(), nn.BatchNorm3d(4), nn.ReLU()),
        torch.randn(2, 3, 4, 4, 4),
        "body.2",
        "BNReLU3d",
    ),
]


@pytest.mark.parametrize("case", CONTAINERS, ids=lambda case: case.kind)
def test_a_sequential_container_that_runs_its_fake_quant_itself(case: Container) -> None:
    session = qx.Session(Stubs(*case.parts()).train(), case.x, qconfig="qnnpack")
    (found,) = faults(session)
    assert (found.kind, found.first) == ("twice", f"{case.path}.activation_post_process")
    assert f"{case.path} ({case.kind}), a Sequential" in found.evidence
    assert session.ledger().by_path[found.first].calls_per_forward == 2
    assert "use flow='fx'" in found.fix.replace("Use", "use")
    in_fx = qx.Session(Stubs(*case.parts()).train(), case.x, qconfig="qnnpack", flow="fx")
    assert is_fixed(in_fx)
    line = re.search(r"session\.configure\(.*\]\)", found.fix)
    assert line is not None
    eval(line.group(), {"session": session})  # as it stands in the text
    assert is_fixed(session)


def test_called_more_than_once_in_a_row() -> None:
    class Twice(OwnName):
        def forward(self, input: Tensor) -> Tensor:
            out = F.linear(input, self.weight_fake_quant(self.weight), self.bias)
            for _ in range(self.times):
                out = self.out_fake_quant(out)
            return out

    def made(times: int) -> list[Redundancy]:
        Twice.times = times  # type: ignore[attr-defined]
        return [f for f in faults(mapped(Twice)) if f.kind == "twice" and f.first.startswith("fc1")]

    (found,) = made(2)
    assert found.fix == "Call fc1.out_fake_quant once in a forward."
    assert not made(1)


def test_a_shared_one_needs_no_fix() -> None:
    mapping = get_default_qat_qconfig_mapping("onednn")
    model = Between(lambda y: torch.cat([y, y], 1)[:, :4])
    session = qx.Session(model.train(), IMAGES, flow="fx", qconfig=mapping)
    session.goto("insert")
    shared = [f for f in session.ledger().redundancies if f.kind == "shared"]
    assert shared
    assert all("Nothing to remove" in found.fix for found in shared)
