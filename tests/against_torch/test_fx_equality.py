"""Every architecture through the FX flow: torch's one call bit for bit, or a clear refusal."""

from __future__ import annotations

from typing import Any

import pytest

from tests.against_torch.fx_reference import compare_fx
from tests.support.models import Case
from tests.support.models_fx import ALL_FX
from tests.tools.fx_table import OUT

REFUSED = {
    "masked": "inner.0",
    "branching": "",
    "timm_vgg11_bn": "pre_logits",
    "timm_mobilevitv2_050": "stages.2.1",
    "transformers_bert": "",
    "transformers_gpt2": "",
    "transformers_vit": "",
    "transformers_resnet": "resnet.embedder",
    "transformers_gpt2_block": "",
}
"""Models that torch.fx cannot trace or prepare, and the module to blame."""


def inputs_of(x: Any) -> Any:
    return x if isinstance(x, dict) else (x,)


LONG = ("timm", "transformers")
DAILY = (
    "timm_lcnet_050",
    "transformers_gpt2_block",
    "transformers_bert_feed_forward",
    "transformers_resnet",
)
"""Of the families above: one of depthwise convolutions and gates, a layer that is no nn.Linear, a
block with layer norm, and one that cannot be traced and is named by its part."""


def _param(case: Case) -> Any:
    long = case.name.startswith(LONG) and case.name not in DAILY
    return pytest.param(case, id=case.name, marks=[pytest.mark.long] if long else [])


@pytest.mark.parametrize("case", [_param(c) for c in ALL_FX])
def test_fx_flow_equals_one_call(case: Case) -> None:
    model, x = case()
    outcome = compare_fx(model, inputs_of(x))
    if case.name in REFUSED:
        assert outcome.refused is not None
        assert outcome.refused.where == REFUSED[case.name]
        assert outcome.session.stage == outcome.session.reached
    else:
        assert outcome.refused is None


def test_the_table_has_every_architecture() -> None:
    rows = [line.split(" | ") for line in OUT.read_text().splitlines() if line.startswith("| ")]
    named = {row[0].removeprefix("| "): row for row in rows[1:]}
    assert set(named) == {case.name for case in ALL_FX}
    assert len(named) >= 25
    assert all(row[1] in ("equal", "refused", "equal until it raises") for row in named.values())
    for name, where in REFUSED.items():
        assert named[name][1] == "refused"
        assert f"`{where}`" in named[name][-1] or not where
