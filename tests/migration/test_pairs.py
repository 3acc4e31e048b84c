"""Fake quants of two sessions that round the same tensor."""

from __future__ import annotations

import pytest
import torch

import qatexplorer as qx
from qatexplorer.migration.pairs import paired
from tests.support.ledger_models import Flat


@pytest.mark.parametrize(("flow", "stubs"), [("eager", "model"), ("fx", "none")])
def test_they_are_paired_from_either_flow(flow: str, stubs: str) -> None:
    session = qx.Session(Flat("function").train(), torch.randn(4, 1, 8, 8), flow=flow, stubs=stubs)
    session.goto(session.flow.prepared_stage)
    other = session.in_other_flow()
    pairs = paired(session, other)
    assert sorted(paired(other, session)) == sorted((b, a) for a, b in pairs)
    by_eager = dict(pairs if flow == "eager" else [(b, a) for a, b in pairs])
    assert by_eager["module.conv.weight_fake_quant"] == "conv.weight_fake_quant"
    assert by_eager["quant.activation_post_process"] == "activation_post_process_0"
