"""No error is found in a model that torch alone takes to int8 rightly, and a check runs it little.

What torch alone comes to is found out anew for each model (``tests/support/trust.py``); the table
of all of them is ``docs/checks-trust.md``.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import fx, nn

import qatexplorer as qx
from qatexplorer.flows.eager import EagerFlow
from qatexplorer.flows.fx import FxFlow
from tests.support.models import Case, ConvBnRelu, PlainAdd, image, load_timm
from tests.support.models_fx import WRITTEN
from tests.support.trust import GROUPS, Checked, Trusted, by_torch, check
from tests.tools import trust_table

SAMPLE = (
    "torch_TwoLayerLinearModel-eager",
    "torch_ConvBnReLUModel-fx",
    "torch_FunctionalConvReluModel-fx",
    "torch_NestedModel-eager",
    "conv_bn_relu-eager",
    "conv_bn_relu-fx",
    "residual-eager",
    "residual-fx",
    "tied-eager",
    "quantizable_mobilenet-eager",
    "quantizable_mobilenet-fx-x86",
    "quantizable_resnet-fx",
    "inception-fx",
    "squeeze_excite-fx",
    "tiny_vit-fx",
    "recurrent-eager",
    "transformers_bert_feed_forward-eager",
    "transformers_llama-eager",
)
CASES = {case.id: case for group in GROUPS.values() for case in group()}


def _asked() -> list[Any]:
    """The sample; all others are ``long``. The script that writes the table runs all, too."""
    return [
        pytest.param(case, id=id, marks=[] if id in SAMPLE else [pytest.mark.long])
        for id, case in CASES.items()
    ]


@pytest.mark.parametrize("case", _asked())
def test_no_error_is_found_where_torch_alone_is_right(case: Trusted) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        verdict = by_torch(case)
        if verdict.wrong:
            assert case.id not in SAMPLE, verdict.wrong
            pytest.skip(f"torch alone: {verdict.wrong}")
        checked = check(case)
    assert not checked.stopped
    assert not checked.failed
    assert not checked.errors, [f"{one.id} {one.place}: {one.message}" for one in checked.errors]


def test_the_sample_is_of_models_that_there_are() -> None:
    assert set(SAMPLE) <= set(CASES)


def test_the_table_has_sixty_right_models_and_no_error() -> None:
    """As it lies in the docs: the script that writes it asks torch and the checks."""
    text = trust_table.OUT.read_text()
    right, wrong = text.split("## Not right by torch alone")
    rows = [line for line in right.splitlines() if line.startswith("| ") and "%" in line]
    assert len({line.split(" | ")[0] for line in rows}) >= 60
    assert all(trust_table.errors_in(line) == 0 for line in rows)
    assert len(rows) + sum(line.startswith("| ") for line in wrong.splitlines()) - 1 == len(CASES)


def test_a_model_that_torch_gets_wrong_is_no_trusted_one() -> None:
    broken = Trusted("plain_add", "eager", lambda: (PlainAdd(), torch.randn(4, 6)))
    assert by_torch(broken).wrong.startswith("int8 does not run")
    assert check(broken).errors


def test_a_row_tells_rules_and_counts() -> None:
    case = Trusted("conv", "eager", lambda: (ConvBnRelu(), image()))
    line = trust_table.row(case, by_torch(case), Checked(()))
    assert line.startswith("| conv | eager | 0.")
    assert trust_table.errors_in(line) == 0


class Counted:
    """Forwards of a whole model on real tensors, and converts to int8."""

    def __init__(self, model: nn.Module) -> None:
        self.modules = sum(1 for _ in model.modules())
        self.forwards = self.converts = 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        depth = 0

        def enter(module: nn.Module, args: Any) -> None:
            nonlocal depth
            traced = any(isinstance(value, fx.Proxy) for value in args)
            # A trial of one layer or operation is none.
            whole = sum(1 for _ in module.modules()) > self.modules // 2
            self.forwards += depth == 0 and not traced and whole
            depth += 1

        def leave(module: nn.Module, args: Any, out: Any) -> None:
            nonlocal depth
            depth -= 1

        before = nn.modules.module.register_module_forward_pre_hook(enter)
        after = nn.modules.module.register_module_forward_hook(leave, always_call=True)
        made = {flow: flow.apply for flow in (EagerFlow, FxFlow)}

        def counting(flow: Any) -> Any:
            def apply(self_: Any, stage: str, *rest: Any, **named: Any) -> Any:
                self.converts += stage in self_.converted_stages
                return made[flow](self_, stage, *rest, **named)

            return apply

        for flow in made:
            flow.apply = counting(flow)  # type: ignore[method-assign]
        try:
            yield
        finally:
            before.remove()
            after.remove()
            for flow, apply in made.items():
                flow.apply = apply  # type: ignore[method-assign]


TIMM = (
    Case("lcnet_050", lambda: load_timm("lcnet_050")),
    Case("resnet50", lambda: load_timm("resnet50", zero_init_last=False)),
)


def _name(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("settings", [{"stubs": "layers"}, {"flow": "fx"}], ids=["eager", "fx"])
@pytest.mark.parametrize(
    "case", [WRITTEN[0], *(pytest.param(c, marks=pytest.mark.long) for c in TIMM)], ids=_name
)
def test_a_check_is_four_forwards_and_one_convert(case: Case, settings: dict[str, Any]) -> None:
    model, x = case()
    session = qx.Session(model, x, **settings)
    session.warns = False
    counted = Counted(model)
    with counted():
        session.check()
    assert 1 <= counted.forwards <= 4
    assert counted.converts == 1
    again = Counted(model)
    with again():
        session.check()
    assert again.forwards <= 4
    assert again.converts <= 1
