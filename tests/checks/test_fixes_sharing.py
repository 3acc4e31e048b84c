"""What the rules of sharing and fusion say to do, done: finding and fault are gone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.ao.nn.quantized import FloatFunctional

import qatexplorer as qx
from qatexplorer import errors
from tests.checks import examples_fusion, examples_sharing
from tests.checks.examples import EXAMPLES, Example
from tests.checks.examples_sharing import EAGER, FX, conv, made, norm, pixels

assert examples_fusion, examples_sharing  # they add to EXAMPLES

MINE = [case for case in EXAMPLES if case.rule.startswith(("QX15", "QX17"))]
NOTHING_TO_CALL = {"QX157", "QX172", "QX176"}  # good to know, or code alone


def session_of(case: Example) -> qx.Session:
    model, inputs = case.broken()
    session = qx.Session(model, inputs, **case.settings)
    session.warns = False
    return session


@pytest.mark.parametrize("case", MINE, ids=lambda case: f"{case.rule}-{case.name}")
def test_a_call_that_is_offered_helps(case: Example) -> None:
    session = session_of(case)
    found = session.check().with_id(case.rule)
    fixes = [one.fixes[0] for one in found if one.fixes]
    if not fixes:
        assert case.rule in NOTHING_TO_CALL | {"QX151", "QX153", "QX171", "QX173", "QX175", "QX177"}
        return
    fixes[0].apply(session)
    assert not session.check().with_id(case.rule)
    if fixes[0].call == "edit":
        assert fixes[0].diff
        assert session.edits[-1].code
        _, inputs = case.broken()
        assert not case.misbehaves(session.copy_model("float"), inputs)


def test_calls_are_offered_where_there_are_some() -> None:
    wanted = {"QX151", "QX152", "QX158", "QX171", "QX174"}
    for case in MINE:
        if case.rule in wanted and any(f.fixes for f in session_of(case).check().found):
            wanted.remove(case.rule)
    assert not wanted


def finding_of(build: Any, settings: dict[str, Any], rule: str) -> tuple[Any, nn.Module, Any]:
    model, inputs = build()
    session = qx.Session(model, inputs, **settings)
    session.warns = False
    (found,) = session.check().with_id(rule)
    return found, model, inputs


def is_gone(model: nn.Module, inputs: Any, settings: dict[str, Any], rule: str) -> bool:
    session = qx.Session(model, inputs, **settings)
    session.warns = False
    return not session.check().with_id(rule)


def run_code(code: str, model: nn.Module) -> None:
    exec(
        code,
        {"model": model, "copy": copy, "nn": nn, "FloatFunctional": FloatFunctional},
    )


def test_a_layer_of_its_own_with_the_same_weight() -> None:
    build = made(pixels, lambda m, x: m.norm(m.conv(x)) + m.conv(x * 2), conv=conv, norm=norm)
    found, model, inputs = finding_of(build, FX, "QX151")
    assert "model.conv_2 = copy.deepcopy(model.conv, {id(p): p" in found.fix
    assert "# and call conv_2 at test_fixes_sharing.py:" in found.fix
    wanted = copy.deepcopy(model).eval()(*inputs)
    run_code(found.fix, model)
    model.run = lambda m, x: m.norm(m.conv(x)) + m.conv_2(x * 2)
    assert model.conv_2.weight is model.conv.weight
    assert torch.equal(copy.deepcopy(model).eval()(*inputs), wanted)
    assert is_gone(model, inputs, FX, "QX151")
    assert not examples_sharing.fx_differs(model, inputs)


def test_a_functional_of_its_own() -> None:
    build = made(
        pixels,
        lambda m, x: m.dequant(m.f.add(m.f.add(m.quant(x), m.quant(x)), m.quant(x))),
        f=FloatFunctional,
    )
    found, model, inputs = finding_of(build, EAGER, "QX153")
    assert found.fix.startswith("model.f_2 = FloatFunctional()")
    run_code(found.fix, model)
    model.run = lambda m, x: m.dequant(m.f_2.add(m.f.add(m.quant(x), m.quant(x)), m.quant(x)))
    assert is_gone(model, inputs, EAGER, "QX153")


@pytest.mark.parametrize(
    ("text", "settings", "broken", "fixed", "parts"),
    [
        ("Write F.relu(…) at ", FX, lambda m, x: torch.relu(m.conv(x)),
         lambda m, x: F.relu(m.conv(x)), {}),
        ("Call an nn.ReLU() at ", EAGER, lambda m, x: F.relu(m.conv(m.quant(x))),
         lambda m, x: m.relu(m.conv(m.quant(x))), {"relu": nn.ReLU}),
        ("Call model.f.add_relu(…) at ", EAGER, lambda m, x: F.relu(m.f.add(m.quant(x), x)),
         lambda m, x: m.f.add_relu(m.quant(x), x), {"f": FloatFunctional}),
    ],
)  # fmt: skip
def test_a_relu_that_is_fused(
    text: str, settings: dict[str, Any], broken: Any, fixed: Any, parts: Any
) -> None:
    build = made(pixels, broken, conv=conv, **parts)
    found, model, inputs = finding_of(build, settings, "QX173")
    assert found.fix.startswith(text)
    assert "test_fixes_sharing.py:" in found.fix
    wanted = model.eval()(*inputs)
    model.train().run = fixed
    assert is_gone(model, inputs, settings, "QX173")
    assert torch.equal(model.eval()(*inputs), wanted)


def test_a_relu_in_place_of_relu6() -> None:
    build = made(pixels, lambda m, x: m.relu(m.conv(x)), conv=conv, relu=nn.ReLU6)
    found, model, inputs = finding_of(build, FX, "QX173")
    assert found.fix == "model.relu = nn.ReLU()  # another function above 6"
    run_code(found.fix, model)
    assert is_gone(model, inputs, FX, "QX173")


def test_what_stands_between_is_taken_out() -> None:
    build = made(
        pixels, lambda m, x: m.norm(m.drop(m.conv(x))), conv=conv, norm=norm, drop=nn.Identity
    )
    found, model, inputs = finding_of(build, FX, "QX171")
    assert found.fix == "Take drop out of forward."
    model.run = lambda m, x: m.norm(m.conv(x))
    assert is_gone(model, inputs, FX, "QX171")


def test_a_norm_on_a_dimension_more() -> None:
    model, inputs = examples_fusion.tokens(False)()
    session = qx.Session(model, inputs, **FX)
    (found,) = session.check().with_id("QX175")
    assert found.fix.endswith("# and call it on x.unsqueeze(-1), then .squeeze(-1)")
    wanted = copy.deepcopy(model).eval()(*inputs)
    run_code(found.fix, model)
    model.two_dimensions = True  # its forward then does so
    assert torch.allclose(copy.deepcopy(model).eval()(*inputs), wanted, atol=1e-6)
    assert is_gone(model.train(), inputs, FX, "QX175")


def test_the_compiled_model_can_be_wrapped_again() -> None:
    model, inputs = examples_fusion.compiled()
    session = qx.Session(model, inputs, **FX)
    (found,) = session.check().with_id("QX176")
    assert found.fix == "Wrap the prepared model again."
    session.goto("insert")
    wrapped = torch.compile(session.model, backend="eager")
    assert wrapped(*inputs).shape == model(*inputs).shape


def test_a_fuse_list_by_names_alone() -> None:
    build = made(pixels, lambda m, x: m.body(m.quant(x)),
                 body=lambda: nn.ModuleDict({"a": nn.Conv2d(3, 3, 1)}))  # fmt: skip
    model, inputs = build()
    model.run = lambda m, x: m.body["a"](m.quant(x))
    with pytest.raises(errors.FusionError) as caught:
        qx.Session(model, inputs, fusion=["a"])
    assert caught.value.fix == "Pass fusion='auto': it finds the groups."
    assert qx.Session(model, inputs, fusion="auto").fusion == ()


def test_one_name_that_is_called_twice_cannot_be_unshared() -> None:
    build = made(pixels, lambda m, x: m.conv(m.conv(x)), conv=conv)
    model, inputs = build()
    session = qx.Session(model, inputs)
    with pytest.raises(errors.EditError) as caught:
        session.edit("unshare", "conv")
    assert caught.value.fix == "Where one name is called several times, forward has to be changed."
    model.conv_2 = copy.deepcopy(model.conv)
    model.run = lambda m, x: m.conv_2(m.conv(x))
    assert qx.Session(model, inputs).model.conv_2 is not None


def test_the_ledger_says_what_to_write_for_what_is_rounded_twice() -> None:
    model, inputs = examples_fusion.flat(lambda m, x: x.flatten(1))()
    session = qx.Session(model, inputs, **FX)
    (found,) = session.check().with_id("QX177")
    assert found.fix == "session.ledger().redundancies says what to write."
    session.goto("insert")
    (double,) = [one for one in session.ledger().redundancies if one.kind == "double"]
    assert double.fix.startswith("Write torch.flatten(x, …) instead of x.flatten(…)")
