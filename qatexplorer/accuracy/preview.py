"""What a fake quant would do to values, before a model is prepared with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qatexplorer.data import call_model, cloned
from qatexplorer.errors import QConfigError
from qatexplorer.flows.quant_spec import QuantSpec
from qatexplorer.forward.histograms import GridHistogram, grid_histogram
from qatexplorer.forward.hooks import hooked
from qatexplorer.forward.noise import rounded_to, sqnr
from qatexplorer.forward.preserve import preserved_state
from qatexplorer.quantizers.facts import grid_of

_MOST = 65_536


@dataclass(frozen=True)
class Preview:
    """Values on the grid that a spec finds for them.

    Attributes:
        histogram: of the values, before they are rounded. sqnr_db: ``20 log10(|x| / |x - y|)`` of
            all of them, infinite where nothing changes.
    """

    histogram: GridHistogram
    sqnr_db: float


def preview(values: Tensor, spec: QuantSpec) -> Preview:
    """``values`` seen once by a fake quant of ``spec``, then rounded by it."""
    values = values.detach().float()
    channels = int(values.shape[0]) if spec.by_size else None
    made = spec.make(channels).to(values.device)
    with torch.no_grad():
        made(values)
    grid = grid_of(made)
    histogram = grid_histogram(
        values,
        grid.scale,
        grid.zero_point,
        grid.quant_min,
        grid.quant_max,
        grid.ch_axis,
        max_samples=_MOST,
    )
    return Preview(histogram, sqnr(values, rounded_to(values, grid)))


def output_of(model: nn.Module, path: str, inputs: Any) -> Tensor:
    """What the module at ``path`` gives in one forward of ``inputs``. Raises QConfigError if it is
    no tensor, or it does not run."""
    seen: list[Tensor] = []

    def left(_path: str, _module: nn.Module, _args: Any, _kwargs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.is_floating_point():
            seen.append(output.detach().clone())

    part = model.get_submodule(path)
    with preserved_state(model), torch.no_grad(), hooked([(path, part)], left=left):
        call_model(model, cloned(inputs))
    if not seen:
        raise QConfigError(
            f"{path or 'the model'} gives no float tensor in a forward of the example input.",
            where=path,
            fix="Preview a module whose output is one tensor, or its weight.",
        )
    return seen[-1]
