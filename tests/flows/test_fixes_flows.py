"""Each fix for hooks, paths, custom configs and flows of one's own, done to the letter."""

from __future__ import annotations

import importlib
import pydoc
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization.fx.custom_config import ConvertCustomConfig, PrepareCustomConfig

import qatexplorer as qx
from qatexplorer._tested import TESTED
from qatexplorer.errors import QatExplorerError, UnsupportedTorchError
from qatexplorer.flows import FLOWS, Stage, register
from qatexplorer.flows.eager import EagerFlow
from qatexplorer.forward.histograms import capture_histograms

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
IMAGE = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Keeps(nn.Module):
    """Reads what a hook on ``where`` has kept; without one, forward returns the value itself."""

    def __init__(self, where: str | None) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.kept: dict[str, Tensor] = {}
        self.hooked = where is not None
        if where is not None:
            self.get_submodule(where).register_forward_hook(self.keep())

    def keep(self) -> Any:
        return lambda module, args, out: self.kept.__setitem__("x", out)

    def forward(self, x: Tensor) -> Any:
        self.kept.clear()
        x = self.body(x)
        return x.mean() + self.kept["x"].mean() if self.hooked else (x.mean(), x)


def hooked(where: str | None, **settings: Any) -> Any:
    whole = [["body.0", "body.1", "body.2"]]
    settings = {"stubs": "model", "fusion": whole, **settings}
    if settings.get("flow") == "fx":
        settings = {"flow": "fx"}
    return qx.Session(Keeps(where).train(), IMAGE, **settings).goto("insert").sites


def with_kwargs(on: str, flag: bool = True) -> Any:
    class Layers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.Sequential(nn.Linear(6, 4))

        def forward(self, x: Tensor) -> Tensor:
            return self.block(x)

    model = Layers().train()
    hook = (lambda m, a, kw, out: None) if flag else (lambda m, a, out: None)
    model.get_submodule(on).register_forward_hook(hook, with_kwargs=flag)
    return ok(model)


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 4)).train()


def ok(model: nn.Module | None = None, **settings: Any) -> Any:
    stubs = {} if settings.get("flow") == "fx" else {"stubs": "model"}
    session = qx.Session(model or net(), X, **stubs, **settings)
    return session.goto("insert").sites


def named(name: str) -> nn.Module:
    model = net()
    setattr(model, name, {"learning": "rate"})
    return model


def own_flow(flow_name: str, last: str = "int8") -> Any:
    roles = ("float", "inserted", "trained", last)

    class Own(EagerFlow):
        name: ClassVar[str] = flow_name
        stages: ClassVar[tuple[Stage, ...]] = tuple(
            Stage(f"stage {number}", "", "", "", role)  # type: ignore[arg-type]
            for number, role in enumerate(roles)
        )

    return register(Own)


@pytest.fixture(autouse=True)
def flows() -> Iterator[None]:
    before = dict(FLOWS)
    yield
    FLOWS.clear()
    FLOWS.update(before)


def histograms(paths: list[str]) -> Any:
    session = qx.Session(net(), X, stubs="model")
    session.goto("insert")
    own = [site.path for site in session.snapshot.sites]
    return capture_histograms(session.model, X, paths or own)


CASES: list[tuple[str, Callable[[], Any], Callable[[], Any]]] = [
    (
        "Register it on the last module of the fused group",
        lambda: hooked("body.1"),
        lambda: hooked("body.2"),
    ),
    ("or on the block around it", lambda: hooked("body.1"), lambda: hooked("body")),
    (
        "leave that group out of fusion=[…]",
        lambda: hooked("body.1"),
        lambda: hooked("body.1", fusion=[]),
    ),
    ("or return the value from forward", lambda: hooked("body.1"), lambda: hooked(None)),
    (
        "Return the value from forward",
        lambda: hooked("body.1", flow="fx"),
        lambda: hooked(None, flow="fx"),
    ),
    (
        "or use flow='eager'",
        lambda: hooked("body.2", flow="fx"),
        lambda: hooked("body.2", flow="eager"),
    ),
    (
        "Register it without with_kwargs=True",
        lambda: with_kwargs("block.0"),
        lambda: with_kwargs("block.0", flag=False),
    ),
    (
        "or on the block around the layer",
        lambda: with_kwargs("block.0"),
        lambda: with_kwargs("block"),
    ),
    (
        "Give your attribute another name",
        lambda: ok(named("qconfig")),
        lambda: ok(named("settings")),
    ),
    (
        "Give the path of a module inside it, as model.named_modules() does",
        lambda: ok(flow="fx", non_traceable=["encoder"]),
        lambda: [
            ok(flow="fx", non_traceable=[path]) for path, _ in net().named_modules() if path == "1"
        ],
    ),
    (
        "Take a path or a type of a module that model.named_modules() lists",
        lambda: ok(qconfig={"": "onednn", "encoder": None}),
        lambda: [
            ok(qconfig={"": "onednn", key: None})
            for path, module in net().named_modules()
            for key in (path, type(module))
            if path == "0"
        ],
    ),
    (
        "Take a path or a type of a module that model.named_modules() lists",
        lambda: ok(qconfig={"": "onednn", nn.Conv3d: None}),
        lambda: ok(qconfig={"": "onednn", nn.Linear: None}),
    ),
    (
        "Paths are those of model.named_modules()",
        lambda: ok(nn.Sequential(nn.Linear(6, 4), nn.ReLU()).train(), fusion=["encoder,1"]),
        lambda: ok(nn.Sequential(nn.Linear(6, 4), nn.ReLU()).train(), fusion=["0,1"]),
    ),
    ("Choose another name", lambda: own_flow("eager"), lambda: own_flow("mine")),
    (
        "Give each Stage the role that is true of the model from it on",
        lambda: own_flow("mine", last="trained"),
        lambda: own_flow("mine", last="int8"),
    ),
    (
        "Pass torch.ao.quantization.fx.custom_config.ConvertCustomConfig()",
        lambda: ok(flow="fx", convert_custom_config=3),
        lambda: ok(flow="fx", convert_custom_config=ConvertCustomConfig()),
    ),
    (
        "Take the paths from the sites of a snapshot of this very stage",
        lambda: histograms(["0.weight"]),
        lambda: histograms([]),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[c[0][:40] for c in CASES])
def test_the_fix_works(case: Any) -> None:
    text, before, after = case
    with pytest.raises(QatExplorerError) as caught:
        before()
    assert text in caught.value.fix, caught.value
    assert after()


def test_the_keys_of_a_custom_config() -> None:
    """They are where the fix says, and what is written so is taken."""
    with pytest.raises(QatExplorerError) as caught:
        ok(flow="fx", prepare_custom_config={"float_to_observed_custom_module_class": 3})
    fix = caught.value.fix
    assert (
        "are in help(torch.ao.quantization.fx.custom_config.PrepareCustomConfig.from_dict)" in fix
    )
    text = pydoc.render_doc(PrepareCustomConfig.from_dict)
    assert '"non_traceable_module_name": a list of' in text
    assert ok(flow="fx", prepare_custom_config={"non_traceable_module_name": ["1"]})
    assert "for convert in that of ConvertCustomConfig" in fix
    text = pydoc.render_doc(ConvertCustomConfig.from_dict)
    assert '"preserved_attributes": a list of attributes' in text
    assert ok(flow="fx", convert_custom_config={"preserved_attributes": ["training"]})


def test_a_release_of_torch_in_which_a_function_has_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """The eager flow does not need it; a release that is tested has it."""
    module = importlib.import_module("torch.ao.quantization.fx.prepare")
    with monkeypatch.context() as patch:
        patch.delattr(module, "_qat_swap_modules")
        with pytest.raises(UnsupportedTorchError) as caught:
            ok(flow="fx")
        assert "Use the eager flow, or a release of torch that this version" in caught.value.fix
        assert ok(flow="eager")
    assert all(release in caught.value.fix for release in TESTED)
    if any(torch.__version__.startswith(release) for release in TESTED):
        assert ok(flow="fx")
