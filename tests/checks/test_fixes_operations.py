"""What the rules on operations, inputs and hooks say to write is written, and works."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao.quantization import QuantWrapper

import qatexplorer as qx
from qatexplorer.checks.records import Finding
from qatexplorer.errors import ExampleInputError
from tests.cases.models import ChangeDetector
from tests.checks import examples_inputs, examples_operations
from tests.checks.examples_inputs import Around, Flag, Split, cannot_be_traced, listed
from tests.checks.examples_operations import (
    EAGER,
    FX,
    REFUSED,
    WRITTEN,
    Between,
    OneCall,
    Partly,
    Twins,
    between,
    joined,
)
from tests.checks.torch_alone import error_of, int8_is_off, loses_codes


def findings(model: Any, inputs: Any, rule: str, **settings: Any) -> tuple[Finding, ...]:
    session = qx.Session(model, inputs, **settings)
    session.warns = False
    return session.check().with_id(rule)


CODE = ("add", "subtract", "multiply", "in-place", "by-a-number", "negative", "product")


@pytest.mark.parametrize("name", CODE)
def test_the_line_that_replaces_arithmetic_runs_in_int8(name: str) -> None:
    (found,) = findings(*REFUSED[name][0](), "QX201", **EAGER)
    assert found.source.startswith("examples_operations.py:")
    assert f"at {found.source}, with one such module for each place." in found.fix
    assert "self.ff = torch.ao.nn.quantized.FloatFunctional()" in found.fix
    assert "in __init__, and write " in found.fix
    code = compile(re.findall(r" write (.+?) at ", found.fix)[0], "fix", "eval")

    def written(m: Any, a: Tensor, b: Tensor) -> Any:
        return eval(code, {"self": m, "a": a, "b": b, "x": a, "c": 2.0})

    broken, inputs = REFUSED[name][0]()
    fixed, _ = between(written)()
    with torch.no_grad():  # and it is the same function
        assert torch.allclose(broken(inputs), fixed(inputs), atol=1e-6)
    assert error_of(fixed, inputs) == ""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("softmax", "Keep softmax float: a DeQuantStub before it and a QuantStub after it"),
        ("silu-module", "Keep nn.SiLU float: a DeQuantStub before it and a QuantStub after it"),
        ("hardswish-function", "Make an nn.Hardswish in __init__ and call it in place of"),
        ("layer-norm-function", "it has an int8 version."),
        ("view", "Write reshape in place of view"),
        ("stub-after-stub", "Take one of the two QuantStubs away, or put a DeQuantStub before"),
    ],
)
def test_what_takes_the_place_of_other_operations(name: str, text: str) -> None:
    (found,) = findings(*REFUSED[name][0](), "QX201", **EAGER)
    assert text in found.fix
    model, inputs = REFUSED[name][1]()
    assert error_of(model, inputs) == ""


def test_a_silu_between_its_stubs_runs_and_so_it_does_with_layers_wrapped() -> None:
    island, inputs = between(lambda m, a, b: m.again(m.act(m.out(a))), act=nn.SiLU())()
    assert error_of(island, inputs) == ""
    model, inputs = REFUSED["silu-module"][0]()
    (found,) = findings(model, inputs, "QX201", **EAGER)
    assert "Or wrap each layer, session.configure(stubs='layers'), or use flow='fx'" in found.fix
    for settings in ({"flow": "eager", "stubs": "layers"}, {"flow": "fx"}):
        session = qx.Session(copy.deepcopy(model), inputs, **settings)
        assert session.preflight().ok


def test_a_float_parameter_gets_a_stub_and_a_functional() -> None:
    def plus(m: Any, a: Tensor, b: Tensor) -> Tensor:
        return a + m.position.weight

    position = nn.Embedding(6, 6)
    (found,) = findings(*between(plus, position=position)(), "QX201", **EAGER)
    assert found.fix.startswith("Quantize the other tensor with a QuantStub of its own, and make ")

    def fixed(m: Any, a: Tensor, b: Tensor) -> Tensor:
        return m.ff.add(a, m.again(m.position.weight.expand(2, 4, 6, 6)))

    position = nn.Embedding(6, 6)
    position.qconfig = None  # type: ignore[assignment]
    model, inputs = between(fixed, position=position)()
    assert error_of(model, inputs) == ""


def test_a_layer_after_a_float_one_is_kept_float_by_the_line() -> None:
    model, inputs = Partly(False).train(), torch.rand(2, 3, 4, 4)
    (found,) = findings(model, inputs, "QX202", **EAGER)
    assert "Put a QuantStub of its own before last, or keep it float: " in found.fix
    code = found.fix.partition("keep it float: ")[2]
    assert error_of(copy.deepcopy(model), inputs)
    exec(code, {"model": model})
    assert error_of(model, inputs) == ""


def test_a_functional_joins() -> None:
    model, inputs = joined(lambda m, a, b: torch.cat([a, b], 1))()
    (found,) = findings(model, inputs, "QX203", **EAGER)
    assert "Make self.join = torch.ao.nn.quantized.FloatFunctional() in __init__" in found.fix
    assert "in place of torch.cat([...])" in found.fix
    assert found.severity == "error"
    fixed, inputs = joined(lambda m, a, b: m.ff.cat([a, b], 1))()
    assert not int8_is_off(fixed, inputs)
    (found,) = findings(*joined(lambda m, a, b: torch.stack([a, b], 1))(), "QX203", **EAGER)
    assert " with unsqueeze for stack" in found.fix


def test_a_join_whose_first_tensor_is_the_wide_one_is_a_warning() -> None:
    (found,) = findings(*joined(lambda m, a, b: torch.cat([b, a], 1))(), "QX203", **EAGER)
    assert found.severity == "warning"


@pytest.mark.parametrize("name", WRITTEN)
def test_the_call_that_fx_converts(name: str) -> None:
    model, inputs = OneCall(WRITTEN[name][0], 4, 3, 3, 3).train(), torch.rand(2, 3, 8, 8)
    (found,) = findings(model, inputs, "QX204", **FX)
    assert found.fix.endswith("or use nn.Conv2d.")
    code = compile(re.findall(r"Write (.+), or use ", found.fix)[0], "fix", "eval")
    with torch.no_grad():
        wanted = model(inputs)

    def written(x: Tensor, w: Tensor, b: Tensor) -> Any:
        kept = torch.fx.wrap  # the names of the model's own parameters
        del kept
        parameters = type("Self", (), {"weight": w, "bias": b})
        return eval(code, {"F": F, "self": parameters, "x": x})

    fixed = OneCall(written, 4, 3, 3, 3).train()
    with torch.no_grad():
        assert torch.equal(fixed(inputs), wanted)
    assert error_of(fixed, inputs, "fx") == ""


def test_a_twin_with_the_same_parameters_has_a_range_of_its_own() -> None:
    inputs = torch.rand(8, 4), torch.rand(8, 4) * 40
    (found,) = findings(Twins(False).train(), inputs, "QX206", **EAGER)
    assert "Make twin = copy.deepcopy(model.fc)" in found.fix
    assert "for the second call, with the same parameters: twin.weight, twin.bias = " in found.fix
    model = Twins(False)
    model.twin, model.has_twin = copy.deepcopy(model.fc), True
    model.twin.weight, model.twin.bias = model.fc.weight, model.fc.bias
    assert len({id(p) for p in model.parameters()}) == 1
    assert not loses_codes("fc")(copy.deepcopy(model).train(), inputs)
    session = qx.Session(model.train(), inputs, **EAGER)
    session.goto("insert")
    assert session.model.fc.weight is session.model.twin.weight  # one weight is trained


def test_a_stub_of_its_own_for_each_image() -> None:
    model, inputs = examples_operations.two_images(1)()
    (found,) = findings(model, inputs, "QX206", **EAGER)
    assert "Make a QuantStub for each call of quant, in __init__ of the module" in found.fix
    model, inputs = examples_operations.two_images(2)()
    assert not findings(model, inputs, "QX206", **EAGER)


def test_pieces_that_are_named_are_traced() -> None:
    model, inputs = Around(Split(listed)).train(), torch.rand(2, 3, 4, 4)
    (found,) = findings(model, inputs, "QX211", **FX)
    assert "Name the pieces: a, b = x.chunk(2, 1), and write [a, b] for the list. Or " in found.fix
    code = re.findall(r"pieces: (.+?), and write (\[.+?\])", found.fix)[0]
    space: dict[str, Any] = {}
    exec(f"def named(x):\n    {code[0]}\n    return {code[1]}", space)
    assert not cannot_be_traced(Around(Split(space["named"])).train(), inputs)
    assert "pass non_traceable=['block'], which leaves block as one call in float." in found.fix
    session = qx.Session(model, inputs, non_traceable=["block"], **FX)
    assert session.preflight().ok


def test_all_that_stops_tracing_is_left_as_one_call() -> None:
    model, inputs = examples_inputs.TwoBlocks(listed, True).train(), torch.rand(2, 3, 4, 4)
    first, second = findings(model, inputs, "QX211", **FX)
    for found in (first, second):
        assert found.fix.endswith(" All of them at once: non_traceable=['body.block', 'value'].")
    session = qx.Session(model, inputs, non_traceable=["body.block", "value"], **FX)
    session.goto("trace")


def test_the_line_and_the_argument_that_decide_are_named() -> None:
    (found,) = findings(Flag().train(), torch.rand(2, 4), "QX211", **FX)
    assert "'if probabilities:'" in found.message
    assert found.source.startswith("examples_inputs.py:")
    assert "return self.model(x, probabilities=False)" in found.fix


def test_torchs_own_wrapper_around_two_inputs() -> None:
    wrapped = QuantWrapper(ChangeDetector()).train()
    pictures = torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8) * 30
    with pytest.raises(ExampleInputError, match="takes one tensor, and gets") as caught:
        qx.Session(wrapped, pictures)
    assert "takes 2 positional arguments but 3 were given" in caught.value.why
    assert "Hand over the model inside it, model.module, with stubs='model'" in caught.value.fix
    session = qx.Session(wrapped.module, pictures, flow="eager", stubs="model")
    assert session.preflight().ok


def test_where_a_lost_hook_would_run() -> None:
    for path, kind in (("net.1", "forward"), ("net.2", "pre")):
        make = examples_inputs.hooked(path, kind)
        (found,) = findings(*make(), "QX910", **examples_inputs.FUSED)
        assert "Hooked.__init__.<locals>.<lambda>" in found.message
        code = found.fix.partition("(…)")[0]
        model, inputs = make()
        model.get_submodule(path)._forward_hooks.clear()
        model.get_submodule(path)._forward_pre_hooks.clear()
        hook: Any = lambda *a, kept=model.kept: kept.append(1)
        eval(code, {"model": model})(hook)
        session = qx.Session(model, inputs, **examples_inputs.FUSED)
        session.goto("insert")
        assert not session.check().with_id("QX910")


def test_texts_of_between() -> None:
    """What the tests above take for granted."""
    model, inputs = between(lambda m, a, b: a)()
    assert isinstance(model, Between)
    assert error_of(model, inputs) == ""
