"""A plain torch.cat of int8 tensors of unlike scales is named with its line, and so is the fix."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.nn.quantized import FloatFunctional

import qatexplorer as qx

IMAGE = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Skip(nn.Module):
    """A skip connection beside values a hundred times as large, as in a UNet."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.down, self.up, self.how = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1), how
        nn.init.constant_(self.up.weight, 25.0)
        if how == "functional":
            self.join = FloatFunctional()

    def forward(self, x: Tensor) -> Tensor:
        low = self.down(x)
        high = self.up(low)
        if self.how == "functional":
            return self.join.cat([low, high], 1)
        if self.how == "stack":
            return torch.stack([low, high], dim=1)
        if self.how == "same":
            return torch.cat([low, low], dim=1)
        return torch.cat([low, high], dim=1)


def session(how: str, **settings: Any) -> qx.Session:
    torch.manual_seed(0)
    settings = {"stubs": "model", **settings}
    data = ([(IMAGE, IMAGE)], [(IMAGE, IMAGE)])
    made = qx.Session(Skip(how).train(), IMAGE, data=data, **settings)
    made.calibrate(1)
    return made


def error(made: qx.Session) -> float:
    """How far int8 is from what the fake quants simulate, as a share of its largest value."""
    simulated = made.copy_model("train").eval()(IMAGE)
    made.goto("convert")
    with torch.no_grad():
        return float((made.int8(IMAGE) - simulated).abs().max() / simulated.abs().max())


@pytest.mark.parametrize("how", ["cat", "stack"])
def test_a_plain_join_is_named_and_the_fix_works(how: str) -> None:
    plain = session(how)
    flight = plain.preflight()
    assert flight.ok
    (note,) = flight.notes
    code = Skip.forward.__code__
    lines = range(code.co_firstlineno, code.co_firstlineno + 12)
    assert f"torch.{how} at test_fixes_joins.py:" in note
    assert int(note.split(".py:")[1].split(" ")[0]) in lines
    assert " in module joins int8 tensors of unlike scales" in note
    assert "torch.ao.nn.quantized.FloatFunctional() for this place and call its .cat([…]" in note
    assert error(plain) > 0.5
    assert note.split("(scales")[0] in " ".join(plain.snapshot.notes)
    functional = session("functional")
    assert functional.preflight().notes == ()
    assert error(functional) < 0.05
    assert not any("joins int8" in text for text in functional.snapshot.notes)


def test_joins_of_one_scale_and_of_the_fx_flow_are_right() -> None:
    assert session("same").preflight().notes == ()
    fx = session("cat", flow="fx", stubs="none")
    assert fx.preflight().notes == ()
