"""A metric over an iterable of batches, without leaving a trace in the model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from qatexplorer.data import Batch, call_model, device_of, main_output, on_device
from qatexplorer.errors import InputError, NoDataError
from qatexplorer.quantizers.facts import observers_paused

Metric = Callable[[Any, Any], Any]
"""``(output, target) -> float or 0-dim Tensor``: mean over the batch.

Optional attributes: ``name``; ``average = "geometric"`` for one that is averaged by its logarithm,
such as a perplexity; ``mode = "min"`` or ``"max"`` says whether less of it is better, or more."""


@dataclass(frozen=True, slots=True)
class MetricValue:
    """Mean of a metric over ``samples`` samples. ``complete`` is False if it was interrupted;
    ``mode`` is ``"max"`` where more of it is better, ``"min"`` where less is, ``""`` if unknown."""

    name: str
    value: float
    samples: int
    seconds: float
    complete: bool = True
    mode: str = ""


_ONLY_CLASSES = "It takes scores of shape (N, classes) and class indices of shape (N,)."
_OWN_METRIC = (
    "Pass metric=function(output, target) that fits your task; your loss is one, if no other is at "
    "hand: metric=loss."
)


def _in_words(target: Any) -> str:
    kind = type(target).__name__
    if isinstance(target, (list, tuple)) and target:
        inside = ", ".join(dict.fromkeys(type(part).__name__ for part in target))
        return f"a {kind} of {len(target)} ({inside})"
    return f"a {kind}"


def accuracy(output: Any, target: Any) -> torch.Tensor:
    """Share of samples whose highest score is that of the target class (top-1), 0 to 1.

    Args:
        output: what the model returns; its main tensor has shape (N, classes, …).
        target: class indices, shape (N, …).

    Raises InputError if the target is no tensor of class indices, or the shapes do not fit.
    """
    scores = main_output(output)
    try:
        classes = torch.as_tensor(target)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"accuracy cannot read class indices from a target that is {_in_words(target)}.",
            why=_ONLY_CLASSES,
            fix=_OWN_METRIC,
        ) from error
    if scores.dim() < 2 or scores[:, 0].shape != classes.shape:
        raise InputError(
            f"accuracy cannot compare scores of shape {tuple(scores.shape)} with a target of "
            f"shape {tuple(classes.shape)}.",
            why=_ONLY_CLASSES,
            fix=_OWN_METRIC,
        )
    return scores.argmax(dim=1).eq(classes).float().mean()


def metric_name(metric: Metric | None) -> str:
    """``metric.name``, else its function or class name; ``"accuracy"`` for None."""
    if metric is None:
        return "accuracy"
    name = getattr(metric, "name", None) or getattr(metric, "__name__", None)
    return str(name or type(metric).__name__)


def metric_mode(metric: Metric | None) -> str:
    """``metric.mode``, ``"max"`` for accuracy, ``""`` where nobody says."""
    if metric is None or metric is accuracy:
        return "max"
    mode = getattr(metric, "mode", "")
    return mode if mode in ("max", "min") else ""


def batch_size(batch: Batch) -> int:
    """Length of the first dimension of the target, or of the first tensor of the input."""
    parts: list[Any] = [batch[1]]
    inputs = batch[0]
    parts.extend(inputs.values() if isinstance(inputs, dict) else [])
    parts.extend(inputs if isinstance(inputs, (tuple, list)) else [inputs])
    for part in parts:
        if isinstance(part, torch.Tensor) and part.dim() > 0:
            return int(part.shape[0])
    return 1


_LOG_MOST = 709.0  # exp of more is no float


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf if value == 0 else math.nan


@contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Eval mode, no gradient, observers standing still; every training flag is put back."""
    training = [(module, module.training) for module in model.modules()]
    try:
        with torch.no_grad(), observers_paused(model):
            model.eval()
            yield
    finally:
        for module, flag in training:
            module.training = flag


def evaluate(
    model: torch.nn.Module,
    batches: Iterable[Batch],
    metric: Metric | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_batch: Callable[[int], Any] | None = None,
) -> MetricValue:
    """Mean of ``metric`` over ``batches``, weighted by batch size.

    Args:
        model: any module: float, prepared (its observers do not learn from this) or int8.
        batches: (input, target) pairs; both are moved to the model's device.
        metric: ``(output, target) -> float``; the default is top-1 :func:`accuracy`.
        should_stop: asked before every batch; True ends the evaluation (``complete=False``).
        on_batch: called with the number of batches done.

    Raises NoDataError if there is no batch, and whatever model and metric raise.
    """
    measure = accuracy if metric is None else metric
    geometric = getattr(measure, "average", "") == "geometric"
    started = time.perf_counter()
    total, samples, count, complete = 0.0, 0, 0, True
    device = device_of(model)
    with evaluation_mode(model):
        for batch in batches:
            if should_stop is not None and should_stop():
                complete = False
                break
            size = batch_size(batch)
            target = on_device(batch[1], device)
            one = float(measure(call_model(model, batch[0]), target))
            total += (_log(one) if geometric else one) * size
            samples += size
            count += 1
            if on_batch is not None:
                on_batch(count)
    if samples == 0 and complete:
        raise NoDataError(
            "There is no batch to evaluate on.",
            why="The eval iterable is empty.",
            fix="Pass data whose eval part yields (input, target) batches.",
        )
    value = total / samples if samples else float("nan")
    value = math.exp(value) if geometric and value < _LOG_MOST else value
    seconds = time.perf_counter() - started
    return MetricValue(metric_name(metric), value, samples, seconds, complete, metric_mode(metric))
