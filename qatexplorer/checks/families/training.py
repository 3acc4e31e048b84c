"""What is wrong with how a model is trained or calibrated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from qatexplorer.checks.evidence.classes import start
from qatexplorer.checks.families.settings import shown
from qatexplorer.checks.records import Findings
from qatexplorer.checks.rules import EVERY, Found, rule, rule_named
from qatexplorer.checks.subject import Subject
from qatexplorer.quantizers.facts import averaging_constant, fake_quants

_LAG = 0.25
_MOVES = 0.05
_CLIPPED = 0.05
_FEW_SAMPLES = 100
_HALF = 0.5


@rule("QX431", "start-at-chance", "warning", "float", flows=EVERY)
def start_at_chance(subject: Subject) -> Iterator[Found]:
    """The float model is no better than a guess

    Symptom:
        The int8 model is far better than the float model that it was made from.
    Cause:
        The weights were not loaded, or the model was never trained. Quantization-aware training
        then trains it from nothing, with rounding in the way, and says nothing of what int8 costs.
    Fix:
        Train in float first, or load the checkpoint, before you prepare the model.
    Sources:
        https://github.com/pytorch/pytorch/issues/79862
        https://github.com/pytorch/pytorch/issues/30125
    """
    found = subject.get(start)
    if found.at_chance:
        yield Found(
            "",
            f"The float model's accuracy is {100 * found.value:.3g} % over {found.samples:,} "
            f"samples, and to name the most frequent of {found.classes:,} classes each time gives "
            f"{100 * found.guess:.3g} %: training starts from nothing.",
            "model.load_state_dict(torch.load(…)) before the session, or train in float first.",
        )


@rule("QX432", "range-lags", "warning", "trained", flows=EVERY)
def range_lags(subject: Subject) -> Iterator[Found]:
    """A range has not caught up with the data

    Symptom:
        Values are clipped at the end of a short training, and the more the fewer steps it had.
    Cause:
        The range of torch's default observers starts as that of the first batch, and each batch
        moves it by one hundredth of the way: after 50 steps 60 % of the first one is left in it.
    Fix:
        Train longer before observers freeze or the model is converted, or take an observer with a
        larger averaging_constant.
    Sources:
        https://github.com/pytorch/pytorch/issues/30125
    """
    epochs, late = _epochs(subject), _lagging(subject)
    if not late or (epochs and epochs[-1].observers_frozen):
        return  # of ranges that are frozen another rule speaks
    worst = max(late, key=lambda path: late[path])
    steps = _steps_of(subject)
    constant = averaging_constant(fake_quants(_work(subject))[worst]) or 0.0
    left = (1 - constant) ** (steps - 1)
    yield Found(
        worst,
        f"After {steps:,} steps the range of {shown(late)} lags behind: that of a batch lies "
        f"{_times(late[worst])} its width away, and {100 * left:.2g} % of it is still the first "
        "batch.",
        "session.train(epochs=…) with more steps, or an observer with averaging_constant=0.1",
    )


def _times(share: float) -> str:
    return f"{100 * share:.2g} % of" if share < 1 else f"{share:.2g} times"


@rule("QX433", "observers-move", "info", "trained", flows=EVERY)
def observers_move(subject: Subject) -> Iterator[Found]:
    """Ranges move to the last step

    Symptom:
        Accuracy jumps from epoch to epoch, and drops at conversion.
    Cause:
        Observers that are never frozen follow the last batches, and the weights never get to train
        against the ranges that int8 will have.
    Fix:
        Freeze the observers some epochs before the end: freeze_observer_epoch= in a session,
        model.apply(torch.ao.quantization.disable_observer) in a loop of your own.
    Sources:
        https://github.com/pytorch/vision/blob/main/references/classification/train_quantization.py
    """
    epochs = _epochs(subject)
    if not epochs or epochs[-1].observers_frozen:
        return
    moved, late = _moved(subject), _lagging(subject)
    moving = {p: by for p, by in moved.items() if by > _MOVES and p not in late}
    if moving:
        worst = max(moving, key=lambda path: moving[path])
        yield Found(
            worst,
            f"In the last quarter of the training the scale of {worst} moved by "
            f"{100 * moving[worst]:.2g} %, and its observer was never frozen.",
            f"session.train(freeze_observer_epoch={max(1, len(epochs) * 2 // 3)})",
        )


@rule("QX434", "frozen-early", "warning", "trained", flows=EVERY)
def frozen_early(subject: Subject) -> Iterator[Found]:
    """Observers were frozen before their ranges fitted

    Symptom:
        Accuracy stays low after freeze_observer_epoch.
    Cause:
        The ranges were still those of the first steps, and what the model computes now lies past
        them: it is clipped in training and in int8.
    Fix:
        Freeze later.
    Sources:
        https://github.com/pytorch/vision/blob/main/references/classification/train_quantization.py
    """
    epochs = _epochs(subject)
    if not epochs or not epochs[-1].observers_frozen:
        return
    frozen_at = next((e.epoch for e in epochs if e.observers_frozen), 0)
    low, high = (_last(subject, f"clipped_{end}") for end in ("low", "high"))
    clipped = {p: low[p] + high[p] for p in low if p in high and _kind(subject, p) != "weight"}
    past = {path: share for path, share in clipped.items() if share > _CLIPPED}
    if past:
        worst = max(past, key=lambda path: past[path])
        yield Found(
            worst,
            f"Observers were frozen at the start of epoch {frozen_at + 1}, and in the end "
            f"{100 * past[worst]:.2g} % of the values at {worst} lie past its range.",
            f"session.train(freeze_observer_epoch={frozen_at + 1})",
        )


@rule("QX435", "batch-norm-moves", "info", "trained")
def batch_norm_moves(subject: Subject) -> Iterator[Found]:
    """Batch norm statistics move to the last step

    Symptom:
        The metric in eval mode jumps from epoch to epoch, most with small batches.
    Cause:
        The running statistics are those of the last batches. A fused layer divides its weight by
        them, so the weight's scale moves with them.
    Fix:
        Freeze them for the last epochs: freeze_bn_epoch= in a session,
        model.apply(torch.ao.nn.intrinsic.qat.freeze_bn_stats) in a loop of your own.
    Sources:
        https://github.com/pytorch/pytorch/issues/28071
        https://github.com/pytorch/vision/blob/main/references/classification/train_quantization.py
    """
    epochs, work = _epochs(subject), subject.work
    if len(epochs) < 2 or epochs[-1].bn_frozen or work is None:
        return
    norms = [p for p, m in work.named_modules() if isinstance(m, _BatchNorm) and m.momentum != 0]
    if norms:
        sizes = [step.samples for step in _history(subject).steps]
        layers = "1 batch norm" if len(norms) == 1 else f"{len(norms):,} batch norms"
        yield Found(
            norms[0],
            f"The running statistics of {layers} moved to the last step, with batches of "
            f"{int(np.median(sizes))} samples.",
            f"session.train(freeze_bn_epoch={max(1, len(epochs) * 2 // 3)})",
        )


@rule("QX436", "optimizer-of-another", "error", "trained", flows=EVERY)
def optimizer_of_another(subject: Subject) -> Iterator[Found]:
    """The optimizer holds none or few of the model's parameters

    Symptom:
        The loss stays where it is; the weights after training are those from before.
    Cause:
        prepare_qat without inplace=True gives a copy, and an optimizer that was made before holds
        the parameters of the model that it was copied from. It trains those.
    Fix:
        Make the optimizer after prepare_qat, from the prepared model's parameters().
    Sources:
        https://discuss.pytorch.org/t/181190
    """
    optimizer = getattr(subject.run, "optimizer", None)
    if optimizer is not None and subject.work is not None:
        yield from _optimizer_found(subject.work, optimizer)


def check_optimizer(model: nn.Module, optimizer: Optimizer) -> Findings:
    """Whether ``optimizer`` trains ``model``: the finding of rule QX436, if it does not.

    For loops of your own: ask before the first step, with the prepared model.
    """
    one = rule_named("QX436")
    found = tuple(one.finding(it, "train") for it in _optimizer_found(model, optimizer))
    return Findings(found, checked=(one.id,), model=type(model).__name__)


def _optimizer_found(model: nn.Module, optimizer: Optimizer) -> Iterator[Found]:
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    without = [name for name, p in named.items() if id(p) not in held]
    total = sum(p.numel() for p in named.values())
    share = sum(named[name].numel() for name in without) / max(1, total)
    code = f"optimizer = {type(optimizer).__name__}(model.parameters(), …)"
    if named and len(without) == len(named):
        yield Found(
            "",
            f"The optimizer holds none of the {len(named):,} parameters of this model: its steps "
            "change another one.",
            code,
        )
    elif share > _HALF:
        yield Found(
            without[0].rpartition(".")[0],
            f"The optimizer holds {len(named) - len(without):,} of {len(named):,} parameters that "
            f"require a gradient; {100 * share:.2g} % of the values are not trained.",
            code,
            severity="warning",
        )


@rule("QX437", "few-samples", "info", "trained", flows=EVERY)
def few_samples(subject: Subject) -> Iterator[Found]:
    """Ranges come from few samples

    Symptom:
        Accuracy after calibration changes with the samples that were taken for it.
    Cause:
        A range is that of the samples seen, and what a rarer input brings lies past it.
    Fix:
        Calibrate on 100 samples or more, of all classes.
    Sources:
        https://pytorch.org/docs/stable/quantization-accuracy-debugging.html
    """
    if subject.run is None and 0 < subject.calibrated < _FEW_SAMPLES:
        yield Found(
            "",
            f"The observers have seen {subject.calibrated:,} samples, and no training.",
            "session.calibrate(batches=…) with 100 samples or more",
        )


# -- what a run has recorded -----------------------------------------------------------------------


def _history(subject: Subject) -> Any:
    return subject.run.history


def _epochs(subject: Subject) -> Any:
    """The epochs of a run that has ended, its work being the subject's."""
    return _history(subject).epochs if subject.run is not None else ()


def _work(subject: Subject) -> nn.Module:
    return subject.work if subject.work is not None else subject.base


def _steps_of(subject: Subject) -> int:
    steps = _history(subject).steps
    return int(steps[-1].step) + 1 if steps else 0


def _kind(subject: Subject, path: str) -> str:
    return str(_history(subject).telemetry.info(path).kind)


def _table(subject: Subject, metric: str) -> tuple[list[str], NDArray[Any]]:
    """(paths, values of the last quarter of the sampled steps) of one metric; at least 3 steps."""
    telemetry = _history(subject).telemetry if subject.run is not None else None
    if telemetry is None:
        return [], np.empty((0, 0))
    _, values = telemetry.table(metric)
    last = max(3, len(values) // 4)
    paths = [info.path for info in telemetry.infos]
    return (paths, values[-last:]) if len(values) >= 3 else ([], np.empty((0, 0)))


def _last(subject: Subject, metric: str) -> dict[str, float]:
    """The median in the last quarter of the training, by fake quant."""
    paths, values = _table(subject, metric)
    known = {path: column[~np.isnan(column)] for path, column in zip(paths, values.T, strict=True)}
    return {path: float(np.median(column)) for path, column in known.items() if column.size}


def _lagging(subject: Subject) -> dict[str, float]:
    """Fake quants of activations whose range is far from that of a batch, and how far."""
    sites = fake_quants(_work(subject))
    return {
        path: far
        for path, far in _last(subject, "drift").items()
        if far > _LAG
        and _kind(subject, path) != "weight"
        and path in sites
        and averaging_constant(sites[path]) is not None
    }


def _moved(subject: Subject) -> dict[str, float]:
    """By which share each scale has changed in the last quarter of the training."""
    paths, values = _table(subject, "scale_median")
    found = {}
    for path, column in zip(paths, values.T, strict=True):
        known = column[~np.isnan(column)]
        if known.size >= 2 and known[-1] > 0:
            found[path] = float(abs(known[-1] - known[0]) / known[-1])
    return found
