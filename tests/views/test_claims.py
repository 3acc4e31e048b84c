"""What the inspector says of every module and fake quant, held against torch's own modules.

Models of many kinds are walked through both flows. At every stage the pages of all modules and fake
quants are read, and each claim on them is checked by running the model, by reading torch's objects,
and by looking at what became of the module in the int8 model.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.ao.quantization import (
    FakeQuantize,
    FakeQuantizeBase,
    MovingAverageMinMaxObserver,
    ObserverBase,
    QConfig,
    default_fused_act_fake_quant,
    get_default_qconfig,
)

import qatexplorer as qx
from qatexplorer.errors import QatExplorerError
from qatexplorer.views.inspector.page import inspect_html
from tests.support.models import SMALL, ConvBnRelu, NoStubs, Tied, image, loader
from tests.support.models_fx import WRITTEN
from tests.support.page_text import visible_text

_QUANTIZERS = (FakeQuantizeBase, ObserverBase)


class Embedded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.fc = nn.Embedding(10, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.embed(x))


def narrow() -> QConfig:
    weight = FakeQuantize.with_args(
        observer=MovingAverageMinMaxObserver, quant_min=-8, quant_max=7, dtype=torch.qint8
    )
    return QConfig(activation=default_fused_act_fake_quant, weight=weight)


def watched() -> tuple[nn.Module, Tensor]:
    model = ConvBnRelu()
    model.qconfig = get_default_qconfig("onednn")  # type: ignore[assignment]
    return model, image()


@dataclass(frozen=True)
class Walk:
    """A model and the settings to walk it with."""

    name: str
    make: Callable[[], tuple[nn.Module, Any]]
    settings: dict[str, Any] = field(default_factory=dict)


WALKS = (
    *(Walk(case.name, case) for case in (*SMALL, *WRITTEN)),
    Walk("partial_qconfig", lambda: (ConvBnRelu(), image()), {"qconfig": {"fc": None}}),
    Walk("nothing_given", lambda: (ConvBnRelu(), image()), {"qconfig": {"": None}}),
    Walk("int4_ranges", lambda: (ConvBnRelu(), image()), {"qconfig": narrow()}),
    Walk("per_tensor", lambda: (ConvBnRelu(), image()), {"qconfig": "qnnpack"}),
    Walk("half_range", lambda: (ConvBnRelu(), image()), {"qconfig": "x86"}),
    Walk("observers_only", watched),
    Walk("embedding", lambda: (Embedded(), torch.tensor([[1, 2], [3, 4]]))),
    Walk("stubs_around", lambda: (NoStubs(), image()), {"stubs": "model"}),
    Walk("stubs_of_layers", lambda: (NoStubs(), image()), {"stubs": "layers"}),
    Walk("shared_layers", lambda: (Tied(), torch.randn(4, 6)), {"fusion": []}),
    Walk("eval_mode", lambda: (ConvBnRelu().eval(), image())),
)


class Facts:
    """What one forward of ``model`` shows, and what its modules are."""

    def __init__(self, model: nn.Module, inputs: Any) -> None:
        self.modules = dict(model.named_modules(remove_duplicate=False))
        self.inner = {
            id(m.activation_post_process)
            for m in model.modules()
            if isinstance(m, FakeQuantizeBase) and hasattr(m, "activation_post_process")
        }
        self.calls: Counter[int] = Counter()
        self.outputs: dict[int, Any] = {}
        self.takes_int8: dict[int, bool] = {}
        state = {k: v.clone() if isinstance(v, Tensor) else v for k, v in self._state(model)}
        handles = [m.register_forward_hook(self._note) for m in model.modules()]
        try:
            with torch.no_grad():
                model(*inputs) if isinstance(inputs, tuple) else model(inputs)
            self.ran = True
        except Exception:
            self.ran = False
        for handle in handles:
            handle.remove()
        for key, value in self._state(model):
            if isinstance(value, Tensor) and value.shape == state[key].shape:
                value.copy_(state[key])
        self.after = self._quantized_nodes(model)

    @staticmethod
    def _state(model: nn.Module) -> list[tuple[str, Any]]:
        return list(model.named_buffers())

    def _note(self, module: nn.Module, args: Any, output: Any) -> None:
        self.calls[id(module)] += 1
        self.outputs[id(module)] = output
        tensors = [a for a in args if isinstance(a, Tensor)]
        self.takes_int8[id(module)] = bool(tensors) and all(t.is_quantized for t in tensors)

    def _quantized_nodes(self, model: nn.Module) -> dict[str, list[nn.Module]]:
        """By path of a called module: quantizers that are nodes on its result."""
        found: dict[str, list[nn.Module]] = {}
        for node in model.graph.nodes if isinstance(model, fx.GraphModule) else ():
            if node.op != "call_module":
                continue
            users = (u for u in node.users if u.op == "call_module")
            for user in users:
                module = self.modules[str(user.target)]
                if isinstance(module, _QUANTIZERS):
                    found.setdefault(str(node.target), []).append(module)
        return found

    def on_output(self, path: str) -> list[nn.Module]:
        """Quantizers of what the module at ``path`` returns."""
        own = getattr(self.modules[path], "activation_post_process", None)
        mine = [own] if isinstance(own, _QUANTIZERS) else []
        return [*mine, *self.after.get(path, [])]


# -- claims: what is on the page, and what must be so --------------------------------------------

Later = list[tuple[str, str, str]]
"""(stage, path, claim) of what the int8 model will show."""


def check_module(facts: Facts, path: str, text: str, base: nn.Module, later: Later) -> None:
    module = facts.modules[path]
    first = dict(base.named_modules())
    if "Has no fake quant at this stage" in text or "It has no fake quant yet" in text:
        assert not facts.on_output(path)
        assert not isinstance(getattr(module, "weight_fake_quant", None), FakeQuantizeBase)
    found = re.search(r"rounds to a grid of ([\d,]+) codes", text)
    if found:
        fake_quant: Any = module.weight_fake_quant
        assert int(found[1].replace(",", "")) == fake_quant.quant_max - fake_quant.quant_min + 1
    if "an observer watches and nothing rounds" in text:
        assert not isinstance(module.weight_fake_quant, FakeQuantizeBase)
    if re.search(r"rounds its output", text):
        assert any(isinstance(q, FakeQuantizeBase) for q in facts.on_output(path))
        if (
            "hook rounds" in text.lower()
            and facts.ran
            and isinstance(facts.outputs.get(id(module)), Tensor)
        ):
            on_grid(facts.outputs[id(module)], facts.on_output(path)[0])
    if "to an observer, which rounds nothing" in text:
        assert all(not isinstance(q, FakeQuantizeBase) for q in facts.on_output(path))
    if "has no qconfig" in text:
        assert getattr(module, "qconfig", None) is None
    fused = re.search(r"Does nothing: the (\w+) that stood here was fused", text)
    if fused:
        assert isinstance(module, nn.Identity)
        place = path if path in first else path.replace(".module", "").removeprefix("module.")
        assert type(first[place]).__name__ == fused[1]
    if "Stores its weight in int8" in text:
        kind = type(module).__module__
        assert kind.startswith(("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized"))
        assert (
            hasattr(module, "weight") or "LSTM" in type(module).__name__ or list(module.children())
        )
    inside = re.search(r"([\d,]+) fake quants? belongs? to what is inside", text)
    if inside:
        below = f"{path}." if path else ""
        mine = {
            id(m)
            for p, m in facts.modules.items()
            if p.startswith(below) and isinstance(m, _QUANTIZERS)
        }
        # In an FX graph those of outputs are nodes, and modules of the root.
        nodes = {id(q) for found in facts.after.values() for q in found} or set()
        every = {id(m) for m in facts.modules.values() if isinstance(m, _QUANTIZERS)}
        known = mine - facts.inner if not nodes else every - facts.inner
        assert 1 <= int(inside[1].replace(",", "")) <= len(known)
    part = re.search(r"A part of (\S+)\.", text)
    if part:
        assert path.startswith(f"{part[1]}.")
        assert hasattr(facts.modules[part[1]], "weight_fake_quant") or "ao.nn" in (
            type(facts.modules[part[1]]).__module__
        )
    for claim in ("Stays float in the int8 model", "on int8 tensors as it is"):
        if claim in text:
            later.append(("", path, claim))
    if re.search(r"qconfig\s*: none: it stays float", text):
        later.append(("", path, "Stays float in the int8 model"))
    if "its own forward is not called" in text and facts.ran:
        assert not facts.calls[id(module)]


def check_observers(facts: Facts, path: str, text: str) -> None:
    """How many modules a search by name finds in it, and how many of them run."""
    found = re.search(r"(\w+) modules? match(?:es)? a search by name(?:, (\w+) of them run)?", text)
    module = facts.modules[path]
    if found is None or facts.after:
        return  # in an FX graph the fake quants stand elsewhere
    words: tuple[str, ...] = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")
    mine = [m for _, m in module.named_children() if isinstance(m, _QUANTIZERS)]
    inner = [m.activation_post_process for m in mine if hasattr(m, "activation_post_process")]
    words = (*words, *map(str, range(9, 100)))
    assert words.index(found[1]) == len(mine) + len(inner)
    if found[2] and facts.ran:
        running = sum(bool(facts.calls[id(m)]) for m in (*mine, *inner))
        assert words.index(found[2]) == running


def on_grid(values: Tensor, quantizer: Any) -> None:
    """``values`` have no more values than the grid of ``quantizer``."""
    assert len(torch.unique(values)) <= quantizer.quant_max - quantizer.quant_min + 1


def check_site(facts: Facts, path: str, text: str) -> None:
    quantizer = facts.modules[path]
    if "It did not run in the forward of the example input" in text and facts.ran:
        assert not facts.calls[id(quantizer)]
    if "it rounds nothing" in text:
        assert not isinstance(quantizer, FakeQuantizeBase)
    hook = re.search(r"A forward hook on (\S+) (?:replaces|shows)", text)
    if hook:
        hooks = facts.modules[hook[1]]._forward_hooks.values()
        assert "_observer_forward_hook" in [getattr(h, "__name__", "") for h in hooks]
    weight = re.search(r"The forward of (\S+) passes its weight(, scaled)?", text)
    if weight:
        owner = facts.modules[weight[1]]
        if hasattr(owner, "weight_fake_quant"):
            assert owner.weight_fake_quant is quantizer
        assert bool(weight[2]) == hasattr(owner, "bn")
    if "It is a node of the FX graph" in text:
        assert (
            any(quantizer in found for found in facts.after.values()) or facts.calls[id(quantizer)]
        )


def check_in_int8(facts: Facts, path: str, claim: str) -> None:
    place = facts.modules.get(path) or facts.modules.get(path.removeprefix("module."))
    if place is None:
        return
    kind = type(place).__module__
    int8 = kind.startswith(("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized"))
    if claim.startswith("Stays float"):
        assert not int8 or ".reference" in kind, (path, kind)
        if not list(place.children()) and facts.calls[id(place)]:
            assert not facts.takes_int8[id(place)], path
    elif facts.calls[id(place)]:
        assert facts.takes_int8[id(place)], path


def pages(session: qx.Session) -> Iterator[tuple[str, str, str]]:
    """(kind, path, text) of the page of every module and fake quant of the stage in view."""
    snapshot = session.snapshot
    for module in snapshot.modules:
        kind = "site" if module.path in snapshot.site_by_path else "module"
        html = inspect_html(session.snapshots, session.stage, f"{kind}:{module.path}")
        yield kind, module.path, visible_text(html)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("flow", ["eager", "fx"])
@pytest.mark.parametrize("walk", WALKS, ids=lambda walk: walk.name)
def test_no_page_says_what_is_not_so(walk: Walk, flow: str) -> None:
    torch.manual_seed(0)
    model, inputs = walk.make()
    data = [loader(inputs)] * 2 if inputs.is_floating_point() else None
    session = qx.Session(model, inputs, flow=flow, data=data, **walk.settings)
    session.warns = False
    base = session.copy_model()
    later: Later = []
    checked = 0
    for stage in session.flow.stages:
        try:
            session.goto(stage.name)
            if stage.role == "trained" and data is not None and session.snapshot.sites:
                session.calibrate(1)
        except QatExplorerError:
            break
        facts = Facts(session.model, session.options.example_inputs)
        for kind, path, text in pages(session):
            checked += 1
            if kind == "site":
                check_site(facts, path, text)
            else:
                check_module(facts, path, text, base, later)
                check_observers(facts, path, text)
        if stage.role == "int8":
            for _, path, claim in later:
                check_in_int8(facts, path, claim)
    assert checked > 1


def test_the_checks_see_what_they_should() -> None:
    session = qx.Session(ConvBnRelu(), image())
    session.goto("insert")
    facts = Facts(session.model, session.options.example_inputs)
    base = session.copy_model("float")
    for claim in (
        "Has no fake quant at this stage.",
        "on a weight that its forward rounds to a grid of 16 codes.",
        "it has no qconfig",
    ):
        with pytest.raises(AssertionError):
            check_module(facts, "conv1", claim, base, [])
    with pytest.raises(AssertionError):
        check_site(
            facts, "fc.weight_fake_quant", "It did not run in the forward of the example input"
        )
