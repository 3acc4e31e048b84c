"""Types of torch's layers that the flows treat alike."""

from __future__ import annotations

from torch import nn

TRANSPOSED: tuple[type[nn.Module], ...] = (
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
"""Torch takes no scale per channel for these, and fuses none of them that trains."""
WEIGHTED: tuple[type[nn.Module], ...] = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    *TRANSPOSED,
)
"""Layers of torch with a weight that has an int8 version; torch looks for exactly these types."""
BATCH_NORMS: tuple[type[nn.Module], ...] = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
