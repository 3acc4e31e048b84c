"""What the errors of edits say to do is done."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import qatexplorer as qx
from qatexplorer.errors import EditError


def test_the_edits_are_listed_for_who_misspells_one() -> None:
    model = nn.Sequential(nn.Conv1d(3, 3, 3, padding="same")).train()
    session = qx.Session(model, (torch.randn(2, 3, 9),), flow="fx")
    with pytest.raises(EditError) as raised:
        session.edit("number_pading", "0")
    said, _, names = raised.value.fix.partition("The edits are")
    assert said == ""
    assert "number_padding" in names.strip(" .").split(", ")
    session.edit("number_padding", "0")
    assert [one.name for one in session.edits] == ["number_padding"]
