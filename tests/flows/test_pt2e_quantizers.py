"""Quantizers by name, and what is taken for one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.errors import InputError
from qatexplorer.flows.pt2e_quantizers import (
    QUANTIZERS,
    check_quantizer,
    make_quantizer,
    name_of,
)

pytest.importorskip("torchao")
X = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).train()


@pytest.mark.parametrize("name", sorted(QUANTIZERS))
def test_each_is_made_anew_and_annotates(name: str) -> None:
    made = make_quantizer(name)
    assert made is not make_quantizer(name)
    assert check_quantizer(made) is made
    session = qx.Session(net(), X, flow="pt2e", quantizer=name)
    session.goto("annotate")
    rounds = [a for a in session.snapshot.annotations if a.rounds]
    assert bool(rounds) == (name != "embedding")  # the net has none


def test_a_script_can_hold_the_function_beside_the_module() -> None:
    for named in QUANTIZERS.values():
        modules = [module.rpartition(".")[2] for module in named.modules]
        assert named.make.__name__ not in modules


def test_none_is_that_for_x86() -> None:
    assert type(make_quantizer(None)) is type(make_quantizer("x86"))
    assert name_of(None) == "x86"
    assert name_of(make_quantizer("arm")).endswith(".ArmInductorQuantizer")


def test_a_users_own_object_is_used_and_stays_as_it_is() -> None:
    from torchao.quantization.pt2e.quantizer import Quantizer

    class OnlyLinear(Quantizer):  # type: ignore[misc, no-any-unimported]
        def __init__(self) -> None:
            self.seen = 0

        def annotate(self, model: Any) -> Any:
            self.seen += 1
            return model

        def validate(self, model: Any) -> None:
            return None

    mine = OnlyLinear()
    session = qx.Session(net(), X, flow="pt2e", quantizer=mine)
    session.goto("insert")
    assert session.snapshot.annotations == ()
    assert session.snapshot.sites == ()
    assert mine.seen == 0  # a copy was asked
    with pytest.raises(InputError):
        session.configure(quantizer="x87")
    assert session.options.quantizer is mine


def test_a_runs_settings_have_its_name() -> None:
    session = qx.Session(net(), X, flow="pt2e", quantizer="arm")
    settings = session._models.settings
    kept = settings.to_json()
    assert kept["quantizer"] == "arm"
    other = qx.Session(net(), X, flow="pt2e")
    assert other._models.settings.from_json(kept)["quantizer"] == "arm"
    with pytest.raises(qx.errors.RunFolderError, match="a quantizer of its own"):
        settings.from_json({**kept, "quantizer": "my.Quantizer"})
