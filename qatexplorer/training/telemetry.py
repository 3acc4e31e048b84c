"""Looks at the fake quants of a model during a training step, without a trace in the training."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.ao.quantization import FakeQuantizeBase
from torch.nn import Module

from qatexplorer.errors import InputError
from qatexplorer.histograms import GridHistogram, grid_histogram, quant_range
from qatexplorer.training.modes import fake_quants
from qatexplorer.training.records import MAX_CHANNELS, SiteSample

log = logging.getLogger(__name__)


class Sampler:
    """Takes one :class:`SiteSample` of each watched fake quant in the steps it is asked to.

    Raises InputError if there is no fake quant at one of ``paths``.
    """

    def __init__(self, model: Module, paths: Sequence[str] | None, max_samples: int) -> None:
        every = fake_quants(model)
        if paths is None:
            self._sites: dict[str, FakeQuantizeBase] = every
        else:
            named = dict(model.named_modules(remove_duplicate=False))
            self._sites = {}
            for path in paths:
                module = named.get(path)
                if not isinstance(module, FakeQuantizeBase):
                    raise InputError(
                        f"telemetry_paths names {path!r}, where there is no fake quant.",
                        where=path,
                        remedy="Take the paths from the sites of the snapshot after 'insert'.",
                    )
                self._sites[path] = module
        self._max_samples = max_samples
        self._found: dict[str, SiteSample] = {}
        self._failed = False
        self.spent_s = 0.0

    @contextmanager
    def watching(self, step: int) -> Iterator[None]:
        """Hooks are on the fake quants inside; :meth:`take` gives what they saw.

        ``spent_s`` is then the time that the looking took.
        """
        handles = []
        self.spent_s = 0.0
        try:
            for path, module in self._sites.items():
                handles.append(module.register_forward_hook(self._hook(path, step)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def take(self) -> list[SiteSample]:
        """The samples of the last watched forward, and forgets them."""
        samples, self._found = list(self._found.values()), {}
        return samples

    def _hook(self, path: str, step: int) -> Any:
        def hook(module: Module, args: tuple[Any, ...], output: Any) -> None:
            # After the forward, so that the grid is the one this very tensor was put on: the
            # first step of a fake quant moves its scale from 1 to where it belongs.
            if self._failed or path in self._found or not args or not isinstance(args[0], Tensor):
                return
            started = time.perf_counter()
            try:
                with torch.no_grad():
                    self._found[path] = sample(module, path, step, args[0], self._max_samples)
            except Exception:
                # A look must never end a training.
                self._failed = True
                log.exception("telemetry of %s failed and is off for the rest of the run", path)
            self.spent_s += time.perf_counter() - started

        return hook


def sample(module: Module, path: str, step: int, x: Tensor, max_samples: int) -> SiteSample:
    """What fake quant ``module`` looks like now, and the histogram of its input ``x``."""
    site: Any = module
    scale, zero_point = site.scale.detach().flatten(), site.zero_point.detach().flatten()
    observer = getattr(site, "activation_post_process", None)
    low, high = getattr(observer, "min_val", None), getattr(observer, "max_val", None)
    sorted_scale = scale.sort().values if scale.numel() else scale.new_full((1,), float("nan"))
    few = scale.numel() <= MAX_CHANNELS
    return SiteSample(
        step=step,
        path=path,
        scale=tuple(scale.tolist()) if few else (),
        zero_point=tuple(int(z) for z in zero_point.tolist()) if few else (),
        min_val=_range(low) if few else (),
        max_val=_range(high) if few else (),
        observer_enabled=bool(site.observer_enabled[0]),
        fake_quant_enabled=bool(site.fake_quant_enabled[0]),
        histogram=_histogram(site, x, scale, zero_point, max_samples),
        scale_summary=(
            float(sorted_scale[0]),
            float(sorted_scale[sorted_scale.numel() // 2]),
            float(sorted_scale[-1]),
        ),
    )


def _range(values: Any) -> tuple[float, ...]:
    # Fixed-qparams observers have no range; an observer that saw nothing holds +inf and -inf.
    if not isinstance(values, Tensor) or bool(torch.isinf(values).all()):
        return ()
    return tuple(values.detach().flatten().tolist())


def _histogram(
    site: Any, x: Tensor, scale: Tensor, zero_point: Tensor, max_samples: int
) -> GridHistogram:
    axis = int(site.ch_axis) if getattr(site, "is_per_channel", False) else None
    low, high = quant_range(site)
    return grid_histogram(x, scale, zero_point, low, high, axis, max_samples=max_samples)
