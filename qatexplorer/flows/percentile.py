"""An observer that torch has not: the range between two percentiles of what it has seen.

It is copied into a script as it stands here, and uses torch only.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.ao.quantization.observer import HistogramObserver


class PercentileObserver(HistogramObserver):
    """Torch's histogram, cut where less than ``100 - percentile`` per cent of the values are left
    on a side, to the bin. ``percentile`` is above 50; 100 is minimum and maximum."""

    def __init__(self, percentile: float = 99.99, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.percentile = percentile

    def _non_linear_param_search(self) -> tuple[Tensor, Tensor]:
        """What torch's histogram is asked for; there it looks for the smallest squared error."""
        seen = torch.cumsum(self.histogram, dim=0)
        share = 1.0 - self.percentile / 100.0
        # The bins in which the two percentiles lie.
        first = int((seen <= seen[-1] * share).sum())
        last = int((seen < seen[-1] * (1.0 - share)).sum())
        width = (self.max_val - self.min_val) / self.bins
        last = max(min(last, self.bins - 1), min(first, self.bins - 1))
        return self.min_val + width * min(first, last), self.min_val + width * (last + 1)
