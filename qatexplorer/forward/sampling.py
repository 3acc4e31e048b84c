"""Histograms on demand, for a model at any stage that has fake quants."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from qatexplorer.data import call_model, cloned
from qatexplorer.forward.histograms import GridHistogram, capture_histograms
from qatexplorer.forward.preserve import preserved_rng, preserved_state
from qatexplorer.quantizers.facts import find_quantizers, has_codes, has_range

MAX_SAMPLES = 65_536


def histograms_of(model: nn.Module, inputs: Any) -> dict[str, GridHistogram]:
    """What every fake quant that runs sees in one forward of ``inputs``, on its own grid, by path.

    A fake quant that has seen no data yet has scale 1, which is no grid to look at: the observers
    are then shown these very inputs first. What rounds to no whole codes (float8) is left out.
    Everything is put back. One forward serves all of
    them, since it costs far more than their histograms (strided samples of 65,536 values).
    """
    quantizers = find_quantizers(model)
    with preserved_state(model):
        if not all(has_range(module) for module in quantizers.values()):
            show_once(model, inputs)
        paths = [path for path, module in quantizers.items() if has_codes(module)]
        return capture_histograms(model, cloned(inputs), paths, max_samples=MAX_SAMPLES)


def show_once(model: nn.Module, inputs: Any) -> None:
    """Let the observers see one forward, and nothing else: the next forward must be the same."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._NormBase)]
    statistics = [(b, b.clone()) for m in norms for b in m._buffers.values() if b is not None]
    with preserved_rng(), torch.no_grad():
        call_model(model, cloned(inputs))
        for buffer, before in statistics:
            buffer.copy_(before)
