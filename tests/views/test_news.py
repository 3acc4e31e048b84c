"""The line of news of each stage: every number in it is what a walk through torch's own modules
counts, for models of all kinds in both flows and for a flow with stages of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.ao.nn.intrinsic.modules.fused import _FusedModule
from torch.ao.quantization import FakeQuantizeBase, ObserverBase, QuantStub, get_default_qconfig

import qatexplorer as qx
from qatexplorer.errors import QatExplorerError
from qatexplorer.flows import FLOWS
from qatexplorer.views.common.news import news_of
from tests.against_torch.torchs_models import SIMPLE
from tests.support.models import NARROW_RESNET, SMALL, ZOO, Case, ConvBnRelu, image, loader
from tests.support.models_fx import WRITTEN
from tests.support.toy_flow import ToyFlow

CASES = (*SMALL, *ZOO, *WRITTEN, NARROW_RESNET)
TORCHS = [model for model in SIMPLE if model.inputs == 1][::4]


@pytest.fixture(autouse=True, scope="module")
def toy_is_known() -> Iterator[None]:
    before = dict(FLOWS)
    FLOWS[ToyFlow.name] = ToyFlow
    yield
    FLOWS.clear()
    FLOWS.update(before)


# -- the same facts, counted in the modules themselves -------------------------------------------


def weighted(model: nn.Module) -> dict[str, nn.Module]:
    """Modules with a parameter of at least two dimensions, each object once."""
    return {
        path: module
        for path, module in model.named_modules()
        if any(p is not None and p.dim() > 1 for p in module._parameters.values())
    }


def quantizers(model: nn.Module, kind: type = FakeQuantizeBase) -> dict[int, nn.Module]:
    inner = {
        id(m.activation_post_process)
        for m in model.modules()
        if isinstance(m, FakeQuantizeBase) and hasattr(m, "activation_post_process")
    }
    return {id(m): m for m in model.modules() if isinstance(m, kind) and id(m) not in inner}


def fake_quant_nodes(model: fx.GraphModule) -> list[nn.Module]:
    """The fake quant of every node of the graph that calls one."""
    found = (model.get_submodule(str(n.target)) for n in model.graph.nodes if n.op == "call_module")
    return [module for module in found if isinstance(module, FakeQuantizeBase)]


def running(model: nn.Module, inputs: Any) -> set[int]:
    """Fake quants that one forward calls."""
    seen: set[int] = set()
    hooks = [
        m.register_forward_hook(lambda module, _a, _o: seen.add(id(module)))
        for m in quantizers(model).values()
    ]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad():
        model(*inputs) if isinstance(inputs, tuple) else model(inputs)
    model.load_state_dict(before)
    for hook in hooks:
        hook.remove()
    return seen


def number(pattern: str, text: str) -> int:
    """The number in ``text`` that stands where ``pattern`` has ``#``; 0 where it does not match."""
    found = re.search(pattern.replace("#", r"([\d,]+)"), text)
    return int(found[1].replace(",", "")) if found else 0


def parameters_in(text: str) -> tuple[float, float]:
    """(some, total) of ``"… 24.1 of 25.6 M parameters"``, in parameters."""
    found = re.search(r"([\d.,]+) of ([\d.,]+) (M )?parameters?", text)
    assert found is not None, text
    unit = 1e6 if found[3] else 1.0
    return tuple(float(found[i].replace(",", "")) * unit for i in (1, 2))  # type: ignore[return-value]


# -- one check a role ----------------------------------------------------------------------------


def check_float(text: str, model: nn.Module, _session: qx.Session) -> None:
    found = weighted(model)
    if not found:
        assert text.startswith("no layer with a weight")
        return
    head = text.partition(" with weights")[0]
    assert sum(int(n.replace(",", "")) for n in re.findall(r"\d[\d,]*(?= )", head)) == len(found)
    total = sum(p.numel() for p in model.parameters())
    shown = re.search(r"([\d.,]+) (M )?parameter", text)
    assert shown is not None
    assert float(shown[1].replace(",", "")) * (1e6 if shown[2] else 1) == pytest.approx(
        total, rel=5e-3 if shown[2] else 0
    )


def check_traced(text: str, model: nn.Module, _session: qx.Session) -> None:
    assert isinstance(model, fx.GraphModule)
    ops = [n.op for n in model.graph.nodes if n.op.startswith("call")]
    assert number("graph of # operation", text) == len(ops)
    assert number("# calls? of modules", text) == ops.count("call_module")
    assert number("# of functions or methods$", text) == len(ops) - ops.count("call_module")


def check_fused(text: str, model: nn.Module, _session: qx.Session) -> None:
    fused = {id(m) for m in model.modules() if isinstance(m, _FusedModule)}
    shown = sum(int(n) for n in re.findall(r"(\d+) (?:[\w-]+|transposed conv[\w-]*)", text))
    assert shown == len(fused)
    assert ("nothing was fused" in text) == (not fused)


def check_qconfig(text: str, model: nn.Module, session: qx.Session) -> None:
    model = session.model  # a copy of a GraphModule has lost what was set on its root
    found = weighted(model)
    have = [m for m in found.values() if getattr(m, "qconfig", None) is not None]
    if found:
        assert number("^# of", text) == len(have)
        assert number("of # layer", text) == len(found)
        assert ("none" in text) == (len(have) < len(found))
    stubs = sum(isinstance(m, QuantStub) for m in model.modules())
    before = sum(isinstance(m, QuantStub) for m in session.copy_model(session.stages[0]).modules())
    assert number("; # QuantStubs? put in", text) == max(0, stubs - before)


def check_weights(text: str, model: nn.Module, _session: qx.Session) -> None:
    owners = {id(m): m for m in model.modules() if hasattr(m, "weight_fake_quant")}
    owners = {k: m for k, m in owners.items() if isinstance(m.weight_fake_quant, FakeQuantizeBase)}
    if not owners:
        assert "in forward" not in text
        return
    assert number("^# layers? rounds? ", text) == len(owners)
    weights = {id(m.weight): m.weight.numel() for m in owners.values()}
    total = sum(p.numel() for p in model.parameters())
    assert parameters_in(text) == pytest.approx(
        (sum(weights.values()), total), abs=5e4 if total > 1e6 else 0
    )


def check_inserted(text: str, model: nn.Module, session: qx.Session) -> None:
    ran = running(model, session.options.example_inputs)
    every = quantizers(model)
    told = sum(
        number(rf"\b# {kind}s?\b(?=.*rounded)", text) for kind in ("weight", "input", "output")
    )
    if isinstance(model, fx.GraphModule):
        nodes = [m for m in fake_quant_nodes(model) if id(m) in ran]
        inside = [m for k, m in every.items() if k in ran and k not in {id(n) for n in nodes}]
        assert told == len(nodes) + len(inside)
        assert number("; # of these", text) == len(nodes) - len({id(n) for n in nodes})
    else:
        assert told == len(ran)
    assert number("; # fake quants? do", text) == len(every) - len(ran)


def check_trained(text: str, model: nn.Module, _session: qx.Session) -> None:
    every = list(quantizers(model).values()) or list(quantizers(model, ObserverBase).values())
    asking = [
        obs
        for obs in (getattr(m, "activation_post_process", m) for m in every)
        if isinstance(getattr(obs, "min_val", None), Tensor)
    ]
    seen = [o for o in asking if o.min_val.numel() and bool((o.min_val <= o.max_val).all())]
    if not every:
        assert "no fake quant is in the model" in text
    elif asking and not seen:
        assert re.match("no (fake quant|observer) has seen data", text)
    elif asking and len(seen) == len(asking):
        assert number("^all # ", text) == len(asking)
    elif asking:
        assert (number("^# of", text), number("of # ", text)) == (len(seen), len(asking))


def check_reference(text: str, model: nn.Module, _session: qx.Session) -> None:
    assert isinstance(model, fx.GraphModule)
    kinds = [type(m).__module__ for m in dict.fromkeys(model.modules())]
    reference = sum(kind.startswith("torch.ao.nn.quantized.reference") for kind in kinds)
    assert number("^# layers?", text) == reference
    quantize = sum("quantize_per" in str(n.target) for n in model.graph.nodes)
    assert number("# tensors? quantized", text) == quantize


def check_int8(text: str, model: nn.Module, session: qx.Session) -> None:
    """Layers of the float model by what stands in their place in the int8 one."""
    base = session.copy_model(session.stages[0])
    now = dict(model.named_modules())
    names = {p.removeprefix("module.").replace(".module", ""): m for p, m in now.items()}
    int8, left = 0, 0
    for path, layer in weighted(base).items():
        here = names.get(path, now.get(path))
        if here is None or not type(layer).__module__.startswith("torch.nn."):
            continue
        kind = type(here).__module__
        if kind.startswith(("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")):
            int8 += 1
        elif type(here) is type(layer):
            left += 1
    own = [m for m in weighted(base).values() if not type(m).__module__.startswith("torch.nn.")]
    if own:  # what holds parameters itself may be one layer or many functions
        return
    if "all " in text or "the one layer" in text:
        told = number("all # layers", text) or int("the one layer" in text)
        assert (told, 0) == (int8, left)
    elif "int8 for" in text:
        assert number("int8 for #", text) == int8
    else:
        assert not int8


CHECKS: dict[str, Callable[[str, nn.Module, qx.Session], None]] = {
    "float": check_float,
    "traced": check_traced,
    "fused": check_fused,
    "qconfig": check_qconfig,
    "weights": check_weights,
    "inserted": check_inserted,
    "trained": check_trained,
    "reference": check_reference,
    "int8": check_int8,
}


def session_of(case: Callable[[], tuple[nn.Module, Any]], flow: str, **settings: Any) -> qx.Session:
    model, x = case()
    data = {"train": loader(x), "eval": loader(x)} if isinstance(x, Tensor) else None
    session = qx.Session(model.train(), x, flow=flow, data=data, **settings)
    session.warns = False
    return session


def check_every_stage(session: qx.Session) -> list[str]:
    """Walk as far as torch goes; the news of each stage reached is checked. Returns their roles."""
    roles = []
    for stage in session.flow.stages:
        try:
            session.goto(stage.name)
        except QatExplorerError:
            break
        if stage.role == "trained":
            told = news_of(session.flow.stages, session.snapshots)[stage.name]
            check_trained(told, session.copy_model(), session)
            if session.data is not None and session.snapshot.sites:
                session.calibrate(1)
        told = news_of(session.flow.stages, session.snapshots)[stage.name]
        assert told
        assert told == told.strip(" .;")
        CHECKS[stage.role](told, session.copy_model(), session)
        roles.append(stage.role)
    return roles


@pytest.mark.parametrize("flow", ["eager", "fx", "toy"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_number_is_what_torchs_modules_say(case: Case, flow: str) -> None:
    assert check_every_stage(session_of(case, flow))


@pytest.mark.parametrize("flow", ["eager", "fx"])
@pytest.mark.parametrize("model", TORCHS, ids=lambda model: model.id)
def test_torchs_own_test_models(model: Any, flow: str) -> None:
    made, inputs = model.make()
    for module in made.modules():
        vars(module).pop("qconfig", None)
    session = qx.Session(made, inputs, flow=flow)
    session.warns = False
    assert check_every_stage(session)


@pytest.mark.parametrize("stubs", ["model", "layers"])
@pytest.mark.parametrize("name", ["no_stubs", "timm_resnet18"])
def test_stubs_that_are_put_in_are_counted(name: str, stubs: Any) -> None:
    case = next(case for case in CASES if case.name == name)
    session = session_of(case, "eager", stubs=stubs)
    roles = check_every_stage(session)
    assert "qconfig" in roles
    told = news_of(session.flow.stages, session.snapshots)
    assert "put in" in told["propagate"]


def test_the_sentences_of_a_resnet() -> None:
    session = session_of(NARROW_RESNET, "fx")
    session.goto("insert")
    told = news_of(session.flow.stages, session.snapshots)
    assert told["float"].startswith("20 Conv2d and 1 Linear with weights, 282,698 parameters")
    assert told["fuse"] == "19 conv-bn and 1 conv-bn-relu groups became one module each"
    assert told["swap"].startswith("21 layers round their weights to int8 in forward")
    assert re.search(
        r"^21 weights, 1 input and \d+ outputs will be rounded; \d+ of", told["insert"]
    )


def test_a_layer_without_qconfig_is_named_with_its_reason() -> None:
    session = session_of(lambda: (ConvBnRelu(), image()), "eager", qconfig={"fc": None})
    session.goto("insert")
    told = news_of(session.flow.stages, session.snapshots)
    assert told["propagate"] == "2 of 3 layers have a qconfig; fc has none"
    assert told["insert"].endswith("; fc stays float: no qconfig")


def test_int4_ranges_and_bare_observers_are_called_what_they_are() -> None:
    def grid(low: int, high: int) -> Any:
        return torch.ao.quantization.FakeQuantize.with_args(
            observer=torch.ao.quantization.MovingAverageMinMaxObserver,
            quant_min=low,
            quant_max=high,
            dtype=torch.qint8,
        )

    narrow = torch.ao.quantization.QConfig(
        activation=torch.ao.quantization.default_fused_act_fake_quant, weight=grid(-8, 7)
    )
    session = session_of(lambda: (ConvBnRelu(), image()), "eager", qconfig=narrow)
    session.goto("swap")
    told = news_of(session.flow.stages, session.snapshots)
    assert "to 16 codes in forward" in told["swap"]

    def watched() -> tuple[nn.Module, Tensor]:
        model = ConvBnRelu()
        model.qconfig = get_default_qconfig("onednn")  # type: ignore[assignment]
        return model, image()

    session = session_of(watched, "eager")
    session.goto("insert")
    told = news_of(session.flow.stages, session.snapshots)
    assert told["swap"] == "3 weights only observed, none is rounded"
    assert told["insert"].startswith("nothing will be rounded; ")
