"""Evaluation samples that the float model gets right and the int8 model gets wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qatexplorer.accuracy.records import Lost
from qatexplorer.data import Batch, call_model, cloned, main_output, on_device
from qatexplorer.errors import InputError
from qatexplorer.evaluate.metric import evaluation_mode
from qatexplorer.forward.preserve import preserved_rng, preserved_state
from qatexplorer.quantizers.engine import quantized_engine

MOST = 100
"""Samples kept, with their input; all are counted."""
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class LostSamples:
    """``found`` are the first :data:`MOST` of ``total``, among ``evaluated`` samples."""

    found: tuple[Lost, ...] = ()
    total: int = 0
    evaluated: int = 0
    note: str = ""


def lost_samples(
    floats: nn.Module,
    int8: nn.Module,
    batches: Iterable[Batch],
    *,
    engine: str,
    on_batch: Callable[[int], Any] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> LostSamples:
    """Go through all evaluation data with both models, in eval mode.

    Right is a sample whose highest score is that of its target class: scores of shape
    (N, classes), targets of shape (N,) that are class indices. For anything else there is a
    ``note`` and nothing else. ``should_stop`` is asked before each batch; what was found by then is
    returned, with a note. ``on_batch`` gets the number of batches done.
    """
    found: list[Lost] = []
    total = seen = 0
    with (
        preserved_rng(),
        preserved_state(floats),
        preserved_state(int8),
        evaluation_mode(floats),
        evaluation_mode(int8),
    ):
        for number, (inputs, target) in enumerate(batches):
            if should_stop is not None and should_stop():
                note = f"Lost samples: stopped after {seen:,} evaluation samples."
                return LostSamples(tuple(found), total, seen, note)
            wanted = _classes(target)
            mine = _answers(call_model(floats, cloned(inputs)), wanted)
            if wanted is None or mine is None:
                return LostSamples(note=_NO_CLASSES)
            with quantized_engine(engine):
                theirs = _answers(call_model(int8, on_device(cloned(inputs), _CPU)), wanted)
            if theirs is None:
                return LostSamples(note=_NO_CLASSES)
            gone = ((mine == wanted) & (theirs != wanted)).nonzero().flatten().tolist()
            total += len(gone)
            for at in gone[: MOST - len(found)]:
                answers = int(wanted[at]), int(mine[at]), int(theirs[at])
                found.append(Lost(seen + at, *answers, _one(inputs, at, len(wanted))))
            seen += len(wanted)
            if on_batch is not None:
                on_batch(number + 1)
    return LostSamples(tuple(found), total, seen)


_NO_CLASSES = (
    "Lost samples are known for classification only: scores of shape (N, classes) and class "
    "indices of shape (N,)."
)


def _classes(target: Any) -> Tensor | None:
    if isinstance(target, Tensor) and target.dim() == 1 and not target.is_floating_point():
        return target.detach().to(_CPU, torch.int64)
    return None


def _answers(output: Any, wanted: Tensor | None) -> Tensor | None:
    try:
        scores = main_output(output)
    except InputError:
        return None
    scores = scores.dequantize() if scores.is_quantized else scores
    if wanted is None or scores.dim() != 2 or len(scores) != len(wanted):
        return None
    return scores.detach().cpu().argmax(1)


def _one(inputs: Any, at: int, size: int) -> Any:
    """Input ``at`` of a batch, as a NumPy array; None where the model takes several tensors."""
    parts = inputs.values() if isinstance(inputs, dict) else inputs
    tensors = [inputs] if isinstance(inputs, Tensor) else [*parts]
    if len(tensors) != 1 or not isinstance(tensors[0], Tensor) or len(tensors[0]) != size:
        return None
    one = tensors[0][at].detach().cpu()
    one = one.float() if one.dtype is torch.bfloat16 else one
    return one.numpy().copy()
