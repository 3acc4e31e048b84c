"""What an embedded example is, and how its shipped weights are read."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from types import MappingProxyType
from typing import Any

import torch
from safetensors.torch import load
from torch import nn

from qatexplorer.data import Data
from qatexplorer.shown import Shown, at_most

OF_SESSION = ("qconfig", "flow", "base_config", "metric")
"""Names of what an example suggests for a session."""


@dataclass(frozen=True, repr=False)
class Example(Shown):
    """A model with its data and the settings that make its story work.

    Attributes:
        name: what :func:`qatexplorer.zoo.load` takes.
        title: one line for a menu.
        description: what to look for, a few sentences of plain text.
        model: the trained float model, in train mode, new with every load.
        example_inputs: positional arguments of one forward; images are float32, shape (8, 1, 8, 8),
            tokens int64, shape (8, 64).
        data: training and evaluation batches.
        factory: ``package.module:factory`` that returns the same example, for the command line.
        suggested: keyword arguments: those of :data:`OF_SESSION` for a session (absent: its
            default) and the rest for ``start_training``.
    """

    name: str
    title: str
    description: str
    model: nn.Module
    example_inputs: tuple[torch.Tensor, ...]
    data: Data
    factory: str
    suggested: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def __repr__(self) -> str:
        parameters = sum(p.numel() for p in self.model.parameters())
        shapes = ", ".join(f"{tuple(x.shape)} {x.dtype}" for x in self.example_inputs)
        suggested = ", ".join(f"{key}={value!r}" for key, value in self.training.items())
        lines = [
            f"Example {self.name!r}: {self.title}",
            *textwrap.wrap(self.description, 100)[:12],
            f"model: {type(self.model).__name__}, {parameters:,} parameters",
            f"example inputs: {shapes}",
            f"data: {self.data.name}",
        ]
        if suggested:
            lines.append(f"training: {suggested}")
        if "qconfig" in self.suggested:
            lines.append("qconfig: one of its own, in suggested['qconfig']")
        if "flow" in self.suggested:
            lines.append(f"flow: {self.suggested['flow']}, with suggested['base_config']")
        return at_most(lines)

    @property
    def training(self) -> dict[str, Any]:
        """The part of ``suggested`` that goes to ``start_training``."""
        return {key: value for key, value in self.suggested.items() if key not in OF_SESSION}

    @property
    def settings(self) -> dict[str, Any]:
        """The part of ``suggested`` that goes to a session."""
        return {key: value for key, value in self.suggested.items() if key in OF_SESSION}


def read_weights(name: str) -> dict[str, torch.Tensor]:
    """The shipped state dict of example ``name``; safetensors only, so reading runs no code."""
    file = resources.files("qatexplorer.zoo").joinpath("weights", f"{name}.safetensors")
    return load(file.read_bytes())


def with_weights(model: nn.Module, name: str) -> nn.Module:
    """``model`` with its shipped weights, in train mode, as quantization-aware training wants it.

    Raises RuntimeError (torch's own) if the file does not fit the model.
    """
    model.load_state_dict(read_weights(name), strict=True)
    return model.train()
