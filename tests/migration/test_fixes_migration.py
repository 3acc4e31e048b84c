"""What errors of migrating say to do, done."""

from __future__ import annotations

import pytest
import torch

import qatexplorer as qx
from qatexplorer.errors import InputError
from tests.migration.nets import Scores


def test_name_a_flow_and_a_batch() -> None:
    x = torch.randn(2, 6)
    with pytest.raises(InputError) as caught:
        qx.migrate(Scores(), x, flows=[], calibrate=0)
    assert "Name flows of " in str(caught.value.fix)
    assert ", and 1 batch or more to calibrate with." in str(caught.value.fix)
    named = str(caught.value.fix).removeprefix("Name flows of ").split(", ")[1]
    assert qx.migrate(Scores(), x, flows=[named], calibrate=1, int8=False).taken
