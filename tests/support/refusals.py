"""What every refusal must have, for the tests of faults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from qatexplorer import errors

VECTOR = (torch.zeros(4, 6),)


def refused(kind: type[errors.QatExplorerError], make: Callable[[], Any]) -> Any:
    """``make`` raises ``kind`` itself or a subtype, with all that a user needs."""
    with pytest.raises(kind) as caught:
        make()
    error = caught.value
    assert error.message
    assert error.fix, error
    assert error.message in error.full_text()
    return error
