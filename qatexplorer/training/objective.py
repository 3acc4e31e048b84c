"""What training makes small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from qatexplorer.data import main_output

Loss = Callable[[Any, Any], Tensor]


def default_loss(output: Any, target: Any, label_smoothing: float = 0.0) -> Tensor:
    """Cross entropy of the main output, shape (N, classes, …), and class indices (N, …)."""
    return F.cross_entropy(main_output(output), target, label_smoothing=label_smoothing)
