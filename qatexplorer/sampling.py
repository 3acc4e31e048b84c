"""Histograms on demand, for a model at any stage that has fake quants."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from qatexplorer.data import call_model
from qatexplorer.errors import StageError
from qatexplorer.histograms import GridHistogram, capture_histograms
from qatexplorer.snapshot.preserve import preserved_rng, preserved_state


def histogram_of(model: nn.Module, inputs: Any, site: str) -> GridHistogram:
    """What fake quant ``site`` sees in one forward of ``inputs``, on its own grid.

    A fake quant that has seen no data yet has scale 1, which is no grid to look at: its observer
    is then shown these very inputs first. Everything is put back.

    Raises StageError if the fake quant does not run in a forward.
    """
    with preserved_state(model):
        if not _has_range(model.get_submodule(site)):
            show_once(model, inputs)
        found = capture_histograms(model, inputs, [site])
    if site not in found:
        raise StageError(
            "this fake quant does not run in a forward of the example input.",
            where=site,
            why="It sits in the model, but no data reaches it.",
            remedy="If its layer runs only sometimes, choose example inputs that reach it.",
        )
    return found[site]


def show_once(model: nn.Module, inputs: Any) -> None:
    """Let the observers see one forward, and nothing else: the next forward must be the same."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._NormBase)]
    statistics = [(b, b.clone()) for m in norms for b in m._buffers.values() if b is not None]
    with preserved_rng(), torch.no_grad():
        call_model(model, inputs)
        for buffer, before in statistics:
            buffer.copy_(before)


def _has_range(quantizer: nn.Module) -> bool:
    observer: Any = getattr(quantizer, "activation_post_process", quantizer)
    low = getattr(observer, "min_val", None)
    if not isinstance(low, torch.Tensor):
        return True  # fixed qparams
    return low.numel() > 0 and bool(torch.isfinite(low).all())
