"""Every architecture through the FX flow: torch's one call bit for bit, or a clear refusal."""

from __future__ import annotations

from typing import Any

import pytest

from ..models import Case
from ..models_fx import ALL_FX
from .fx_reference import compare_fx

REFUSED = {"masked": "inner.0", "branching": ""}
"""Models that torch.fx cannot trace, and the module to blame."""


def inputs_of(x: Any) -> Any:
    return x if isinstance(x, dict) else (x,)


FAST_TIMM = ("timm_lcnet_050", "timm_resnet18_gamma_zero", "timm_mixer_s32_224")


def _param(case: Case) -> Any:
    slow = case.name.startswith("timm") and case.name not in FAST_TIMM
    return pytest.param(case, id=case.name, marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize("case", [_param(case) for case in ALL_FX])
def test_fx_walk_equals_one_call(case: Case) -> None:
    model, x = case()
    outcome = compare_fx(model, inputs_of(x))
    if case.name in REFUSED:
        assert outcome.refused is not None
        assert outcome.refused.where == REFUSED[case.name]
        assert outcome.session.stage == "float"
    elif not case.name.startswith("transformers"):
        assert outcome.refused is None
