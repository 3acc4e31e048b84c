"""What models return on the same batches, compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import combinations
from typing import Any

from torch import Tensor, nn

from qatexplorer.data import call_model, cloned
from qatexplorer.evaluate.metric import evaluation_mode
from qatexplorer.evaluate.parity import outputs_of
from qatexplorer.forward.noise import decibels
from qatexplorer.forward.preserve import preserved_rng
from qatexplorer.migration.records import OutputGap


def output_gaps(
    models: Mapping[str, nn.Module], inputs: Iterable[Any], ask: Callable[[], Any]
) -> tuple[OutputGap, ...]:
    """Each pair of ``models``, in order, on all of ``inputs``; a forward of each an input, in eval
    mode, with observers standing still. ``ask`` is called before each forward, and may raise."""
    sums: dict[tuple[str, str], list[float] | None] = {
        pair: [0.0, 0.0] for pair in combinations(models, 2)
    }
    count = 0
    for one in inputs:
        made: dict[str, list[Tensor]] = {}
        for name, model in models.items():
            ask()
            with evaluation_mode(model), preserved_rng():
                made[name] = outputs_of(call_model(model, cloned(one)))
        count += 1
        for pair, known in sums.items():
            power = _powers(made[pair[0]], made[pair[1]])
            sums[pair] = None if known is None or power is None else [
                known[0] + power[0], known[1] + power[1]
            ]  # fmt: skip
    return tuple(
        OutputGap(*pair, None if not known or not count else decibels(*known), count)
        for pair, known in sums.items()
    )


def _powers(wanted: list[Tensor], found: list[Tensor]) -> tuple[float, float] | None:
    """Of the signal and of the difference; None where they cannot be compared."""
    if not wanted or [t.shape for t in wanted] != [t.shape for t in found]:
        return None
    signal = sum(float(a.double().square().sum()) for a in wanted)
    noise = sum(
        float((a.double() - b.double()).square().sum()) for a, b in zip(wanted, found, strict=True)
    )
    return (signal, noise) if signal + noise < float("inf") else None
