"""Each fix for what FX cannot trace or be told, done to the letter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization.backend_config import get_native_backend_config
from torch.ao.quantization.fx.custom_config import PrepareCustomConfig

import qatexplorer as qx
from qatexplorer.errors import QatExplorerError

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


class Branch(nn.Module):
    """A line that looks at a tensor's values."""

    def __init__(self, looks: bool = True) -> None:
        super().__init__()
        self.fc, self.looks = nn.Linear(6, 6), looks

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc(x)
        if self.looks:
            return x if x.sum() > 0 else -x
        return torch.where(x > 0, x, -x)


class Holds(nn.Module):
    """The model whose forward holds the line itself, or a submodule with it."""

    def __init__(self, inside: bool) -> None:
        super().__init__()
        self.part = Branch() if inside else nn.Identity()
        self.fc, self.inside = nn.Linear(6, 4), inside

    def forward(self, x: Tensor) -> Tensor:
        if not self.inside and x.sum() > 0:
            x = -x
        return self.fc(self.part(x))


class Optional(nn.Module):
    """An optional mask that tracing takes for a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.fc(x) if mask is None else self.fc(x) * mask


class OnlyX(nn.Module):
    """Its forward takes only the argument that is used."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def fx(model: nn.Module, flow: str = "fx", **settings: Any) -> qx.Session:
    session = qx.Session(model.train(), X, flow=flow, **settings)
    session.goto("insert")
    assert session.snapshot.sites
    return session


def seq(part: nn.Module) -> nn.Module:
    return nn.Sequential(part, nn.Linear(6, 4))


CASES: list[tuple[str, Callable[[], Any], Callable[[], Any]]] = [
    (
        "non_traceable=['0']",
        lambda: fx(seq(Branch())),
        lambda: fx(seq(Branch()), non_traceable=["0"]),
    ),
    ("(or [Branch])", lambda: fx(seq(Branch())), lambda: fx(seq(Branch()), non_traceable=[Branch])),
    ("or use flow='eager'", lambda: fx(seq(Branch())), lambda: fx(seq(Branch()), flow="eager")),
    (
        "write that line without looking at values",
        lambda: fx(seq(Branch())),
        lambda: fx(seq(Branch(looks=False))),
    ),
    (
        "move it into a submodule and name that in non_traceable",
        lambda: fx(Holds(False)),
        lambda: fx(Holds(True), non_traceable=["part"]),
    ),
    ("or use flow='eager'", lambda: fx(Holds(False)), lambda: fx(Holds(False), flow="eager")),
    ("takes only the arguments you use", lambda: fx(Optional()), lambda: fx(OnlyX(Optional()))),
    ("flow='eager'", lambda: fx(Optional()), lambda: fx(Optional(), flow="eager")),
    (
        "Nearest: 0",
        lambda: fx(seq(nn.Tanh()), non_traceable=["00"]),
        lambda: fx(seq(nn.Tanh()), non_traceable=["0"]),
    ),
    (
        "Entries are paths like",
        lambda: fx(seq(nn.Tanh()), non_traceable=[3]),
        lambda: fx(seq(nn.Tanh()), non_traceable=[nn.Tanh]),
    ),
    (
        "Use one of 'native'",
        lambda: fx(seq(nn.Tanh()), backend_config="tpu"),
        lambda: fx(seq(nn.Tanh()), backend_config="native"),
    ),
    (
        "or a BackendConfig",
        lambda: fx(seq(nn.Tanh()), backend_config="tpu"),
        lambda: fx(seq(nn.Tanh()), backend_config=get_native_backend_config()),
    ),
    (
        "torch.ao.quantization.fx.custom_config.PrepareCustomConfig()",
        lambda: fx(seq(nn.Tanh()), prepare_custom_config=3),
        lambda: fx(seq(nn.Tanh()), prepare_custom_config=PrepareCustomConfig()),
    ),
    (
        "Name attributes of the model itself",
        lambda: fx(seq(nn.Tanh()), prepare_custom_config={"preserved_attributes": ["0.bias"]}),
        lambda: fx(seq(nn.Tanh()), prepare_custom_config={"preserved_attributes": ["training"]}),
    ),
    (
        "Pass a dict of float class to QAT class, 'attention', or None",
        lambda: fx(seq(nn.Tanh()), flow="eager", qat_mapping=3),
        lambda: fx(seq(nn.Tanh()), flow="eager", qat_mapping="attention"),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[c[0][:40] for c in CASES])
def test_the_fix_works(case: Any) -> None:
    text, before, after = case
    with pytest.raises(QatExplorerError) as caught:
        before()
    assert text in caught.value.fix, caught.value.fix
    after()


def test_functions_that_stay_in_train_mode_as_modules() -> None:
    """The note at the trace stage says nn.Dropout would follow eval()."""

    def note(model: nn.Module) -> str:
        session = qx.Session(model.train(), X, flow="fx")
        session.goto("trace")
        return " ".join(session.snapshot.notes)

    class Drops(nn.Module):
        def __init__(self, module: bool) -> None:
            super().__init__()
            self.fc, self.drop, self.module = nn.Linear(6, 4), nn.Dropout(0.5), module

        def forward(self, x: Tensor) -> Tensor:
            x = self.fc(x)
            return self.drop(x) if self.module else nn.functional.dropout(x, 0.5)

    assert "Modules (nn.Dropout, nn.BatchNorm2d) would follow eval()" in note(Drops(False))
    assert "Dropout" not in note(Drops(True))
