"""A run in TensorBoard, through its own writer."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

from qatexplorer.errors import InputError
from qatexplorer.runs.samples import METRICS
from qatexplorer.runs.store import Telemetry

_SKIPPED = frozenset({"sampled", "total"})


def to_tensorboard(
    telemetry: Telemetry, log_dir: str | Path | None = None, *, writer: Any = None
) -> Any:
    """Write the numbers as scalars and the histograms as they were counted.

    Tags are ``<metric>/<path of the fake quant>`` and ``histogram/<path>`` (in codes where the
    grid differs by channel, else in real units). ``writer`` is a ``SummaryWriter`` of yours, which
    stays open; else one is made for ``log_dir`` and closed. Returns the writer.

    Raises InputError if tensorboard is not installed.
    """
    own = writer is None
    if own:
        writer = _make(log_dir)
    for info in telemetry.infos:
        for sample in telemetry.samples(info.path, details=False):
            for name, value in zip(METRICS, sample.values, strict=True):
                if name not in _SKIPPED and not math.isnan(value):
                    writer.add_scalar(f"{name}/{info.path}", value, sample.step)
        for step, histogram in telemetry.histograms(info.path):
            if histogram.edges:
                _add_histogram(writer, info.path, step, histogram)
    if own:
        writer.close()
    return writer


def _add_histogram(writer: Any, path: str, step: int, histogram: Any) -> None:
    edges = list(histogram.edges)
    if histogram.scale is not None:
        edges = [histogram.to_real(edge) for edge in edges]
    middles = [(a + b) / 2 for a, b in pairwise(edges)]
    total = sum(histogram.counts)
    writer.add_histogram_raw(
        f"histogram/{path}",
        min=edges[0],
        max=edges[-1],
        num=total,
        sum=sum(m * n for m, n in zip(middles, histogram.counts, strict=True)),
        sum_squares=sum(m * m * n for m, n in zip(middles, histogram.counts, strict=True)),
        bucket_limits=edges[1:],
        bucket_counts=list(histogram.counts),
        global_step=step,
    )


def _make(log_dir: str | Path | None) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(
            "tensorboard is not installed, so its writer cannot be used.",
            why=str(error),
            fix="pip install tensorboard, or pass a writer of your own.",
        ) from error
    return SummaryWriter(None if log_dir is None else str(log_dir))
