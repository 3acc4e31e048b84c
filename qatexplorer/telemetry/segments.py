"""Sums over the parts of a flat tensor."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def per_segment(data: Tensor, offsets: Tensor, how: str = "sum") -> Tensor:
    """Sum, min or max of the parts of flat ``data`` that begin at ``offsets`` (the last is its
    end). None of them is empty."""
    if data.device.type == "cpu":
        # Several times as fast as torch's.
        reduce = {"sum": np.add, "min": np.minimum, "max": np.maximum}[how]
        return torch.from_numpy(reduce.reduceat(data.numpy(), offsets[:-1].numpy()))
    return torch.segment_reduce(data, how, offsets=offsets, unsafe=True)
